//! What the verbs that ask after runs, and see to them, are to the service.

use std::{
    io::{self, BufRead as _, BufReader, IoSlice, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use nix::{
    poll::PollTimeout,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};
use serde_json::value::RawValue;

use super::{
    SOCKET, control,
    hearing::{Line, read_line},
    logs::Reader,
    protocol::{Answer, Request, VERSION, Verb, to_line},
};
use crate::{
    events::kept,
    spec::RunId,
    store::{Filter, Run},
    sys::readiness::readable,
};

/// How long the service may take to answer a question.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// How often it is looked whether a run has printed or told more.
const LOOK_EVERY_MS: u8 = 200;

/// Why the service did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is none.
    #[error("there is no service on this host: it is started by `sandbox serve`")]
    NoService,
    /// It does not want to.
    #[error("the service refuses: {0}")]
    Refused(String),
    /// It was ended before the run had begun, and is not back.
    #[error(
        "the service was ended before this run had begun, and is not back: nothing of it was started, try again"
    )]
    Ended,
    /// It says what nobody understands.
    #[error("the service answers {0}, which this version does not understand")]
    Strange(String),
    /// The run's supervisor has gone.
    #[error(
        "the run's supervisor was killed; what it had not done its guardian does: `sandbox show {0}` tells how the run ended"
    )]
    Gone(RunId),
    /// It cannot be talked to.
    #[error("talking to the service at {SOCKET}: {0}")]
    Io(#[from] io::Error),
}

/// The runs that are meant, the latest first.
///
/// # Errors
/// [`ClientError`].
pub fn list(filter: &Filter, most: u32) -> Result<Vec<Run>, ClientError> {
    let filter = filter.clone();
    let Answer::Runs(runs) = ask(Verb::List { filter, most }, Some(ANSWERED_WITHIN))? else {
        return Err(something_else());
    };
    Ok(runs)
}

/// A run, and its record where that is there; `None` where there is no such run.
///
/// # Errors
/// [`ClientError`].
pub fn show(id: &str) -> Result<Option<Shown>, ClientError> {
    let id = id.to_owned();
    shown(ask(Verb::Show { id }, Some(ANSWERED_WITHIN))?)
}

/// The same once the run has ended.
///
/// # Errors
/// [`ClientError`].
pub fn wait(id: &str) -> Result<Option<Shown>, ClientError> {
    let id = id.to_owned();
    shown(ask(Verb::Wait { id }, None)?)
}

/// What came of something that runs were told to do.
#[derive(Debug)]
pub struct Told {
    /// Those that have done it.
    pub(super) run_ids: Vec<RunId>,
    /// What went wrong with others, one sentence each.
    pub(super) problems: Vec<String>,
    /// What is to be said of those that have done it, one sentence each.
    pub(super) remarks: Vec<String>,
}

/// Has runs ended, held still, let go on, changed: a verb that is answered with [`Answer::Told`].
///
/// # Errors
/// [`ClientError`].
pub fn tell(verb: Verb) -> Result<Told, ClientError> {
    let Answer::Told {
        run_ids,
        problems,
        remarks,
    } = ask(verb, None)?
    else {
        return Err(something_else());
    };
    Ok(Told {
        run_ids,
        problems,
        remarks,
    })
}

/// A run of which files are read.
#[derive(Debug)]
pub(super) struct Watched(UnixStream);

impl Watched {
    /// Whether it had not ended.
    ///
    /// # Errors
    /// Where the service has gone.
    pub(super) fn goes_on(&self) -> io::Result<bool> {
        let [has_ended] = readable([self.0.as_fd()], PollTimeout::ZERO)?;
        Ok(!has_ended)
    }

    /// Waits a moment, or until it has ended.
    ///
    /// # Errors
    /// As [`Self::goes_on`].
    pub(super) fn wait_for_more(&self) -> io::Result<()> {
        readable([self.0.as_fd()], LOOK_EVERY_MS).map(drop)
    }
}

/// What a run has printed to stdout and to stderr; `None` where there is no such run.
///
/// # Errors
/// [`ClientError`]; where it was not detached.
pub(super) fn logs(id: &str) -> Result<Option<([Reader; 2], Watched)>, ClientError> {
    let id = id.to_owned();
    let Some((answer, descriptors, run)) = files(Verb::Logs { id })? else {
        return Ok(None);
    };
    let (Answer::Logs {}, Ok(logs)) = (answer, <[OwnedFd; 2]>::try_from(descriptors)) else {
        return Err(something_else());
    };
    Ok(Some((logs.map(|log| Reader::new(log.into())), run)))
}

/// The event stream of a run; `None` where there is no such run.
///
/// # Errors
/// [`ClientError`]; where none is kept.
pub(super) fn events(id: &str) -> Result<Option<(kept::Reader, Watched)>, ClientError> {
    let id = id.to_owned();
    let Some((answer, descriptors, run)) = files(Verb::Events { id })? else {
        return Ok(None);
    };
    let (Answer::Events { form }, Ok([events])) = (answer, <[OwnedFd; 1]>::try_from(descriptors))
    else {
        return Err(something_else());
    };
    Ok(Some((kept::Reader::new(events.into(), form), run)))
}

/// What the service answers, and the files that come with that; `None` where there is no such run.
fn files(verb: Verb) -> Result<Option<(Answer, Vec<OwnedFd>, Watched)>, ClientError> {
    let socket = connect()?;
    let request = Request {
        version: VERSION,
        verb,
    };
    send(&socket, &request, &[])?;
    let Line {
        text, descriptors, ..
    } = read_line(&socket, ANSWERED_WITHIN)?;
    let answer = understand(&String::from_utf8_lossy(&text))?;
    if matches!(answer, Answer::Nothing {}) {
        return Ok(None);
    }
    Ok(Some((answer, descriptors, Watched(socket))))
}

/// A run and its record.
type Shown = (Run, Option<Box<RawValue>>);

fn shown(answer: Answer) -> Result<Option<Shown>, ClientError> {
    if matches!(answer, Answer::Nothing {}) {
        return Ok(None);
    }
    let Answer::Run { run, record } = answer else {
        return Err(something_else());
    };
    Ok(Some((*run, record)))
}

pub(super) fn connect() -> Result<UnixStream, ClientError> {
    control::connected(SOCKET)?.ok_or(ClientError::NoService)
}

fn ask(verb: Verb, within: Option<Duration>) -> Result<Answer, ClientError> {
    let socket = connect()?;
    socket.set_read_timeout(within)?;
    let request = Request {
        version: VERSION,
        verb,
    };
    send(&socket, &request, &[])?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line)?;
    understand(&line)
}

pub(super) fn understand(line: &str) -> Result<Answer, ClientError> {
    if line.is_empty() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    match serde_json::from_str(line) {
        Ok(Answer::Refused { reason }) => Err(ClientError::Refused(reason)),
        Ok(answer) => Ok(answer),
        Err(_) => Err(ClientError::Strange(line.trim().chars().take(80).collect())),
    }
}

pub(super) fn something_else() -> ClientError {
    ClientError::Strange("something else than was asked for".to_owned())
}

pub(super) fn send(
    socket: &UnixStream,
    request: &Request,
    descriptors: &[OwnedFd],
) -> io::Result<()> {
    send_line(socket, &to_line(request)?, descriptors)
}

/// Sends a line, with descriptors on its first byte.
///
/// # Errors
/// Where the other end has gone.
pub(super) fn send_line(
    mut socket: &UnixStream,
    line: &[u8],
    descriptors: &[OwnedFd],
) -> io::Result<()> {
    let numbers: Vec<i32> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights };
    let sent = sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(line)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    socket.write_all(line.get(sent..).unwrap_or_default())
}
