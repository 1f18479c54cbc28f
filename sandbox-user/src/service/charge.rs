//! A run that a client asks for: this process takes the client's place, waits for the run's turn, and
//! becomes its supervisor.

mod turn;

use std::{
    io,
    net::Shutdown,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    thread::{self, JoinHandle},
};

use nix::{
    errno::Errno,
    sys::{
        signalfd::SignalFd,
        socket::{MsgFlags, recv},
        stat::{Mode, umask},
    },
    unistd,
};

use super::{
    EVENTS, SPOOL,
    attendant::{refused, tell},
    control,
    logs::{Logging, Logs},
    metrics::Refusal,
    office::{Application, Call, Office, Refused, Reply},
    peer::{Objection, Peer},
    protocol::{Answer, MAX_START_BYTES, Start, TOO_MUCH, Text},
    queue::Need,
};
use crate::{
    caller,
    cgroup::{CgroupError, leave_the_service},
    cli::{self, EXIT_FAILURE, RunArgs},
    config::ServiceConfig,
    events::kept::Kept,
    identity::{self, Choice, IdentityError, SystemAccounts},
    record::lossless,
    request::{self, Requested},
    say::say,
    spec::{Destination, RunAs, RunId, RunSpec},
    supervise::{self, Remote, spool},
    sys::rlimits::CallersLimits,
};

/// The client of a run.
pub(super) struct Attached<'a> {
    pub(super) socket: &'a UnixStream,
    pub(super) peer: &'a Peer,
    /// What it has said behind its request.
    pub(super) rest: Vec<u8>,
}

impl Attached<'_> {
    /// Whether it asks for the end, has gone or talks nonsense: what its run's supervisor is to hear. Its other
    /// signals are for a main process that there is not.
    fn wants_the_end(&mut self) -> bool {
        loop {
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.get(..end).unwrap_or_default();
                if !supervise::is_passed_on(line) {
                    return true;
                }
                self.rest.drain(..=end);
            }
            let mut part = [0; 512];
            match recv(self.socket.as_raw_fd(), &mut part, MsgFlags::MSG_DONTWAIT) {
                Ok(length @ 1..) if self.rest.len() < part.len() => {
                    self.rest.extend(part.iter().take(length));
                }
                Err(Errno::EAGAIN) => return false,
                Ok(_) | Err(_) => return true,
            }
        }
    }
}

/// Does a run. Where the client goes, it is cancelled; where the service does, it goes on.
pub(super) fn run(
    client: Attached<'_>,
    start: Start,
    descriptors: Vec<OwnedFd>,
    config: &ServiceConfig,
    office: &mut Office,
) -> Answer {
    match client.peer.objection(config.limited_callers) {
        Ok(None) => {}
        Ok(Some(Objection { kind, reason })) => {
            enter_refusal(client.peer, kind, &reason, office);
            return refused(reason);
        }
        Err(error) => return refused(format!("you cannot be looked at: {error}")),
    }
    if start.bytes() > MAX_START_BYTES {
        return refused(TOO_MUCH);
    }
    let Ok(descriptors) = <[OwnedFd; 4]>::try_from(descriptors) else {
        return refused("stdin, stdout, stderr and the working directory do not come along");
    };
    let (arguments, rlimits) = match become_the_client(client.peer, start, descriptors) {
        Ok(client) => client,
        Err(error) => return refused(format!("your place cannot be taken: {error}")),
    };
    let args = match RunArgs::parse(arguments) {
        Ok(args) => args,
        Err(error) => {
            // To the client; where nobody reads it there is nothing else to do.
            let _ = error.print();
            return Answer::Ended {
                status: cli::exit_status(&error),
            };
        }
    };
    let kept = KeptBytes {
        logs: args.is_detached().then_some(config.log_bytes),
        events: config.events_bytes,
    };
    let requested = match request::put_together(args)
        .map_err(Into::into)
        .and_then(settle)
    {
        Ok(requested) => requested,
        Err(error) => {
            say(error);
            return Answer::Ended {
                status: EXIT_FAILURE,
            };
        }
    };
    if let Some(error) = names_somebody_else(&requested.spec, client.peer) {
        let reason = error.to_string();
        enter_refusal(client.peer, Refusal::OtherUser, &reason, office);
        say(reason);
        return Answer::Ended {
            status: EXIT_FAILURE,
        };
    }
    supervise(client, requested, kept, rlimits, office)
}

fn enter_refusal(peer: &Peer, kind: Refusal, reason: &str, office: &mut Office) {
    let entry = Refused {
        uid: peer.caller.uid,
        pid: peer.pid,
        kind,
        reason: reason.to_owned(),
    };
    // It is refused, whether that can be entered or not.
    let _ = office.call(&Call::Refused(entry));
}

/// What is said to whoever wants a run to be another user's, and may not have that.
fn names_somebody_else(spec: &RunSpec, peer: &Peer) -> Option<IdentityError> {
    let RunAs::User(user) = &spec.run_as else {
        return None;
    };
    let choice = Choice::Named { user: user.clone() };
    match identity::resolve(&choice, &peer.caller, &SystemAccounts) {
        Err(error @ IdentityError::NotPrivileged { .. }) => Some(error),
        // What else is wrong with it its record says.
        Ok(_) | Err(_) => None,
    }
}

/// Has this process's descriptors, directory, environment and limits be the client's. Gives the arguments.
fn become_the_client(
    peer: &Peer,
    start: Start,
    descriptors: [OwnedFd; 4],
) -> io::Result<(Vec<std::ffi::OsString>, CallersLimits)> {
    let manners = peer.manners()?;
    let [stdin, stdout, stderr, directory] = descriptors;
    // Through the descriptor, so that a directory which only the client may enter is no obstacle, nor one
    // that was moved.
    unistd::fchdir(directory)?;
    unistd::dup2_stdin(stdin)?;
    unistd::dup2_stdout(stdout)?;
    unistd::dup2_stderr(stderr)?;
    umask(Mode::from_bits_truncate(manners.umask));
    let plain = |Text(text)| text;
    caller::stand_in_for(caller::Client {
        caller: peer.caller.clone(),
        environment: start
            .environment
            .into_iter()
            .map(|(name, value)| (plain(name), plain(value)))
            .collect(),
        ignored_signals: manners.ignored_signals,
    });
    let arguments = start.arguments.into_iter().map(plain).collect();
    Ok((arguments, CallersLimits::of_client(&manners.rlimits)))
}

/// Makes what was asked for a run of the service's.
fn settle(mut requested: Requested) -> Result<Requested, Box<dyn std::error::Error>> {
    let spec = &mut requested.spec;
    let strange = [&spec.record, &spec.events]
        .into_iter()
        .flatten()
        .find(|destination| matches!(destination, Destination::Fd(fd) if *fd > 2));
    match strange {
        Some(destination) => Err(format!(
            "{destination} is not open here, since the service does the run: use --standalone"
        )
        .into()),
        None => {
            spec.spool = Some(SPOOL.into());
            Ok(requested)
        }
    }
}

/// How much is kept of what a run tells.
#[derive(Clone, Copy, Debug)]
struct KeptBytes {
    /// Of each of its logs; `None`: its client waits for it, and there are none.
    logs: Option<u64>,
    /// Of its event stream; 0 = nothing.
    events: u64,
}

/// Sees a run through, from its being stored to its end.
fn supervise(
    client: Attached<'_>,
    requested: Requested,
    kept: KeptBytes,
    rlimits: CallersLimits,
    office: &mut Office,
) -> Answer {
    let run_id = requested.spec.run_id;
    // That takes its time, and has it while the run is let in.
    let leaving = thread::Builder::new().spawn(leave_the_service);
    let cancellations = match supervise::cancellations() {
        Ok(cancellations) => cancellations,
        Err(error) => return refused(format!("no descriptors are left: {error}")),
    };
    // First, since a run that is stored and cannot be talked to counts as lost.
    let control = match control::bind(run_id) {
        Ok(control) => control,
        Err(error) => return refused(format!("the run's own socket cannot be made: {error}")),
    };
    let mut run = Charge {
        client,
        run_id,
        kept,
        control,
        cancellations,
        logging: None,
        events: None,
        callers: Vec::new(),
        is_asked: false,
    };
    let application = run.application(&requested);
    let answer = match run.wait(application, office) {
        Ok(()) => match has_left(leaving).and_then(|()| run.begin()) {
            Ok(remote) => {
                let status = see_through(requested.spec, rlimits, remote, run.events.take());
                run.leave_logs();
                settled(run_id, status, office)
            }
            Err(refusal) => run.comes_to_nothing(refusal, office),
        },
        Err(refusal) => refusal,
    };
    control::remove(run_id);
    answer
}

/// Waits until this process has left the service's cgroup.
fn has_left(leaving: io::Result<JoinHandle<Result<(), CgroupError>>>) -> Result<(), Answer> {
    let problem = match leaving.map(JoinHandle::join) {
        Ok(Ok(Ok(()))) => return Ok(()),
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) => "a thread has panicked".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(refused(format!(
        "the run's supervisor cannot leave the service: {problem}"
    )))
}

/// A run that is not started yet.
struct Charge<'a> {
    client: Attached<'a>,
    run_id: RunId,
    kept: KeptBytes,
    control: UnixListener,
    /// Readable once a signal asks for its end.
    cancellations: SignalFd,
    /// Once its client has been parted with.
    logging: Option<Logging>,
    /// Where its event stream goes, once it is stored.
    events: Option<Kept>,
    /// Who has come to its socket.
    callers: Vec<UnixStream>,
    /// Whether somebody has something to say to it already.
    is_asked: bool,
}

impl Charge<'_> {
    fn application(&self, requested: &Requested) -> Application {
        let Requested { spec, most_of_user } = requested;
        let peer = self.client.peer;
        let asked_user = match &spec.run_as {
            RunAs::User(user) => Some(user.clone()),
            RunAs::Caller => None,
        };
        Application {
            run_id: spec.run_id,
            uid: peer.caller.uid,
            pid: peer.pid,
            need: Need {
                memory_bytes: spec.limits.memory_bytes.value,
                cpus: spec.limits.cpus.value,
                pids: spec.limits.pids.value,
            },
            most_of_user: *most_of_user,
            user: asked_user.clone().unwrap_or_else(|| peer.name()),
            asked_user,
            analysis_id: spec.analysis_id.clone(),
            labels: spec.labels.clone(),
            command: spec.command.iter().map(|word| lossless(word)).collect(),
            spec: spec.as_asked(),
        }
    }

    /// Makes the file of its event stream: before its client is told of it, so that whoever asks for the stream
    /// finds it from then on.
    fn keep_events(&mut self) {
        if self.kept.events == 0 {
            return;
        }
        match Kept::make(Path::new(EVENTS), self.run_id, self.kept.events) {
            Ok(events) => self.events = Some(events),
            Err(error) => say(format_args!(
                "`sandbox events` will know nothing of this run: {EVENTS}: {error}"
            )),
        }
    }

    /// Parts with the client of a detached run, where that has not been done yet.
    fn part(&mut self) -> Result<(), Answer> {
        let (Some(bytes), None) = (self.kept.logs, &self.logging) else {
            return Ok(());
        };
        let logging = Logs::make(self.run_id, bytes)
            .and_then(Logs::begin)
            .map_err(|error| refused(format!("its logs cannot be made: {error}")))?;
        self.logging = Some(logging);
        let run_id = self.run_id;
        // Where it has gone it does not wait for this.
        let _ = tell(self.client.socket, &Answer::Detached { run_id });
        let _ = self.client.socket.shutdown(Shutdown::Both);
        Ok(())
    }

    fn leave_logs(&mut self) {
        if let Some(logging) = self.logging.take() {
            logging.end();
        }
    }

    /// It was accepted, and is not started. A client that has been parted with finds why in the run's log.
    fn comes_to_nothing(&mut self, answer: Answer, office: &mut Office) -> Answer {
        if self.logging.is_some()
            && let Answer::Refused { reason } = &answer
        {
            say(reason);
        }
        self.leave_logs();
        settled(self.run_id, EXIT_FAILURE, office);
        answer
    }

    /// Tells the client that its run begins; gives what the supervisor is told by.
    fn begin(&mut self) -> Result<Remote, Answer> {
        spool::reserve(Path::new(SPOOL), self.run_id).map_err(|error| {
            refused(format!("its record would find no room in {SPOOL}: {error}"))
        })?;
        self.part()?;
        let no_descriptors = |error| refused(format!("no descriptors are left: {error}"));
        let Attached { socket, peer, rest } = &mut self.client;
        let client = match self.kept.logs {
            Some(_) => None,
            None => {
                // Where it has gone the supervisor finds that out.
                let run_id = self.run_id;
                let _ = tell(socket, &Answer::Accepted { run_id });
                Some(supervise::Client {
                    socket: socket.try_clone().map_err(no_descriptors)?,
                    pid: peer.pid.unsigned_abs(),
                    said: std::mem::take(rest),
                })
            }
        };
        Ok(Remote {
            client,
            control: self.control.try_clone().map_err(no_descriptors)?,
            callers: std::mem::take(&mut self.callers),
            is_asked: self.is_asked,
        })
    }
}

fn see_through(spec: RunSpec, rlimits: CallersLimits, remote: Remote, events: Option<Kept>) -> u8 {
    match supervise::foreground(spec, rlimits, Some(remote), events) {
        Ok(outcome) => outcome.status,
        Err(error) => {
            say(error);
            EXIT_FAILURE
        }
    }
}

/// Has what a run has left be taken in.
fn settled(run_id: RunId, status: u8, office: &mut Office) -> Answer {
    match office.call(&Call::Ended { run_id, status }) {
        Ok(Reply::Refused(reason)) => {
            if !spool::path_of(Path::new(SPOOL), run_id, spool::RECORD).exists() {
                return refused(format!("the run has ended, but is not stored: {reason}"));
            }
            // It is not lost, and how it ended is known.
            say(format_args!(
                "the run's record waits in {SPOOL} for the store: {reason}"
            ));
            Answer::Ended { status }
        }
        // A service that is started again finds what the run has left.
        _ => Answer::Ended { status },
    }
}
