//! One client: its request, and its run as long as both are there.

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    process::Child,
    time::Duration,
};

use nix::{
    cmsg_space, libc,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest},
    net::{UnixStream, unix::OwnedReadHalf},
    sync::Semaphore,
    time::timeout,
};

use super::{
    launch::{Descriptors, command_of, launch},
    peer::Peer,
    protocol::{
        Answer, DESCRIPTORS, MAX_ORDER_BYTES, MAX_REQUEST_BYTES, MAX_START_BYTES, Order, Request,
        Start, VERSION, Verb, to_line,
    },
    records::Records,
};
use crate::{
    cli::EXIT_FAILURE,
    spec::RunId,
    store::Whose,
    supervise::meant_signals,
    sys::{pidfd, readiness},
};

/// How long a client may take to say what it wants.
const ASKED_WITHIN: Duration = Duration::from_secs(10);
/// Up to this length a request is read at once; of longer ones a few at a time, so that nobody can have the
/// service hold gigabytes.
const SHORT_BYTES: usize = 64 << 10;
static LONG_REQUESTS: Semaphore = Semaphore::const_new(8);
/// How long it may take to hear an answer.
const HEARD_WITHIN: Duration = Duration::from_secs(30);
/// The most that is told in one list.
const MOST_LISTED: u32 = 2000;
/// Serves a client to its end. Whoever goes before that has nothing to be told.
pub(super) async fn attend(socket: UnixStream, records: &Records) {
    let mut socket = socket;
    let answer = match timeout(ASKED_WITHIN, hear(&socket)).await {
        Err(_) => refused("no whole request came within 10 s"),
        Ok(Err(error)) => refused(format!("not a request: {error}")),
        Ok(Ok((request, descriptors))) => match Peer::of(&socket) {
            Err(_) => return,
            Ok(peer) => match request.verb {
                Verb::Run(start) => {
                    return run(socket, &peer, start, descriptors, records).await;
                }
                Verb::List { most } => list(&peer, most, records),
                Verb::Show { run_id } => show(&peer, run_id, records),
            },
        },
    };
    let _ = tell(&mut socket, &answer).await;
}

fn refused(reason: impl Into<String>) -> Answer {
    Answer::Refused {
        reason: reason.into(),
    }
}

/// Reads the request, with the descriptors that come on its way.
async fn hear(socket: &UnixStream) -> io::Result<(Request, Vec<OwnedFd>)> {
    let mut line = Vec::new();
    let mut descriptors = Vec::new();
    let mut part = vec![0; 16 << 10];
    let mut turn = None;
    loop {
        if line.len() > SHORT_BYTES && turn.is_none() {
            turn = Some(LONG_REQUESTS.acquire().await.map_err(io::Error::other)?);
        }
        socket.readable().await?;
        let received = socket.try_io(Interest::READABLE, || {
            receive(socket, &mut part, &mut descriptors)
        });
        let length = match received {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let part = part.get(..length).unwrap_or_default();
        if part.is_empty() {
            return Err(io::Error::other("it ended early"));
        }
        if line.len() + part.len() > MAX_REQUEST_BYTES {
            return Err(io::Error::other("it is longer than 6 MiB"));
        }
        line.extend_from_slice(part);
        if part.contains(&b'\n') {
            break;
        }
    }
    let request: Request = serde_json::from_slice(&line)?;
    if request.version != VERSION {
        return Err(io::Error::other(format!(
            "version {} of the protocol, the service speaks {VERSION}",
            request.version
        )));
    }
    Ok((request, descriptors))
}

fn receive(
    socket: &UnixStream,
    part: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    /// SCM_MAX_FD (include/net/scm.h): as many as one message can bring. All are taken, so that none stays open.
    const MOST: usize = 253;
    let mut space = cmsg_space!([i32; MOST]);
    let mut parts = [IoSliceMut::new(part)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            descriptors.extend(crate::sys::fd::received(received));
        }
    }
    if descriptors.len() > DESCRIPTORS {
        return Err(io::Error::other(
            "more descriptors came than belong to a run",
        ));
    }
    Ok(message.bytes)
}

fn whose(peer: &Peer) -> Whose {
    if peer.is_root() {
        Whose::All
    } else {
        Whose::Of(peer.caller.uid)
    }
}

fn list(peer: &Peer, most: u32, records: &Records) -> Answer {
    match records.list(whose(peer), most.min(MOST_LISTED)) {
        Ok(runs) => Answer::Runs(runs),
        Err(error) => refused(error.to_string()),
    }
}

fn show(peer: &Peer, run_id: RunId, records: &Records) -> Answer {
    match records.show(run_id, whose(peer)) {
        Ok(Some((run, record))) => Answer::Run {
            run: Box::new(run),
            record: record.and_then(|record| RawValue::from_string(record).ok()),
        },
        // Whether somebody else has a run of that id is not told.
        Ok(None) => refused(format!("there is no run {run_id} of yours")),
        Err(error) => refused(error.to_string()),
    }
}

/// Does a run. Where the client goes, the run is cancelled; where the service does, it goes on.
async fn run(
    mut socket: UnixStream,
    peer: &Peer,
    start: Start,
    descriptors: Vec<OwnedFd>,
    records: &Records,
) {
    let run_id = RunId::now_v7();
    let child = match begin(run_id, peer, start, descriptors, records) {
        Ok(child) => child,
        Err(reason) => {
            let _ = tell(&mut socket, &refused(reason)).await;
            return;
        }
    };
    let (orders, mut answers) = socket.into_split();
    let _ = tell(&mut answers, &Answer::Accepted { run_id }).await;
    let status = see_through(child, orders).await;
    let answer = match status.map(|status| (status, records.settle(run_id, status))) {
        Ok((Some(status), Ok(()))) => Answer::Ended { status },
        Ok((Some(_), Err(error))) => {
            refused(format!("the run has ended, but is not stored: {error}"))
        }
        // Its guardian ends the run, and its record comes later.
        Ok((None, _)) => refused(format!(
            "the run's supervisor was killed; how it ended is in `sandbox show {run_id}`"
        )),
        Err(error) => refused(format!("the run could not be waited for: {error}")),
    };
    let _ = tell(&mut answers, &answer).await;
}

fn begin(
    run_id: RunId,
    peer: &Peer,
    start: Start,
    descriptors: Vec<OwnedFd>,
    records: &Records,
) -> Result<Child, String> {
    let gone = |error: io::Error| format!("the client cannot be looked at: {error}");
    if let Some(objection) = peer.objection().map_err(gone)? {
        return Err(objection);
    }
    if start.bytes() > MAX_START_BYTES {
        return Err("arguments and environment are larger than 2 MiB".to_owned());
    }
    let descriptors: [OwnedFd; DESCRIPTORS] = descriptors.try_into().map_err(|_| {
        "stdin, stdout, stderr and the working directory do not come along".to_owned()
    })?;
    let [stdin, stdout, stderr, directory] = descriptors;
    records
        .accept(run_id, peer.caller.uid, command_of(&start))
        .map_err(|error| error.to_string())?;
    let descriptors = Descriptors {
        stdin,
        stdout,
        stderr,
        directory,
    };
    launch(run_id, peer, start, descriptors).map_err(|error| {
        // Nothing was started, so that there is nothing to be kept.
        let _ = records.settle(run_id, Some(EXIT_FAILURE));
        format!("the run's supervisor could not be started: {error}")
    })
}

/// Waits for a supervisor's end, passing on what its client says. `None`: a signal ended it.
async fn see_through(mut child: Child, orders: OwnedReadHalf) -> io::Result<Option<u8>> {
    let pidfd = pidfd::open(i32::try_from(child.id()).map_err(io::Error::other)?)?;
    let ended = readiness::watch(&pidfd, Interest::READABLE)?;
    let mut orders = BufReader::new(orders);
    let mut is_there = true;
    loop {
        let mut line = Vec::new();
        tokio::select! {
            ready = ended.readable() => {
                ready?.retain_ready();
                let status = child.wait()?;
                return Ok(status.code().and_then(|code| u8::try_from(code).ok()));
            }
            order = next_order(&mut orders, &mut line), if is_there => {
                let signal = order.unwrap_or(libc::SIGTERM);
                is_there = order.is_some();
                // It may have ended just now.
                let _ = pidfd::send_signal(pidfd.as_fd(), signal);
            }
        }
    }
}

/// The next signal that the client passes on; `None` where it is gone, or talks nonsense.
async fn next_order(orders: &mut BufReader<OwnedReadHalf>, line: &mut Vec<u8>) -> Option<i32> {
    let mut bounded = orders.take(MAX_ORDER_BYTES as u64);
    match bounded.read_until(b'\n', line).await {
        Ok(1..) if line.ends_with(b"\n") => {}
        Ok(_) | Err(_) => return None,
    }
    let Order::Signal(signal) = serde_json::from_slice(line).ok()?;
    meant_signals()
        .any(|meant| meant as i32 == signal)
        .then_some(signal)
}

async fn tell(
    socket: &mut (impl tokio::io::AsyncWrite + Unpin),
    answer: &Answer,
) -> io::Result<()> {
    timeout(HEARD_WITHIN, socket.write_all(&to_line(answer)?)).await?
}
