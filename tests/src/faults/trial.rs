//! One run with one fault in it, and what has to hold after it all the same.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::process::Command;

use nix::errno::Errno;
use serde_json::Value;

use super::tracer::{self, Step, Taken, Traced};
use super::witness::Witness;
use crate::leftovers::{Leftovers, SETTLING};
use crate::maps::unpin;
use crate::record::Record;
use crate::scene::Scene;
use crate::sound::flaws;

/// `sandbox` failed.
const EXIT_FAILURE: i32 = 125;
/// What Rust exits with after a panic.
const PANICKED: i32 = 101;
/// What a run is asked for besides its own, so that all that it reads and writes can fail.
const OPTIONS: &[&str] = &[
    "--user=ana",
    "--record=record.json",
    "--events=events.jsonl",
    "--metadata=metadata.json",
    // Appended, so that a second time would be seen.
    "--on-complete=cat >>completed.json",
];
/// Limits that are nobody's default: a run that had not read them would show.
const METADATA: &str = r#"{"id": "a-17", "sandbox": {"memory": "300MiB", "pids": 50, "cpus": 2}}"#;
/// SIGABRT: what Rust ends with where memory cannot be had.
const ABORTED: i32 = 128 + 6;

/// The analysis of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// It ends by itself.
    Completes,
    /// It does not, ignores SIGTERM, and its time is short.
    Overruns,
    /// It ends by itself, and leaves a process behind.
    LeavesOver,
    /// It ends by itself, and is the first on a host that has no programs loaded yet.
    Cold,
}

impl Scenario {
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Completes | Self::Cold => &["--", "true"],
            Self::Overruns => &[
                "--timeout=300ms",
                "--grace=0",
                "--",
                "bash",
                "-c",
                "trap '' TERM; sleep 60",
            ],
            Self::LeavesOver => &["--", "bash", "-c", "sleep 60 & exit 0"],
        }
    }

    /// The only reasons that are right for it, whatever failed.
    const fn reasons(self) -> &'static [&'static str] {
        match self {
            Self::Completes | Self::LeavesOver | Self::Cold => {
                &["completed", "setup_failed", "runner_lost"]
            }
            Self::Overruns => &["walltime", "setup_failed", "runner_lost"],
        }
    }

    /// Whether the step is one that no other scenario has in its place.
    pub(super) const fn has_of_its_own(self, taken: &Taken) -> bool {
        match self {
            Self::Completes => true,
            // Up to there all do the same.
            Self::Overruns | Self::LeavesOver => taken.started,
            Self::Cold => !taken.started,
        }
    }
}

/// What a run left to look at.
#[derive(Debug)]
pub struct Trial {
    /// What ptrace(2) saw.
    pub traced: Traced,
    /// The record, where there is one.
    pub record: Option<Record>,
    /// What was said on stderr.
    pub stderr: String,
    events: Option<String>,
    /// What the command for the end was given, as often as it ran.
    completed: Option<String>,
    /// What is in the folder of the record, but for the metadata.
    files: BTreeSet<String>,
    left: Option<Leftovers>,
}

impl Trial {
    /// Runs the analysis; the step fails with this error, if it is reached.
    #[must_use]
    pub fn run(scenario: Scenario, fault: Option<(Step, Errno)>) -> Self {
        match scenario {
            Scenario::Cold => unpin(),
            Scenario::Completes | Scenario::Overruns | Scenario::LeavesOver => {}
        }
        let before = Leftovers::find();
        let (scene, said) = (Scene::new(), Scene::new());
        scene.write("metadata.json", METADATA);
        let output = |name| File::create(said.path(name)).expect("the scene can be written to");
        let mut command = Command::new("sh");
        command
            .args(["-c", "read -r go; exec \"$@\" </dev/null", "sh"])
            .args(["sandbox", "run"])
            .args(OPTIONS)
            .args(scenario.arguments())
            .current_dir(scene.folder())
            .stdout(output("stdout"))
            .stderr(output("stderr"));
        let traced = tracer::run(&mut command, fault);
        let left = before.new_ones(SETTLING);
        if let Some(left) = &left {
            left.remove();
        }
        let read = |name: &str| fs::read_to_string(scene.path(name)).ok();
        let record = read("record.json");
        let mut files = scene.files();
        files.remove("metadata.json");
        Self {
            traced,
            record: record.filter(|text| !text.is_empty()).and_then(|text| {
                serde_json::from_str::<Value>(&text)
                    .ok()
                    .map(|_| Record::parse(&text))
            }),
            stderr: fs::read_to_string(said.path("stderr")).unwrap_or_default(),
            events: read("events.jsonl"),
            completed: read("completed.json"),
            files,
            left,
        }
    }

    /// What is wrong with it, beside how a run without a fault is.
    #[must_use]
    pub fn complaints(&self, scenario: Scenario, usual: &Self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |holds: bool, what: &str| {
            if !holds {
                wrong.push(what.to_owned());
            }
        };
        let hung = self.traced.hung.join("\n");
        check(hung.is_empty(), &format!("it hung:\n{hung}"));
        if let Some(left) = &self.left {
            check(false, &format!("it left behind:\n{left}"));
        }
        let panicked = self.traced.status == Some(PANICKED) || self.stderr.contains("panicked at");
        check(
            !panicked || self.aborted_for_memory() || self.guardian_aborted_for_memory(),
            "it panicked",
        );
        self.check_confinement(usual.traced.witness.as_ref(), &mut check);
        match &self.record {
            Some(record) => self.check_record(scenario, record, usual, &mut check),
            None => self.check_refusal(&mut check),
        }
        wrong
    }

    fn check_confinement(&self, usual: Option<&Witness>, check: &mut impl FnMut(bool, &str)) {
        let (Some(found), Some(usual)) = (&self.traced.witness, usual) else {
            return;
        };
        for line in found.confinement.symmetric_difference(&usual.confinement) {
            check(false, &format!("main was not confined as usual: {line}"));
        }
        // Where /etc/group cannot be read getgrouplist(3) gives what it could read, and says nothing.
        for group in found.groups.difference(&usual.groups) {
            check(false, &format!("main had the group {group} besides"));
        }
        let degraded = self
            .record
            .as_ref()
            .is_some_and(|record| !record.list("/tracing/degraded").is_empty());
        if !degraded && !self.stderr.contains("sandbox: ") {
            for line in found.surroundings.symmetric_difference(&usual.surroundings) {
                check(
                    false,
                    &format!("main's surroundings differ, and nobody says so: {line}"),
                );
            }
        }
    }

    fn check_record(
        &self,
        scenario: Scenario,
        record: &Record,
        usual: &Self,
        check: &mut impl FnMut(bool, &str),
    ) {
        for flaw in flaws(record) {
            check(false, &format!("in the record: {flaw}"));
        }
        let others = self.others();
        check(others.is_empty(), &format!("beside the record: {others:?}"));
        self.check_what_followed(record, check);
        let reason = record.reason();
        check(
            scenario.reasons().contains(&reason),
            &format!("the reason {reason} is wrong"),
        );
        let started = self.traced.witness.is_some();
        match reason {
            "setup_failed" => check(!started, "setup_failed, and main was executed"),
            "completed" | "walltime" => check(started, "it ended, and main was never executed"),
            _ => {}
        }
        match self.traced.status {
            Some(0) => check(
                reason == "completed",
                &format!("exit status 0 after {reason}"),
            ),
            Some(status) => {
                // What could not be done after the record was written is said.
                let usual_status = status == usual.traced.status.unwrap_or_default();
                let told = self.stderr.contains("sandbox: ") || self.aborted_for_memory();
                check(
                    usual_status || told,
                    &format!("exit status {status}, and not a word"),
                );
            }
            None => check(false, "nobody saw it end"),
        }
        if let (true, Some(usual)) = (started, &usual.record) {
            for limit in ["memory_bytes", "swap_bytes", "cpus", "pids", "walltime_ns"] {
                let pointer = format!("/limits/{limit}/effective");
                check(
                    record.at(&pointer) == usual.at(&pointer),
                    &format!("{pointer} differs"),
                );
            }
            for field in [
                "/usage/memory_peak_bytes",
                "/usage/pids_peak",
                "/processes/births",
            ] {
                let zero = record.at(field) == 0 && usual.at(field) != 0;
                check(!zero, &format!("{field} is 0, and nobody measured that"));
            }
        }
    }

    fn check_refusal(&self, check: &mut impl FnMut(bool, &str)) {
        let status = self.traced.status;
        let told = self.stderr.contains("sandbox: ") || self.stderr.contains("error: ");
        check(
            told || self.aborted_for_memory(),
            "no record, and not a word why",
        );
        check(
            status == Some(EXIT_FAILURE) || self.aborted_for_memory(),
            &format!("no record, and the exit status {status:?}"),
        );
        let kept = self.stderr.contains(".sandbox-");
        let others = self.others();
        check(
            others.is_empty() || kept,
            &format!("no record, but {others:?}"),
        );
    }

    /// Files that nobody asked for.
    fn others(&self) -> Vec<&String> {
        let asked_for = ["record.json", "events.jsonl", "completed.json"];
        let others = self.files.iter();
        others
            .filter(|name| !asked_for.contains(&name.as_str()))
            .collect()
    }

    /// The stream has its end and the command for the end its record, or somebody says why not.
    fn check_what_followed(&self, record: &Record, check: &mut impl FnMut(bool, &str)) {
        let told = |word: &str| {
            let mut degraded = record.list("/tracing/degraded").iter();
            self.stderr.contains(word)
                || degraded.any(|line| line.as_str().is_some_and(|line| line.contains(word)))
        };
        let without_an_end = match record.reason() {
            // It goes with its `sandbox`.
            "runner_lost" => true,
            // It begins when what comes before has been set up.
            "setup_failed" => self.events.is_none(),
            _ => false,
        };
        let last = self.events.as_deref().and_then(|text| text.lines().last());
        let ended = last.and_then(|line| serde_json::from_str::<Value>(line).ok());
        check(
            without_an_end || told("event") || ended.is_some_and(|line| line["type"] == "end"),
            &format!("the stream was cut, and nobody says so: {last:?}"),
        );
        let completed = self.completed.as_deref();
        let given = completed.and_then(|text| serde_json::from_str::<Value>(text).ok());
        check(
            told("--on-complete")
                || self.aborted_for_memory()
                || given.is_some_and(|given| given["run_id"] == *record.at("/run_id")),
            &format!("--on-complete got something else, and nobody says so: {completed:?}"),
        );
    }

    /// Whether `sandbox` ended for want of memory, as Rust ends.
    fn aborted_for_memory(&self) -> bool {
        self.traced.status == Some(ABORTED) && self.says_that_memory_is_wanting()
    }

    /// Whether the guardian did, and the record says that it has gone.
    fn guardian_aborted_for_memory(&self) -> bool {
        let degraded = self.record.iter();
        let mut degraded = degraded.flat_map(|record| record.list("/tracing/degraded"));
        let gone = degraded.any(|line| {
            line.as_str()
                .is_some_and(|line| line.starts_with("the guardian died (signal: 6 (SIGABRT))"))
        });
        gone && self.says_that_memory_is_wanting()
    }

    /// Rust's own last words: of a process, and of a thread that it has begun, in either step of the stack
    /// for its signal handlers (`get_stack`, library/std/src/sys/pal/unix/stack_overflow.rs).
    fn says_that_memory_is_wanting(&self) -> bool {
        [
            "memory allocation of",
            "failed to allocate an alternative stack",
            "failed to set up alternative stack guard page",
        ]
        .iter()
        .any(|words| self.stderr.contains(words))
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "status {:?}", self.traced.status)?;
        if let Some(record) = &self.record {
            let degraded = record.list("/tracing/degraded");
            write!(formatter, ", {} ({})", record.reason(), record.confidence())?;
            for line in degraded {
                write!(
                    formatter,
                    "\n    degraded: {}",
                    line.as_str().unwrap_or_default()
                )?;
            }
        }
        for line in self.stderr.lines() {
            write!(formatter, "\n    {line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Step { role, call, nth } = self.step;
        let number = format!("(number {})", call.0);
        let name = call.name().unwrap_or(&number);
        write!(formatter, "{role:?} {name} {nth} {}", self.subject)
    }
}
