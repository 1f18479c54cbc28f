//! The arguments of `sandbox run`, and the run that they and the metadata ask for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::error::ErrorKind;

use super::files::Files;
use super::values as argument;
use super::{Cli, Command};
use crate::limits::{OnPidsLimit, OomScope, Source};
use crate::metadata::{Metadata, MetadataError};
use crate::policy::values as limit;
use crate::policy::{
    ActionOverrides, HostPolicy, Layer, LimitOverrides, PolicyError, Setting, Settled, Warn, settle,
};
use crate::record::lossless;
use crate::spec::{
    DEFAULT_RING_BYTES, Destination, EnvironmentBase, EnvironmentChanges, MAX_LABELS, NotesPolicy,
    Output, RunAs, RunId, RunSpec, Sampling, ThreadEnv, Timings,
};
use crate::units::{Printable, Quoted};

const AFTER_HELP: &str = "\
Sizes: 512MiB, 2G and 2GiB are binary, 2GB is decimal, a bare number is bytes.
Times: 90s, 30m, 1h30m, 250ms; a bare number is seconds. `none` lifts a limit.
A limit on the command line overrides the one in the metadata.

Exit status:
  the analysis's own, or 128+N when it died of signal N
  124  it was ended for a limit although it exited 0 itself (143 or 130: cancelled)
  125  sandbox failed, or was not used rightly; nothing ran, what ran was ended,
       or a task had left the run although the command exited 0
  126  the command could not be executed
  127  the command was not found

Examples:
  sudo sandbox run -- python3 analysis.py
  sudo sandbox run --memory 8GiB --cpus 4 --timeout 2h --record out.json -- python3 analysis.py
  sudo sandbox run --metadata analysis.yaml --memory none -- ./pipeline.sh --threads 4
  sudo sandbox run --timeout 1h --warn USR1@5m --grace 30s -- ./checkpointing-tool";

/// Options of `run`, and the command.
#[derive(Clone, Debug, Args)]
#[command(after_help = AFTER_HELP, override_usage = "sandbox run [OPTIONS] -- COMMAND [ARG]...")]
pub struct RunArgs {
    /// The command to run, and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    command: Vec<OsString>,

    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    actions: ActionArgs,
    #[command(flatten)]
    analysis: AnalysisArgs,
    #[command(flatten)]
    process: ProcessArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Memory of all its processes together, page cache included [default: 2GiB]
    #[arg(long, value_name = "SIZE", value_parser = argument::text(limit::memory), allow_hyphen_values = true)]
    memory: Option<Setting<u64>>,

    /// Swap on top of the memory [default: 0]
    #[arg(long, value_name = "SIZE", value_parser = argument::text(limit::swap), allow_hyphen_values = true)]
    swap: Option<Setting<u64>>,

    /// CPU bandwidth in cores, such as 2 or 0.5 [default: 1]
    #[arg(long, value_name = "N", value_parser = argument::text(limit::cpus), allow_hyphen_values = true)]
    cpus: Option<Setting<f64>>,

    /// Processes and threads at a time [default: 100]
    #[arg(long, value_name = "N", value_parser = argument::text(limit::pids), allow_hyphen_values = true)]
    pids: Option<Setting<u64>>,

    /// Wall clock [default: 30m]
    #[arg(long, value_name = "TIME", value_parser = argument::text(limit::budget), allow_hyphen_values = true)]
    timeout: Option<Setting<Duration>>,

    /// CPU time of all its processes together [default: none]
    #[arg(long, value_name = "TIME", value_parser = argument::text(limit::budget), allow_hyphen_values = true)]
    cpu_time: Option<Setting<Duration>>,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "When a limit is reached")]
struct ActionArgs {
    /// Time from SIGTERM at the deadline until it is killed; 0 = killed at once [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = argument::text(limit::grace), allow_hyphen_values = true)]
    grace: Option<Duration>,

    /// Send the command a signal that long before the deadline, for checkpointing; such as USR1@2m
    #[arg(long, value_name = "SIG@TIME", value_parser = argument::text(limit::warn), allow_hyphen_values = true)]
    warn: Option<Setting<Warn>>,

    /// What a fork denied by --pids does: end the run, or only fail [default: kill]
    #[arg(long, value_name = "kill|deny", value_parser = argument::text(limit::on_pids_limit))]
    on_pids_limit: Option<OnPidsLimit>,

    /// Whom the kernel kills when --memory is reached: the whole run, or the process that it
    /// chooses [default: whole]
    #[arg(long, value_name = "whole|process", value_parser = argument::text(limit::oom))]
    oom: Option<OomScope>,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The analysis")]
struct AnalysisArgs {
    /// Its metadata, JSON, YAML or TOML by the file's extension: `id` and the `sandbox` table are read
    #[arg(long, value_name = "FILE", value_parser = argument::os(argument::metadata_file))]
    metadata: Option<PathBuf>,

    /// Its id, for the record
    #[arg(long, value_name = "ID", value_parser = argument::text(argument::id))]
    id: Option<String>,

    /// A label, for the record; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = argument::text(argument::label))]
    labels: Vec<(String, String)>,

    /// Which attempt at it this is, from 1
    #[arg(long, value_name = "N", value_parser = argument::text(argument::attempt), allow_hyphen_values = true)]
    attempt: Option<u32>,

    /// The run that this one repeats
    #[arg(long, value_name = "RUN", value_parser = argument::text(argument::run_id))]
    retry_of: Option<RunId>,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "How it runs")]
struct ProcessArgs {
    /// Run as this user, name or number [default: the caller; under sudo whoever called sudo; for root, `user` of the host's configuration]
    #[arg(long, value_name = "USER", value_parser = argument::text(argument::user))]
    user: Option<String>,

    /// Run in this directory [default: the current one]
    #[arg(long, value_name = "DIR", value_parser = argument::os(argument::directory))]
    chdir: Option<PathBuf>,

    /// Set an environment variable; may be repeated, the last of a name counts
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = argument::os(argument::variable))]
    variables: Vec<(OsString, OsString)>,

    /// Begin with an empty environment instead of the caller's
    #[arg(long)]
    clear_env: bool,

    /// Tell thread pools (OpenMP, OpenBLAS, MKL, NumExpr, Python) the number of cores, by
    /// environment variables where they are unset
    #[arg(long)]
    thread_env: bool,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// Write its stdout to this file
    #[arg(long, value_name = "FILE", value_parser = argument::os(argument::output_file))]
    stdout: Option<PathBuf>,

    /// Write its stderr to this file
    #[arg(long, value_name = "FILE", value_parser = argument::os(argument::output_file))]
    stderr: Option<PathBuf>,

    /// Write the record there, as JSON; with `-` its own stdout goes to stderr
    #[arg(long, value_name = "FILE|fd:N|-", value_parser = argument::os(argument::destination))]
    record: Option<Destination>,

    /// Write what happens there as it happens, as JSON lines; with `-` its own stdout goes to stderr
    #[arg(long, value_name = "FILE|fd:N|-", value_parser = argument::os(argument::destination))]
    events: Option<Destination>,

    /// Between two looks at what it uses, for the events; 0 or `none` = no looks [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = argument::text(argument::sampling), allow_hyphen_values = true)]
    sample: Option<Sampling>,

    /// Room for events that `sandbox` has not read yet; what finds none is dropped and counted, and no
    /// verdict rests on it. A power of two up to 64MiB, of the host's memory [default: 512KiB]
    #[arg(long, value_name = "SIZE", value_parser = argument::text(argument::ring_size), allow_hyphen_values = true)]
    ring_size: Option<u32>,

    /// Have the host's service do it, print the run's id, and do not wait: `sandbox logs` has what it
    /// prints, `sandbox wait` how it ends
    #[arg(long, conflicts_with = "standalone")]
    detach: bool,

    /// Do it without the host's service, as root
    #[arg(long)]
    standalone: bool,

    /// When to say on stderr what ended it [default: failure]
    #[arg(long, value_name = "always|failure|never", value_parser = argument::text(argument::notes))]
    notes: Option<NotesPolicy>,
    /// Have /bin/sh run CMD when it is over, as you, with the record on its stdin, for 10
    /// minutes at most; where it fails, twice more
    #[arg(long, value_name = "CMD")]
    on_complete: Option<String>,

    /// Say in the record where the time went
    #[arg(long)]
    timings: bool,
}

/// Arguments that are right one by one, but not together.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// Limits and actions contradict each other.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The metadata was not accepted.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// One label, two values.
    #[error("--label {}=… is given twice: keep one of them", Quoted(.name))]
    DuplicateLabel {
        /// The label's name.
        name: String,
    },
    /// More than [`MAX_LABELS`] labels, those of the metadata included.
    #[error(
        "{count} labels are too many, at most {MAX_LABELS} (--label and the metadata's together)"
    )]
    TooManyLabels {
        /// How many there are.
        count: usize,
    },
    /// Two options would write one file, or write what another reads.
    #[error("{first} and {second} are the same file, {}: use two", Printable(&.path.to_string_lossy()))]
    SameFile {
        /// One option.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Record and events would be mixed.
    #[error("--record and --events are the same descriptor: use two")]
    SameDescriptor,
    /// A relative path, and no directory that it is relative to.
    #[error("cannot tell the current directory: {source}; change to one that exists")]
    NoCurrentDirectory {
        /// The system's reason.
        source: io::Error,
    },
}

impl RunArgs {
    /// Reads the metadata that `--metadata` names, which has to be below one of the directories `allowed`;
    /// `None` = it may be anywhere.
    ///
    /// # Errors
    /// [`MetadataError`] where it cannot be read or is not accepted.
    pub fn metadata(&self, allowed: Option<&[PathBuf]>) -> Result<Option<Metadata>, MetadataError> {
        self.analysis
            .metadata
            .as_deref()
            .map(|path| Metadata::read(path, allowed))
            .transpose()
    }

    /// Whether the host's service is to be kept away from.
    pub const fn is_standalone(&self) -> bool {
        self.output.standalone
    }

    /// Whether nobody waits for it.
    pub const fn is_detached(&self) -> bool {
        self.output.detach
    }

    /// Reads what stands behind `sandbox run`.
    ///
    /// # Errors
    /// As [`Cli::parse_arguments`].
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let words = ["sandbox", "run"].map(OsString::from);
        match Cli::parse_arguments(words.into_iter().chain(arguments))?.command {
            Command::Run(args) => Ok(*args),
            Command::Check(_)
            | Command::List(_)
            | Command::Show(_)
            | Command::Wait(_)
            | Command::Logs(_)
            | Command::Events(_)
            | Command::Kill(_)
            | Command::Freeze(_)
            | Command::Thaw(_)
            | Command::Update(_)
            | Command::Serve(_)
            | Command::Audit(_)
            | Command::Attend { .. }
            | Command::Hold
            | Command::Guardian => Err(clap::Error::new(ErrorKind::InvalidSubcommand)),
        }
    }

    /// Program and arguments.
    pub fn command(&self) -> Vec<String> {
        self.command.iter().map(|word| lossless(word)).collect()
    }

    /// Whom it is to run as, where `--user` says so.
    pub fn user(&self) -> Option<&str> {
        self.process.user.as_deref()
    }

    fn layer(&self) -> Layer {
        let LimitArgs {
            memory,
            swap,
            cpus,
            pids,
            timeout,
            cpu_time,
        } = self.limits;
        let ActionArgs {
            grace,
            warn,
            on_pids_limit,
            oom,
        } = self.actions;
        Layer {
            source: Source::CommandLine,
            limits: LimitOverrides {
                memory_bytes: memory,
                swap_bytes: swap,
                cpus,
                pids,
                walltime: timeout,
                cputime: cpu_time,
            },
            actions: ActionOverrides {
                grace,
                warn,
                on_pids_limit,
                oom,
            },
        }
    }
}

impl RunSpec {
    /// The run that arguments and metadata ask for, as far as the host grants it, under a new run id.
    /// Relative paths are taken from the current directory, not from `--chdir`. With it comes what was
    /// asked for and lowered to the host's ceilings, one sentence each.
    ///
    /// # Errors
    /// [`UsageError`] where they contradict each other, or ask for more than there is to be had.
    pub fn from_args(
        args: RunArgs,
        metadata: Option<Metadata>,
        host: HostPolicy,
    ) -> Result<(Self, Vec<String>), UsageError> {
        let command_line = args.layer();
        let mut layers = host.defaults;
        layers.extend(metadata.iter().map(|metadata| metadata.layer.clone()));
        layers.push(command_line);
        let Settled {
            limits,
            grace,
            warn,
            on_pids_limit,
            oom,
            lowered,
        } = settle(&layers, &host.ceilings)?;
        let RunArgs {
            analysis,
            process,
            output,
            command,
            ..
        } = args;

        let files = Files {
            metadata: analysis.metadata.as_deref().map(absolute).transpose()?,
            stdout: output.stdout.as_deref().map(absolute).transpose()?,
            stderr: output.stderr.as_deref().map(absolute).transpose()?,
            record: output.record.map(absolute_destination).transpose()?,
            events: output.events.map(absolute_destination).transpose()?,
        };
        files.check_apart()?;
        let stdout_is_taken = [&files.record, &files.events]
            .into_iter()
            .any(|destination| *destination == Some(Destination::Stdout));
        let stdout = match files.stdout {
            Some(path) => Output::File(path),
            None if stdout_is_taken => Output::Stderr,
            None => Output::Inherit,
        };
        let thread_env = match metadata.as_ref().and_then(|metadata| metadata.thread_env) {
            _ if process.thread_env => ThreadEnv::Set,
            said => said.unwrap_or_default(),
        };
        let (metadata_id, metadata_labels) = match metadata {
            Some(Metadata { id, labels, .. }) => (id, labels),
            None => (None, BTreeMap::new()),
        };
        let spec = Self {
            run_id: RunId::now_v7(),
            analysis_id: analysis.id.or(metadata_id),
            labels: merge_labels(metadata_labels, analysis.labels)?,
            attempt: analysis.attempt,
            retry_of: analysis.retry_of,
            command,
            cwd: absolute(process.chdir.as_deref().unwrap_or(Path::new(".")))?,
            run_as: process
                .user
                .or(host.user)
                .map_or(RunAs::Caller, RunAs::User),
            limits,
            budget: host.budget,
            limited_callers: host.limited_callers,
            grace,
            warn,
            on_pids_limit,
            oom,
            environment: EnvironmentChanges {
                base: if process.clear_env {
                    EnvironmentBase::Empty
                } else {
                    EnvironmentBase::Inherited
                },
                set: process.variables.into_iter().collect(),
            },
            thread_env,
            stdout,
            stderr: files.stderr.map_or(Output::Inherit, Output::File),
            record: files.record,
            spool: None,
            events: files.events,
            sampling: output.sample.unwrap_or_default(),
            ring_bytes: output.ring_size.unwrap_or(DEFAULT_RING_BYTES),
            notes: output.notes.unwrap_or_default(),
            host_on_complete: host.on_complete,
            on_complete: output.on_complete,
            timings: if output.timings {
                Timings::Include
            } else {
                Timings::Omit
            },
        };
        Ok((spec, lowered))
    }
}

fn absolute_destination(destination: Destination) -> Result<Destination, UsageError> {
    match destination {
        Destination::File(path) => absolute(&path).map(Destination::File),
        Destination::Fd(_) | Destination::Stdout => Ok(destination),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, UsageError> {
    std::path::absolute(path).map_err(|source| UsageError::NoCurrentDirectory { source })
}

fn merge_labels(
    mut labels: BTreeMap<String, String>,
    given: Vec<(String, String)>,
) -> Result<BTreeMap<String, String>, UsageError> {
    let mut on_command_line = BTreeMap::new();
    for (name, value) in given {
        if on_command_line.insert(name.clone(), value).is_some() {
            return Err(UsageError::DuplicateLabel { name });
        }
    }
    labels.extend(on_command_line);
    match labels.len() {
        count if count > MAX_LABELS => Err(UsageError::TooManyLabels { count }),
        _ => Ok(labels),
    }
}
