//! The guardian: a small process that ends a run whose `sandbox` was killed.
//!
//! It is this same program under another verb, outside of every leaf, in a session of its own, and
//! holds one end of a socket to the supervisor. The kernel closes that socket whatever the
//! supervisor dies of; then the guardian kills the leaf, writes the record and removes the leaf. It
//! also keeps the deadline while the supervisor is stopped (SIGSTOP, Ctrl-Z) and cannot.
//!
//! It is told of each thing before there is one to be left behind: of the record's file at its start,
//! of the request, of the leaf before it is made, of the whole run before that starts, which it
//! answers with a line (empty, or what it cannot do). What goes to a stream must not get there twice
//! and cannot be read back: [`Message::Recording`] comes right before it is written, and the
//! guardian writes none from then on. A file can be looked at, so there it is the file that tells.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    time::{Instant, sleep_until},
};

use super::{
    clock,
    conclude::{Ending, conclude},
    docket::Docket,
    gather::{Ended, add_declared},
    reaper,
    record_file::{Progress, RecordFile, Target},
    signals,
};
use crate::{
    cgroup::{CgroupError, LeafCgroup, Mount, Population},
    escape::escape_untrusted,
    evidence::{IntentReason, OwnAction},
    notes,
    record::RunRecord,
    spec::RunSpec,
    trace::{PinDir, Tracer},
};

/// The verb under which this program is a guardian.
const VERB: &str = "guardian";
/// How much later than the supervisor the guardian keeps a deadline.
const LATER: Duration = Duration::from_secs(1);
/// How long rmdir may say EBUSY.
const REMOVE_WITHIN: Duration = Duration::from_secs(5);
/// How long the guardian may take to answer, or to read.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What the supervisor tells its guardian, one JSON document a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    /// Where the record goes: stdout is it, open.
    Record(Target),
    /// This is the run; to be answered once it has a leaf.
    Run(Box<Docket>),
    /// This cgroup is about to be made for it.
    Leaf(String),
    /// Main has started.
    Started(Start),
    /// The record is about to be written to a stream.
    Recording,
    /// It is over and recorded.
    Done,
}

/// How it started.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Start {
    /// Main's pid.
    pub(super) main_pid: u32,
    /// When the spawn returned.
    pub(super) at_ns: u64,
    /// From then on: when it is to be over at the latest.
    pub(super) end_within: Option<Duration>,
}

/// The supervisor's side.
pub(super) struct Guardian {
    child: Child,
    socket: UnixStream,
}

impl Guardian {
    /// Starts it. The open record is its stdout, so that it can write what the supervisor cannot any
    /// more, or take back what was made for it.
    ///
    /// # Errors
    /// Where the process cannot be started.
    pub(super) fn start(record_file: Option<&mut RecordFile>) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        socket.set_write_timeout(Some(ANSWER_WITHIN))?;
        let (stdout, record) = match record_file {
            Some(record_file) => {
                record_file.announce_to(Announcer(socket.try_clone()?));
                let (file, target) = record_file.share()?;
                (Stdio::from(file), Some(target))
            }
            None => (Stdio::null(), None),
        };
        let child = Command::new("/proc/self/exe")
            .arg0("sandbox-guardian")
            .arg(VERB)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(stdout)
            .spawn()?;
        let mut guardian = Self { child, socket };
        if let Some(target) = record {
            guardian.send(&Message::Record(target));
        }
        Ok(guardian)
    }

    /// Its pid.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it of the request, before anything is set up for it.
    pub(super) fn announce(&mut self, docket: &Docket) {
        self.send(&Message::Run(Box::new(docket.clone())));
    }

    /// Tells it of the leaf that is about to be made.
    pub(super) fn announce_leaf(&mut self, cgroup: String) {
        self.send(&Message::Leaf(cgroup));
    }

    /// Hands the run, which has its leaf, over to its care.
    ///
    /// # Errors
    /// What it cannot do, in one sentence.
    pub(super) fn entrust(&mut self, docket: &Docket) -> Result<(), String> {
        self.announce(docket);
        let mut answer = String::new();
        match io::BufReader::new(&self.socket).read_line(&mut answer) {
            Ok(0) => Err("it ended before the analysis was started".to_owned()),
            Ok(_) if answer.trim().is_empty() => Ok(()),
            Ok(_) => Err(answer.trim().to_owned()),
            Err(error) => Err(format!("it does not answer: {error}")),
        }
    }

    /// Tells it that the run has started.
    pub(super) fn started(&mut self, start: Start) {
        self.send(&Message::Started(start));
    }

    /// How it ended, where it did before it was dismissed.
    pub(super) fn end(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(status.to_string())
    }

    /// Lets it go and waits for its end.
    pub(super) fn dismiss(mut self) {
        self.send(&Message::Done);
        drop(self.socket);
        // Nothing is known of how it ended that anybody could use.
        let _ = self.child.wait();
    }

    /// Where it has died the run goes on under its supervisor alone; [`Self::end`] tells.
    fn send(&mut self, message: &Message) {
        let _ = send(&self.socket, message);
    }
}

/// Tells the guardian that a stream is about to be written.
#[derive(Debug)]
pub(super) struct Announcer(UnixStream);

impl Announcer {
    /// Does it.
    pub(super) fn announce(self) {
        // Where the guardian has died there is nobody to write a second record.
        let _ = send(&self.0, &Message::Recording);
    }
}

fn send(mut socket: &UnixStream, message: &Message) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    socket.write_all(&line)
}

/// Is a guardian: reads stdin until the run is over, or the supervisor is.
///
/// # Errors
/// Where the socket cannot be read or the run cannot be ended; what could not be done is in the
/// message.
pub fn main() -> io::Result<()> {
    signals::block_all()?;
    // Ctrl-C in the terminal is not for the guardian.
    nix::unistd::setsid()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let answers = socket.try_clone()?;
        socket.set_nonblocking(true)?;
        let lines = BufReader::new(tokio::net::UnixStream::from_std(socket)?).lines();
        watch_over(lines, answers).await
    })
}

async fn watch_over(
    mut lines: Lines<BufReader<tokio::net::UnixStream>>,
    mut answers: UnixStream,
) -> io::Result<()> {
    let mut ward = Ward::default();
    let mut overdue: Option<Instant> = None;
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line?,
            () = until(overdue) => {
                overdue = None;
                keep_deadline(&mut ward).await;
                continue;
            }
        };
        let Some(line) = line else { break };
        let taken = match serde_json::from_str(&line) {
            Ok(Message::Record(target)) => ward.take_record(target).map(|()| None),
            Ok(Message::Run(docket)) => ward.take(*docket),
            Ok(Message::Leaf(cgroup)) => {
                ward.announced = Some(cgroup);
                Ok(None)
            }
            Ok(Message::Started(start)) => {
                ward.start = Some(start);
                overdue = start
                    .end_within
                    .and_then(|time| Instant::now().checked_add(time.saturating_add(LATER)));
                Ok(None)
            }
            Ok(Message::Recording) => {
                ward.stream_is_written = true;
                Ok(None)
            }
            Ok(Message::Done) => return Ok(()),
            Err(error) => Err(error.to_string()),
        };
        let answer = match taken {
            Ok(None) => continue,
            Ok(Some(Entrusted)) => String::new(),
            Err(problem) => problem.replace('\n', " "),
        };
        // Where the supervisor has gone the next line is the end.
        let _ = writeln!(answers, "{answer}");
    }
    finish(ward).await
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// A run in the guardian's care, as far as it was told.
#[derive(Default)]
struct Ward {
    docket: Option<Docket>,
    announced: Option<String>,
    leaf: Option<LeafCgroup>,
    tracer: Option<Tracer>,
    record_file: Option<RecordFile>,
    start: Option<Start>,
    stream_is_written: bool,
}

/// All is there to end the run.
struct Entrusted;

impl Ward {
    fn take_record(&mut self, target: Target) -> Result<(), String> {
        let file = io::stdout().as_fd().try_clone_to_owned();
        let file = file.map_err(|error| format!("the record cannot be shared: {error}"))?;
        self.record_file = Some(RecordFile::inherited(File::from(file), target));
        Ok(())
    }

    fn take(&mut self, docket: Docket) -> Result<Option<Entrusted>, String> {
        let leaf = docket.leaf.as_ref().map(|leaf| leaf.path.clone());
        let pins = docket.trace.pins.clone();
        self.docket = Some(docket);
        let Some(cgroup) = leaf else {
            return Ok(None);
        };
        self.leaf = Some(open(&cgroup).map_err(|error| error.to_string())?);
        if let Some(pins) = pins {
            let tracer = Tracer::reopen(PinDir::at(&pins)).map_err(|error| error.to_string())?;
            self.tracer = Some(tracer);
        }
        Ok(Some(Entrusted))
    }

    /// A leaf that was made and not told of any more, and the watch on it.
    fn find_leaf(&mut self) {
        let announced = self.announced.take().filter(|_| self.leaf.is_none());
        let Some(leaf) = announced.and_then(|cgroup| open(&cgroup).ok()) else {
            return;
        };
        if let Some(docket) = &mut self.docket {
            docket.leaf = Some(leaf.cgroup().clone());
        }
        let id = leaf.cgroup().id;
        self.leaf = Some(leaf);
        self.tracer = Tracer::reopen(PinDir::own())
            .ok()
            .filter(|tracer| tracer.facts(id).is_ok_and(|facts| facts.is_some()));
    }

    fn declare(&mut self, reason: IntentReason) -> OwnAction {
        let at_ns = clock::now_ns();
        if let (Some(tracer), Some(leaf)) = (&mut self.tracer, &self.leaf) {
            // The verdict then rests on this action's time and the sender.
            let _ = tracer.declare(leaf.cgroup().id, reason, at_ns);
        }
        OwnAction {
            reason,
            at_ns,
            signal: None,
            detail: None,
        }
    }

    /// Whether main is known to have ended, or to have been there and be gone.
    fn main_has_ended(&self) -> bool {
        let Some(leaf) = &self.leaf else {
            return false;
        };
        let main = self
            .tracer
            .as_ref()
            .and_then(|tracer| tracer.snapshot(leaf.cgroup().id).ok().flatten())
            .and_then(|snapshot| snapshot.main);
        match main {
            Some(main) => main.status.is_some(),
            None => {
                self.start.is_some()
                    && leaf
                        .population()
                        .is_ok_and(|population| population == Population::Empty)
            }
        }
    }
}

fn open(cgroup: &str) -> Result<LeafCgroup, CgroupError> {
    LeafCgroup::open(&Mount::find()?, cgroup)
}

/// The supervisor has not ended the run in time: it is stopped. It will find the intent.
async fn keep_deadline(ward: &mut Ward) {
    let populated = |leaf: &LeafCgroup| leaf.procs().is_ok_and(|members| !members.is_empty());
    if ward.leaf.as_ref().is_some_and(populated) {
        ward.declare(IntentReason::Walltime);
    }
    if let Some(leaf) = &ward.leaf {
        // The supervisor tries again when it goes on.
        let _ = reaper::empty(leaf).await;
    }
}

/// The supervisor is gone: goes on where it was.
async fn finish(mut ward: Ward) -> io::Result<()> {
    ward.find_leaf();
    if ward.stream_is_written {
        // It may be whole, or in part, or not there: it cannot be seen from here.
        let _ = writeln!(
            io::stderr(),
            "sandbox: killed while it wrote the record, which may not be whole"
        );
        return clear(ward).await;
    }
    match ward.record_file.as_mut().map(RecordFile::progress) {
        Some(Progress::Published) => clear(ward).await,
        Some(Progress::Drafted(record)) => finish_recording(ward, *record).await,
        Some(Progress::Nothing) | None => judge(ward).await,
    }
}

/// Nothing was judged yet.
async fn judge(mut ward: Ward) -> io::Result<()> {
    let Some(docket) = ward.docket.take() else {
        // There is no run to speak of.
        if let Some(file) = ward.record_file.take() {
            file.discard();
        }
        return clear(ward).await;
    };
    let mut ended = Ended {
        main_pid: ward.start.map(|start| start.main_pid),
        started_at_ns: ward.start.map(|start| start.at_ns),
        ..Ended::default()
    };
    // What the supervisor was about to do comes first, and the next declaration takes its place.
    add_declared(&docket, ward.tracer.as_ref(), &mut ended.own_actions);
    if !ward.main_has_ended() {
        let action = ward.declare(IntentReason::RunnerLost);
        ended.own_actions.push(action);
    }
    let (record, recorded) = conclude(Ending {
        docket: &docket,
        leaf: ward.leaf.as_ref(),
        tracer: ward.tracer.as_mut(),
        ring: None,
        ended,
        record_file: ward.record_file,
        timings: BTreeMap::new(),
    })
    .await;
    say_notes(&docket.spec, &record);
    recorded.map_err(io::Error::other)
}

/// The supervisor had judged and drafted the record before it went. What is drafted is recorded
/// whatever becomes of the leaf.
async fn finish_recording(mut ward: Ward, mut record: RunRecord) -> io::Result<()> {
    if let Some(leaf) = &ward.leaf {
        match remove_leaf(leaf).await {
            Ok(()) => record.cleanup.removed = true,
            Err(error) => record.tracing.degraded.push(error.to_string()),
        }
    }
    record.completion_notes = notes::render(&record);
    let recorded = match ward.record_file.take() {
        Some(file) => file.finish(&record).map_err(io::Error::other),
        None => Ok(()),
    };
    if let Some(docket) = &ward.docket {
        say_notes(&docket.spec, &record);
    }
    let cleared = clear(ward).await;
    recorded.and(cleared)
}

/// The record is out: the leaf and what the kernel side knows of it go, where they are still there.
async fn clear(ward: Ward) -> io::Result<()> {
    let Some(leaf) = &ward.leaf else {
        return Ok(());
    };
    remove_leaf(leaf).await.map_err(io::Error::other)?;
    match ward.tracer {
        Some(mut tracer) => tracer.forget(leaf.cgroup().id).map_err(io::Error::other),
        None => Ok(()),
    }
}

async fn remove_leaf(leaf: &LeafCgroup) -> Result<(), CgroupError> {
    reaper::empty(leaf).await?;
    leaf.remove(REMOVE_WITHIN)
}

fn say_notes(spec: &RunSpec, record: &RunRecord) {
    if spec.notes.wants(record.termination.reason) {
        // Where stderr is closed there is nobody to tell.
        let notes = escape_untrusted(&record.completion_notes);
        let _ = writeln!(io::stderr(), "sandbox: {notes}");
    }
}
