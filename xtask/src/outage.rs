//! `cargo xtask outage`: a guest's power is cut again and again while its service does runs, and each time
//! the next boot looks at what is left.
//!
//! A cut is SIGKILL to QEMU: what the guest had not yet written to its disk is gone. What it had written is
//! there, flushed or not, as on a disk that has no cache of its own.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::debian::host;
use crate::vm::{self, Assets, Ending, Guest, Machine, Mode, Payload, Series, Stream, Task};
use crate::{command, workspace};

/// The disk's size, sparse.
const DISK_BYTES: u64 = 1 << 30;
/// The time from a guest's being ready to a cut is at least so long, and less than so much longer.
const LIFE_MS: (u64, u64) = (500, 12_000);
/// How long the last boot may take to look at everything.
const LAST_LOOK: Duration = Duration::from_secs(300);

/// Cut a guest's power again and again, and look whether a run that was told is lost.
#[derive(clap::Args, Debug)]
pub(crate) struct Outage {
    /// How often.
    #[arg(long, value_name = "N", default_value_t = 100)]
    cuts: u32,
    /// The kernel series to boot.
    #[arg(long, value_name = "SERIES", default_value = "6.12")]
    kernel: Series,
}

impl Outage {
    /// Does the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let programs = vm::guest_binaries()?;
        let assets = Assets::prepare(&[self.kernel])?;
        let site = Site {
            kernel: self.kernel,
            programs,
            assets,
            disk: make_disk()?,
        };
        let mut told = String::new();
        for cut in 0..self.cuts {
            let life = life(cut);
            let known = told.lines().count();
            let ending = site.boot("", life, &mut told)?;
            if !matches!(ending, Ending::TimedOut(_)) {
                bail!("before cut {} {ending}", cut + 1);
            }
            let all = told.lines().count();
            println!(
                "cut {:>3} after {:>5} ms: {:>3} runs told, {all} in all",
                cut + 1,
                life.as_millis(),
                all - known
            );
        }
        let ending = site.boot("--only-look", LAST_LOOK, &mut told)?;
        if ending != Ending::Exited(0) {
            bail!("after the last cut {ending}");
        }
        println!(
            "{} cuts, {} runs whose end was told, none of them lost",
            self.cuts,
            told.lines().count()
        );
        Ok(ExitCode::SUCCESS)
    }
}

/// What is booted again and again.
struct Site {
    kernel: Series,
    programs: Vec<(String, PathBuf)>,
    assets: Assets,
    disk: PathBuf,
}

impl Site {
    /// Boots once more, and adds the runs that are told meanwhile to those that were.
    fn boot(&self, option: &str, limit: Duration, told: &mut String) -> Result<Ending> {
        let before = told.clone();
        let payload = |folder: &Path| {
            let mut payload = Payload::new(folder.join("payload"))?;
            for (name, path) in &self.programs {
                payload.file(&format!("bin/{name}"), path)?;
            }
            payload.text("files/told", &before, 0o644)?;
            Ok(payload)
        };
        let guest = Guest {
            series: self.kernel,
            machine: Machine {
                disk: Some(self.disk.clone()),
                ..Machine::new(Mode::Bare)
            },
            label: format!("outage-{}", self.kernel),
            limit,
        };
        let task = format!("outage --told /payload/files/told {option}");
        let mut text = Vec::new();
        let report = guest.run(
            &self.assets,
            payload,
            &Task::Command(&task),
            &mut |stream, bytes| match stream {
                Stream::Stdout => text.extend_from_slice(bytes),
                Stream::Stderr => eprint!("{}", String::from_utf8_lossy(bytes)),
            },
        )?;
        // The last line may have been cut.
        let text = String::from_utf8_lossy(&text);
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            match line.strip_prefix("told ") {
                Some(run) => told.push_str(&format!("{run}\n")),
                None if line.starts_with("looked at ") => {}
                None => println!("{line}"),
            }
        }
        Ok(report.ending)
    }
}

/// How long a guest lives that the power is cut of this many times before: spread evenly, in no order.
fn life(cut: u32) -> Duration {
    let (least, span) = LIFE_MS;
    // Steps of the golden section fall into the largest gaps that are left.
    Duration::from_millis(least + u64::from(cut) * 7416 % span)
}

fn make_disk() -> Result<PathBuf> {
    let path = workspace::target().join("vm/outage.ext4");
    let file = std::fs::File::create(&path)
        .with_context(|| format!("could not make {}", path.display()))?;
    file.set_len(DISK_BYTES)
        .with_context(|| format!("could not size {}", path.display()))?;
    let mut mke2fs = host::program("mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4"]);
    command::quiet(mke2fs.arg(&path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_spread_over_the_whole_span() {
        let (least, span) = LIFE_MS;
        let mut lives: Vec<Duration> = (0..100).map(life).collect();
        lives.sort_unstable();
        let widest = lives.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(lives[0] >= Duration::from_millis(least));
        assert!(lives[99] < Duration::from_millis(least + span));
        assert!(
            widest < Some(Duration::from_millis(span / 40)),
            "{widest:?}"
        );
    }
}
