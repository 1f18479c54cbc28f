//! `cargo xtask outage`: a guest's power is cut again and again while its service does runs, and each time
//! the next boot looks at what is left.
//!
//! A cut is a reset that the guest gives itself, at once and whatever goes on: what it had not yet written to its
//! disk is gone. What it had written is there, flushed or not, as on a disk that has no cache of its own.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::debian::host;
use crate::vm::{self, Assets, Ending, Guest, Machine, Mode, Payload, Series, Stream, Task};
use crate::{command, workspace};

/// The disk's size, sparse.
const DISK_BYTES: u64 = 1 << 30;
/// A guest lives less than so long before the cut, by its own clock.
const LIFE_MS: u64 = 6000;
/// Every so manieth life is counted from before its service is there, the others from when runs begin.
const EARLY: u32 = 4;
/// How long a guest may take until then.
const LOOK: Duration = Duration::from_secs(300);

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
        // Its guests share a disk, which is nobody else's meanwhile.
        let _lock = workspace::lock("outage")?;
        let site = Site {
            kernel: self.kernel,
            programs,
            assets,
            disk: make_disk()?,
        };
        let mut told = String::new();
        for cut in 0..self.cuts {
            let life = life_ms(cut);
            let early = if cut % EARLY == 0 { " --early" } else { "" };
            let known = told.lines().count();
            let ending = site.boot(&format!("--cut-after {life}{early}"), &mut told)?;
            if !matches!(ending, Ending::Vanished(_)) {
                bail!("before cut {} {ending}", cut + 1);
            }
            let all = told.lines().count();
            println!(
                "cut {:>3} after {life:>4} ms{early:<8}: {:>3} runs told, {all} in all",
                cut + 1,
                all - known
            );
        }
        let ending = site.boot("", &mut told)?;
        if ending != Ending::Exited(0) {
            bail!("after the last cut {ending}");
        }
        if told.is_empty() {
            bail!("no run's end was told before a cut: nothing was tried");
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
    fn boot(&self, options: &str, told: &mut String) -> Result<Ending> {
        let before = told.clone();
        let payload = |folder: &Path| {
            let mut payload = Payload::with_programs(folder.join("payload"), &self.programs)?;
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
            limit: LOOK,
        };
        let task = format!("outage --told /payload/files/told {options}");
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
fn life_ms(cut: u32) -> u64 {
    // Steps of the golden section fall into the largest gaps that are left.
    u64::from(cut) * (LIFE_MS * 618 / 1000) % LIFE_MS
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
        let mut lives: Vec<u64> = (0..100).map(life_ms).collect();
        lives.sort_unstable();
        let widest = lives.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(lives[99] < LIFE_MS, "{lives:?}");
        assert!(widest < Some(LIFE_MS / 40), "{widest:?}");
    }
}
