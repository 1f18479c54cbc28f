//! Hundreds of runs watched at once in one guest, each ended in another way: every verdict is its
//! own run's, and what the maps held of them is given back.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::libc::O_NONBLOCK;
use nix::sys::signal::Signal;
use sandbox_tests::{Guest, Maps, Outcome, Outsider, Running, Sandbox, assert_has, wait};
use serde_json::{Value, json};

/// As many as hosts run at a time, on one kernel: they take a guest some 1.2 GiB and many minutes.
const MANY: usize = 500;
/// That kernel.
const MANY_ON: (u32, u32) = (6, 12);
/// As many as show the same elsewhere.
const FEW: usize = 60;
/// The deadline is longer than the whole test takes; and an emulated processor has no time to look at
/// hundreds of runs each second.
const OPTIONS: [&str; 4] = ["--timeout", "1h", "--sample", "60s"];
/// How long one of so many may keep us waiting: the others need the processor too.
const PATIENCE_S: u64 = 240;

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

/// A run that waits for its end.
struct Waiting {
    ending: Ending,
    running: Running,
    main: i32,
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
        Self {
            ending,
            running,
            main,
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
                self.running.signal(Signal::SIGTERM);
                json!({"kind": "runner", "pid": self.running.pid(), "in_run": false})
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
                let us = format!("from pid {}", std::process::id());
                assert_has(record.finding("own_action"), &json!({"detail": us}));
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

/// A field of `/proc/meminfo`, in KiB.
fn meminfo(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("proc is mounted");
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    let number = number.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("/proc/meminfo has no {field}"))
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

#[test]
fn of_hundreds_watched_at_once_each_is_told_as_it_ended_and_the_maps_are_given_back() {
    let guest = Guest::enter();
    let count = if guest.version() == MANY_ON {
        MANY
    } else {
        FEW
    };
    wait::be_patient(PATIENCE_S);
    allow_many_files();
    // Loads the programs.
    let _first = Sandbox::new()
        .victim(["exit", "0"])
        .ended(0, "completed", "none");
    let before = Maps::read();
    let available = meminfo("MemAvailable");
    let folder = std::env::temp_dir().join(format!("many-{}", std::process::id()));
    make_fifos(&folder, count);

    let clock = std::time::Instant::now();
    let waiting: Vec<Waiting> = (0..count)
        .map(|number| Waiting::start(number, &folder))
        .collect();
    println!("{count} started after {:?}", clock.elapsed());

    let during = Maps::read();
    let new = during.keys_since(&before);
    for map in ["FACTS", "MAINS", "RINGS"] {
        assert_eq!(
            new.get(map),
            Some(&count),
            "one key a leaf in {map}: {new:?}"
        );
    }
    assert_eq!(during.maps_since(&before), count, "one ring a run");
    let used = available.saturating_sub(meminfo("MemAvailable"));
    println!("{} KiB a run, all in all", used / count as u64);

    let senders: Vec<Value> = waiting.iter().map(Waiting::end).collect();
    println!("{count} told to end after {:?}", clock.elapsed());
    for (waiting, sender) in waiting.into_iter().zip(&senders) {
        waiting.check(sender);
    }
    println!("{count} ended after {:?}", clock.elapsed());

    let after = Maps::read();
    assert_eq!(after.keys_since(&before), BTreeMap::new(), "keys left");
    // Preallocated: as heavy with hundreds of leaves as with none. Rings are maps of their own.
    for (name, bytes) in &before.bytes {
        assert_eq!(during.bytes.get(name), Some(bytes), "{name} grew");
        assert_eq!(after.bytes.get(name), Some(bytes), "{name} grew");
    }
    // The kernel frees a map some time after its last user has gone.
    wait::until("the rings to be freed", || {
        Maps::read().maps_since(&before) == 0
    });
    let available = meminfo("MemAvailable").saturating_sub(available);
    println!("{available} KiB more than before");
    fs::remove_dir_all(&folder).expect("the FIFOs are ours");
}
