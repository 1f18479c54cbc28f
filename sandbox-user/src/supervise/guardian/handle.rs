//! The supervisor's side of the guardian.

use std::{
    io::{self, BufRead as _},
    net::Shutdown,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::sys::socket::{MsgFlags, recv};

use super::{Message, News, Start, VERB, process, send};
use crate::{
    supervise::{
        docket::{Change, Docket},
        errand::Errand,
        record_file::RecordFile,
        state::State,
    },
    sys::{child, fork::fork},
};

/// How long the guardian may take to answer, or to read.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long it may take to answer where no more than an idle process is needed for that.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// The supervisor's side.
pub(in crate::supervise) struct Guardian {
    pid: u32,
    /// Once it has ended and been waited for.
    status: Option<ExitStatus>,
    socket: UnixStream,
}

impl Guardian {
    /// Starts it, with the open record, so that it can write what the supervisor cannot any more, or take back what
    /// was made for it.
    ///
    /// It is a fork of this process, which may have no event loop yet: the guardian could have none of its own then.
    ///
    /// # Errors
    /// Where the process cannot be started.
    pub(in crate::supervise) fn start(record_file: Option<&mut RecordFile>) -> io::Result<Self> {
        let (socket, theirs) = sockets(ANSWER_WITHIN)?;
        let record = match record_file {
            Some(record_file) => {
                record_file.announce_to(Announcer(socket.try_clone()?));
                Some(record_file.share()?)
            }
            None => None,
        };
        let pid = fork(|| process::forked(theirs, record))?;
        Ok(Self::of(pid, socket))
    }

    /// Starts one for a run of somebody else's that lost both its processes: it gets nothing of ours, so it is this
    /// program executed anew.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(in crate::supervise) fn start_for_another(within: Duration) -> io::Result<Self> {
        let (socket, theirs) = sockets(within)?;
        let mut command = Command::new("/proc/self/exe");
        child::pass_nothing_on(&mut command, Vec::new());
        let child = command
            .arg0("sandbox-guardian")
            .arg(VERB)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env_clear()
            .current_dir("/")
            .spawn()?;
        Ok(Self::of(child.id(), socket))
    }

    fn of(pid: u32, socket: UnixStream) -> Self {
        Self {
            pid,
            status: None,
            socket,
        }
    }

    /// Its pid.
    pub(in crate::supervise) fn pid(&self) -> u32 {
        self.pid
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

    /// Has it finish a run that lost both its processes.
    ///
    /// # Errors
    /// What it cannot do; it does the rest.
    pub(in crate::supervise) fn adopt(&mut self, state: &State) -> Result<(), String> {
        self.send(&Message::Adopt(Box::new(state.clone())));
        self.answer()
    }

    /// Leaves the run to it, and waits so long for the word that it is done; `None` where that takes longer.
    ///
    /// # Errors
    /// What went wrong.
    pub(in crate::supervise) fn leave(self, within: Duration) -> Result<Option<()>, String> {
        let failed = |error: io::Error| format!("its guardian cannot be heard: {error}");
        self.socket.shutdown(Shutdown::Write).map_err(failed)?;
        // A timeout of 0 would be none at all.
        let within = within.max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(within)).map_err(failed)?;
        let mut answer = String::new();
        match io::BufReader::new(&self.socket).read_line(&mut answer) {
            Ok(0) => Err("its guardian has ended without a word".to_owned()),
            Ok(_) if answer.trim().is_empty() => Ok(Some(())),
            Ok(_) => Err(answer.trim().to_owned()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn answer(&self) -> Result<(), String> {
        answer(io::BufReader::new(&self.socket))
    }

    /// Tells it that the run has started, and when it is to be over; again where that has changed.
    pub(in crate::supervise) fn started(&mut self, start: Start) {
        self.send(&Message::Started(start));
    }

    /// Tells it of what was done to the run.
    pub(in crate::supervise) fn changed(&mut self, change: &Change) {
        self.send(&Message::Changed(Box::new(change.clone())));
    }

    /// Tells it that the run is recorded, and what is left to be done.
    pub(in crate::supervise) fn hand_on(&mut self, errand: &Errand) {
        self.send(&Message::Recorded(Box::new(errand.clone())));
    }

    /// What it did in its supervisor's place and what it could not do, as far as it has said so: most often nothing.
    pub(in crate::supervise) fn news(&self) -> Vec<News> {
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
        self.status = self.status.or_else(|| child::try_wait(self.pid));
        self.status.map(|status| status.to_string())
    }

    /// Has it go where it belongs in a moment, if the run is not over by then; nobody waits for that.
    pub(in crate::supervise) fn send_home(&mut self, cgroup: String) {
        self.send(&Message::Home(cgroup));
    }

    /// Leaves it to it to have the kernel side forget the run, where nothing else is left to be done: it ends by
    /// itself then. Gives it back where it does not answer: it may have been stopped or frozen.
    pub(in crate::supervise) fn leave_the_rest(mut self) -> Result<(), Self> {
        self.send(&Message::Over);
        let heard = self.socket.set_read_timeout(Some(HEARD_WITHIN));
        match heard
            .map_err(|error| error.to_string())
            .and_then(|()| self.answer())
        {
            Ok(()) => Ok(()),
            Err(_) => Err(self),
        }
    }

    /// Ends it, nothing being left to be done for the run. By SIGKILL, since it may have been stopped or frozen, and
    /// has nothing left to do.
    pub(in crate::supervise) fn dismiss(self) {
        // A pid that was waited for may be somebody else's. Where it cannot be killed it is not waited for: it waits
        // for this process's end.
        if self.status.is_none() && (0..3).any(|_| child::kill(self.pid).is_ok()) {
            child::wait(self.pid);
        }
    }

    /// Where it has died the run goes on under its supervisor alone; [`Self::end`] tells.
    fn send(&mut self, message: &Message) {
        let _ = send(&self.socket, message);
    }
}

/// The answer among what it says: news that come between are too late for whoever waits for one.
fn answer(said: impl io::BufRead) -> Result<(), String> {
    let is_news = |line: &String| serde_json::from_str::<News>(line).is_ok();
    let mut lines = said
        .lines()
        .skip_while(|line| line.as_ref().is_ok_and(is_news));
    match lines.next() {
        None => Err("it has ended".to_owned()),
        Some(Ok(problem)) if !problem.is_empty() => Err(problem),
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(format!("it does not answer: {error}")),
    }
}

fn sockets(within: Duration) -> io::Result<(UnixStream, UnixStream)> {
    let (socket, theirs) = UnixStream::pair()?;
    socket.set_read_timeout(Some(within))?;
    socket.set_write_timeout(Some(within))?;
    Ok((socket, theirs))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_not_taken_for_an_answer() {
        let mut said = serde_json::to_vec(&News::Failed("it stays".to_owned())).expect("JSON");
        assert_eq!(answer(&said[..]), Err("it has ended".to_owned()));
        said.extend_from_slice(b"\n\n");
        assert_eq!(answer(&said[..]), Ok(()));
        assert_eq!(
            answer(&b"no such leaf\n"[..]),
            Err("no such leaf".to_owned())
        );
    }
}
