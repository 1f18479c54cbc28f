//! `cargo xtask fuzz`: libFuzzer looks for input that breaks the decoder, or the readers of
//! metadata, configuration and requests.
//!
//! All targets of `tests/fuzz` are run at once for a minute each, from the committed corpus and what
//! earlier runs found. What is found stays under `target/fuzz`: the repository's corpus only grows
//! by hand, with what once broke something.

mod report;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use self::report::Outcome;
use crate::debian::host;
use crate::{cargo_tool, command, workspace};

const CARGO_FUZZ_VERSION: &str = "0.13.2";

/// What cargo-fuzz builds for. It is named although it is the host's own: only then do build scripts
/// go without the instrumentation.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Look for input that breaks the decoder, or the readers of metadata, configuration and requests.
#[derive(clap::Args, Debug)]
pub(crate) struct Fuzz {
    /// What to run; all where it is left out.
    target: Option<Target>,
    /// For how long.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

/// A program of `tests/fuzz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// Entries of the ring buffer.
    Decoder,
    /// Metadata documents in JSON, YAML and TOML.
    Metadata,
    /// The host's configuration.
    Config,
    /// What clients of the service say.
    Protocol,
}

impl Target {
    const ALL: [Self; 4] = [Self::Decoder, Self::Metadata, Self::Config, Self::Protocol];

    const fn name(self) -> &'static str {
        match self {
            Self::Decoder => "decoder",
            Self::Metadata => "metadata",
            Self::Config => "config",
            Self::Protocol => "protocol",
        }
    }

    /// The longest input that is tried, bytes.
    const fn most_bytes(self) -> u32 {
        match self {
            // More than twice the largest event, an exec with its arguments.
            Self::Decoder => 2048,
            Self::Metadata | Self::Config | Self::Protocol => 4096,
        }
    }

    /// Words that the input is made of.
    const fn dictionary(self) -> Option<&'static str> {
        match self {
            Self::Decoder => None,
            Self::Metadata => Some("tests/fuzz/metadata.dict"),
            Self::Config => Some("tests/fuzz/config.dict"),
            Self::Protocol => Some("tests/fuzz/protocol.dict"),
        }
    }
}

impl Fuzz {
    /// Does the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let targets = self
            .target
            .map_or(Target::ALL.to_vec(), |target| vec![target]);
        host::require_for_fuzzing()?;
        let cargo_fuzz = cargo_tool::ensure("cargo-fuzz", CARGO_FUZZ_VERSION)?;
        let _lock = workspace::lock("fuzz")?;
        for target in &targets {
            build(&cargo_fuzz, *target)?;
        }
        // All of them are running before the first is waited for.
        let running = targets
            .into_iter()
            .map(|target| Run::start(target, self.seconds))
            .collect::<Result<Vec<Run>>>()?;
        // Nor is one left running where another broke down.
        let ended: Vec<Result<Outcome>> = running.into_iter().map(Run::wait).collect();
        let mut code = ExitCode::SUCCESS;
        for outcome in ended {
            if !outcome?.is_sound() {
                code = ExitCode::FAILURE;
            }
        }
        Ok(code)
    }
}

fn folder() -> PathBuf {
    workspace::target().join("fuzz")
}

fn build(cargo_fuzz: &Path, target: Target) -> Result<()> {
    let mut cargo = Command::new(cargo_fuzz);
    cargo
        .args([
            "fuzz",
            "build",
            "--fuzz-dir",
            "tests/fuzz",
            "--target",
            TRIPLE,
        ])
        .arg("--target-dir")
        .arg(folder().join("build"))
        .arg(target.name())
        .current_dir(workspace::root())
        // The pinned compiler is a stable one; instrumenting is not stable.
        .env("RUSTC_BOOTSTRAP", "1");
    eprintln!("building the fuzz target {}", target.name());
    command::quiet(&mut cargo)
}

/// A target that is being run.
struct Run {
    target: Target,
    child: Child,
    log: PathBuf,
}

impl Run {
    fn start(target: Target, seconds: u32) -> Result<Self> {
        let name = target.name();
        let (found, crashes) = (
            folder().join("corpus").join(name),
            folder().join("crashes").join(name),
        );
        workspace::make_dir(&found)?;
        workspace::make_dir(&crashes)?;
        let log = folder().join(format!("{name}.log"));
        let output =
            File::create(&log).with_context(|| format!("could not open {}", log.display()))?;
        let program = folder()
            .join("build")
            .join(TRIPLE)
            .join("release")
            .join(name);
        let mut command = Command::new(program);
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={}", target.most_bytes()))
            .arg(format!("-artifact_prefix={}/", crashes.display()))
            .args(["-timeout=10", "-print_final_stats=1"])
            .args(target.dictionary().map(|path| format!("-dict={path}")))
            // New input goes to the first folder; all are read.
            .arg(&found)
            .arg(format!("tests/fuzz/corpus/{name}"))
            .current_dir(workspace::root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output);
        let shown = command::line(&command);
        let child = command
            .spawn()
            .with_context(|| format!("could not start `{shown}`"))?;
        Ok(Self { target, child, log })
    }

    /// Waits for its end, and prints what it came to.
    fn wait(mut self) -> Result<Outcome> {
        let status = self
            .child
            .wait()
            .context("could not wait for a fuzz target")?;
        let bytes = std::fs::read(&self.log)
            .with_context(|| format!("could not read {}", self.log.display()))?;
        let log = String::from_utf8_lossy(&bytes);
        let outcome = report::read(&log);
        let name = self.target.name();
        if outcome.executions == 0 || (outcome.is_sound() && !status.success()) {
            bail!(
                "the fuzz target {name} broke down ({status}), see {}:\n{}",
                self.log.display(),
                report::end(&log)
            );
        }
        if let Some(input) = &outcome.crash {
            println!("{}", report::end(&log));
            println!("{name}: {outcome}\n    input:     {input}");
            println!("    run again: cargo run -p sandbox-fuzz --bin {name} -- {input}");
        } else {
            println!("{name}: {outcome}");
        }
        Ok(outcome)
    }
}
