//! `cargo xtask bench`: `sandbox` and what people use instead, measured side by side in one run.
//!
//! The measuring is done by `tests/src/bin/bench`, in a guest with systemd, `sandbox` installed as its package does
//! it, and the others as Debian and PyPI have them; what watching costs is measured by
//! `sandbox-user/examples/watching.rs`, in a guest, where others look on in its place, and on this machine. Here what
//! they say is kept and made a table of.

mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::Value;

use self::table::Table;
use crate::debian::{Archive, host};
use crate::vm::{
    self, Assets, Emulation, Guest, Image, Machine, Mode, Payload, Series, Stream, Task,
};
use crate::{command, package, workspace};

/// BenchExec, whose runexec is among the others.
const BENCHEXEC: &str = "3.35";
/// The source package of what is built.
const SOURCE: &str = "lua5.4";
/// How long a suite may take.
const LIMIT: Duration = Duration::from_secs(3600);

/// Measure `sandbox` beside what people use instead.
#[derive(clap::Args, Debug)]
pub(crate) struct Bench {
    /// Only this suite (repeatable).
    #[arg(long = "suite", value_name = "SUITE")]
    suites: Vec<Suite>,
    /// The kernel series that guests boot.
    #[arg(long, value_name = "SERIES", default_value = "6.12")]
    kernel: Series,
    /// How often all of a suite is measured.
    #[arg(long, value_name = "N", default_value_t = 9)]
    rounds: usize,
    /// More words for the kernel's command line, such as preempt=full (repeatable).
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    append: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// A command that does nothing, under limits, from start to end: beside what else can do that.
    Launch,
    /// Processes that fork, execute and exit: watched, not watched, and with nothing loaded.
    Watch,
    /// What is killed, from its deadline to its end: beside what else can do that.
    Kill,
    /// A fork bomb, and whoever is to tell of it stopped: what is known of it in the end.
    Loss,
    /// How many commands that do nothing are done in a second, so many at a time: beside what else can do that.
    Throughput,
    /// What a launch and an event cost while up to 4,000 leaves are watched.
    Scale,
    /// What memory the service, each of up to 1,000 runs and the kernel side take.
    Memory,
    /// A build of a C program and a pipeline with numpy: beside a plain cgroup, and no limits.
    Real,
}

impl Suite {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The guest's memory, where thousands of processes or leaves need more than usual.
    fn memory_mib(self) -> Option<u32> {
        match self {
            Self::Kill | Self::Scale | Self::Memory => Some(6144),
            Self::Launch | Self::Watch | Self::Loss | Self::Throughput | Self::Real => None,
        }
    }
}

impl Bench {
    /// Does the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let suites = if self.suites.is_empty() {
            Suite::value_variants()
        } else {
            &self.suites
        };
        for suite in suites {
            match suite {
                Suite::Launch
                | Suite::Kill
                | Suite::Loss
                | Suite::Throughput
                | Suite::Scale
                | Suite::Memory
                | Suite::Real => self.beside_others(*suite)?,
                Suite::Watch => {
                    let program = example("watching")?;
                    self.watch_in_guest(&program)?;
                    self.watch_here(&program)?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// One of `tests/src/bin/bench`, in a guest as users have it.
    fn beside_others(&self, suite: Suite) -> Result<()> {
        let benchexec = benchexec()?;
        let leaves = example("leaves")?;
        let source = match suite {
            Suite::Real => Some(Archive::open_sources()?.released_source(SOURCE)?),
            Suite::Launch
            | Suite::Watch
            | Suite::Kill
            | Suite::Loss
            | Suite::Throughput
            | Suite::Scale
            | Suite::Memory => None,
        };
        let package = package::build(package::PROFILE)?;
        let programs = vm::guest_binaries()?;
        let payload = |folder: &Path| {
            // `sandbox` comes with its package.
            let others = programs.iter().filter(|(name, _)| name != "sandbox");
            let mut payload = Payload::with_programs(folder.join("payload"), others)?;
            payload.file("files/sandbox.deb", &package)?;
            payload.file("files/benchexec.whl", &benchexec)?;
            payload.file("bin/leaves", &leaves)?;
            if let Some(source) = &source {
                payload.file("files/source.tar", source)?;
            }
            Ok(payload)
        };
        let task = format!(
            "SANDBOX=sandbox bench --suite {} --rounds {}",
            suite.name(),
            self.rounds
        );
        let machine = self.machine(Mode::Systemd);
        let machine = Machine {
            memory_mib: suite.memory_mib().unwrap_or(machine.memory_mib),
            ..machine
        };
        self.in_guest(machine, &task, payload)
    }

    fn watch_in_guest(&self, program: &Path) -> Result<()> {
        let programs = vm::guest_binaries()?;
        let payload = |folder: &Path| {
            let mut payload = Payload::with_programs(folder.join("payload"), &programs)?;
            payload.file("bin/watching", program)?;
            Ok(payload)
        };
        // In a bare guest all that runs is in the root.
        let task = format!("bench --suite watch --rounds {}", self.rounds);
        self.in_guest(self.machine(Mode::Bare), &task, payload)
    }

    /// Needs root, for a bpffs that is not this machine's own.
    fn watch_here(&self, program: &Path) -> Result<()> {
        let task = format!(
            "mount -t bpf bpf /sys/fs/bpf && exec {} --name watch-here --rounds {}",
            command::shell_quoted(&program.to_string_lossy()),
            self.rounds
        );
        eprintln!("here: {task}");
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", &task]);
        keep_all(&command::text_with_diagnostics(&mut unshare)?)
    }

    fn machine(&self, mode: Mode) -> Machine {
        Machine {
            append: self.append.clone(),
            // What can go on at the same time does.
            emulation: Emulation::Multi,
            ..Machine::new(mode)
        }
    }

    fn in_guest(
        &self,
        machine: Machine,
        task: &str,
        payload: impl Fn(&Path) -> Result<Payload>,
    ) -> Result<()> {
        let assets = Assets::prepare_with(Image::Bench, &[self.kernel])?;
        let guest = Guest {
            series: self.kernel,
            label: format!("bench-{}-{}", self.kernel, machine.mode),
            machine,
            limit: LIMIT,
        };
        eprintln!("{}: {task}", self.kernel);
        let mut said = Vec::new();
        let report = guest.run(
            &assets,
            payload,
            &Task::Command(task),
            &mut |stream, bytes| match stream {
                Stream::Stdout => said.extend_from_slice(bytes),
                Stream::Stderr => vm::print(stream, bytes),
            },
        )?;
        let text = String::from_utf8_lossy(&said);
        if report.ending.status() == Some(0) {
            return keep_all(&text);
        }
        bail!(
            "{task:?}: {}\n{text}(the whole console: {})",
            report.ending,
            report.console.display()
        )
    }
}

/// Keeps each result that a suite has said, in a line of its output, in `target/bench`, with its table, and shows that.
fn keep_all(said: &str) -> Result<()> {
    let mut results = said
        .lines()
        .filter_map(|line| line.strip_prefix("result "))
        .peekable();
    if results.peek().is_none() {
        bail!("nothing was measured:\n{said}");
    }
    results.try_for_each(|result| {
        let result = serde_json::from_str(result).context("what was measured is no JSON")?;
        keep(&result)
    })
}

fn keep(result: &Value) -> Result<()> {
    let table = Table::of(result)?;
    let folder = workspace::target().join("bench");
    workspace::make_dir(&folder)?;
    let path = folder.join(format!("{}.json", table.name()));
    workspace::write(&path, serde_json::to_string_pretty(result)?)?;
    workspace::write(&path.with_extension("txt"), table.to_string())?;
    println!("{table}\n({})\n", path.display());
    Ok(())
}

/// One of the examples of the library, which measure what the tool itself does not show.
fn example(name: &str) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--release", "--package", "sandbox-user"]);
    command::run(cargo.args(["--example", name]))?;
    Ok(workspace::target().join("release/examples").join(name))
}

/// BenchExec as PyPI has it: Python reads it as it is.
fn benchexec() -> Result<PathBuf> {
    let folder = workspace::target().join("bench");
    let wheel = folder.join(format!("benchexec-{BENCHEXEC}-py3-none-any.whl"));
    if !wheel.exists() {
        host::require_for_wheels()?;
        workspace::make_dir(&folder)?;
        let mut pip = host::program("pip3");
        pip.args(["download", "--quiet", "--no-deps", "--only-binary=:all:"]);
        pip.arg("--dest").arg(&folder);
        command::quiet(pip.arg(format!("benchexec=={BENCHEXEC}")))?;
    }
    Ok(wheel)
}
