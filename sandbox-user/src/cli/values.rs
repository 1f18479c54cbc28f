//! Values of options that are no limits: labels, variables, files, run ids.
//!
//! Every parser takes what the system handed over, UTF-8 or not, so that clap names the option in
//! every error.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use uuid::{Uuid, Version};

use crate::policy::values::{self as limit, ValueError};
use crate::policy::{Setting, TimeoutChange};
use crate::procfs::page_size;
use crate::record::Reason;
use crate::spec::{
    Destination, NameError, NotesPolicy, RunId, Sampling, check_id, check_label, check_user,
};
use crate::units::{UnitError, format_bytes, parse_size, parse_time};

/// A value that an option does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ArgumentError {
    #[error("a label is written NAME=VALUE")]
    NotALabel,
    #[error("a variable is written NAME=VALUE")]
    NotAVariable,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("it is empty, a path is expected")]
    EmptyPath,
    #[error("`-` is no file here: {0}; a file of that name is written `./-`")]
    Dash(&'static str),
    #[error("a descriptor is written fd:N, with the number of one that is open, such as fd:3")]
    NotADescriptor,
    #[error("descriptor 0 is stdin, which belongs to the analysis")]
    Stdin,
    #[error("attempts are counted from 1, to 4294967295 at most")]
    NotAnAttempt,
    #[error("it is not the id of a run: that is a UUID, the `run_id` of its record")]
    NotARunId,
    #[error(transparent)]
    Time(#[from] ValueError),
    #[error("a sample takes its time too: 10ms apart at least, or `none`")]
    SampledTooOften,
    #[error(transparent)]
    Size(#[from] UnitError),
    #[error(
        "a ring is a power of two, from {} to {}; such as 512KiB",
        format_bytes(page_size()),
        format_bytes(MAX_RING_BYTES.into())
    )]
    NotARingSize,
    #[error("use always, failure or never")]
    NotANotesPolicy,
    #[error("it is no reason that a record can have: those are {}", reasons())]
    NotAReason,
    #[error(
        "it is neither a day or a time such as 2026-11-26T18:00Z nor one such as 2h, for so long ago"
    )]
    NotAMoment,
}

/// Text that is not UTF-8, an option in a value's place, or what `E` says of the text.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum TextError<E: Error> {
    #[error("it is not UTF-8 text")]
    NotUtf8,
    #[error("it is an option, where a value is expected")]
    Option,
    #[error(transparent)]
    Value(E),
}

/// A value parser from a function on text.
pub(super) fn text<T, E>(parse: fn(&str) -> Result<T, E>) -> impl TypedValueParser<Value = T>
where
    T: Clone + Send + Sync + 'static,
    E: Error + Send + Sync + 'static,
{
    OsStringValueParser::new().try_map(move |value| match value.to_str() {
        None => Err(TextError::NotUtf8),
        Some(text) if text.starts_with("--") => Err(TextError::Option),
        Some(text) => parse(text).map_err(TextError::Value),
    })
}

/// A value parser from a function on whatever the system handed over.
pub(super) fn os<T>(
    parse: fn(&OsStr) -> Result<T, ArgumentError>,
) -> impl TypedValueParser<Value = T>
where
    T: Clone + Send + Sync + 'static,
{
    OsStringValueParser::new().try_map(move |value| parse(&value))
}

pub(super) fn id(text: &str) -> Result<String, ArgumentError> {
    check_id(text)?;
    Ok(text.to_owned())
}

pub(super) fn user(text: &str) -> Result<String, ArgumentError> {
    check_user(text)?;
    Ok(text.to_owned())
}

pub(super) fn label(text: &str) -> Result<(String, String), ArgumentError> {
    let (name, value) = text.split_once('=').ok_or(ArgumentError::NotALabel)?;
    check_label(name, value)?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn variable(text: &OsStr) -> Result<(OsString, OsString), ArgumentError> {
    let bytes = text.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        None | Some(0) => Err(ArgumentError::NotAVariable),
        Some(end) => Ok((
            OsString::from_vec(bytes[..end].to_vec()),
            OsString::from_vec(bytes[end + 1..].to_vec()),
        )),
    }
}

pub(super) fn directory(path: &OsStr) -> Result<PathBuf, ArgumentError> {
    if path.is_empty() {
        Err(ArgumentError::EmptyPath)
    } else {
        Ok(path.into())
    }
}

pub(super) fn output_file(path: &OsStr) -> Result<PathBuf, ArgumentError> {
    if path == "-" {
        return Err(ArgumentError::Dash(
            "without this option, output goes where sandbox's own goes",
        ));
    }
    directory(path)
}

pub(super) fn metadata_file(path: &OsStr) -> Result<PathBuf, ArgumentError> {
    if path == "-" {
        return Err(ArgumentError::Dash("stdin belongs to the analysis"));
    }
    directory(path)
}

/// `FILE`, `fd:N` or `-`; `fd:1` is `-`.
pub(super) fn destination(text: &OsStr) -> Result<Destination, ArgumentError> {
    if text == "-" {
        return Ok(Destination::Stdout);
    }
    let Some(number) = text.as_bytes().strip_prefix(b"fd:") else {
        return directory(text).map(Destination::File);
    };
    let digits = std::str::from_utf8(number)
        .ok()
        .filter(|text| !text.starts_with('+'));
    match digits.and_then(|text| text.parse().ok()) {
        Some(0) => Err(ArgumentError::Stdin),
        Some(1) => Ok(Destination::Stdout),
        Some(number @ 2..) => Ok(Destination::Fd(number)),
        Some(_) | None => Err(ArgumentError::NotADescriptor),
    }
}

/// The shortest time between two samples: a sample takes some ten reads.
const SAMPLE_AT_LEAST: Duration = Duration::from_millis(10);

pub(super) fn sampling(text: &str) -> Result<Sampling, ArgumentError> {
    match limit::or_none(text, limit::grace)? {
        Setting::Lifted | Setting::Value(Duration::ZERO) => Ok(Sampling::Off),
        Setting::Value(period) if period >= SAMPLE_AT_LEAST => Ok(Sampling::Every(period)),
        Setting::Value(_) => Err(ArgumentError::SampledTooOften),
    }
}

/// The largest ring. It is the host's memory and no leaf's, and is mapped twice over.
const MAX_RING_BYTES: u32 = 64 << 20;

/// What the kernel takes for a ring (`ringbuf_map_alloc`, kernel/bpf/ringbuf.c), up to the largest.
pub(super) fn ring_size(text: &str) -> Result<u32, ArgumentError> {
    let bytes = parse_size(text)?;
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| {
            bytes.is_power_of_two() && u64::from(*bytes) >= page_size() && *bytes <= MAX_RING_BYTES
        })
        .ok_or(ArgumentError::NotARingSize)
}

pub(super) fn timeout_change(text: &str) -> Result<TimeoutChange, ArgumentError> {
    Ok(text.parse::<TimeoutChange>()?)
}

pub(super) fn attempt(text: &str) -> Result<u32, ArgumentError> {
    match text.parse() {
        Ok(0) | Err(_) => Err(ArgumentError::NotAnAttempt),
        Ok(attempt) => Ok(attempt),
    }
}

pub(super) fn run_id(text: &str) -> Result<RunId, ArgumentError> {
    let id = Uuid::try_parse(text).map_err(|_| ArgumentError::NotARunId)?;
    match id.get_version() {
        Some(Version::SortRand) => Ok(id),
        _ => Err(ArgumentError::NotARunId),
    }
}

pub(super) fn notes(text: &str) -> Result<NotesPolicy, ArgumentError> {
    match text {
        "always" => Ok(NotesPolicy::Always),
        "failure" => Ok(NotesPolicy::Failure),
        "never" => Ok(NotesPolicy::Never),
        _ => Err(ArgumentError::NotANotesPolicy),
    }
}

pub(super) fn reason(text: &str) -> Result<Reason, ArgumentError> {
    let known = Reason::ALL
        .into_iter()
        .find(|reason| reason.as_str() == text);
    known.ok_or(ArgumentError::NotAReason)
}

fn reasons() -> String {
    Reason::ALL.map(Reason::as_str).join(", ")
}

pub(super) fn since(text: &str) -> Result<Timestamp, ArgumentError> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    if let Ok(moment) = text.parse::<DateTime>() {
        let moment = moment.to_zoned(TimeZone::UTC);
        return moment
            .map(|moment| moment.timestamp())
            .map_err(|_| ArgumentError::NotAMoment);
    }
    let ago = parse_time(text).map_err(|_| ArgumentError::NotAMoment)?;
    Timestamp::now()
        .checked_sub(ago)
        .map_err(|_| ArgumentError::NotAMoment)
}
