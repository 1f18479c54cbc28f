//! The guardian: a small process that ends a run whose `sandbox` was killed.
//!
//! It is this same program under another verb, outside of every leaf, in a session of its own, and
//! holds the reading end of a pipe from the supervisor. The kernel closes that pipe whatever the
//! supervisor dies of; then the guardian kills the leaf, writes the record and removes the leaf. It
//! also keeps the deadline while the supervisor is stopped (SIGSTOP, Ctrl-Z) and cannot.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::unix::pipe,
    time::{Instant, sleep_until},
};

use super::{
    clock,
    conclude::{Ending, conclude},
    docket::Docket,
    gather::{Ended, add_declared},
    reaper,
    record_file::{Progress, RecordFile, Target},
};
use crate::{
    cgroup::{CgroupError, LeafCgroup, Mount},
    escape::escape_untrusted,
    evidence::{IntentReason, OwnAction},
    notes,
    record::{Reason, RunRecord},
    spec::{NotesPolicy, RunSpec},
    trace::{PinDir, Tracer},
};

/// The verb under which this program is a guardian.
const VERB: &str = "guardian";
/// How much later than the supervisor the guardian keeps a deadline.
const LATER: Duration = Duration::from_secs(1);
/// How long rmdir may say EBUSY.
const REMOVE_WITHIN: Duration = Duration::from_secs(5);

/// What the supervisor tells its guardian, one JSON document a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    /// The leaf stands: this is the run.
    Run {
        docket: Box<Docket>,
        record: Option<Target>,
    },
    /// It has started, and is to be over by then at the latest.
    EndWithin { ns: u64 },
    /// It is over and recorded.
    Done,
}

/// The supervisor's side.
pub(super) struct Guardian {
    child: Child,
    pipe: ChildStdin,
    record: Option<Target>,
}

impl Guardian {
    /// Starts it. The open record is its stdout, so that it can write what the supervisor cannot any
    /// more.
    ///
    /// # Errors
    /// Where the process cannot be started.
    pub(super) fn start(record_file: Option<&RecordFile>) -> io::Result<Self> {
        let shared = record_file.map(RecordFile::share).transpose()?;
        let (stdout, record) = match shared {
            Some((file, target)) => (Stdio::from(file), Some(target)),
            None => (Stdio::null(), None),
        };
        let mut child = Command::new("/proc/self/exe")
            .arg0("sandbox-guardian")
            .arg(VERB)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(stdout)
            .spawn()?;
        let pipe = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self {
            child,
            pipe,
            record,
        })
    }

    /// Its pid.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Hands the run over to its care.
    ///
    /// # Errors
    /// EPIPE where it has died.
    pub(super) fn entrust(&mut self, docket: &Docket) -> io::Result<()> {
        let record = self.record.take();
        self.send(&Message::Run {
            docket: Box::new(docket.clone()),
            record,
        })
    }

    /// Tells it when the run is to be over.
    pub(super) fn expect_end_within(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // It died, then: the run goes on under its supervisor alone.
        let _ = self.send(&Message::EndWithin { ns });
    }

    /// Lets it go and waits for its end.
    pub(super) fn dismiss(mut self) {
        let _ = self.send(&Message::Done);
        drop(self.pipe);
        // Nothing is known of how it ended that anybody could use.
        let _ = self.child.wait();
    }

    fn send(&mut self, message: &Message) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.pipe.write_all(&line)
    }
}

/// Is a guardian: reads stdin until the run is over, or the supervisor is.
///
/// # Errors
/// Where the pipe cannot be read or the run cannot be ended; what could not be done is in the message.
pub fn main() -> io::Result<()> {
    // Ctrl-C in the terminal is not for the guardian.
    nix::unistd::setsid()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let pipe = io::stdin().as_fd().try_clone_to_owned()?;
        let lines = BufReader::new(pipe::Receiver::from_owned_fd(pipe)?).lines();
        watch_over(lines).await
    })
}

async fn watch_over(mut lines: Lines<BufReader<pipe::Receiver>>) -> io::Result<()> {
    let mut ward = None;
    let mut overdue: Option<Instant> = None;
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line?,
            () = until(overdue) => {
                overdue = None;
                if let Some(ward) = &mut ward {
                    keep_deadline(ward).await;
                }
                continue;
            }
        };
        let Some(line) = line else { break };
        match serde_json::from_str(&line).map_err(io::Error::other)? {
            Message::Run { docket, record } => ward = Some(Ward::take(*docket, record)?),
            Message::EndWithin { ns } => {
                overdue = Instant::now().checked_add(Duration::from_nanos(ns) + LATER);
            }
            Message::Done => return Ok(()),
        }
    }
    match ward {
        Some(ward) => finish(ward).await,
        // It died before there was a leaf.
        None => Ok(()),
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// A run in the guardian's care.
struct Ward {
    docket: Docket,
    leaf: LeafCgroup,
    tracer: Option<Tracer>,
    record_file: Option<RecordFile>,
}

impl Ward {
    fn take(docket: Docket, record: Option<Target>) -> io::Result<Self> {
        let cgroup = docket
            .leaf
            .as_ref()
            .map(|leaf| leaf.path.clone())
            .ok_or(io::ErrorKind::NotFound)?;
        let mount = Mount::find().map_err(io::Error::other)?;
        let leaf = LeafCgroup::open(&mount, &cgroup).map_err(io::Error::other)?;
        let tracer = docket
            .trace
            .pins
            .as_ref()
            .and_then(|path| Tracer::reopen(PinDir::at(path)).ok());
        let record_file = record
            .map(|target| {
                let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
                Ok::<_, io::Error>(RecordFile::inherited(file, target))
            })
            .transpose()?;
        Ok(Self {
            docket,
            leaf,
            tracer,
            record_file,
        })
    }

    fn declare(&mut self, reason: IntentReason) -> OwnAction {
        let at_ns = clock::now_ns();
        if let Some(tracer) = &mut self.tracer {
            // The verdict then rests on this action's time and the sender.
            let _ = tracer.declare(self.leaf.cgroup().id, reason, at_ns);
        }
        OwnAction {
            reason,
            at_ns,
            signal: None,
            detail: None,
        }
    }
}

/// The supervisor has not ended the run in time: it is stopped. It will find the intent.
async fn keep_deadline(ward: &mut Ward) {
    if ward.leaf.procs().is_ok_and(|members| !members.is_empty()) {
        ward.declare(IntentReason::Walltime);
        // The supervisor tries again when it goes on.
        let _ = reaper::empty(&ward.leaf).await;
    }
}

/// The supervisor is gone: goes on where it was.
async fn finish(mut ward: Ward) -> io::Result<()> {
    match ward.record_file.as_mut().map(RecordFile::progress) {
        Some(Progress::Published) => clear(ward).await,
        Some(Progress::Drafted(record)) => finish_recording(ward, *record).await,
        Some(Progress::Nothing) | None => judge(ward).await,
    }
}

/// Nothing was judged yet.
async fn judge(mut ward: Ward) -> io::Result<()> {
    let mut ended = Ended::default();
    // What the supervisor was about to do comes first, and the next declaration takes its place.
    add_declared(&ward.docket, ward.tracer.as_ref(), &mut ended.own_actions);
    let main_has_ended = ward
        .tracer
        .as_ref()
        .and_then(|tracer| tracer.snapshot(ward.leaf.cgroup().id).ok().flatten())
        .and_then(|snapshot| snapshot.main)
        .is_some_and(|main| main.status.is_some());
    if !main_has_ended {
        let action = ward.declare(IntentReason::RunnerLost);
        ended.own_actions.push(action);
    }
    let (record, recorded) = conclude(Ending {
        docket: &ward.docket,
        leaf: Some(&ward.leaf),
        tracer: ward.tracer.as_mut(),
        ring: None,
        ended,
        record_file: ward.record_file,
        timings: BTreeMap::new(),
    })
    .await;
    say_notes(&ward.docket.spec, &record);
    recorded.map_err(io::Error::other)
}

/// The supervisor had judged and drafted the record before it went. What is drafted is recorded
/// whatever becomes of the leaf.
async fn finish_recording(mut ward: Ward, mut record: RunRecord) -> io::Result<()> {
    match remove_leaf(&ward.leaf).await {
        Ok(()) => record.cleanup.removed = true,
        Err(error) => record.tracing.degraded.push(error.to_string()),
    }
    record.completion_notes = notes::render(&record);
    let recorded = match ward.record_file.take() {
        Some(file) => file.finish(&record).map_err(io::Error::other),
        None => Ok(()),
    };
    let cleared = clear(ward).await;
    recorded.and(cleared)
}

/// The record is out: the leaf and what the kernel side knows of it go, where they are still there.
async fn clear(ward: Ward) -> io::Result<()> {
    remove_leaf(&ward.leaf).await.map_err(io::Error::other)?;
    match ward.tracer {
        Some(mut tracer) => tracer
            .forget(ward.leaf.cgroup().id)
            .map_err(io::Error::other),
        None => Ok(()),
    }
}

async fn remove_leaf(leaf: &LeafCgroup) -> Result<(), CgroupError> {
    reaper::empty(leaf).await?;
    leaf.remove(REMOVE_WITHIN)
}

fn say_notes(spec: &RunSpec, record: &RunRecord) {
    let wanted = match spec.notes {
        NotesPolicy::Always => true,
        NotesPolicy::Failure => record.termination.reason != Reason::Completed,
        NotesPolicy::Never => false,
    };
    if wanted {
        // Where stderr is closed there is nobody to tell.
        let notes = escape_untrusted(&record.completion_notes);
        let _ = writeln!(io::stderr(), "sandbox: {notes}");
    }
}
