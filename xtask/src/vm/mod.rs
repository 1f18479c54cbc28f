//! Guests: stock Debian kernels in QEMU, where the code under test has a whole machine to itself.
//!
//! The build machine rarely has the cgroup v2 controllers, the hooks or the right to use them, and
//! never four kernels. Everything a guest needs is fetched once and cached under `target/vm`; after
//! that a command in a fresh guest takes some seconds.

mod binaries;
mod emulator;
mod ending;
mod image;
mod initramfs;
mod kernel;
mod payload;
mod qemu;
mod side_by_side;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

pub(crate) use self::binaries::{PROFILE, executables, guest_binaries};
use self::emulator::Emulator;
pub(crate) use self::ending::Ending;
pub(crate) use self::image::Image;
use self::kernel::Kernel;
pub(crate) use self::kernel::Series;
pub(crate) use self::payload::{Payload, Task};
use self::qemu::{Disks, RunFolder};
pub(crate) use self::qemu::{Emulation, Machine, Mode, Stream};
pub(crate) use self::side_by_side::{GUESTS_AT_A_TIME, side_by_side};
use crate::command;
use crate::debian::{Archive, host};
use crate::workspace;

/// How often a guest may fail to report in before that counts as a failure.
const BOOTS: u32 = 3;

/// Guests in QEMU.
#[derive(Debug, Subcommand)]
pub(crate) enum Vm {
    /// Fetch the kernels and make the root image, as the other tasks do when they need them.
    Prepare {
        /// Only this kernel (repeatable).
        #[arg(long = "kernel", value_name = "SERIES")]
        kernels: Vec<Series>,
    },
    /// Run a command in a fresh guest, with `sandbox` and `victim` on the PATH; exits as it does.
    Run {
        #[command(flatten)]
        options: GuestOptions,
        /// Seconds until the command is given up.
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        time_limit: u64,
        /// The command and its arguments.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        words: Vec<String>,
    },
    /// Open a shell in a fresh guest (Ctrl-A X ends it at once).
    Shell {
        #[command(flatten)]
        options: GuestOptions,
    },
    /// Forget the fetched kernels and the root image.
    Clean,
}

/// The guest that a person asks for.
#[derive(Args, Debug)]
pub(crate) struct GuestOptions {
    /// The kernel series to boot.
    #[arg(long, value_name = "SERIES", default_value = "6.12")]
    kernel: Series,
    /// Boot a full systemd userland instead of a bare init.
    #[arg(long)]
    systemd: bool,
    /// Memory, in MiB.
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Processors.
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// Give the guest a swap disk of this size, in MiB.
    #[arg(long, value_name = "MIB")]
    swap: Option<u32>,
    /// More words for the kernel's command line, such as preempt=full (repeatable).
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Copy a file of this machine to /payload/files, the command's working directory (repeatable).
    #[arg(long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
}

impl GuestOptions {
    fn machine(&self) -> Machine {
        let usual = Machine::new(if self.systemd {
            Mode::Systemd
        } else {
            Mode::Bare
        });
        Machine {
            memory_mib: self.memory.unwrap_or(usual.memory_mib),
            cpus: self.cpus.unwrap_or(usual.cpus),
            append: self.append.clone(),
            swap_mib: self.swap,
            ..usual
        }
    }

    fn payload(&self, folder: &Path) -> Result<Payload> {
        let mut payload = Payload::with_programs(folder.join("payload"), &guest_binaries()?)?;
        for file in &self.files {
            let name = file
                .file_name()
                .with_context(|| format!("{} has no file name", file.display()))?;
            payload.file(&format!("files/{}", name.to_string_lossy()), file)?;
        }
        Ok(payload)
    }
}

impl Vm {
    /// Does the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Prepare { kernels } => {
                let kernels = if kernels.is_empty() {
                    Series::ALL.to_vec()
                } else {
                    kernels
                };
                let assets = Assets::prepare(&kernels)?;
                for (series, kernel) in &assets.kernels {
                    println!("{series:<5} {}", kernel.release()?);
                }
                Ok(ExitCode::SUCCESS)
            }
            Self::Run {
                options,
                time_limit,
                words,
            } => {
                let quoted: Vec<String> = words
                    .iter()
                    .map(|word| command::shell_quoted(word))
                    .collect();
                run_command(&options, Duration::from_secs(time_limit), &quoted.join(" "))
            }
            Self::Shell { options } => {
                let assets = Assets::prepare(&[options.kernel])?;
                let run = RunFolder::new("shell")?;
                let disks = assets.disks(
                    options.kernel,
                    &mut options.payload(run.path())?,
                    &Task::Shell,
                    run.path(),
                )?;
                qemu::interactive(&options.machine(), &disks, run.path())?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Clean => {
                let _lock = workspace::lock("vm")?;
                workspace::remove_dir(&workspace::target().join("vm"))?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn run_command(options: &GuestOptions, limit: Duration, line: &str) -> Result<ExitCode> {
    let assets = Assets::prepare(&[options.kernel])?;
    let label = format!("run-{}-{}", options.kernel, options.machine().mode);
    let prepare = |folder: &Path| options.payload(folder);
    let guest = Guest {
        series: options.kernel,
        machine: options.machine(),
        label,
        limit,
    };
    let report = guest.run(
        &assets,
        prepare,
        &Task::Command(line),
        &mut |stream, bytes| print(stream, bytes),
    )?;
    let Some(status) = report.ending.status() else {
        bail!(
            "kernel {}: {}\n(the whole console: {})",
            options.kernel,
            report.ending,
            report.console.display()
        )
    };
    // A status is a byte already; what is not is ours to report as a failure.
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)))
}

/// Passes a guest's output on to our own.
pub(crate) fn print(stream: Stream, bytes: &[u8]) {
    use std::io::Write;
    // A reader that has gone away ends neither the guest nor its status.
    drop(match stream {
        Stream::Stdout => std::io::stdout()
            .write_all(bytes)
            .and_then(|()| std::io::stdout().flush()),
        Stream::Stderr => std::io::stderr().write_all(bytes),
    });
}

/// What all guests boot from.
#[derive(Debug)]
pub(crate) struct Assets {
    emulator: Emulator,
    kernels: Vec<(Series, Kernel)>,
    busybox: PathBuf,
    root: PathBuf,
}

impl Assets {
    /// Finds what is cached and fetches or makes the rest.
    pub(crate) fn prepare(kernels: &[Series]) -> Result<Self> {
        Self::prepare_with(Image::Usual, kernels)
    }

    /// The same with another root image.
    pub(crate) fn prepare_with(image: Image, kernels: &[Series]) -> Result<Self> {
        host::require_for_boot()?;
        let _lock = workspace::lock("vm")?;
        let archive = Lazy::default();
        let emulator = match Emulator::unpacked() {
            Some(emulator) => emulator,
            None => Emulator::unpack(archive.get()?)?,
        };
        let busybox = match initramfs::busybox() {
            Some(busybox) => busybox,
            None => initramfs::fetch_busybox(archive.get()?)?,
        };
        let mut found = Vec::new();
        for &series in kernels {
            let kernel = match Kernel::fetched(series) {
                Some(kernel) => kernel,
                None => Kernel::fetch(series, archive.get()?)?,
            };
            found.push((series, kernel));
        }
        let root = match image.made() {
            Some(root) => root,
            None => image.make(archive.get()?)?,
        };
        Ok(Self {
            emulator,
            kernels: found,
            busybox,
            root,
        })
    }

    fn disks(
        &self,
        series: Series,
        payload: &mut Payload,
        task: &Task<'_>,
        run: &Path,
    ) -> Result<Disks> {
        let (_, kernel) = self
            .kernels
            .iter()
            .find(|(candidate, _)| *candidate == series)
            .with_context(|| format!("kernel {series} was not prepared"))?;
        let initramfs = run.join("initramfs.cpio");
        initramfs::write(kernel, &self.busybox, &initramfs)?;
        let image = run.join("payload.ext4");
        payload.image(task, &image)?;
        Ok(Disks {
            emulator: self.emulator.clone(),
            kernel: kernel.image(),
            initramfs,
            root: self.root.clone(),
            payload: image,
        })
    }
}

/// The archive, opened when something is lacking: what is cached needs no network.
#[derive(Default)]
struct Lazy(OnceCell<Archive>);

impl Lazy {
    fn get(&self) -> Result<&Archive> {
        if let Some(archive) = self.0.get() {
            return Ok(archive);
        }
        host::require_for_preparation()?;
        let archive = Archive::open()?;
        Ok(self.0.get_or_init(|| archive))
    }
}

/// A guest to boot, and to boot again where it does not report in.
#[derive(Debug)]
pub(crate) struct Guest {
    /// Its kernel.
    pub(crate) series: Series,
    /// Its machine.
    pub(crate) machine: Machine,
    /// Names its folder and its log.
    pub(crate) label: String,
    /// How long its command may take.
    pub(crate) limit: Duration,
}

/// How a guest ended.
#[derive(Debug)]
pub(crate) struct Report {
    /// How the last boot ended.
    pub(crate) ending: Ending,
    /// How many boots before it never reported in.
    pub(crate) retries: u32,
    /// The console's log.
    pub(crate) console: PathBuf,
}

impl Guest {
    /// Boots the guest with a payload and follows it to its end.
    pub(crate) fn run(
        &self,
        assets: &Assets,
        payload: impl Fn(&Path) -> Result<Payload>,
        task: &Task<'_>,
        sink: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Report> {
        let run = RunFolder::new(&self.label)?;
        let disks = assets.disks(self.series, &mut payload(run.path())?, task, run.path())?;
        let console = workspace::target().join(format!("vm/logs/{}.log", self.label));
        workspace::make_dir(&workspace::target().join("vm/logs"))?;
        let mut retries = 0;
        loop {
            let boot = run.path().join(format!("boot-{retries}"));
            workspace::make_dir(&boot)?;
            let ending = qemu::boot(&self.machine, &disks, &boot, self.limit, sink)?;
            workspace::rename(&boot.join("console.log"), &console)?;
            match &ending {
                Ending::NeverReady(why) if retries + 1 < BOOTS => {
                    eprintln!(
                        "{}: the guest did not report in, so it is booted again: {why}",
                        self.label
                    );
                    retries += 1;
                }
                Ending::Exited(_)
                | Ending::NeverReady(_)
                | Ending::TimedOut(_)
                | Ending::Panicked(_)
                | Ending::Vanished(_) => {
                    return Ok(Report {
                        ending,
                        retries,
                        console,
                    });
                }
            }
        }
    }
}
