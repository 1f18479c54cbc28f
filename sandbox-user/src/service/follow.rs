//! A run that `sandbox run` has the service do: asked for until it has begun, and followed to its end.

use std::{
    ffi::OsString,
    io,
    os::{fd::AsFd as _, unix::net::UnixStream},
    time::{Duration, Instant},
};

use rustix::fs::{CWD, Mode, OFlags};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _},
    time::sleep,
};

use super::{
    client::{ClientError, connect, send_line, something_else, understand},
    office::has_gone,
    protocol::{
        Answer, MAX_REQUEST_BYTES, MAX_START_BYTES, Request, Start, TOO_LONG, TOO_MUCH, Text,
        VERSION, Verb, to_line,
    },
};
use crate::{
    say::say,
    spec::RunId,
    supervise::{self, ClientOrder, Meaning, Signals, block_signals},
    sys::{fd::is_unread, rlimits::CallersLimits},
};

/// How long a service that was ended may take to be back.
pub(super) const BACK_WITHIN: Duration = Duration::from_secs(30);

/// How often it is looked whether it is.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a client waits in silence for being heard.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// Why a run was cancelled before it had begun.
const ENDED: &str = "the service was ended meanwhile";

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
    let start = Start {
        arguments: arguments.into_iter().map(Text).collect(),
        environment: pairs.collect(),
    };
    let bytes = start.bytes();
    let request = to_line(&Request {
        version: VERSION,
        verb: Verb::Run(start),
    })
    .map_err(io::Error::from)?;
    // Who attends to it would go before all of it was sent, which would look as if the service had gone.
    let too_much = (bytes > MAX_START_BYTES).then_some(TOO_MUCH);
    let too_long = (request.len() > MAX_REQUEST_BYTES).then_some(TOO_LONG);
    if let Some(reason) = too_much.or(too_long) {
        return Err(ClientError::Refused(reason.to_owned()));
    }
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
        .map_err(|errno| ClientError::Directory(errno.into()))?,
    ];
    let runtime = supervise::runtime()?;
    let mut until = None;
    loop {
        let asked = match send_line(&socket, &request, &descriptors) {
            Err(error) if has_gone(&error) => Asked::Gone { was_queued: false },
            sent => {
                sent?;
                socket.set_nonblocking(true)?;
                runtime.block_on(follow(socket))?
            }
        };
        match asked {
            Asked::Followed(followed) => return Ok(Some(followed)),
            // It was there in the meantime.
            Asked::Gone { was_queued: true } => until = None,
            Asked::Gone { was_queued: false } => {}
        }
        let until = *until.get_or_insert_with(|| Instant::now() + BACK_WITHIN);
        socket = match runtime.block_on(once_it_is_back(until))? {
            Back::There(socket) => socket,
            Back::Cancelled { status } => return Ok(Some(Followed::Ended { status })),
        };
    }
}

/// What came of asking once.
enum Asked {
    /// The run was followed.
    Followed(Followed),
    /// The service has gone before the run had begun: nothing of it was started.
    Gone {
        /// Whether the run had been given a place in its queue.
        was_queued: bool,
    },
}

/// What came of waiting for the service.
enum Back {
    /// It can be asked again.
    There(UnixStream),
    /// The run is not wanted any more.
    Cancelled {
        /// The exit status that says so.
        status: u8,
    },
}

/// Waits for the service to be there again.
async fn once_it_is_back(until: Instant) -> Result<Back, ClientError> {
    let signals = Signals::open()?;
    loop {
        // First: where it is there and goes at once, it is not asked without end.
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            received = signals.next() => {
                // What another signal is for is a main process that there is not.
                let received = received?;
                if received.meaning == Meaning::Cancel {
                    return Ok(Back::Cancelled { status: cancelled(received.signal, ENDED) });
                }
            }
        }
        if Instant::now() >= until {
            return Err(ClientError::Ended);
        }
        match connect() {
            Err(ClientError::NoService) => {}
            socket => return socket.map(Back::There),
        }
    }
}

/// What a run is to exit with that a signal cancels before it has begun.
fn cancelled(signal: i32, why: &str) -> u8 {
    say(format_args!("cancelled before it had begun: {why}"));
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

fn tell_place(ahead: usize) {
    match ahead {
        0 => say("the host is busy: this run is next"),
        1 => say("the host is busy: one run is before this one"),
        ahead => say(format_args!(
            "the host is busy: {ahead} runs are before this one"
        )),
    }
}

/// Waits for a run's end, passing on the signals that come.
async fn follow(socket: UnixStream) -> Result<Asked, ClientError> {
    let signals = Signals::open()?;
    let (answers, mut orders) = tokio::net::UnixStream::from_std(socket)?.into_split();
    let mut answers = tokio::io::BufReader::new(answers).lines();
    let (mut run, mut was_queued, mut cancel) = (None, false, None);
    let patience = sleep(HEARD_WITHIN);
    tokio::pin!(patience);
    let mut is_patient = true;
    loop {
        tokio::select! {
            answer = answers.next_line() => {
                let answer = match (answer, run) {
                    (Ok(Some(line)), _) => understand(&line)?,
                    (Err(error), _) if !has_gone(&error) => return Err(error.into()),
                    (Ok(None) | Err(_), Some(run_id)) => return Err(ClientError::Gone(run_id)),
                    // It is told before anything of it is started.
                    (Ok(None) | Err(_), None) => Answer::Again {},
                };
                let followed = match answer {
                    Answer::Queued { ahead } => {
                        was_queued = true;
                        tell_place(ahead);
                        continue;
                    }
                    Answer::Accepted { run_id } => {
                        run = Some(run_id);
                        continue;
                    }
                    Answer::Again {} => match cancel {
                        Some(signal) => Followed::Ended { status: cancelled(signal, ENDED) },
                        None => return Ok(Asked::Gone { was_queued }),
                    },
                    Answer::Ended { status } => Followed::Ended { status },
                    Answer::Detached { run_id } => Followed::Detached { run_id },
                    Answer::Runs(_)
                    | Answer::Run { .. }
                    | Answer::Logs {}
                    | Answer::Events { .. }
                    | Answer::Metrics(_)
                    | Answer::Told { .. }
                    | Answer::Nothing {}
                    | Answer::Refused { .. } => return Err(something_else()),
                };
                return Ok(Asked::Followed(followed));
            }
            () = &mut patience, if is_patient => {
                is_patient = false;
                if is_unread(orders.as_ref().as_fd()) {
                    say("waiting for the service, which does not hear: where systemd starts it, `systemctl status sandbox` tells why");
                }
            }
            received = signals.next() => {
                let received = received?;
                let is_known = run.is_some() || was_queued;
                // What is unread after that may be the first signal only.
                let is_first = received.meaning == Meaning::Cancel && cancel.is_none();
                if is_first && !is_known && is_unread(orders.as_ref().as_fd()) {
                    let status = cancelled(received.signal, "the service has not heard of it");
                    return Ok(Asked::Followed(Followed::Ended { status }));
                }
                let order = to_line(&ClientOrder::Signal(received.signal)).map_err(io::Error::from)?;
                if received.meaning == Meaning::Cancel {
                    // Who asks twice does not wait for an answer: the run of a client that goes is cancelled.
                    if cancel.is_some() && run.is_none() {
                        let status = cancelled(received.signal, "the service has not answered");
                        return Ok(Asked::Followed(Followed::Ended { status }));
                    }
                    if !is_known {
                        say("the service was told; a second signal does not wait for its answer");
                    }
                    cancel = Some(received.signal);
                }
                // Where the service has gone the next line says so.
                let _ = orders.write_all(&order).await;
            }
        }
    }
}
