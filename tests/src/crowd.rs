//! Hundreds of runs at once, each with an ending of its own that is known beforehand.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::libc::O_NONBLOCK;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{Outcome, Outsider, Running, Sandbox, assert_has, wait};

/// The deadline is longer than all of it takes; and an emulated processor has no time to look at
/// hundreds of runs each second.
const OPTIONS: [&str; 4] = ["--timeout", "1h", "--sample", "60s"];

/// How a run ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// Somebody of this user signals main.
    Signalled(u32, Signal),
    /// Root writes the leaf's `cgroup.kill`.
    CgroupKilled,
    /// `sandbox` itself gets SIGTERM.
    Cancelled,
    /// Main signals itself.
    OwnSignal(Signal),
    /// Main crashes in this way.
    Crash(&'static str, i32),
    /// Main exits.
    Exit(u8),
    /// Main wants more memory than it may have.
    Memory,
    /// Main wants more processes than it may have.
    Pids,
}

impl Ending {
    /// That of the run of this number, so that no two neighbours end alike.
    fn of(number: usize) -> Self {
        let code = u8::try_from(number % 100 + 1).expect("at most 100");
        match number % 13 {
            0 => Self::Signalled(0, Signal::SIGKILL),
            1 => Self::Memory,
            2 => Self::Signalled(0, Signal::SIGTERM),
            3 => Self::Exit(code),
            4 => Self::CgroupKilled,
            5 => Self::OwnSignal(Signal::SIGKILL),
            6 => Self::Signalled(1000, Signal::SIGINT),
            7 => Self::Pids,
            8 => Self::Cancelled,
            9 => Self::Crash("segv", 11),
            10 => Self::OwnSignal(Signal::SIGTERM),
            11 => Self::Crash("abort", 6),
            _ => Self::Exit(0),
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Memory => &["--memory", "8MiB"],
            Self::Pids => &["--pids", "8"],
            Self::Signalled(..)
            | Self::CgroupKilled
            | Self::Cancelled
            | Self::OwnSignal(_)
            | Self::Crash(..)
            | Self::Exit(_) => &[],
        }
    }

    /// What main does once it is told to; `None` where it just holds still.
    fn act(self) -> Option<Vec<String>> {
        let words = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
        match self {
            Self::Signalled(..) | Self::CgroupKilled | Self::Cancelled => None,
            Self::OwnSignal(signal) => {
                words(&["kill-self", signal.as_str().trim_start_matches("SIG")])
            }
            Self::Crash(act, _) => words(&[act]),
            Self::Exit(code) => words(&["exit", &code.to_string()]),
            Self::Memory => words(&["eat", "20MiB"]),
            Self::Pids => words(&["children", "20"]),
        }
    }
}

/// Runs that go on at the same time, each of which waits for its end.
#[derive(Debug)]
pub struct Crowd {
    waiting: Vec<Waiting>,
    folder: PathBuf,
}

impl Crowd {
    /// Starts so many, one after another, in a guest that has nothing else to do.
    ///
    /// # Panics
    ///
    /// Where one does not come to its point.
    #[must_use]
    pub fn start(count: usize) -> Self {
        allow_many_files();
        let folder = std::env::temp_dir().join(format!("crowd-{}", std::process::id()));
        make_fifos(&folder, count);
        let waiting = (0..count).map(|number| Waiting::start(number, &folder));
        Self {
            waiting: waiting.collect(),
            folder,
        }
    }

    /// Has all end, each in its way, and checks each verdict.
    ///
    /// # Panics
    ///
    /// Where one is not that of its own run.
    pub fn end(self) {
        let senders: Vec<Value> = self.waiting.iter().map(Waiting::end).collect();
        for (waiting, sender) in self.waiting.into_iter().zip(&senders) {
            waiting.check(sender);
        }
        fs::remove_dir_all(&self.folder).expect("the FIFOs are ours");
    }
}

/// A run that waits for its end.
#[derive(Debug)]
struct Waiting {
    ending: Ending,
    running: Running,
    main: i32,
    /// Whom it hears from where it is cancelled.
    asker: Option<i32>,
    told_by: PathBuf,
}

impl Waiting {
    fn start(number: usize, folder: &Path) -> Self {
        let ending = Ending::of(number);
        let told_by = folder.join(number.to_string());
        let sandbox = Sandbox::new().options(OPTIONS).options(ending.options());
        let running = match ending.act() {
            None => sandbox.start_victim(["sleep"]),
            Some(act) => {
                let script = "echo ready $$; read -r <\"$0\"; exec victim \"$@\"";
                let told_by = told_by.display().to_string();
                let mut words = ["bash", "-c", script, &told_by].map(str::to_owned).to_vec();
                words.extend(act);
                sandbox.start(words)
            }
        };
        let main = running.ready();
        let asker = matches!(ending, Ending::Cancelled).then(|| running.asker());
        Self {
            ending,
            running,
            main,
            asker,
            told_by,
        }
    }

    /// Ends it, or has it end itself; gives who did it, as a record tells of senders.
    fn end(&self) -> Value {
        match self.ending {
            Ending::Signalled(uid, signal) => {
                Outsider::signals_as(uid, self.main, signal).as_sender()
            }
            Ending::CgroupKilled => {
                Outsider::kills_cgroup(&self.running.cgroup_of(self.main)).as_sender()
            }
            Ending::Cancelled => {
                let supervisor = self.running.supervisor();
                self.running.signal(Signal::SIGTERM);
                json!({"kind": "runner", "pid": supervisor, "in_run": false})
            }
            Ending::OwnSignal(_)
            | Ending::Crash(..)
            | Ending::Exit(_)
            | Ending::Memory
            | Ending::Pids => {
                self.tell();
                json!({"kind": "process", "pid": self.main, "comm": "victim", "uid": 1000, "in_run": true})
            }
        }
    }

    fn tell(&self) {
        // Nobody may be reading yet, and to wait for that in open(2) would have no limit.
        let mut fifo = wait::for_some("main to open its FIFO", || {
            let mut options = OpenOptions::new();
            options.write(true).custom_flags(O_NONBLOCK);
            options.open(&self.told_by).ok()
        });
        fifo.write_all(b"go\n").expect("main reads its FIFO");
    }

    /// Waits for its end and checks the whole verdict.
    fn check(self, sender: &Value) {
        let main = self.main;
        let asker = self.asker;
        let outcome = self.running.finish();
        match self.ending {
            Ending::Signalled(_, signal) => check_signalled(&outcome, signal, main, sender),
            Ending::CgroupKilled => {
                let record = outcome.ended_among_many(137, "external_kill", "same");
                let cause = json!({
                    "signal": 9, "cause": "cgroup_kill", "delivered": true,
                    "victim": {"pid": main, "is_main": true}, "sender": sender,
                });
                assert_has(record.fatal(), &cause);
                let leaf = json!({"cgroup": record.text("/cgroup/path")});
                assert_has(record.finding("cgroup_kill_written"), &leaf);
            }
            Ending::Cancelled => {
                let record = outcome.ended_among_many(143, "cancelled", "same");
                assert_has(
                    record.fatal(),
                    &json!({
                        "signal": 15, "cause": "runner", "delivered": true,
                        "victim": {"pid": main, "is_main": true}, "sender": sender,
                    }),
                );
                let asker = format!("from pid {}", asker.expect("it is cancelled"));
                assert_has(record.finding("own_action"), &json!({"detail": asker}));
            }
            Ending::OwnSignal(signal) => {
                let number = signal as i32;
                let record = outcome.ended_among_many(128 + number, "signal", "none");
                assert_has(
                    record.fatal(),
                    &json!({
                        "signal": number, "cause": "process", "delivered": true,
                        "victim": {"pid": main, "is_main": true}, "sender": sender,
                    }),
                );
            }
            Ending::Crash(_, number) => {
                let record = outcome.ended_among_many(128 + number, "signal", "none");
                assert_has(
                    record.fatal(),
                    &json!({
                        "signal": number, "delivered": true,
                        "victim": {"pid": main, "is_main": true},
                    }),
                );
            }
            Ending::Exit(code) => {
                let reason = if code == 0 { "completed" } else { "exit_code" };
                let record = outcome.ended_among_many(i32::from(code), reason, "none");
                assert_has(record.at("/exit"), &json!({"code": code, "signal": null}));
                assert!(record.kills().is_empty(), "{record}");
            }
            Ending::Memory => {
                let record = outcome.ended_among_many(137, "memory", "more_memory");
                assert_has(
                    record.fatal(),
                    &json!({
                        "signal": 9, "cause": "oom", "delivered": true,
                        "victim": {"pid": main, "is_main": true},
                        "oom": {
                            "scope": "leaf", "cgroup": record.text("/cgroup/path"),
                            "max_bytes": 8 << 20, "trigger_pid": main,
                        },
                    }),
                );
            }
            Ending::Pids => {
                let record = outcome.ended_among_many(137, "pids", "more_pids");
                let denied = json!({"level": "leaf", "cgroup": record.text("/cgroup/path")});
                assert_has(record.finding("denied_forks"), &denied);
                assert_eq!(record.number("/processes/peak"), 8, "{record}");
            }
        }
    }
}

#[track_caller]
fn check_signalled(outcome: &Outcome, signal: Signal, main: i32, sender: &Value) {
    let number = signal as i32;
    let record = outcome.ended_among_many(128 + number, "external_kill", "same");
    assert_has(
        record.fatal(),
        &json!({
            "signal": number, "cause": "process", "delivered": true, "oom": null,
            "victim": {"pid": main, "is_main": true}, "sender": sender,
        }),
    );
}

fn make_fifos(folder: &Path, count: usize) {
    fs::create_dir_all(folder).expect("a test can make a folder");
    let made = Command::new("mkfifo")
        .args((0..count).map(|number| folder.join(number.to_string())))
        .status()
        .expect("the guest has mkfifo");
    assert!(made.success(), "mkfifo: {made}");
}

/// Two pipes a run.
fn allow_many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit can be asked for");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(4096), hard.max(4096)).expect("root may raise it");
}
