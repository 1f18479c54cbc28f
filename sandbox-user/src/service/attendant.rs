//! The process that attends to one client: it hears what is wanted, and where that is a run it becomes
//! its supervisor.
//!
//! What a client passes can be a trap: megabytes, or a descriptor that takes its time to be closed. It
//! comes to this process only, which has nobody else to serve.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    time::Duration,
};

use nix::sys::prctl;

use super::{
    EVENTS, charge,
    client::send_line,
    hands,
    hearing::{Heard, hear},
    logs,
    office::{Call, Office, Reply, has_gone},
    peer::Peer,
    protocol::{Answer, Verb, to_line},
};
use crate::{
    config::{self, Config},
    events::kept,
    spec::RunId,
    store::{Now, Run, RunState},
    supervise::Lives,
    sys::{child, fd},
};

/// The most that is told in one list.
pub(super) const MOST_LISTED: u32 = 2000;
/// How long a client may take to hear an answer.
const HEARD_WITHIN: Duration = Duration::from_secs(30);

/// Attends to the client that the service left a connection to under this number, with its own line under
/// the second and the configuration in force under the third.
///
/// # Errors
/// Where one of them is none.
pub fn attend(client: i32, office: i32, config: i32) -> io::Result<()> {
    // It was executed as /proc/self/exe, whose name is `exe`.
    prctl::set_name(c"sandbox")?;
    // The service's may be root's of a login.
    child::leave_session_keyring();
    let socket = UnixStream::from(fd::take(client)?);
    let mut office = Office::at(UnixStream::from(fd::take(office)?));
    let config = in_force(fd::take(config)?)?;
    config::go_by(config.clone());
    let answer = match hear(&socket) {
        Err(reason) => refused(reason),
        Ok(heard) => match Peer::of(&socket) {
            // It has gone, and hears nothing; or it is not who it was when it connected.
            Err(error) => refused(format!("you cannot be looked at: {error}")),
            Ok(peer) => match peer.leaf() {
                Ok(None) => serve(&socket, &peer, heard, &config, &mut office),
                Ok(Some(leaf)) => refused(format!(
                    "an analysis can neither start another nor see to runs: you are in {leaf}"
                )),
                Err(error) => refused(format!("you cannot be looked at: {error}")),
            },
        },
    };
    // A client that has gone needs none.
    let _ = tell(&socket, &answer);
    Ok(())
}

fn serve(
    socket: &UnixStream,
    peer: &Peer,
    heard: Heard,
    config: &Config,
    office: &mut Office,
) -> Answer {
    let Heard {
        request,
        descriptors,
        rest,
    } = heard;
    let whose = peer.whose();
    match request.verb {
        Verb::Run(start) => {
            let client = charge::Attached { socket, peer, rest };
            charge::run(client, start, descriptors, &config.service, office)
        }
        Verb::List { filter, most } => {
            let most = most.min(MOST_LISTED);
            answer(office.call(&Call::List {
                whose,
                filter,
                most,
            }))
        }
        Verb::Show { id } => answer(office.call(&Call::Show { whose, id })),
        Verb::Wait { id } => answer(office.call_for(socket, &Call::Wait { whose, id })),
        Verb::Logs { id } => pass(socket, peer, &id, office, logs_of),
        Verb::Events { id } => pass(socket, peer, &id, office, events_of),
        Verb::Kill { filter, reason } => hands::kill(peer, filter, reason, office),
        Verb::Freeze { filter } => hands::freeze(peer, filter, office),
        Verb::Thaw { filter } => hands::thaw(peer, filter, office),
        Verb::Update { filter, timeout } => hands::update(peer, filter, timeout, config, office),
        Verb::Metrics {} => answer(office.call(&Call::Metrics)),
    }
}

fn in_force(file: OwnedFd) -> io::Result<Config> {
    let mut file = File::from(file);
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Config::parse(&text, Path::new(config::PATH)).map_err(io::Error::other)
}

pub(super) fn tell(mut socket: &UnixStream, answer: &Answer) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_write_timeout(Some(HEARD_WITHIN))?;
    socket.write_all(&to_line(answer)?)
}

pub(super) fn refused(reason: impl Into<String>) -> Answer {
    Answer::Refused {
        reason: reason.into(),
    }
}

/// Adds to runs that go on how they are just now.
fn look_at(runs: &mut [Run]) {
    let lives = Lives::default();
    for run in runs.iter_mut().filter(|run| run.state == RunState::Running) {
        let Some(live) = lives.of(run.run_id) else {
            continue;
        };
        run.started_at = live.started_at.map(|at| at.to_string());
        run.now = Some(Now {
            ahead: None,
            deadline: live.deadline.map(|at| at.to_string()),
            frozen_by: live.frozen_by,
            memory_bytes: live.stats.memory_current_bytes,
            cpu_usage_us: live.stats.cpu_usage_us,
            pids: live.stats.pids_current,
        });
    }
}

/// What the service says, as it is told to a client.
pub(super) fn answer(reply: io::Result<Reply>) -> Answer {
    match reply {
        Ok(Reply::Runs(mut runs)) => {
            look_at(&mut runs);
            Answer::Runs(runs)
        }
        Ok(Reply::Run(mut run, record)) => {
            look_at(std::slice::from_mut(&mut *run));
            Answer::Run { run, record }
        }
        Ok(Reply::Nothing) => Answer::Nothing {},
        Ok(Reply::Refused(reason)) => refused(reason),
        Ok(Reply::Metrics(text)) => Answer::Metrics(text),
        Ok(Reply::Done | Reply::Waiting(_)) => {
            refused("the service's own processes do not understand each other")
        }
        // The next service may know.
        Err(error) if has_gone(&error) => Answer::Again {},
        Err(error) => refused(error.to_string()),
    }
}

/// Passes files of a run, and waits for its end.
fn pass(
    socket: &UnixStream,
    peer: &Peer,
    id: &str,
    office: &mut Office,
    open: fn(RunId) -> Result<Files, String>,
) -> Answer {
    let whose = peer.whose();
    let id = id.to_owned();
    let run = match office.call(&Call::Show { whose, id }) {
        Ok(Reply::Run(run, _)) => run,
        other => return answer(other),
    };
    let Files { said, descriptors } = match open(run.run_id) {
        Ok(files) => files,
        Err(reason) => return refused(reason),
    };
    if let Err(error) = to_line(&said)
        .map_err(io::Error::from)
        .and_then(|line| send_line(socket, &line, &descriptors))
    {
        return refused(error.to_string());
    }
    let id = run.run_id.to_string();
    answer(office.call_for(socket, &Call::Wait { whose, id }))
}

/// Files that are passed, and what is said with them.
struct Files {
    said: Answer,
    descriptors: Vec<OwnedFd>,
}

fn logs_of(run_id: RunId) -> Result<Files, String> {
    match logs::open(run_id) {
        Ok(logs) => Ok(Files {
            said: Answer::Logs {},
            descriptors: logs.map(OwnedFd::from).into(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!(
            "run {run_id} has no logs: it was not detached, or they have been removed"
        )),
        Err(error) => Err(format!("the logs of run {run_id}: {error}")),
    }
}

fn events_of(run_id: RunId) -> Result<Files, String> {
    match kept::open(Path::new(EVENTS), run_id) {
        Ok((events, form)) => Ok(Files {
            said: Answer::Events { form },
            descriptors: vec![events.into()],
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!(
            "run {run_id} has no events: none were kept (`events-bytes` in {}), or they have been removed",
            config::PATH
        )),
        Err(error) => Err(format!("the events of run {run_id}: {error}")),
    }
}
