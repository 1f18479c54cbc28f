//! A fork bomb that keeps count of itself, while whoever is to tell of it stands still: how many of its births and
//! exits are known in the end.
//!
//! `loss-births` and `loss-exits`, in events: what happened by the bomb's own count; what the record says (facts), and
//! the lines of the event stream (detail), of a run whose supervisor was stopped by SIGSTOP; what others printed that
//! were stopped likewise. All with the room that they have by default. What each says of its loss is beside that.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use sandbox_tests::{Events, Outsider, Sandbox, Scene, victim};
use serde_json::Value;

use crate::rows::Rows;
use crate::tracers::{Tool, Tracing};

/// How many children the bomb has; every tenth or so a thread besides.
const CHILDREN: &str = "10000";
/// The name of the processes.
const NAME: &str = "victim";

/// What is there of the bomb, in events.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// Tasks that it had: its children and their threads.
    births: u64,
    /// Those, and itself.
    exits: u64,
}

/// Measures all so often.
pub(crate) fn measure(rounds: usize) -> Vec<Value> {
    let mut births = Rows::new("loss-births", "events");
    let mut exits = Rows::new("loss-exits", "events");
    let mut besides = Vec::new();
    for _ in 0..rounds {
        let mut push = |row: &str, told: Told| {
            births.push(row, told.births as f64);
            exits.push(row, told.exits as f64);
        };
        besides = supervised(&mut push);
        for tool in [Tool::Bpftrace, Tool::Exitsnoop] {
            match Tracing::start(tool) {
                Ok(tracing) => {
                    let (told, lost) = traced(tracing);
                    if tool == Tool::Bpftrace {
                        births.push(tool.name(), told.births as f64);
                    }
                    exits.push(tool.name(), told.exits as f64);
                    besides.push((format!("lost, as {} says", tool.name()), lost as f64));
                }
                Err(why) => {
                    births.unmeasured(tool.name(), &why);
                    exits.unmeasured(tool.name(), &why);
                }
            }
        }
    }
    vec![births.result(besides.clone()), exits.result(besides)]
}

/// What there is of a run that is not heard until its bomb is over, and what its record says of that.
fn supervised(push: &mut impl FnMut(&str, Told)) -> Vec<(String, f64)> {
    let scene = Scene::new();
    let path = scene.path("events");
    let running = Sandbox::new()
        .options(["--standalone", "--notes", "never", "--cpus", "none"])
        .options(["--events".as_ref(), path.as_os_str()])
        .start_victim(["counted-bomb", CHILDREN]);
    let pid = running.ready();
    running.signal(Signal::SIGSTOP);
    Outsider::signals(pid, Signal::SIGUSR1);
    let happened = Told::counted(&running.line("counted "));
    running.signal(Signal::SIGCONT);
    let record = running.finish().record();
    let number = |pointer: &str| {
        let number = record.number(pointer);
        u64::try_from(number).expect("a count")
    };
    // The record counts the birth of its main process, too.
    let facts = Told {
        births: number("/processes/births") - 1,
        exits: number("/processes/exits"),
    };
    let events = Events::parse(&scene.read("events"));
    let detail = Told {
        births: events.of("birth").count() as u64 - 1,
        exits: events.of("exit").count() as u64,
    };
    push("what happened", happened);
    push("sandbox, the record's facts", facts);
    push("sandbox, the event stream's detail", detail);
    [
        ("facts lost", happened.total().abs_diff(facts.total())),
        ("tracing.events", number("/tracing/events")),
        ("tracing.dropped", number("/tracing/dropped")),
        ("tracing.missed", number("/tracing/missed")),
    ]
    .map(|(name, number)| (name.to_owned(), number as f64))
    .into()
}

/// What one has printed that stood still until such a bomb was over, and how much it says that it lost.
fn traced(tracing: Tracing) -> (Told, u64) {
    tracing.stop();
    let mut bomb = Command::new(victim())
        .args(["counted-bomb", CHILDREN])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the guest has the victim");
    let said = BufReader::new(bomb.stdout.take().expect("a pipe"));
    let mut said = said.lines().map_while(Result::ok);
    let is_ready = said.any(|line| line.starts_with("ready "));
    assert!(is_ready, "it has begun");
    let pid = i32::try_from(bomb.id()).expect("a pid");
    Outsider::signals(pid, Signal::SIGUSR1);
    let counted = said.find(|line| line.starts_with("counted "));
    let _counted = Told::counted(&counted.expect("it counts")["counted ".len()..]);
    let status = bomb.wait().expect("it is a child of ours");
    assert!(status.success(), "{status}");
    let text = tracing.finish();
    let lines = |is_one: fn(&[&str]) -> bool| {
        let lines = text.lines().filter(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            is_one(&words)
        });
        lines.count() as u64
    };
    let told = Told {
        births: lines(|words| matches!(words, ["fork", _, NAME, ..])),
        exits: lines(|words| matches!(words, ["exit", _, NAME, ..] | [NAME, ..])),
    };
    (told, text.lines().filter_map(lost).sum())
}

/// How many events this line says were lost.
fn lost(line: &str) -> Option<u64> {
    let line = line.to_lowercase();
    let (_, rest) = line.split_once("lost ")?;
    rest.split_whitespace().next()?.parse().ok()
}

impl Told {
    /// That of what the bomb says in the end.
    fn counted(said: &str) -> Self {
        let counted: Value = serde_json::from_str(said).expect("JSON");
        let number = |field: &str| counted[field].as_u64().expect("it was counted");
        let births = number("children") + number("threads");
        Self {
            births,
            exits: births + 1,
        }
    }

    fn total(self) -> u64 {
        self.births + self.exits
    }
}
