//! What a client and the service say to each other: JSON documents, one a line, over a stream socket.
//!
//! A client sends one [`Request`] with the version that it speaks, and
//! [`ClientOrder`](crate::supervise::ClientOrder)s while its run goes on;
//! the service sends [`Answer`]s, of which all but [`Answer::Queued`],
//! [`Answer::Accepted`], [`Answer::Logs`] and [`Answer::Events`] are the last. With [`Verb::Run`] come
//! four descriptors (SCM_RIGHTS, unix(7)), on the first byte of the line: stdin, stdout, stderr and the
//! working directory.

use std::{
    ffi::OsString,
    fmt,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    events::kept::Form,
    policy::TimeoutChange,
    spec::RunId,
    store::{Filter, Run},
    units::{Printable, Quoted},
};

/// The version that is spoken here. One that is not known is refused.
pub const VERSION: u32 = 1;
/// The longest request, as JSON.
pub const MAX_REQUEST_BYTES: usize = 6 << 20;
/// The most that arguments and environment may be together, as execve(2) has it on a usual host.
pub const MAX_START_BYTES: usize = 2 << 20;
/// What is said of a run of which they are more.
pub const TOO_MUCH: &str = "arguments and environment are more than 2 MiB together";
/// What is said of one of which they are not, and the request is too long all the same.
pub const TOO_LONG: &str = "arguments and environment are more than 6 MiB as JSON, where control characters and what is no UTF-8 take several times their length";
/// The longest reason for which runs are ended: that of completion notes.
pub const MAX_REASON_BYTES: usize = 500;
/// How many descriptors come with [`Verb::Run`].
pub const DESCRIPTORS: usize = 4;

/// The first line of a client.
#[derive(Clone, Debug, Serialize)]
pub struct Request {
    /// The protocol's version.
    pub version: u32,
    /// What is asked for.
    #[serde(flatten)]
    pub verb: Verb,
}

impl Request {
    /// Reads one. What is in it is read once it is known where it belongs, so that megabytes of it are not many times as
    /// much in memory.
    ///
    /// # Errors
    /// Where it is none, or of another version: what is wrong, for the client.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let none =
            |why: &dyn fmt::Display| format!("not a request: {}", Printable(&why.to_string()));
        let Parts(mut parts) = serde_json::from_slice(line).map_err(|error| none(&error))?;
        let version = parts.iter().position(|(name, _)| name == "version");
        let Some((_, version)) = version.map(|at| parts.remove(at)) else {
            return Err(none(&"it says no version"));
        };
        let version: u32 = serde_json::from_str(version.get()).map_err(|error| none(&error))?;
        if version != VERSION {
            return Err(of_another_version(format_args!(
                "version {version} of the protocol, it speaks {VERSION}"
            )));
        }
        let Some((verb, said)) = parts.pop() else {
            return Err(none(&"it asks for nothing"));
        };
        let quoted = serde_json::to_string(&verb).map_err(|error| none(&error))?;
        match serde_json::from_str(&format!("{{{quoted}:{said}}}")) {
            Ok(verb) => Ok(Self { version, verb }),
            Err(error) if error.to_string().starts_with("unknown ") => Err(of_another_version(
                format_args!("{}: {error}", Quoted(&verb)),
            )),
            Err(error) => Err(none(&format_args!("{}: {error}", Quoted(&verb)))),
        }
    }
}

/// The two parts of a request, the version and what is asked for, not looked into yet.
struct Parts<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Parts<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Both;
        impl<'de> Visitor<'de> for Both {
            type Value = Parts<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version and what is asked for")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = map.next_entry()? {
                    parts.push(part);
                    if parts.len() > 2 {
                        return Err(A::Error::custom("one thing is asked for at a time"));
                    }
                }
                Ok(Parts(parts))
            }
        }
        deserializer.deserialize_map(Both)
    }
}

/// Whoever says a version most likely is a client, and knows more, or less, than the service does.
fn of_another_version(what: impl fmt::Display) -> String {
    format!(
        "not a request that it knows ({}). The service is sandbox {}, and the client may be of another version (`sandbox --version`): \
         where the service is the older one, have root start it anew (`systemctl restart sandbox`)",
        Printable(&what.to_string()),
        env!("CARGO_PKG_VERSION")
    )
}

/// What is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Start a run, and tell how it ends.
    Run(Start),
    /// Tell of runs, the latest first.
    List {
        /// Which.
        #[serde(default)]
        filter: Filter,
        /// At most so many.
        most: u32,
    },
    /// Tell of one: the latest, where an analysis has several.
    Show {
        /// The run's id, or its analysis's.
        id: String,
    },
    /// Tell of one, as with [`Verb::Show`], once it has ended.
    Wait {
        /// The run's id, or its analysis's.
        id: String,
    },
    /// Pass what a detached one has printed, and say when it has ended.
    Logs {
        /// The run's id, or its analysis's.
        id: String,
    },
    /// Pass its event stream, where that is kept, and say when it has ended.
    Events {
        /// The run's id, or its analysis's.
        id: String,
    },
    /// Tell what the service has counted, as OpenMetrics has it.
    Metrics {},
    /// End the runs that have not ended.
    Kill {
        /// Which of them.
        filter: Filter,
        /// Why, for their notes.
        reason: Option<String>,
    },
    /// Hold still the runs that go on.
    Freeze {
        /// Which of them.
        filter: Filter,
    },
    /// Let go on those that are held still.
    Thaw {
        /// Which of them.
        filter: Filter,
    },
    /// Change the wall clock limit of those that go on.
    Update {
        /// Which of them.
        filter: Filter,
        /// How, as `sandbox update` has it.
        timeout: TimeoutChange,
    },
}

/// A run that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// What stands behind `sandbox run`.
    pub arguments: Vec<Text>,
    /// The client's environment: names and values in turn.
    pub environment: Vec<(Text, Text)>,
}

impl Start {
    /// How much arguments and environment are.
    pub fn bytes(&self) -> usize {
        let pairs = self
            .environment
            .iter()
            .flat_map(|(name, value)| [name, value]);
        let words = self.arguments.iter().chain(pairs);
        words.map(|Text(word)| word.len() + 1).sum()
    }
}

/// What the service says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The run is stored and being started.
    Accepted {
        /// Its id.
        run_id: RunId,
    },
    /// The run waits for its turn.
    Queued {
        /// How many will be started before it, as things stand.
        ahead: usize,
    },
    /// The service was ended before the run could begin: nothing of it was started, and the client may ask again.
    Again {},
    /// It goes on by itself.
    Detached {
        /// Its id.
        run_id: RunId,
    },
    /// It is over; what it was is stored.
    Ended {
        /// The exit status of `sandbox run`.
        status: u8,
    },
    /// The descriptors of what it has printed to stdout and to stderr come with this. When the run is over,
    /// [`Answer::Run`] follows.
    Logs {},
    /// The descriptor of its event stream comes with this. When the run is over, [`Answer::Run`] follows.
    Events {
        /// What is to be read there.
        form: Form,
    },
    /// Runs that were asked for.
    Runs(Vec<Run>),
    /// A run that was asked for.
    Run {
        /// What the store has of it.
        run: Box<Run>,
        /// Its record; null where there is none yet.
        record: Option<Box<RawValue>>,
    },
    /// What the service has counted.
    Metrics(String),
    /// These runs have been told, and have done it.
    Told {
        /// Their ids.
        run_ids: Vec<RunId>,
        /// What went wrong with others, one sentence each.
        problems: Vec<String>,
        /// What is to be said of those that have done it, one sentence each.
        #[serde(default)]
        remarks: Vec<String>,
    },
    /// No run of the caller's is meant.
    Nothing {},
    /// It is not done, and why.
    Refused {
        /// One sentence.
        reason: String,
    },
}

/// A document as it is said.
///
/// # Errors
/// Never on these documents; serde_json's own type.
pub fn to_line(document: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(document)?;
    line.push(b'\n');
    Ok(line)
}

/// Text that may be no UTF-8: a JSON string where it is, else a list of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub OsString);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => self.0.as_bytes().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or a list of bytes")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
                Ok(text.as_bytes().to_vec())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = list.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }
        let bytes = deserializer.deserialize_any(Either)?;
        if bytes.contains(&0) {
            return Err(D::Error::custom("a NUL byte in an argument or a variable"));
        }
        Ok(Self(OsString::from_vec(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::ClientOrder;

    #[test]
    fn text_that_is_no_utf8_comes_back_and_a_nul_does_not() {
        for bytes in [b"plain".to_vec(), b"gr\xf6n".to_vec(), Vec::new()] {
            let text = Text(OsString::from_vec(bytes));
            let json = serde_json::to_string(&text).expect("JSON");
            assert_eq!(serde_json::from_str::<Text>(&json).expect("its own"), text);
        }
        assert!(serde_json::from_str::<Text>(r#""a\u0000b""#).is_err());
        assert!(serde_json::from_str::<Text>("[0]").is_err());
    }

    #[test]
    fn requests_are_spelled_as_documented() {
        let request = Request {
            version: VERSION,
            verb: Verb::Show {
                id: "a-17".to_owned(),
            },
        };
        let json = r#"{"version":1,"show":{"id":"a-17"}}"#;
        assert_eq!(serde_json::to_string(&request).expect("JSON"), json);
        let update = r#"{"version":1,"update":{"filter":{"id":"a-17"},"timeout":"+1h"}}"#;
        let list = r#"{"version":1,"list":{"filter":{"user":"ana","failed":true},"most":5}}"#;
        for json in [json, list, r#"{"version":1,"list":{"most":5}}"#, update] {
            assert!(Request::parse(json.as_bytes()).is_ok(), "{json}");
        }
        let order = serde_json::to_string(&ClientOrder::Signal(15)).expect("JSON");
        assert_eq!(order, r#"{"signal":15}"#);
    }

    #[test]
    fn a_client_of_another_version_is_told_so_and_what_to_do() {
        let said = [
            r#"{"version":1,"fly":{}}"#,
            r#"{"version":2,"fly":{}}"#,
            r#"{"version":2,"list":{"most":5}}"#,
            r#"{"fly":{}}"#,
            r#"{"version":1,"list":{"most":-5}}"#,
            r#"{"version":1}"#,
            r#"{"version":1,"list":{"most":5},"metrics":{}}"#,
            r#"{"version":"1","list":{"most":5}}"#,
            "fly",
        ]
        .map(|line| Request::parse(line.as_bytes()).expect_err("no request"));
        insta::assert_snapshot!(
            said.join("\n")
                .replace(env!("CARGO_PKG_VERSION"), "VERSION")
        );
    }
}
