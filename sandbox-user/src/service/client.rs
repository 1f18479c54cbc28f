//! What the verbs that ask after runs, and see to them, are to the service.

use std::{
    io::{self, BufRead as _, BufReader, IoSlice, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    poll::PollTimeout,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};
use serde_json::value::RawValue;

use super::{
    SOCKET, control,
    follow::{BACK_WITHIN, LOOK_EVERY},
    hearing::{Line, read_line},
    logs::Reader,
    manager::how_to_start,
    office::has_gone,
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
    #[error(
        "there is no service on this host: root starts it by `{}`",
        how_to_start()
    )]
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
    #[error(
        "the service answers {0}, which this version does not understand: it is of another one; have root start it anew, `systemctl restart sandbox`"
    )]
    Strange(String),
    /// The run would not begin where it is asked for.
    #[error("the working directory cannot be opened: {0} (--chdir says another)")]
    Directory(io::Error),
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
    let Answer::Runs(runs) = ask_after(Verb::List { filter, most }, Some(ANSWERED_WITHIN))? else {
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
    shown(ask_after(Verb::Show { id }, Some(ANSWERED_WITHIN))?)
}

/// The same once the run has ended.
///
/// # Errors
/// [`ClientError`].
pub fn wait(id: &str) -> Result<Option<Shown>, ClientError> {
    let id = id.to_owned();
    shown(ask_after(Verb::Wait { id }, None)?)
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
    } = ask(&verb)?
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
pub(super) struct Watched {
    /// What it was asked for as.
    id: String,
    /// Where its end is told.
    socket: UnixStream,
}

impl Watched {
    /// Whether it had not ended. A service that has gone is waited for, and asked.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(super) fn goes_on(&mut self) -> Result<bool, ClientError> {
        let [is_told] = readable([self.socket.as_fd()], PollTimeout::ZERO)?;
        if !is_told {
            return Ok(true);
        }
        if has_answered(hear(&self.socket))?.is_some() {
            return Ok(false);
        }
        let id = self.id.clone();
        self.socket = once_it_is_back(&Verb::Wait { id })?;
        Ok(true)
    }

    /// Waits a moment, or until it has ended.
    ///
    /// # Errors
    /// Where the socket cannot be polled.
    pub(super) fn wait_for_more(&self) -> io::Result<()> {
        readable([self.socket.as_fd()], LOOK_EVERY_MS).map(drop)
    }
}

/// What a run has printed to stdout and to stderr; `None` where there is no such run.
///
/// # Errors
/// [`ClientError`]; where it was not detached.
pub(super) fn logs(id: &str) -> Result<Option<([Reader; 2], Watched)>, ClientError> {
    let verb = Verb::Logs { id: id.to_owned() };
    let Some((answer, descriptors, run)) = files(id, &verb)? else {
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
    let verb = Verb::Events { id: id.to_owned() };
    let Some((answer, descriptors, run)) = files(id, &verb)? else {
        return Ok(None);
    };
    let (Answer::Events { form }, Ok([events])) = (answer, <[OwnedFd; 1]>::try_from(descriptors))
    else {
        return Err(something_else());
    };
    Ok(Some((kept::Reader::new(events.into(), form), run)))
}

/// What the service answers, and the files that come with that; `None` where there is no such run.
fn files(id: &str, verb: &Verb) -> Result<Option<(Answer, Vec<OwnedFd>, Watched)>, ClientError> {
    let socket = asked(verb)?;
    let Line {
        text, descriptors, ..
    } = read_line(&socket, ANSWERED_WITHIN)?;
    let answer = understand(&String::from_utf8_lossy(&text))?;
    if matches!(answer, Answer::Nothing {}) {
        return Ok(None);
    }
    let id = id.to_owned();
    Ok(Some((answer, descriptors, Watched { id, socket })))
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

/// Asks for something to be done.
fn ask(verb: &Verb) -> Result<Answer, ClientError> {
    hear(&asked(verb)?)
}

/// Asks for something to be told; a service that goes meanwhile is asked again once it is back.
fn ask_after(verb: Verb, within: Option<Duration>) -> Result<Answer, ClientError> {
    let mut socket = asked(&verb)?;
    loop {
        socket.set_read_timeout(within)?;
        if let Some(answer) = has_answered(hear(&socket))? {
            return Ok(answer);
        }
        socket = once_it_is_back(&verb)?;
    }
}

/// The answer; `None` where the service has gone before it could give one.
fn has_answered(heard: Result<Answer, ClientError>) -> Result<Option<Answer>, ClientError> {
    match heard {
        Ok(Answer::Again {}) => Ok(None),
        Err(ClientError::Io(error)) if has_gone(&error) => Ok(None),
        heard => heard.map(Some),
    }
}

/// Waits for a service that has gone to be back, and asks it.
fn once_it_is_back(verb: &Verb) -> Result<UnixStream, ClientError> {
    let until = Instant::now() + BACK_WITHIN;
    loop {
        // First: where it is there and goes at once, it is not asked without end.
        thread::sleep(LOOK_EVERY);
        match asked(verb) {
            Err(ClientError::NoService) if Instant::now() < until => {}
            Err(ClientError::Io(error)) if has_gone(&error) && Instant::now() < until => {}
            asked => return asked,
        }
    }
}

fn asked(verb: &Verb) -> Result<UnixStream, ClientError> {
    let socket = connect()?;
    let request = Request {
        version: VERSION,
        verb: verb.clone(),
    };
    send(&socket, &request, &[])?;
    Ok(socket)
}

fn hear(socket: &UnixStream) -> Result<Answer, ClientError> {
    let mut line = String::new();
    BufReader::new(socket)
        .read_line(&mut line)
        .map_err(|error| {
            // SO_RCVTIMEO.
            let is_late = error.kind() == io::ErrorKind::WouldBlock;
            if is_late {
                io::Error::other("it does not answer")
            } else {
                error
            }
        })?;
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
