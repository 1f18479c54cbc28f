//! The process that attends to one client: it hears what is wanted, and where that is a run it becomes
//! its supervisor.
//!
//! What a client passes can be a trap: megabytes, or a descriptor that takes its time to be closed. It
//! comes to this process only, which has nobody else to serve.

use std::{
    io::{self, Write as _},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::Duration,
};

use nix::{
    sys::{
        prctl,
        stat::{Mode, umask},
    },
    unistd,
};

use super::{
    SPOOL,
    client::send_line,
    control,
    hearing::{Heard, hear},
    logs::{self, Logging, Logs},
    office::{Application, Call, Office, Reply},
    peer::Peer,
    protocol::{Answer, MAX_REASON_BYTES, MAX_START_BYTES, Start, Text, Verb, to_line},
};
use crate::{
    caller,
    cli::{self, EXIT_FAILURE, RunArgs},
    record::lossless,
    request,
    say::say,
    spec::{Destination, RunAs, RunId, RunSpec},
    store::{Filter, RunState},
    supervise::{self, Control, Remote},
    sys::{child, fd, rlimits::CallersLimits},
};

/// What is kept of what a detached run prints, of stdout and of stderr each.
const LOG_BYTES: u64 = 16 << 20;
/// The most that is told in one list.
const MOST_LISTED: u32 = 2000;
/// How long a client may take to hear an answer.
const HEARD_WITHIN: Duration = Duration::from_secs(30);

/// Attends to the client that the service left a connection to under this number, with its own line under
/// the other.
///
/// # Errors
/// Where one of them is none.
pub fn attend(client: i32, office: i32) -> io::Result<()> {
    // It was executed as /proc/self/exe, whose name is `exe`.
    prctl::set_name(c"sandbox")?;
    // The service's may be root's of a login.
    child::leave_session_keyring();
    let socket = UnixStream::from(fd::take(client)?);
    let mut office = Office::at(UnixStream::from(fd::take(office)?));
    let answer = match hear(&socket) {
        Err(reason) => Answer::Refused { reason },
        Ok(Heard {
            request,
            descriptors,
            rest,
        }) => match Peer::of(&socket) {
            // It has gone, and hears nothing.
            Err(_) => return Ok(()),
            Ok(peer) => match request.verb {
                Verb::Run(start) => {
                    let client = Attached {
                        socket: &socket,
                        peer: &peer,
                        rest,
                    };
                    run(client, start, descriptors, &mut office)
                }
                Verb::List { filter, most } => {
                    let whose = peer.whose();
                    let most = most.min(MOST_LISTED);
                    answer(office.call(&Call::List {
                        whose,
                        filter,
                        most,
                    }))
                }
                Verb::Show { id } => {
                    let whose = peer.whose();
                    answer(office.call(&Call::Show { whose, id }))
                }
                Verb::Wait { id } => {
                    let whose = peer.whose();
                    answer(office.call_for(&socket, &Call::Wait { whose, id }))
                }
                Verb::Logs { id } => logs(&socket, &peer, &id, &mut office),
                Verb::Kill { filter, reason } => kill(&peer, filter, reason, &mut office),
            },
        },
    };
    // A client that has gone needs none.
    let _ = tell(&socket, &answer);
    Ok(())
}

fn tell(mut socket: &UnixStream, answer: &Answer) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_write_timeout(Some(HEARD_WITHIN))?;
    socket.write_all(&to_line(answer)?)
}

fn refused(reason: impl Into<String>) -> Answer {
    Answer::Refused {
        reason: reason.into(),
    }
}

/// What the service says, as it is told to a client.
fn answer(reply: io::Result<Reply>) -> Answer {
    match reply {
        Ok(Reply::Runs(runs)) => Answer::Runs(runs),
        Ok(Reply::Run(run, record)) => Answer::Run { run, record },
        Ok(Reply::Nothing) => Answer::Nothing {},
        Ok(Reply::Refused(reason)) => refused(reason),
        Ok(Reply::Done) => refused("the service's own processes do not understand each other"),
        Err(error) => refused(error.to_string()),
    }
}

/// Passes the logs of a run, and waits for its end.
fn logs(socket: &UnixStream, peer: &Peer, id: &str, office: &mut Office) -> Answer {
    let whose = peer.whose();
    let id = id.to_owned();
    let run = match office.call(&Call::Show { whose, id }) {
        Ok(Reply::Run(run, _)) => run,
        other => return answer(other),
    };
    let opened = RunId::parse_str(&run.run_id)
        .map_err(io::Error::other)
        .and_then(logs::open);
    let logs = match opened {
        Ok(logs) => logs,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return refused(format!(
                "run {} has no logs: it was not detached, or they have been removed",
                run.run_id
            ));
        }
        Err(error) => return refused(format!("the logs of run {}: {error}", run.run_id)),
    };
    if let Err(error) = to_line(&Answer::Logs {})
        .map_err(io::Error::from)
        .and_then(|line| send_line(socket, &line, &logs.map(OwnedFd::from)))
    {
        return refused(error.to_string());
    }
    let id = run.run_id;
    answer(office.call_for(socket, &Call::Wait { whose, id }))
}

/// Ends runs, by telling their supervisors.
fn kill(peer: &Peer, filter: Filter, reason: Option<String>, office: &mut Office) -> Answer {
    if reason
        .as_ref()
        .is_some_and(|reason| reason.len() > MAX_REASON_BYTES)
    {
        return refused(format!("a reason has {MAX_REASON_BYTES} bytes at most"));
    }
    let whose = peer.whose();
    let meant = Call::List {
        whose,
        filter,
        most: MOST_LISTED,
    };
    let runs = match office.call(&meant) {
        Ok(Reply::Runs(runs)) => runs,
        other => return answer(other),
    };
    let order = Control::Kill {
        by: peer.name(),
        pid: peer.pid.unsigned_abs(),
        reason,
    };
    let (mut run_ids, mut problems) = (Vec::new(), Vec::new());
    for run in runs.iter().filter(|run| run.state != RunState::Ended) {
        let ordered = RunId::parse_str(&run.run_id)
            .map_err(io::Error::other)
            .and_then(|run_id| control::order(run_id, &order));
        match ordered {
            Ok(Some(Ok(()))) => run_ids.push(run.run_id.clone()),
            // It has ended meanwhile.
            Ok(None) => {}
            Ok(Some(Err(problem))) => problems.push(format!("{}: {problem}", run.run_id)),
            Err(error) => problems.push(format!("{}: {error}", run.run_id)),
        }
    }
    Answer::Told { run_ids, problems }
}

/// The client of a run.
struct Attached<'a> {
    socket: &'a UnixStream,
    peer: &'a Peer,
    /// What it has said behind its request.
    rest: Vec<u8>,
}

/// Does a run. Where the client goes, it is cancelled; where the service does, it goes on.
fn run(
    client: Attached<'_>,
    start: Start,
    descriptors: Vec<OwnedFd>,
    office: &mut Office,
) -> Answer {
    match client.peer.objection() {
        Ok(None) => {}
        Ok(Some(objection)) => return refused(objection),
        Err(error) => return refused(format!("you cannot be looked at: {error}")),
    }
    if start.bytes() > MAX_START_BYTES {
        return refused("arguments and environment are more than 2 MiB together");
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
    let attachment = match args.is_detached() {
        true => Attachment::Detached,
        false => Attachment::Attached,
    };
    let spec = match request::spec(args).map_err(Into::into).and_then(settle) {
        Ok(spec) => spec,
        Err(error) => {
            say(error);
            return Answer::Ended {
                status: EXIT_FAILURE,
            };
        }
    };
    supervise(client, spec, attachment, rlimits, office)
}

/// Whether a client waits for its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attachment {
    Attached,
    Detached,
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
fn settle(spec: RunSpec) -> Result<RunSpec, Box<dyn std::error::Error>> {
    let strange = [&spec.record, &spec.events]
        .into_iter()
        .flatten()
        .find(|destination| matches!(destination, Destination::Fd(fd) if *fd > 2));
    match strange {
        Some(destination) => Err(format!(
            "{destination} is not open here, since the service does the run: use --standalone"
        )
        .into()),
        None => Ok(RunSpec {
            spool: Some(SPOOL.into()),
            ..spec
        }),
    }
}

/// Sees a run through, from its being stored to its end.
fn supervise(
    client: Attached<'_>,
    spec: RunSpec,
    attachment: Attachment,
    rlimits: CallersLimits,
    office: &mut Office,
) -> Answer {
    let run_id = spec.run_id;
    // First, since a run that is stored and cannot be talked to counts as lost.
    let control = match control::bind(run_id) {
        Ok(control) => control,
        Err(error) => return refused(format!("the run's own socket cannot be made: {error}")),
    };
    let begun = match office.call(&Call::Accept(application(&spec, client.peer))) {
        Ok(Reply::Done) => begin(client, run_id, attachment),
        other => Err(answer(other)),
    };
    let answer = match begun {
        Ok((client, logging)) => {
            let answer = see_through(spec, rlimits, Remote { client, control }, office);
            if let Some(logging) = logging {
                logging.end();
            }
            answer
        }
        Err(refusal) => refusal,
    };
    control::remove(run_id);
    answer
}

fn application(spec: &RunSpec, peer: &Peer) -> Application {
    Application {
        run_id: spec.run_id,
        uid: peer.caller.uid,
        user: match &spec.run_as {
            RunAs::User(user) => Some(user.clone()),
            RunAs::Caller => Some(peer.name()),
        },
        analysis_id: spec.analysis_id.clone(),
        labels: spec.labels.clone(),
        command: spec.command.iter().map(|word| lossless(word)).collect(),
    }
}

/// The client that is listened to, and the logs that are written.
type Begun = (Option<supervise::Client>, Option<Logging>);

/// Tells the client that its run is accepted, and parts with it where that is detached.
fn begin(client: Attached<'_>, run_id: RunId, attachment: Attachment) -> Result<Begun, Answer> {
    let Attached { socket, peer, rest } = client;
    match attachment {
        Attachment::Attached => {
            let client = supervise::Client {
                socket: socket
                    .try_clone()
                    .map_err(|error| refused(format!("no descriptors are left: {error}")))?,
                pid: peer.pid.unsigned_abs(),
                said: rest,
            };
            // Where it has gone the supervisor finds that out.
            let _ = tell(socket, &Answer::Accepted { run_id });
            Ok((Some(client), None))
        }
        Attachment::Detached => {
            let logging = Logs::make(run_id, LOG_BYTES)
                .and_then(Logs::begin)
                .map_err(|error| refused(format!("its logs cannot be made: {error}")))?;
            // Where it has gone it does not wait for this.
            let _ = tell(socket, &Answer::Detached { run_id });
            let _ = socket.shutdown(Shutdown::Both);
            Ok((None, Some(logging)))
        }
    }
}

fn see_through(
    spec: RunSpec,
    rlimits: CallersLimits,
    remote: Remote,
    office: &mut Office,
) -> Answer {
    let run_id = spec.run_id;
    let status = match supervise::foreground(spec, rlimits, Some(remote)) {
        Ok(outcome) => outcome.status,
        Err(error) => {
            say(error);
            EXIT_FAILURE
        }
    };
    match office.call(&Call::Ended { run_id, status }) {
        Ok(Reply::Refused(reason)) => {
            refused(format!("the run has ended, but is not stored: {reason}"))
        }
        // A service that is started again finds what the run has left.
        _ => Answer::Ended { status },
    }
}
