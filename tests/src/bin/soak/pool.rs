//! Several runs at a time, and those that need the guest for themselves.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::Arguments;
use crate::heard;
use crate::hosted;
use crate::kind::{self, Company, Kind};
use crate::random::Random;
use crate::stage::sandbox;
use crate::tally::Tally;
use crate::truth::{Case, Ruling, Truth};

/// A run that has said nothing for so long hangs, or what acts on it does.
const STUCK_AFTER: Duration = Duration::from_secs(500);

/// How often progress is told.
const TOLD_EVERY: u64 = 50;

/// A run that was ruled on.
struct Ruled {
    index: u64,
    kind: &'static Kind,
    ruling: Ruling,
    took: Duration,
}

/// Has the first run of a guest load the programs, which takes long: the others do not all wait for it.
pub(crate) fn load_programs() {
    let outcome = sandbox().victim(["exit", "0"]);
    Case::new(outcome, Truth::exited(0)).hold("the first run");
}

/// Plays all runs that are asked for.
pub(crate) fn run(arguments: &Arguments) -> Tally {
    let indices = match arguments.only {
        Some(only) => only..only + 1,
        None => arguments.first..arguments.first + arguments.runs,
    };
    let next = AtomicU64::new(indices.start);
    let alone = RwLock::new(());
    let playing = Mutex::new(BTreeSet::new());
    let (sender, rulings) = mpsc::channel();
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            let sender = sender.clone();
            let (next, alone, playing) = (&next, &alone, &playing);
            let end = indices.end;
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= end {
                        break;
                    }
                    let kind = match &arguments.kind {
                        Some(name) => kind::named(name),
                        None => kind::of_run(arguments.seed, index, arguments.service),
                    };
                    let ruled = {
                        // A panic of one run says nothing against the others.
                        let _together;
                        let _alone;
                        match kind.company {
                            Company::Any => {
                                _together = alone.read().unwrap_or_else(PoisonError::into_inner);
                            }
                            Company::None => {
                                _alone = alone.write().unwrap_or_else(PoisonError::into_inner);
                            }
                        }
                        let mut set = playing.lock().unwrap_or_else(PoisonError::into_inner);
                        set.insert(index);
                        drop(set);
                        play(arguments, index, kind)
                    };
                    let mut set = playing.lock().unwrap_or_else(PoisonError::into_inner);
                    set.remove(&index);
                    drop(set);
                    // Nobody listens any more where the program is ending.
                    drop(sender.send(ruled));
                }
            });
        }
        drop(sender);
        let mut done = 0;
        loop {
            match rulings.recv_timeout(STUCK_AFTER) {
                Ok(ruled) => {
                    done += 1;
                    tell(arguments, &ruled, done);
                    tally.add(ruled.kind.name, &ruled.ruling);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let set = playing.lock().unwrap_or_else(PoisonError::into_inner);
                    println!("stuck: seed {}, runs {set:?}", arguments.seed);
                    print!("{tally}");
                    // The runs that hang cannot be joined.
                    std::process::exit(2);
                }
            }
        }
    });
    tally
}

fn play(arguments: &Arguments, index: u64, kind: &'static Kind) -> Ruled {
    let start = Instant::now();
    let mut random = Random::of_run(arguments.seed, index);
    let ruling = heard::catch(|| (kind.play)(&mut random).rule());
    let mut ruling = ruling.unwrap_or_else(Ruling::Wrong);
    if let Ruling::Wrong(why) = &ruling
        && arguments.service
        && hosted::has_not_begun(why)
    {
        ruling = Ruling::Unrecorded;
    }
    Ruled {
        index,
        kind,
        ruling,
        took: start.elapsed(),
    }
}

fn tell(arguments: &Arguments, ruled: &Ruled, done: u64) {
    let Ruled {
        index,
        kind,
        ruling,
        took,
    } = ruled;
    let (word, why) = match ruling {
        Ruling::Right => ("right".to_owned(), ""),
        Ruling::Unrecorded => ("unrecorded".to_owned(), ""),
        Ruling::Explained(doubt) => (format!("explained by {doubt:?}"), ""),
        Ruling::Unexplained(why) => ("UNEXPLAINED".to_owned(), why.as_str()),
        Ruling::Wrong(why) => ("WRONG".to_owned(), why.as_str()),
    };
    let seed = arguments.seed;
    // Chosen by its name, an index stands for another run.
    let named = arguments.kind.as_ref();
    let named = named.map_or_else(String::new, |name| format!(" --kind {name}"));
    let service = if arguments.service { " --service" } else { "" };
    if arguments.verbose || !why.is_empty() {
        println!(
            "{word}: {} in {:.1} s; again: soak --seed {seed}{service}{named} --only {index}",
            kind.name,
            took.as_secs_f64()
        );
    }
    if !why.is_empty() {
        println!("{why}");
    }
    if done.is_multiple_of(TOLD_EVERY) {
        println!("{done} runs of seed {seed}");
    }
}

/// A small `kernel.pid_max`, so that PIDs come back soon. Dropped, it is what it was before.
pub(crate) struct FewPids {
    before: String,
}

impl FewPids {
    const FILE: &str = "/proc/sys/kernel/pid_max";
    /// The first 300 are not used again once they have been used up.
    const MOST: &str = "1200";

    /// Sets it.
    pub(crate) fn set() -> Self {
        let before = fs::read_to_string(Self::FILE).expect("proc is mounted");
        fs::write(Self::FILE, Self::MOST).expect("root may lower it");
        Self { before }
    }
}

impl Drop for FewPids {
    fn drop(&mut self) {
        fs::write(Self::FILE, self.before.trim()).expect("what was written before");
    }
}
