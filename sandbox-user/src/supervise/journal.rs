//! What the events and samples of a run add up to: the process tree, the stream, who was told what.
//!
//! Detail only, and bounded: verdicts rest on the maps.

use std::{io, ops::RangeInclusive};

use nix::libc;

use super::{
    clock,
    docket::Docket,
    events_file, holders,
    prepare::RunError,
    processes::{Member, ProcessTable},
    sequence::{Next, Sequence},
};
use crate::{
    attribution::live_cause,
    cgroup::LeafStats,
    events::{
        Finished, Stream, WriterError,
        kept::Kept,
        line::{self, DroppedAt, Sample, What},
    },
    evidence::{CgroupRef, ClockAnchor, OomContext, Signal},
    record::{OomLevel, ProcessNode, Reason},
    say::say,
    spec::{Destination, Sampling},
    trace::{Event, EventKind},
};

/// How many signals to main are kept beside those in the maps.
const SIGNALS_TO_MAIN: usize = 16;

/// What a run has told of itself.
#[derive(Debug, Default)]
pub(super) struct Journal {
    sequence: Sequence,
    processes: ProcessTable,
    /// Signals to main from outside, as the ring had them: also those that were not delivered, and
    /// those that it got again. The first few of them.
    pub(super) signals_to_main: Vec<Signal>,
    stream: Option<Stream>,
    /// Why it is not kept, though it was to be.
    not_kept: Option<String>,
    names: Names,
    /// Periods in which it was throttled, and for how long, when it was last looked at.
    throttled: (u64, u64),
}

/// Who and what the events of a run speak of by number.
#[derive(Debug, Default)]
struct Names {
    /// The leaf, then its ancestors.
    cgroups: Vec<CgroupRef>,
    /// Supervisor and guardian.
    runner_pids: Vec<u32>,
}

impl Names {
    fn cgroup(&self, id: u64) -> Option<(OomLevel, &str)> {
        let place = self.cgroups.iter().position(|cgroup| cgroup.id == id)?;
        let level = match place {
            0 => OomLevel::Leaf,
            _ => OomLevel::Ancestor,
        };
        Some((level, &self.cgroups.get(place)?.path))
    }

    fn oom<'a>(&'a self, oom: &OomContext) -> (Option<OomLevel>, Option<&'a str>) {
        match oom.cgroup_id {
            None => (Some(OomLevel::Host), None),
            Some(id) => match self.cgroup(id) {
                Some((level, path)) => (Some(level), Some(path)),
                None => (None, None),
            },
        }
    }
}

impl Journal {
    /// Begins with what is known of the run, before anything happens in it and whatever came of its
    /// setup. The stream goes where the caller wants it, and to where it is kept; what goes wrong there is no
    /// reason not to run.
    ///
    /// # Errors
    /// Where the caller's has nowhere to go, or cannot be begun.
    pub(super) fn begin(&mut self, docket: &Docket, kept: Option<&Kept>) -> Result<(), RunError> {
        let spec = &docket.spec;
        let leaf = docket.leaf.as_ref();
        self.names = Names {
            cgroups: leaf.into_iter().chain(&docket.ancestors).cloned().collect(),
            runner_pids: docket.runner_pids.clone(),
        };
        let mut stream = Stream::new(docket.clock);
        if let Some(kept) = kept
            && let Err(error) = keep(&mut stream, kept)
        {
            self.not_kept = Some(format!("the event stream is not kept: {error}"));
        }
        let passed = match &spec.events {
            Some(destination) => pass(&mut stream, destination, docket),
            None => Ok(()),
        };
        if stream.is_unheard() {
            return passed;
        }
        let start = What::Start {
            schema: line::SCHEMA,
            version: line::VERSION,
            run_id: spec.run_id,
            analysis_id: spec.analysis_id.as_deref(),
            cgroup: leaf.map(|leaf| leaf.path.as_str()),
            tracing: docket.trace.mode,
        };
        stream.write(None, clock::now_ns(), &start);
        self.stream = Some(stream);
        passed
    }

    /// Takes in an event of the ring.
    pub(super) fn take(&mut self, event: Event) {
        self.sequence.push(event);
    }

    /// Passes on what is in order by now.
    pub(super) fn settle(&mut self) {
        self.pass_on(Some(clock::now_ns()));
    }

    /// Passes on all that came.
    pub(super) fn settle_all(&mut self) {
        self.pass_on(None);
    }

    fn pass_on(&mut self, now_ns: Option<u64>) {
        while let Some(next) = self.sequence.next(now_ns) {
            match next {
                Next::Event(event) => self.note(&event),
                Next::Gap(missing) => self.note_gap(&missing),
            }
        }
    }

    fn note(&mut self, event: &Event) {
        if let EventKind::Signal(signal) = &event.kind
            && signal.victim_is_main
            && !signal.sender_in_leaf
            && signal.oom.is_none()
            && signal.cgroup_kill.is_none()
            && self.signals_to_main.len() < SIGNALS_TO_MAIN
        {
            self.signals_to_main.push(signal.clone());
        }
        self.processes.take(event);
        if let Some(stream) = &mut self.stream {
            let what = describe(&event.kind, event.at_ns, &self.processes, &self.names);
            stream.write(Some(event.seq), event.at_ns, &what);
        }
        self.processes.let_go(event);
    }

    fn note_gap(&mut self, missing: &RangeInclusive<u64>) {
        if let Some(stream) = &mut self.stream {
            let what = What::Dropped {
                place: DroppedAt::Ring,
                count: missing.end() + 1 - missing.start(),
                from_seq: Some(*missing.start()),
                to_seq: Some(*missing.end()),
            };
            stream.write(None, clock::now_ns(), &what);
        }
    }

    /// Takes in what the leaf used.
    pub(super) fn sample(&mut self, stats: &LeafStats, sampling: Sampling) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let now_ns = clock::now_ns();
        if let (Some(periods), Some(us)) = (stats.cpu_throttled_periods, stats.cpu_throttled_us) {
            let (known_periods, known_us) = std::mem::replace(&mut self.throttled, (periods, us));
            if periods > known_periods {
                let what = What::Throttled {
                    periods: periods - known_periods,
                    throttled_us: us.saturating_sub(known_us),
                };
                stream.write(None, now_ns, &what);
            }
        }
        match sampling {
            Sampling::Off => {}
            Sampling::Every(_) => stream.write(None, now_ns, &What::Sample(Sample::from(stats))),
        }
    }

    /// Looks at who holds memory, since it ran out just now.
    pub(super) fn look_at_holders(&mut self) {
        holders::look(&mut self.processes, clock::now_ns());
    }

    /// Adds to the signals what is known of programs and of who held the memory.
    pub(super) fn name(&self, signals: &mut [Signal]) {
        self.processes.name(signals);
        holders::add(&self.processes, signals);
    }

    /// The process tree.
    pub(super) fn tree(&self, clock: &ClockAnchor) -> Vec<ProcessNode> {
        self.processes.tree(clock)
    }

    /// Ends the stream with what the kernel side counted: the last number that it gave to an event, and
    /// how many it dropped. Gives what does not add up, or could not be written.
    pub(super) fn end(&mut self, reason: Reason, counted: Option<(u64, u64)>) -> Vec<String> {
        let mut problems: Vec<String> = self.not_kept.take().into_iter().collect();
        if let Some((events, dropped)) = counted {
            if let Some(missing) = self.sequence.end(events) {
                self.note_gap(&missing);
            }
            let missing = self.sequence.missing();
            if missing != dropped {
                problems.push(format!(
                    "of {events} events {missing} are missing although the kernel side counted {dropped} as dropped"
                ));
            }
        }
        let finished = self.stream.take().map(|stream| {
            stream.finish(clock::now_ns(), |lines_lost| What::End {
                reason,
                events: counted.map(|(events, _)| events),
                dropped: counted.map(|(_, dropped)| dropped),
                lines_lost,
            })
        });
        for finished in finished.into_iter().flatten() {
            if let Some(problem) = problem_with(finished) {
                say(&problem);
                problems.push(problem);
            }
        }
        problems
    }
}

fn keep(stream: &mut Stream, kept: &Kept) -> io::Result<()> {
    let name = "the event stream that is kept".to_owned();
    stream.add(name, kept.outlet()?, Some(kept.most_bytes))
}

fn pass(stream: &mut Stream, destination: &Destination, docket: &Docket) -> Result<(), RunError> {
    let name = format!("the event stream to {destination}");
    let file = events_file::open(destination, &docket.caller)?;
    stream
        .add(name, file, None)
        .map_err(RunError::system("starting the event stream"))
}

/// What is missing of a stream, in a sentence.
fn problem_with(finished: Finished) -> Option<String> {
    let Finished {
        name,
        lost,
        written,
    } = finished;
    let problem = match written {
        Ok(()) if lost == 0 => return None,
        Ok(()) => format!("{lost} lines are missing that its reader did not take in time"),
        // Whoever closes a pipe has read enough.
        Err(WriterError::Io(error)) if error.raw_os_error() == Some(libc::EPIPE) => return None,
        Err(error) => error.to_string(),
    };
    Some(format!("{name} is not whole: {problem}"))
}

/// The line of an event.
fn describe<'a>(
    kind: &'a EventKind,
    at_ns: u64,
    processes: &ProcessTable,
    names: &'a Names,
) -> What<'a> {
    match kind {
        EventKind::Birth { child, parent } => What::Birth {
            task: child.into(),
            parent: parent.into(),
        },
        EventKind::Exec {
            process,
            old_tid,
            filename,
            argv,
            ..
        } => What::Exec {
            task: process.into(),
            old_tid: *old_tid,
            filename,
            argv: argv.as_ref().map(|argv| &argv.words[..]),
            argv_cut: argv.as_ref().map(|argv| argv.cut),
        },
        EventKind::Exit {
            process,
            status,
            group_status,
            cpu,
            ..
        } => {
            let member = processes.get(process);
            line::exit(
                process.into(),
                group_status.unwrap_or(*status),
                member.is_some_and(Member::has_ended),
                member
                    .and_then(|member| member.born_at_ns)
                    .map(|born| at_ns.saturating_sub(born)),
                member.and_then(|member| member.max_rss_bytes),
                (cpu.user_ns / 1000, cpu.system_ns / 1000),
            )
        }
        EventKind::Signal(signal) => line::signal(signal, live_cause(signal, &names.runner_pids)),
        EventKind::ForkDenied {
            process,
            limiting_cgroup_id,
        } => What::ForkDenied {
            task: process.into(),
            cgroup: limiting_cgroup_id
                .and_then(|id| names.cgroup(id))
                .map(|(_, path)| path),
        },
        EventKind::Escape { process } => What::Escape {
            task: process.into(),
            to_cgroup_id: process.cgroup_id,
        },
        EventKind::Oom {
            trigger,
            chosen,
            oom,
        } => {
            let (scope, cgroup) = names.oom(oom);
            What::Oom {
                trigger: trigger.into(),
                chosen: chosen.into(),
                scope,
                cgroup,
                usage_bytes: oom.usage_bytes,
                max_bytes: oom.max_bytes,
            }
        }
    }
}
