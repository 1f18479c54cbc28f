//! `cargo xtask soak`: thousands of runs whose true cause is known, in guests, and how many verdicts
//! were wrong.
//!
//! The runs themselves are `tests/src/bin/soak`. Here they are dealt out to guests, a few at a time, and
//! what those report is added up. A guest that breaks down counts as a failure of all its runs that
//! it did not report on.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::vm::{
    self, Assets, GUESTS_AT_A_TIME, Guest, Machine, Mode, Payload, Series, Stream, Task,
    side_by_side,
};

/// Runs that one guest is given at most: one that breaks down takes no more than these with it.
const RUNS_A_GUEST: u64 = 1000;

/// In how many ways a run is ruled on.
const COLUMNS: usize = 5;

/// Seconds that a run may take on average, on a machine that has much else to do.
const SECONDS_A_RUN: u64 = 10;

/// Run a random mix of all endings in guests, and say which verdicts were wrong.
#[derive(clap::Args, Debug)]
pub(crate) struct Soak {
    /// How many runs, on each kernel.
    #[arg(long, value_name = "N", default_value_t = 200)]
    runs: u64,
    /// Only this kernel (repeatable).
    #[arg(long = "kernel", value_name = "SERIES")]
    kernels: Vec<Series>,
    /// What all chance follows from.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// How many runs at a time in each guest.
    #[arg(long, value_name = "J", default_value_t = 4)]
    jobs: usize,
    /// Only the run of this index.
    #[arg(long, value_name = "INDEX", conflicts_with = "runs")]
    only: Option<u64>,
    /// Have the host's service do the runs, and kill that again and again.
    #[arg(long)]
    service: bool,
    /// More words for the kernel's command line, such as preempt=full (repeatable).
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    append: Vec<String>,
}

/// Some of the runs on one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    series: Series,
    first: u64,
    runs: u64,
}

/// What guests reported, by kind: right, unrecorded, explained, unexplained, wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts(BTreeMap<String, [u64; COLUMNS]>);

/// The runs on one kernel.
#[derive(Debug, Default)]
struct Total {
    counts: Counts,
    asked: u64,
    /// The guests' time, added up.
    time: Duration,
    broken: Vec<String>,
}

impl Soak {
    /// Does the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let kernels = if self.kernels.is_empty() {
            Series::ALL.to_vec()
        } else {
            self.kernels.clone()
        };
        let programs = vm::guest_binaries()?;
        let assets = Assets::prepare(&kernels)?;
        let played = side_by_side(self.shares(&kernels), |share| {
            let start = Instant::now();
            let mut counts = Counts::default();
            let broken = self.play(share, &programs, &assets, &mut counts).err();
            if let Some(error) = &broken {
                println!("{}: {error:#}", share.series);
            }
            (share, counts, start.elapsed(), broken)
        });
        let mut totals = BTreeMap::<String, Total>::new();
        for (share, counts, time, broken) in played {
            let total = totals.entry(share.series.to_string()).or_default();
            total.asked += share.runs;
            total.time += time;
            total.counts.add(&counts);
            total
                .broken
                .extend(broken.map(|error| format!("{error:#}")));
        }
        for (kernel, total) in &totals {
            print!("{}", total.text(kernel));
        }
        let clean = !totals.is_empty() && totals.values().all(Total::is_clean);
        println!(
            "\nseed {}: {}",
            self.seed,
            last_word(clean, totals.values())
        );
        Ok(if clean {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// What each guest is given.
    fn shares(&self, kernels: &[Series]) -> VecDeque<Share> {
        let (first, runs) = self.only.map_or((0, self.runs), |only| (only, 1));
        // As many for each, so that none is left alone at the end.
        let guests = runs
            .div_ceil(RUNS_A_GUEST)
            .next_multiple_of(GUESTS_AT_A_TIME as u64);
        let each = runs.div_ceil(guests.max(1)).max(1);
        let mut shares = VecDeque::new();
        for &series in kernels {
            let starts = (0..runs).step_by(usize::try_from(each).unwrap_or(usize::MAX));
            shares.extend(starts.map(|start| Share {
                series,
                first: first + start,
                runs: each.min(runs - start),
            }));
        }
        shares
    }

    fn play(
        &self,
        share: Share,
        programs: &[(String, std::path::PathBuf)],
        assets: &Assets,
        counts: &mut Counts,
    ) -> Result<()> {
        let Share {
            series,
            first,
            runs,
        } = share;
        let payload = |folder: &Path| Payload::with_programs(folder.join("payload"), programs);
        let machine = Machine {
            append: self.append.clone(),
            ..Machine::new(Mode::Bare)
        };
        let guest = Guest {
            series,
            machine,
            label: format!("soak-{series}-{first}"),
            limit: Duration::from_secs(120 + runs * SECONDS_A_RUN),
        };
        let service = self.service_option();
        let task = format!(
            "soak{service} --seed {} --first {first} --runs {runs} --jobs {}",
            self.seed, self.jobs
        );
        println!("{series}: {task}");
        let mut line = Vec::new();
        let report = guest.run(
            assets,
            payload,
            &Task::Command(&task),
            &mut |stream, bytes| match stream {
                Stream::Stdout => {
                    for byte in bytes {
                        if *byte == b'\n' {
                            self.read(series, &String::from_utf8_lossy(&line), counts);
                            line.clear();
                        } else {
                            line.push(*byte);
                        }
                    }
                }
                // Panics that become verdicts are told on stdout.
                Stream::Stderr => {}
            },
        )?;
        let reported = counts.sum();
        // 1: a verdict was wrong, which is counted.
        if matches!(report.ending.status(), Some(0 | 1)) && reported == runs {
            return Ok(());
        }
        bail!(
            "{task:?} reported on {reported} of {runs} runs: {}\n(the whole console: {})",
            report.ending,
            report.console.display()
        )
    }

    fn service_option(&self) -> &'static str {
        if self.service { " --service" } else { "" }
    }

    fn read(&self, series: Series, line: &str, counts: &mut Counts) {
        match counts.take(line) {
            Ok(true) => {}
            Ok(false) if is_ruling(line) => {
                println!("{series}: {line}");
                if let Some((_, index)) = line.rsplit_once("--only ") {
                    let append: String = self
                        .append
                        .iter()
                        .map(|word| format!(" --append {word}"))
                        .collect();
                    println!(
                        "{series}: from here: cargo xtask soak{} --kernel {series} --seed {} --only {index}{append}",
                        self.service_option(),
                        self.seed
                    );
                }
            }
            Ok(false) => println!("{series}: {line}"),
            Err(error) => println!("{series}: {line} ({error:#})"),
        }
    }
}

/// What the last line says, which is all that some readers see.
fn last_word<'a>(clean: bool, totals: impl Iterator<Item = &'a Total>) -> String {
    let [mut wrong, mut unexplained, mut missing] = [0; 3];
    for total in totals {
        let [_, _, _, more_unexplained, more_wrong] = total.counts.totals();
        unexplained += more_unexplained;
        wrong += more_wrong;
        missing += total.asked.saturating_sub(total.counts.sum());
    }
    let word = if clean { "clean" } else { "NOT clean" };
    format!("{word}, {wrong} wrong, {unexplained} unexplained, {missing} not reported on")
}

/// Whether a line says which run was ruled against.
fn is_ruling(line: &str) -> bool {
    line.starts_with("WRONG: ") || line.starts_with("UNEXPLAINED: ")
}

impl Counts {
    /// Takes a line of a tally; `false` where it is none.
    fn take(&mut self, line: &str) -> Result<bool> {
        let Some(rest) = line.strip_prefix("tally ") else {
            return Ok(false);
        };
        let words: Vec<&str> = rest.split(' ').collect();
        let [
            kind,
            "right",
            right,
            "unrecorded",
            unrecorded,
            "explained",
            explained,
            "unexplained",
            unexplained,
            "wrong",
            wrong,
        ] = words[..]
        else {
            bail!("a tally that cannot be understood");
        };
        let counts = self.0.entry(kind.to_owned()).or_default();
        for (count, text) in
            counts
                .iter_mut()
                .zip([right, unrecorded, explained, unexplained, wrong])
        {
            let more: u64 = text
                .parse()
                .with_context(|| format!("{text:?} is not a count"))?;
            *count += more;
        }
        Ok(true)
    }

    fn add(&mut self, others: &Self) {
        for (kind, more) in &others.0 {
            let counts = self.0.entry(kind.clone()).or_default();
            for (count, more) in counts.iter_mut().zip(more) {
                *count += more;
            }
        }
    }

    fn totals(&self) -> [u64; COLUMNS] {
        let mut totals = [0; COLUMNS];
        for counts in self.0.values() {
            for (total, count) in totals.iter_mut().zip(counts) {
                *total += count;
            }
        }
        totals
    }

    fn sum(&self) -> u64 {
        self.totals().iter().sum()
    }
}

impl Total {
    fn is_clean(&self) -> bool {
        let [_, _, _, unexplained, wrong] = self.counts.totals();
        self.broken.is_empty()
            && unexplained == 0
            && wrong == 0
            && self.counts.sum() == self.asked
            && self.asked > 0
    }

    fn text(&self, kernel: &str) -> String {
        let mut text = format!(
            "\n{kernel:<42} {:>7} {:>10} {:>9} {:>11} {:>7}\n",
            "right", "unrecorded", "explained", "unexplained", "wrong"
        );
        let mut row = |name: &str, counts: &[u64; COLUMNS]| {
            let [right, unrecorded, explained, unexplained, wrong] = counts;
            text.push_str(&format!(
                "{name:<42} {right:>7} {unrecorded:>10} {explained:>9} {unexplained:>11} {wrong:>7}\n"
            ));
        };
        for (kind, counts) in &self.counts.0 {
            row(kind, counts);
        }
        row("in all", &self.counts.totals());
        text.push_str(&format!(
            "{} of {} runs reported on, {} s of guests' time\n",
            self.counts.sum(),
            self.asked,
            self.time.as_secs()
        ));
        for broken in &self.broken {
            text.push_str(&format!("BROKEN: {broken}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soak(runs: u64, only: Option<u64>) -> Soak {
        Soak {
            runs,
            kernels: Vec::new(),
            seed: 1,
            jobs: 4,
            only,
            service: false,
            append: Vec::new(),
        }
    }

    fn shares(soak: &Soak) -> Vec<(u64, u64)> {
        let shares = soak.shares(&[Series::V7]);
        shares
            .iter()
            .map(|share| (share.first, share.runs))
            .collect()
    }

    #[test]
    fn runs_are_shared_out_without_a_gap() {
        assert_eq!(shares(&soak(7, None)), [(0, 3), (3, 3), (6, 1)]);
        assert_eq!(
            shares(&soak(3500, None)),
            [
                (0, 584),
                (584, 584),
                (1168, 584),
                (1752, 584),
                (2336, 584),
                (2920, 580)
            ]
        );
        assert_eq!(shares(&soak(200, Some(17))), [(17, 1)]);
    }

    #[test]
    fn tallies_are_added_up_and_nothing_else_is_taken_for_one() {
        let mut counts = Counts::default();
        let line = "tally exits right 3 unrecorded 2 explained 1 unexplained 0 wrong 0";
        assert!(counts.take(line).expect("a tally"));
        assert!(counts.take(line).expect("a tally"));
        assert!(!counts.take("50 runs of seed 1").expect("no tally"));
        assert!(counts.take("tally exits right many").is_err());
        assert_eq!(counts.totals(), [6, 4, 2, 0, 0]);
    }

    fn total(counts: [u64; COLUMNS], asked: u64) -> Total {
        Total {
            counts: Counts(BTreeMap::from([("exits".to_owned(), counts)])),
            asked,
            ..Total::default()
        }
    }

    #[test]
    fn the_last_line_says_how_many_of_all_kernels_runs_are_wrong_unexplained_or_missing() {
        let totals = [total([5, 0, 0, 1, 2], 8), total([1, 0, 0, 0, 1], 9)];
        assert_eq!(
            last_word(false, totals.iter()),
            "NOT clean, 3 wrong, 1 unexplained, 7 not reported on"
        );
        let clean = [total([2, 0, 0, 0, 0], 2)];
        assert_eq!(
            last_word(true, clean.iter()),
            "clean, 0 wrong, 0 unexplained, 0 not reported on"
        );
    }

    #[test]
    fn a_wrong_an_unexplained_and_a_missing_run_are_all_not_clean() {
        assert!(total([2, 1, 1, 0, 0], 4).is_clean());
        assert!(!total([2, 1, 1, 0, 0], 5).is_clean());
        assert!(!total([3, 0, 0, 1, 0], 4).is_clean());
        assert!(!total([3, 0, 0, 0, 1], 4).is_clean());
        assert!(!total([0, 0, 0, 0, 0], 0).is_clean());
    }
}
