//! What is true of a run, known to who made it end so; and what the record says, held against it.
//!
//! Most runs can end in one way only. Where two causes race, a run has several truths; each is whole
//! (reason, how main ended, who sent what), so that a record cannot mix them.

use std::os::unix::process::ExitStatusExt;

use sandbox_tests::{Outcome, Record, assert_has};
use serde_json::{Value, json};

use crate::executed::NeverExecuted;
use crate::heard;
use crate::hosted;
use crate::sureness::{Doubt, Sureness};

/// A run that has ended, and all that it may say.
pub(crate) struct Case {
    /// What there is.
    pub(crate) outcome: Outcome,
    /// What can be true of it.
    pub(crate) truths: Vec<Truth>,
}

impl Case {
    /// A run with one truth.
    pub(crate) fn new(outcome: Outcome, truth: Truth) -> Self {
        Self::race(outcome, [truth])
    }

    /// A run with several.
    pub(crate) fn race(outcome: Outcome, truths: impl IntoIterator<Item = Truth>) -> Self {
        Self {
            outcome,
            truths: truths.into_iter().collect(),
        }
    }
}

/// How good a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// It says what is true, and knows it exactly.
    Right,
    /// There is none, and nothing was there to be recorded.
    Unrecorded,
    /// It says what is true, and why it is not sure.
    Explained(Doubt),
    /// It says what is true, and is not sure for no reason that it gives.
    Unexplained(String),
    /// It does not say what is true.
    Wrong(String),
}

/// How the main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Main {
    Exited(i32),
    /// With 0, although it was ended: this status tells so.
    ExitedZero(i32),
    Killed(i32),
    /// In whatever way: an exit of 0, or none at all, is told by this status.
    Anyhow(i32),
    /// It never executed its command; `sandbox` says so by this status.
    NeverRan(i32),
}

/// How `sandbox` itself ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runner {
    /// With the status that tells of the analysis.
    Told,
    /// Of a signal, and somebody else wrote the record.
    Died(i32),
    /// Of a signal, before anything was there to be recorded.
    DiedUnrecorded(i32),
}

/// One thing that can be true of a run.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    reason: &'static str,
    hint: &'static str,
    main: Main,
    runner: Runner,
    fatal: Option<Value>,
    findings: Vec<(&'static str, Value)>,
    kills: Vec<Value>,
    absent: Vec<&'static str>,
    due: Option<Doubt>,
    possible: Vec<Doubt>,
}

impl Truth {
    fn new(reason: &'static str, hint: &'static str, main: Main) -> Self {
        Self {
            reason,
            hint,
            main,
            runner: Runner::Told,
            fatal: None,
            findings: Vec::new(),
            kills: Vec::new(),
            absent: Vec::new(),
            due: None,
            possible: vec![Doubt::Skipped],
        }
    }

    /// Main exited by itself.
    pub(crate) fn exited(code: i32) -> Self {
        let mut truth = Self::exited_meanwhile(code);
        truth.absent.push("own_action");
        truth
    }

    /// Main exited by itself while the runner was about to end it.
    pub(crate) fn exited_meanwhile(code: i32) -> Self {
        let reason = if code == 0 { "completed" } else { "exit_code" };
        let mut truth = Self::new(reason, "none", Main::Exited(code));
        truth.absent.push("fatal_signal");
        truth
    }

    /// Main died of a signal that came of the run itself.
    pub(crate) fn own_signal(signal: i32, fatal: &Value) -> Self {
        Self::new("signal", "none", Main::Killed(signal)).by(signal, fatal)
    }

    /// Main died of a signal of its own of which the kernel makes none.
    pub(crate) fn unsignalled(signal: i32) -> Self {
        let mut truth = Self::new("signal", "none", Main::Killed(signal));
        truth.absent.push("fatal_signal");
        truth
    }

    /// Main died of a signal that a process outside sent.
    pub(crate) fn outside(signal: i32, sender: &Value) -> Self {
        let fatal = json!({"cause": "process", "oom": null, "sender": sender});
        Self::from_outside(signal, &fatal)
    }

    /// Main died of something else from outside.
    pub(crate) fn from_outside(signal: i32, fatal: &Value) -> Self {
        Self::new("external_kill", "same", Main::Killed(signal)).by(signal, fatal)
    }

    /// The OOM killer took main.
    pub(crate) fn oom(reason: &'static str, oom: &Value) -> Self {
        let hint = match reason {
            "memory" => "more_memory",
            _ => "same",
        };
        let sender = json!({"kind": "kernel", "pid": null, "in_run": null});
        let fatal = json!({"cause": "oom", "sender": sender, "oom": oom});
        Self::new(reason, hint, Main::Killed(9)).by(9, &fatal)
    }

    /// The runner ended it for a reason, by this signal.
    pub(crate) fn ended(reason: &'static str, hint: &'static str, signal: i32) -> Self {
        let fatal = json!({
            "cause": "runner", "oom": null, "sender": {"kind": "runner", "in_run": false},
        });
        Self::new(reason, hint, Main::Killed(signal))
            .by(signal, &fatal)
            .finding("own_action", json!({"reason": reason}))
    }

    /// The runner told main to end for a reason, and main exited with this code.
    pub(crate) fn told(reason: &'static str, hint: &'static str, code: i32, zero: i32) -> Self {
        let main = if code == 0 {
            Main::ExitedZero(zero)
        } else {
            Main::Exited(code)
        };
        Self::new(reason, hint, main).finding("own_action", json!({"reason": reason}))
    }

    /// The runner ended it for a reason, and how main ended is a race; this status tells of an exit
    /// of 0, or of no exit.
    pub(crate) fn anyhow(reason: &'static str, hint: &'static str, zero: i32) -> Self {
        Self::new(reason, hint, Main::Anyhow(zero))
    }

    /// RLIMIT_CPU ended it.
    pub(crate) fn rlimit_cpu(signal: i32) -> Self {
        let fatal = json!({"cause": "kernel", "sender": {"kind": "kernel", "pid": null}});
        Self::new("cputime", "more_time", Main::Killed(signal)).by(signal, &fatal)
    }

    /// It never got to exec.
    pub(crate) fn not_started(status: i32) -> Self {
        Self::new("setup_failed", "none", Main::NeverRan(status))
    }

    /// `sandbox` died of a signal, and its guardian wrote the record.
    pub(crate) fn lost(signal: i32) -> Self {
        Self::new("runner_lost", "same", Main::Anyhow(0)).unwatched(signal)
    }

    /// Nobody watched when it ended so: `sandbox` had died of a signal.
    pub(crate) fn unwatched(mut self, signal: i32) -> Self {
        self.runner = Runner::Died(signal);
        self.possible.push(Doubt::NotWatching);
        self
    }

    /// `sandbox` died of a signal before the analysis was there.
    pub(crate) fn unrecorded(signal: i32, _proof: NeverExecuted) -> Self {
        let mut truth = Self::new("", "", Main::Anyhow(0));
        truth.runner = Runner::DiedUnrecorded(signal);
        truth
    }

    fn by(mut self, signal: i32, fatal: &Value) -> Self {
        let mut whole = json!({"signal": signal, "delivered": true, "victim": {"is_main": true}});
        merge(&mut whole, fatal);
        self.fatal = Some(whole);
        self
    }

    /// The evidence has this as well.
    pub(crate) fn finding(mut self, fact: &'static str, has: Value) -> Self {
        self.findings.push((fact, has));
        self
    }

    /// `kills` have this one as well.
    pub(crate) fn kill(mut self, has: Value) -> Self {
        self.kills.push(has);
        self
    }

    /// The fatal signal has this as well.
    pub(crate) fn fatal(mut self, has: &Value) -> Self {
        if let Some(fatal) = &mut self.fatal {
            merge(fatal, has);
        }
        self
    }

    /// A member of the run died of its own memory limit.
    pub(crate) fn more_memory(mut self) -> Self {
        self.hint = "more_memory";
        self
    }

    /// It cannot be known exactly, for this reason.
    pub(crate) fn in_doubt(mut self, due: Doubt) -> Self {
        self.due = Some(due);
        self
    }

    /// Holds the outcome against this truth.
    ///
    /// # Panics
    ///
    /// Where it does not say this.
    pub(crate) fn assert(&self, outcome: &Outcome) {
        hosted::note(outcome);
        if let Runner::DiedUnrecorded(signal) = self.runner {
            assert!(
                !outcome.has_record(),
                "there is a record:\n{}",
                outcome.record()
            );
            assert_eq!(outcome.status.signal(), Some(signal), "{}", outcome.stderr);
            return;
        }
        let record = outcome.record();
        record.assert_reason(self.reason, self.hint);
        self.assert_main(&record);
        match self.runner {
            Runner::Died(signal) => {
                assert_eq!(outcome.status.signal(), Some(signal), "{record}");
            }
            Runner::Told | Runner::DiedUnrecorded(_) => {
                assert_eq!(
                    outcome.code(),
                    self.status(&record),
                    "the exit status of `sandbox`\n{record}"
                );
                outcome.assert_told(&record);
            }
        }
        self.assert_story(&record);
    }

    fn assert_main(&self, record: &Record) {
        let exit = match self.main {
            Main::Exited(code) => json!({"code": code, "signal": null}),
            Main::ExitedZero(_) => json!({"code": 0, "signal": null}),
            Main::Killed(signal) => json!({"code": null, "signal": signal}),
            Main::Anyhow(_) => json!({}),
            Main::NeverRan(_) => {
                assert!(record.at("/started_at").is_null(), "{record}");
                assert_eq!(record.number("/processes/execs"), 0, "{record}");
                json!({})
            }
        };
        assert_has(record.at("/exit"), &exit);
    }

    /// The exit status that goes with how main ended.
    fn status(&self, record: &Record) -> i32 {
        let field = |pointer| {
            let number = record.at(pointer).as_i64();
            number.map(|number| i32::try_from(number).expect("wait(2) gives eight bits"))
        };
        match self.main {
            Main::Exited(code) => code,
            Main::Killed(signal) => 128 + signal,
            Main::ExitedZero(status) | Main::NeverRan(status) => status,
            Main::Anyhow(status) => match (field("/exit/code"), field("/exit/signal")) {
                (Some(0) | None, None) => status,
                (Some(code), _) => code,
                (None, Some(signal)) => 128 + signal,
            },
        }
    }

    fn assert_story(&self, record: &Record) {
        if let Some(fatal) = &self.fatal {
            assert_has(record.fatal(), fatal);
        }
        for (fact, has) in &self.findings {
            assert_has(record.finding(fact), has);
        }
        for fact in &self.absent {
            assert!(!record.has_finding(fact), "{fact} is in it:\n{record}");
        }
        for has in &self.kills {
            let found = record.kills().iter().any(|kill| is_in(has, kill));
            assert!(found, "no kill is like {has:#}\nin\n{record}");
        }
        for kill in record.kills() {
            if kill["oom"]["scope"] == "leaf" {
                assert_eq!(
                    kill["oom"]["cgroup"],
                    *record.at("/cgroup/path"),
                    "{record}"
                );
            }
        }
    }
}

impl Case {
    /// Rules on the record.
    pub(crate) fn rule(&self) -> Ruling {
        let mut against = Vec::new();
        for truth in &self.truths {
            match heard::catch(|| truth.assert(&self.outcome)) {
                Ok(()) => return sureness(truth, &self.outcome),
                Err(said) => against.push(said),
            }
        }
        Ruling::Wrong(self.with_record_once(&against.join("\n-- nor --\n")))
    }

    /// Fails where it is ruled against: of a run beside the one that a ruling is asked for.
    ///
    /// # Panics
    ///
    /// With what is against it.
    pub(crate) fn hold(&self, who: &str) {
        match self.rule() {
            Ruling::Right | Ruling::Unrecorded | Ruling::Explained(_) => {}
            Ruling::Unexplained(why) | Ruling::Wrong(why) => panic!("{who}: {why}"),
        }
    }

    /// Each assertion prints the whole record, between what it expected and what it found.
    fn with_record_once(&self, against: &str) -> String {
        if !self.outcome.has_record() {
            return against.to_owned();
        }
        let record = self.outcome.record().to_string();
        format!("{}\n{record}", against.replace(&record, "(the record)"))
    }
}

fn sureness(truth: &Truth, outcome: &Outcome) -> Ruling {
    if !outcome.has_record() {
        return Ruling::Unrecorded;
    }
    let record = outcome.record();
    match Sureness::of(&record, truth.due, &truth.possible) {
        Sureness::Exact => Ruling::Right,
        Sureness::Explained(doubt) => Ruling::Explained(doubt),
        Sureness::Unexplained => Ruling::Unexplained(format!(
            "{}, and nothing in it explains that:\n{record}",
            record.confidence()
        )),
    }
}

/// Whether `whole` has every field of `part`.
fn is_in(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(key, part)| whole.get(key).is_some_and(|whole| is_in(part, whole))),
        (part, whole) => part == whole,
    }
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, more) in more {
                merge(into.entry(key.clone()).or_insert(Value::Null), more);
            }
        }
        (into, more) => *into = more.clone(),
    }
}
