//! The log's head in the journal, where who changes the log cannot change it as well without a trace.
//!
//! With it goes what was entered, for whoever reads the journal. Heads are read back through journalctl(1), since the
//! journal's files are its own business. Everybody may send what they like there, but `_UID` is the kernel's word
//! (SCM_CREDENTIALS).

use std::{
    io,
    process::{Command, Stdio},
};

use serde::Deserialize;
use serde_json::Value;

use super::{Event, Head};
use crate::{
    journal::{self, Sent},
    units::Printable,
};

/// What entries with a head are known by; it is this kind's alone.
const MESSAGE_ID: &str = "dce8d24df7d34a189cb6b84da093b3cd";
/// As many heads are compared, the latest: a log that was begun anew agrees with the very last.
const HEADS: &str = "10000";

/// Sends the journal what was entered, in a sentence, with the log's new head and what is in the entry as fields:
/// `SANDBOX_EVENT`, `SANDBOX_RUN_ID`, `SANDBOX_REASON` and so on. This never waits.
///
/// # Errors
/// Where there is a journal that does not take it: the next head vouches for this one's entry too.
pub fn announce(head: Head, event: &Event) -> io::Result<Sent> {
    let fields = fields(head, event);
    let fields: Vec<(&str, &str)> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    journal::send(&event.sentence(), event.priority(), &fields)
}

/// What an entry in the journal has besides its sentence: of the event what is one word, number or text.
fn fields(head: Head, event: &Event) -> Vec<(String, String)> {
    let mut fields = vec![
        ("MESSAGE_ID".to_owned(), MESSAGE_ID.to_owned()),
        ("SANDBOX_AUDIT_SEQ".to_owned(), head.seq.to_string()),
        ("SANDBOX_AUDIT_HASH".to_owned(), head.hash.to_string()),
    ];
    if let Ok(Value::Object(said)) = serde_json::to_value(event) {
        fields.extend(said.into_iter().filter_map(|(name, value)| {
            let value = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
            };
            Some((format!("SANDBOX_{}", name.to_uppercase()), value))
        }));
    }
    fields
}

/// Why the journal tells of no head.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoHeads {
    #[error("there is no journalctl")]
    NoJournalctl,
    #[error("journalctl cannot be executed: {0}")]
    Io(io::Error),
    #[error("journalctl fails: {0}")]
    Failed(String),
    #[error("the journal has no head of it")]
    None,
}

/// The latest heads that root's processes have sent to the journal, never none.
///
/// # Errors
/// [`NoHeads`].
pub(super) fn heads() -> Result<Vec<Head>, NoHeads> {
    let output = Command::new("journalctl")
        .args(["--quiet", "--no-pager", "--system", "--output=json"])
        .arg("--output-fields=SANDBOX_AUDIT_SEQ,SANDBOX_AUDIT_HASH")
        .arg(format!("--lines={HEADS}"))
        .arg(format!("MESSAGE_ID={MESSAGE_ID}"))
        .arg("_UID=0")
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NoHeads::NoJournalctl),
        Err(error) => return Err(NoHeads::Io(error)),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or("it does not say why");
        return Err(NoHeads::Failed(Printable(first).to_string()));
    }
    match heads_in(&output.stdout) {
        heads if heads.is_empty() => Err(NoHeads::None),
        heads => Ok(heads),
    }
}

/// The heads in what `journalctl --output=json` prints; what is none says nothing of the log.
fn heads_in(output: &[u8]) -> Vec<Head> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(rename = "SANDBOX_AUDIT_SEQ")]
        seq: String,
        #[serde(rename = "SANDBOX_AUDIT_HASH")]
        hash: String,
    }
    output
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let Fields { seq, hash } = serde_json::from_slice(line).ok()?;
            format!("{seq}:{hash}").parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{Excerpt, Hash, Order},
        spec::RunId,
    };

    fn head() -> Head {
        Head {
            seq: 12,
            hash: Hash::of(b"abc"),
        }
    }

    #[test]
    fn what_was_entered_goes_to_the_journal_as_a_sentence_with_fields() {
        let run_id = RunId::now_v7();
        let event = Event::Declined {
            uid: 1000,
            pid: 7,
            run_id,
            order: Order::Kill,
            detail: None,
            reason: Excerpt::from("it is a run\nof uid 1001"),
        };
        let said = format!(
            "run {run_id}: kill by uid 1000 came to nothing: it is a run\\u{{a}}of uid 1001"
        );
        assert_eq!(event.sentence(), said);
        let expected = [
            ("MESSAGE_ID", MESSAGE_ID),
            ("SANDBOX_AUDIT_SEQ", "12"),
            ("SANDBOX_AUDIT_HASH", &Hash::of(b"abc").to_string()),
            ("SANDBOX_EVENT", "declined"),
            ("SANDBOX_UID", "1000"),
            ("SANDBOX_PID", "7"),
            ("SANDBOX_RUN_ID", &run_id.to_string()),
            ("SANDBOX_ORDER", "kill"),
            ("SANDBOX_REASON", "it is a run\nof uid 1001"),
        ];
        let mut expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut found = fields(head(), &event);
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn heads_are_read_from_what_journalctl_prints() {
        let hash = Hash::of(b"abc");
        let output = format!(
            "{{\"__CURSOR\":\"s=1\",\"SANDBOX_AUDIT_SEQ\":\"12\",\"SANDBOX_AUDIT_HASH\":\"{hash}\"}}\n\
             {{\"SANDBOX_AUDIT_SEQ\":[\"1\",\"2\"],\"SANDBOX_AUDIT_HASH\":\"{hash}\"}}\n\
             {{\"SANDBOX_AUDIT_SEQ\":\"x\",\"SANDBOX_AUDIT_HASH\":\"{hash}\"}}\n{{}}\n"
        );
        assert_eq!(heads_in(output.as_bytes()), [head()]);
    }
}
