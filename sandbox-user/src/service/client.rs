//! What `sandbox run`, `list` and `show` are to the service.

use std::{
    ffi::OsString,
    io::{self, BufRead as _, BufReader, IoSlice, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::fs::{CWD, Mode, OFlags};
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

use super::{
    SOCKET,
    protocol::{Answer, Order, Request, Start, Text, VERSION, Verb, to_line},
};
use crate::{
    spec::RunId,
    store::Run,
    supervise::{self, Signals, block_signals},
    sys::rlimits::CallersLimits,
};

/// How long the service may take to answer a question.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Why the service did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is none.
    #[error("there is no service on this host: it is started by `sandbox serve`")]
    NoService,
    /// It does not want to.
    #[error("the service refuses: {0}")]
    Refused(String),
    /// It says what nobody understands.
    #[error("the service answers {0}, which this version does not understand")]
    Strange(String),
    /// It has gone, and the run with this id goes on.
    #[error(
        "the service is gone; the run goes on, and `sandbox show {0}` tells how it ended once the service is back"
    )]
    Gone(RunId),
    /// It cannot be talked to.
    #[error("talking to the service at {SOCKET}: {0}")]
    Io(#[from] io::Error),
}

/// Has the service do a run, with the arguments behind `sandbox run`; `None` where there is no service.
/// Gives the exit status.
///
/// # Errors
/// [`ClientError`].
pub fn run(arguments: Vec<OsString>, rlimits: &CallersLimits) -> Result<Option<u8>, ClientError> {
    let socket = match connect() {
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
    send(&socket, &request, &descriptors)?;
    drop(descriptors);
    socket.set_nonblocking(true)?;
    let status = supervise::runtime()?.block_on(follow(socket))?;
    Ok(Some(status))
}

/// The latest runs.
///
/// # Errors
/// [`ClientError`].
pub fn list(most: u32) -> Result<Vec<Run>, ClientError> {
    match ask(Verb::List { most })? {
        Answer::Runs(runs) => Ok(runs),
        other @ (Answer::Accepted { .. }
        | Answer::Ended { .. }
        | Answer::Run { .. }
        | Answer::Refused { .. }) => Err(unexpected(&other)),
    }
}

/// A run, and its record where that is there.
///
/// # Errors
/// [`ClientError`].
pub fn show(run_id: RunId) -> Result<(Run, Option<Box<RawValue>>), ClientError> {
    match ask(Verb::Show { run_id })? {
        Answer::Run { run, record } => Ok((*run, record)),
        other @ (Answer::Accepted { .. }
        | Answer::Ended { .. }
        | Answer::Runs(_)
        | Answer::Refused { .. }) => Err(unexpected(&other)),
    }
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

fn ask(verb: Verb) -> Result<Answer, ClientError> {
    let socket = connect()?;
    socket.set_read_timeout(Some(ANSWERED_WITHIN))?;
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

fn unexpected(answer: &Answer) -> ClientError {
    ClientError::Strange(serde_json::to_string(answer).unwrap_or_default())
}

fn send(socket: &UnixStream, request: &Request, descriptors: &[OwnedFd]) -> io::Result<()> {
    let line = to_line(request)?;
    let numbers: Vec<i32> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights };
    let sent = sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(&line)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    let mut socket = socket;
    socket.write_all(line.get(sent..).unwrap_or_default())
}

/// Waits for a run's end, passing on the signals that come.
async fn follow(socket: UnixStream) -> Result<u8, ClientError> {
    let signals = Signals::open()?;
    let (answers, mut orders) = tokio::net::UnixStream::from_std(socket)?.into_split();
    let mut answers = tokio::io::BufReader::new(answers).lines();
    let mut run = None;
    loop {
        tokio::select! {
            answer = answers.next_line() => match (answer?, run) {
                (None, Some(run_id)) => return Err(ClientError::Gone(run_id)),
                (answer, _) => match understand(&answer.unwrap_or_default())? {
                    Answer::Accepted { run_id } => run = Some(run_id),
                    Answer::Ended { status } => return Ok(status),
                    other @ (Answer::Runs(_) | Answer::Run { .. } | Answer::Refused { .. }) => return Err(unexpected(&other)),
                },
            },
            received = signals.next() => {
                let order = to_line(&Order::Signal(received?.signal)).map_err(io::Error::from)?;
                // Where the service has gone the next line says so.
                let _ = orders.write_all(&order).await;
            }
        }
    }
}
