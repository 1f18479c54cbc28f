//! The supervisor's side of the guardian.

use std::{
    io::{self, BufRead as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::sys::socket::{MsgFlags, recv};

use super::{Message, Start, VERB, send};
use crate::{
    evidence::OwnAction,
    supervise::{docket::Docket, record_file::RecordFile},
};

/// How long the guardian may take to answer, or to read.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The supervisor's side.
pub(in crate::supervise) struct Guardian {
    child: Child,
    socket: UnixStream,
}

impl Guardian {
    /// Starts it. The open record is its stdout, so that it can write what the supervisor cannot any
    /// more, or take back what was made for it.
    ///
    /// # Errors
    /// Where the process cannot be started.
    pub(in crate::supervise) fn start(record_file: Option<&mut RecordFile>) -> io::Result<Self> {
        let (socket, theirs) = sockets()?;
        let (stdout, record) = match record_file {
            Some(record_file) => {
                record_file.announce_to(Announcer(socket.try_clone()?));
                let (file, target) = record_file.share()?;
                (Stdio::from(file), Some(target))
            }
            None => (Stdio::null(), None),
        };
        let child = command(theirs).stdout(stdout).spawn()?;
        let mut guardian = Self { child, socket };
        if let Some(target) = record {
            guardian.send(&Message::Record(target));
        }
        Ok(guardian)
    }

    /// Starts one for a run of somebody else's that lost both its processes: it gets nothing of ours.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(in crate::supervise) fn start_for_another() -> io::Result<Self> {
        let (socket, theirs) = sockets()?;
        let child = command(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env_clear()
            .current_dir("/")
            .spawn()?;
        Ok(Self { child, socket })
    }

    /// Its pid.
    pub(in crate::supervise) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it of the request, before anything is set up for it.
    pub(in crate::supervise) fn announce(&mut self, docket: &Docket) {
        self.send(&Message::Run(Box::new(docket.clone())));
    }

    /// Tells it of the leaf that is about to be made.
    pub(in crate::supervise) fn announce_leaf(&mut self, cgroup: String) {
        self.send(&Message::Leaf(cgroup));
    }

    /// Hands the run, which has its leaf, over to its care.
    ///
    /// # Errors
    /// What it cannot do, in one sentence.
    pub(in crate::supervise) fn entrust(&mut self, docket: &Docket) -> Result<(), String> {
        self.announce(docket);
        self.answer()
    }

    /// Has it open the record of the run that was entrusted to it.
    ///
    /// # Errors
    /// Why that cannot be opened.
    pub(in crate::supervise) fn reopen(&mut self) -> Result<(), String> {
        self.send(&Message::Reopen);
        self.answer()
    }

    fn answer(&self) -> Result<(), String> {
        let mut answer = String::new();
        match io::BufReader::new(&self.socket).read_line(&mut answer) {
            Ok(0) => Err("it ended before the analysis was started".to_owned()),
            Ok(_) if answer.trim().is_empty() => Ok(()),
            Ok(_) => Err(answer.trim().to_owned()),
            Err(error) => Err(format!("it does not answer: {error}")),
        }
    }

    /// Tells it that the run has started.
    pub(in crate::supervise) fn started(&mut self, start: Start) {
        self.send(&Message::Started(start));
    }

    /// What it did in its supervisor's place, as far as it has said so: most often nothing.
    pub(in crate::supervise) fn actions(&self) -> Vec<OwnAction> {
        let mut said = Vec::new();
        let mut part = [0; 1024];
        while let Ok(length @ 1..) =
            recv(self.socket.as_raw_fd(), &mut part, MsgFlags::MSG_DONTWAIT)
        {
            said.extend_from_slice(part.get(..length).unwrap_or_default());
        }
        said.split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()
    }

    /// How it ended, where it did before it was dismissed.
    pub(in crate::supervise) fn end(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(status.to_string())
    }

    /// Ends it, the run being recorded. By SIGKILL, since it may have been stopped or frozen, and
    /// has nothing left to do.
    pub(in crate::supervise) fn dismiss(mut self) {
        // Where it cannot be killed it is not waited for: it waits for this process's end. One that
        // has ended before is killed without an error.
        if (0..3).any(|_| self.child.kill().is_ok()) {
            let _ = self.child.wait();
        }
    }

    /// Leaves the run to it, and waits so long for its end; `None` where that takes longer.
    ///
    /// # Errors
    /// Where it cannot be waited for.
    pub(in crate::supervise) fn leave(self, within: Duration) -> io::Result<Option<ExitStatus>> {
        let Self { mut child, socket } = self;
        drop(socket);
        let until = Instant::now() + within;
        loop {
            let ended = child.try_wait()?;
            if ended.is_some() || Instant::now() >= until {
                return Ok(ended);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where it has died the run goes on under its supervisor alone; [`Self::end`] tells.
    fn send(&mut self, message: &Message) {
        let _ = send(&self.socket, message);
    }
}

fn sockets() -> io::Result<(UnixStream, UnixStream)> {
    let (socket, theirs) = UnixStream::pair()?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    socket.set_write_timeout(Some(ANSWER_WITHIN))?;
    Ok((socket, theirs))
}

/// This program as a guardian, which listens on `socket`.
fn command(socket: UnixStream) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("sandbox-guardian")
        .arg(VERB)
        .stdin(Stdio::from(OwnedFd::from(socket)));
    command
}

/// Tells the guardian that a stream is about to be written.
#[derive(Debug)]
pub(in crate::supervise) struct Announcer(UnixStream);

impl Announcer {
    /// Does it.
    pub(in crate::supervise) fn announce(self) {
        // Where the guardian has died there is nobody to write a second record.
        let _ = send(&self.0, &Message::Recording);
    }
}
