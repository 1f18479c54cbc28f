//! What `sandbox run` and the other verbs are to the service.

use std::{
    ffi::OsString,
    io::{self, BufRead as _, BufReader, IoSlice, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use nix::{
    poll::PollTimeout,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};
use rustix::fs::{CWD, Mode, OFlags};
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _},
    time::sleep,
};

use super::{
    SOCKET,
    hearing::{Line, read_line},
    logs::Reader,
    office::has_gone,
    protocol::{Answer, Request, Start, Text, VERSION, Verb, to_line},
};
use crate::{
    events::kept,
    say::say,
    spec::RunId,
    store::{Filter, Run},
    supervise::{self, ClientOrder, Signals, block_signals},
    sys::{readiness::readable, rlimits::CallersLimits},
};

/// How long the service may take to answer a question.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// How long a service that was ended may take to be back.
const BACK_WITHIN: Duration = Duration::from_secs(30);

/// How often it is looked whether a run has printed or told more, or the service is back.
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
    #[error("the service was ended, and nothing of this run was started: try again")]
    Ended,
    /// It says what nobody understands.
    #[error("the service answers {0}, which this version does not understand")]
    Strange(String),
    /// The run's supervisor has gone.
    #[error(
        "the run's supervisor was killed, and its guardian ends it: `sandbox show {0}` tells how that went"
    )]
    Gone(RunId),
    /// It cannot be talked to.
    #[error("talking to the service at {SOCKET}: {0}")]
    Io(#[from] io::Error),
}

/// How a run was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// To its end.
    Ended {
        /// The exit status.
        status: u8,
    },
    /// Not at all, since it was detached.
    Detached {
        /// Its id.
        run_id: RunId,
    },
}

/// Has the service do a run, with the arguments behind `sandbox run`; `None` where there is no service. One that
/// is killed or started anew before the run has begun is asked again.
///
/// # Errors
/// [`ClientError`].
pub fn run(
    arguments: Vec<OsString>,
    rlimits: &CallersLimits,
) -> Result<Option<Followed>, ClientError> {
    let mut socket = match connect() {
        Err(ClientError::NoService) => return Ok(None),
        socket => socket?,
    };
    // The service looks at them.
    rlimits.put_back();
    // From here on signals are for the run.
    block_signals()?;
    let pairs = std::env::vars_os().map(|(name, value)| (Text(name), Text(value)));
    let request = Request {
        version: VERSION,
        verb: Verb::Run(Start {
            arguments: arguments.into_iter().map(Text).collect(),
            environment: pairs.collect(),
        }),
    };
    let descriptors = [
        io::stdin().as_fd().try_clone_to_owned()?,
        io::stdout().as_fd().try_clone_to_owned()?,
        io::stderr().as_fd().try_clone_to_owned()?,
        rustix::fs::openat(
            CWD,
            ".",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(io::Error::from)?,
    ];
    let runtime = supervise::runtime()?;
    let mut until = None;
    loop {
        let followed = match unless_gone(send(&socket, &request, &descriptors).map(Some))? {
            Some(()) => {
                socket.set_nonblocking(true)?;
                runtime.block_on(follow(socket))?
            }
            None => None,
        };
        if followed.is_some() {
            return Ok(followed);
        }
        // From the first time on: a service that does not come up is no reason to wait for ever.
        let until = *until.get_or_insert_with(|| Instant::now() + BACK_WITHIN);
        socket = runtime.block_on(once_it_is_back(until))?;
    }
}

/// Waits for the service to be there again; a signal ends the wait.
async fn once_it_is_back(until: Instant) -> Result<UnixStream, ClientError> {
    let signals = Signals::open()?;
    loop {
        match connect() {
            Err(ClientError::NoService) if Instant::now() < until => {}
            Err(ClientError::NoService) => return Err(ClientError::Ended),
            socket => return socket,
        }
        tokio::select! {
            () = sleep(Duration::from_millis(LOOK_EVERY_MS.into())) => {}
            received = signals.next() => {
                received?;
                return Err(ClientError::Ended);
            }
        }
    }
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

fn connect() -> Result<UnixStream, ClientError> {
    match UnixStream::connect(SOCKET) {
        Ok(socket) => Ok(socket),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Err(ClientError::NoService)
        }
        Err(error) => Err(error.into()),
    }
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

fn understand(line: &str) -> Result<Answer, ClientError> {
    if line.is_empty() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    match serde_json::from_str(line) {
        Ok(Answer::Refused { reason }) => Err(ClientError::Refused(reason)),
        Ok(answer) => Ok(answer),
        Err(_) => Err(ClientError::Strange(line.trim().chars().take(80).collect())),
    }
}

fn something_else() -> ClientError {
    ClientError::Strange("something else than was asked for".to_owned())
}

fn send(socket: &UnixStream, request: &Request, descriptors: &[OwnedFd]) -> io::Result<()> {
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

/// What came of talking to it; `None` where it went meanwhile.
fn unless_gone<T>(talked: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match talked {
        Err(error) if has_gone(&error) => Ok(None),
        talked => talked,
    }
}

fn tell_place(ahead: usize) {
    match ahead {
        0 => say("the host is busy: this run is next"),
        ahead => say(format_args!(
            "the host is busy: {ahead} runs are before this one"
        )),
    }
}

/// Waits for a run's end, passing on the signals that come. `None`: the service has gone before the run had begun,
/// and nobody has said anything to it.
async fn follow(socket: UnixStream) -> Result<Option<Followed>, ClientError> {
    let signals = Signals::open()?;
    let (answers, mut orders) = tokio::net::UnixStream::from_std(socket)?.into_split();
    let mut answers = tokio::io::BufReader::new(answers).lines();
    let (mut run, mut is_signalled) = (None, false);
    loop {
        tokio::select! {
            answer = answers.next_line() => {
                let answer = match (unless_gone(answer)?, run) {
                    (Some(line), _) => understand(&line)?,
                    (None, Some(run_id)) => return Err(ClientError::Gone(run_id)),
                    // It is told before anything of it is started.
                    (None, None) => Answer::Again {},
                };
                match answer {
                    Answer::Queued { ahead } => tell_place(ahead),
                    Answer::Accepted { run_id } => run = Some(run_id),
                    // A signal may have been meant to end it.
                    Answer::Again {} if is_signalled => return Err(ClientError::Ended),
                    Answer::Again {} => return Ok(None),
                    Answer::Ended { status } => return Ok(Some(Followed::Ended { status })),
                    Answer::Detached { run_id } => return Ok(Some(Followed::Detached { run_id })),
                    Answer::Runs(_)
                    | Answer::Run { .. }
                    | Answer::Logs {}
                    | Answer::Events { .. }
                    | Answer::Metrics(_)
                    | Answer::Told { .. }
                    | Answer::Nothing {}
                    | Answer::Refused { .. } => return Err(something_else()),
                }
            }
            received = signals.next() => {
                is_signalled = true;
                let order = to_line(&ClientOrder::Signal(received?.signal)).map_err(io::Error::from)?;
                // Where the service has gone the next line says so.
                let _ = orders.write_all(&order).await;
            }
        }
    }
}
