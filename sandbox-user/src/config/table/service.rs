//! The table `[service]`, and the values that only it has.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::{Keys, Reader};
use crate::config::ServiceConfig;
use crate::document::{Entry, Fault, Problem, Value, read, wrong_kind};
use crate::policy::values::{ValueError, bounded, or_none};
use crate::policy::{LimitedCallers, Setting};
use crate::units::{self, UnitError, format_bytes, format_duration};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Runs,
    RunsPerUser,
    Queue,
    QueuePerUser,
    LimitedCallers,
    MetadataPaths,
    Metrics,
    KeepRuns,
    KeepBytes,
    LogBytes,
    EventsBytes,
}

const KEYS: Keys<Key> = &[
    ("runs", Key::Runs),
    ("runs-per-user", Key::RunsPerUser),
    ("queue", Key::Queue),
    ("queue-per-user", Key::QueuePerUser),
    ("limited-callers", Key::LimitedCallers),
    ("metadata-paths", Key::MetadataPaths),
    ("metrics", Key::Metrics),
    ("keep-runs", Key::KeepRuns),
    ("keep-bytes", Key::KeepBytes),
    ("log-bytes", Key::LogBytes),
    ("events-bytes", Key::EventsBytes),
];

/// A client has to have the time to ask how its run ended.
const LEAST_KEPT: Duration = Duration::from_secs(1);
/// One record has to fit in: of a run with many processes it is that large.
const LEAST_KEPT_BYTES: u64 = 1 << 20;
const LEAST_LOG_BYTES: u64 = 4 << 10;
const LEAST_EVENTS_BYTES: u64 = 64 << 10;

impl Reader<'_> {
    pub(super) fn service(&self, table: &Entry, path: &str) -> Result<ServiceConfig, Fault> {
        let mut service = ServiceConfig::default();
        self.each(table.table(path)?, path, KEYS, |key, entry, path| {
            if key == Key::MetadataPaths {
                service.metadata_paths = Some(directories(entry, path)?);
                return Ok(());
            }
            set(&mut service, key, &entry.value).map_err(|problem| entry.fault(path, problem))
        })?;
        Ok(service)
    }
}

fn set(service: &mut ServiceConfig, key: Key, value: &Value) -> Result<(), Problem> {
    const A_SIZE: &str = "a size such as \"4GiB\"";
    match key {
        Key::Runs => service.runs = count_or_none(value)?.into_option(),
        Key::RunsPerUser => service.runs_per_user = count_or_none(value)?.into_option(),
        Key::Queue => service.queue = count(value)?,
        Key::QueuePerUser => service.queue_per_user = count(value)?,
        Key::LimitedCallers => {
            service.limited_callers = read(value, "\"refuse\" or \"allow\"", limited_callers)?;
        }
        Key::Metrics => {
            let expected = "an address such as \"127.0.0.1:9464\"";
            service.metrics = Some(read(value, expected, loopback)?);
        }
        Key::KeepRuns => {
            let expected = "a time such as \"90d\"";
            service.keep_runs = read(value, expected, |text| or_none(text, kept))?.into_option();
        }
        Key::KeepBytes => {
            let bytes = |text: &str| {
                at_least(
                    text,
                    LEAST_KEPT_BYTES,
                    "a record has to fit in; `none` lifts the limit",
                )
            };
            service.keep_bytes = read(value, A_SIZE, |text| or_none(text, bytes))?.into_option();
        }
        Key::LogBytes => {
            let bytes =
                |text: &str| at_least(text, LEAST_LOG_BYTES, "an error message has to fit in");
            service.log_bytes = read(value, A_SIZE, |text| bounded(text, bytes))?;
        }
        Key::EventsBytes => {
            let bytes = |text: &str| match units::parse_size(text)? {
                0 => Ok(0),
                _ => at_least(
                    text,
                    LEAST_EVENTS_BYTES,
                    "a short run has to fit in; 0 keeps none",
                ),
            };
            service.events_bytes = read(value, A_SIZE, |text| bounded(text, bytes))?;
        }
        // Has places of its own inside, and so is read by `directories`.
        Key::MetadataPaths => {}
    }
    Ok(())
}

/// How many runs at once, one at least, or `none`.
pub(super) fn count_or_none(value: &Value) -> Result<Setting<usize>, Problem> {
    let some = |text: &str| match whole(text)? {
        0 => Err(ValueError::TooLittle {
            given: "0".to_owned(),
            least: "1".to_owned(),
            why: "nothing could run; `none` lifts the limit",
        }),
        runs => Ok(runs),
    };
    read(value, "a whole number or \"none\"", |text| {
        or_none(text, some)
    })
}

/// How many may wait; 0 = nobody.
fn count(value: &Value) -> Result<usize, Problem> {
    read(value, "a whole number", |text| bounded(text, whole))
}

fn whole(text: &str) -> Result<usize, ValueError> {
    let count = units::parse_count(text)?;
    usize::try_from(count).map_err(|_| UnitError::TooLarge.into())
}

fn limited_callers(text: &str) -> Result<LimitedCallers, ValueError> {
    match text {
        "refuse" => Ok(LimitedCallers::Refuse),
        "allow" => Ok(LimitedCallers::Allow),
        _ => Err(ValueError::UnknownWord {
            given: text.to_owned(),
            words: "refuse or allow",
        }),
    }
}

fn loopback(text: &str) -> Result<SocketAddr, ValueError> {
    let address: SocketAddr = text.parse().map_err(|_| ValueError::NotAnAddress)?;
    if address.port() == 0 {
        return Err(ValueError::NotAnAddress);
    }
    if !address.ip().is_loopback() {
        return Err(ValueError::NotLoopback);
    }
    Ok(address)
}

fn kept(text: &str) -> Result<Duration, ValueError> {
    let time = units::parse_time(text)?;
    if time < LEAST_KEPT {
        return Err(ValueError::TooLittle {
            given: format_duration(time),
            least: format_duration(LEAST_KEPT),
            why: "who started a run has to find it; `none` keeps runs for good",
        });
    }
    Ok(time)
}

fn at_least(text: &str, least: u64, why: &'static str) -> Result<u64, ValueError> {
    let bytes = units::parse_size(text)?;
    if bytes < least {
        return Err(ValueError::TooLittle {
            given: format_bytes(bytes),
            least: format_bytes(least),
            why,
        });
    }
    Ok(bytes)
}

/// A list of directories; each mistake is told with its own place.
fn directories(entry: &Entry, path: &str) -> Result<Vec<PathBuf>, Fault> {
    let Value::List(items) = &entry.value else {
        let expected = "a list of directories, such as [\"/data\"]";
        return Err(entry.fault(path, wrong_kind(expected, &entry.value)));
    };
    let read_each = items.iter().map(|item| {
        directory(&item.value).map_err(|problem| Fault {
            offset: item.offset,
            key: path.to_owned(),
            problem: Box::new(problem),
        })
    });
    read_each.collect()
}

fn directory(value: &Value) -> Result<PathBuf, Problem> {
    let Value::Text(text) = value else {
        return Err(wrong_kind("a directory, as text", value));
    };
    let path = Path::new(text);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(Problem::Value {
            text: text.clone(),
            error: ValueError::NotAbsolute,
        });
    }
    Ok(path.to_owned())
}
