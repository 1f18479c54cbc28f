//! One boot of one guest in QEMU, from the first instruction to the status of its command.
//!
//! Pure emulation, on a single thread but for benchmarks: stock kernels hang under some machines' nested KVM, and the
//! multi-threaded emulation panics kernel 7 at boot now and then. What the guest's command prints
//! comes over virtio-serial ports, apart from the console, whose log tells of kernel trouble.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::emulator::Emulator;
use super::ending::Ending;
use crate::debian::host;
use crate::workspace;

/// How long a guest may take from power-on to its command.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// How long a guest may take to power off.
const POWEROFF_LIMIT: Duration = Duration::from_secs(30);

/// What a guest runs as PID 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Mode {
    /// A script of ours: cgroup v2 and no manager.
    Bare,
    /// A full systemd userland.
    Systemd,
    /// Bare, in a kernel that is locked down (confidentiality).
    LockedDown,
    /// Bare, in a kernel that may take the CPU away from itself nearly everywhere.
    Preempt,
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Bare => "bare",
            Self::Systemd => "systemd",
            Self::LockedDown => "locked-down",
            Self::Preempt => "preempt",
        })
    }
}

/// How a guest's processors are emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Emulation {
    /// In turn.
    Single,
    /// Each by a thread of its own, at the same time.
    Multi,
}

impl Emulation {
    const fn accelerator(self) -> &'static str {
        match self {
            Self::Single => "tcg,thread=single",
            Self::Multi => "tcg,thread=multi",
        }
    }
}

/// The machine that a guest sees.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// What runs as PID 1.
    pub(crate) mode: Mode,
    /// Its memory, in MiB.
    pub(crate) memory_mib: u32,
    /// Its processors.
    pub(crate) cpus: u32,
    /// How they are emulated.
    pub(crate) emulation: Emulation,
    /// More words for the kernel's command line.
    pub(crate) append: Vec<String>,
    /// The size of its swap disk, in MiB, where it has one.
    pub(crate) swap_mib: Option<u32>,
    /// A disk that outlives it, where it has one.
    pub(crate) disk: Option<PathBuf>,
}

impl Machine {
    /// The machine that most tests run on.
    pub(crate) fn new(mode: Mode) -> Self {
        Self {
            mode,
            memory_mib: 2048,
            cpus: 2,
            emulation: Emulation::Single,
            append: Vec::new(),
            swap_mib: None,
            disk: None,
        }
    }
}

/// What a guest boots in and from.
#[derive(Debug)]
pub(crate) struct Disks {
    /// The program that is its machine.
    pub(crate) emulator: Emulator,
    /// The kernel image.
    pub(crate) kernel: PathBuf,
    /// The initramfs.
    pub(crate) initramfs: PathBuf,
    /// The root image, never written to.
    pub(crate) root: PathBuf,
    /// The payload, read-only.
    pub(crate) payload: PathBuf,
}

/// Which of a guest's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output of the guest's command.
    Stdout,
    /// Standard error of the guest's command.
    Stderr,
}

/// Boots a guest in the empty folder `run` and follows it to its end. What its command prints goes
/// to `sink` as it comes. The console's log stays in `run` as `console.log`.
pub(crate) fn boot(
    machine: &Machine,
    disks: &Disks,
    run: &Path,
    limit: Duration,
    sink: &mut dyn FnMut(Stream, &[u8]),
) -> Result<Ending> {
    let mut command = command(machine, disks, run)?;
    command.args([
        "-serial",
        "file:console.log",
        "-device",
        "virtio-serial-pci",
    ]);
    let mut ports = Vec::new();
    for name in ["control", "stdout", "stderr"] {
        ports.push(listen(run, name)?);
        command.args(["-chardev", &format!("socket,id={name},path={name}")]);
        command.args([
            "-device",
            &format!("virtserialport,chardev={name},name={name}"),
        ]);
    }
    let errors = run.join("qemu.log");
    let log =
        File::create(&errors).with_context(|| format!("could not make {}", errors.display()))?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let mut qemu = Running(command.spawn().context("could not start QEMU")?);

    let (sender, received) = mpsc::channel();
    for (port, source) in ports
        .iter()
        .zip([None, Some(Stream::Stdout), Some(Stream::Stderr)])
    {
        let Some(stream) = accept(port, &mut qemu.0)? else {
            bail!("QEMU did not start: {}", tail(&errors, 20));
        };
        let sender = sender.clone();
        thread::spawn(move || forward(stream, source, &sender));
    }
    drop(sender);

    let mut control = String::new();
    let mut ready = false;
    let mut exit = None;
    let mut deadline = Instant::now() + BOOT_LIMIT;
    let timed_out = loop {
        match received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((Some(stream), bytes)) => sink(stream, &bytes),
            Ok((None, bytes)) => {
                control.push_str(&String::from_utf8_lossy(&bytes));
                if !ready && control.contains("ready ") {
                    ready = true;
                    deadline = Instant::now() + limit;
                }
                if exit.is_none() {
                    exit = exit_status(&control);
                    if exit.is_some() {
                        deadline = Instant::now() + POWEROFF_LIMIT;
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => break true,
            Err(RecvTimeoutError::Disconnected) => break false,
        }
    };
    if timed_out {
        qemu.0.kill().context("could not end QEMU")?;
    }
    let status = qemu.0.wait().context("could not wait for QEMU")?;
    let console = run.join("console.log");
    let panic = panic_in(&read_log(&console));
    let why = || {
        format!(
            "QEMU ended ({status}) {}; its console ended with:\n{}",
            tail(&errors, 5),
            panic.clone().unwrap_or_else(|| tail(&console, 15))
        )
    };
    Ok(match (ready, exit) {
        (_, Some(status)) => Ending::Exited(status),
        (true, None) if panic.is_some() => Ending::Panicked(panic.unwrap_or_default()),
        (true, None) if timed_out => Ending::TimedOut(limit),
        (true, None) => Ending::Vanished(why()),
        (false, None) if timed_out => Ending::NeverReady(format!(
            "nothing within {} s; its console ended with:\n{}",
            BOOT_LIMIT.as_secs(),
            tail(&console, 15)
        )),
        (false, None) => Ending::NeverReady(why()),
    })
}

/// Boots a guest with its console on our terminal.
pub(crate) fn interactive(machine: &Machine, disks: &Disks, run: &Path) -> Result<()> {
    crate::command::run(command(machine, disks, run)?.args(["-serial", "mon:stdio"]))
}

fn command(machine: &Machine, disks: &Disks, run: &Path) -> Result<Command> {
    // A QEMU whose xtask was killed must not run on.
    let mut command = host::program("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .args(disks.emulator.words())
        .current_dir(run)
        .env("TMPDIR", run);
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-machine",
        "q35",
    ]);
    command.args(["-accel", machine.emulation.accelerator(), "-cpu", "max"]);
    command.args([
        "-m",
        &machine.memory_mib.to_string(),
        "-smp",
        &machine.cpus.to_string(),
    ]);
    command
        .arg("-kernel")
        .arg(&disks.kernel)
        .arg("-initrd")
        .arg(&disks.initramfs);
    command.args(["-append", &command_line(machine)]);
    let drive = |path: &Path, options: &str| {
        // A comma in a path is QEMU's separator; doubled, it is itself.
        format!(
            "if=virtio,format=raw,{options},file={}",
            path.display().to_string().replace(',', ",,")
        )
    };
    command.args(["-drive", &drive(&disks.root, "snapshot=on")]);
    command.args(["-drive", &drive(&disks.payload, "readonly=on")]);
    if let Some(mib) = machine.swap_mib {
        let swap = run.join("swap.raw");
        let file =
            File::create(&swap).with_context(|| format!("could not make {}", swap.display()))?;
        file.set_len(u64::from(mib) << 20)
            .with_context(|| format!("could not size {}", swap.display()))?;
        command.args(["-drive", &drive(&swap, "cache=unsafe")]);
    }
    if let Some(disk) = &machine.disk {
        command.args(["-drive", &drive(disk, "cache=unsafe")]);
    }
    Ok(command)
}

fn command_line(machine: &Machine) -> String {
    // A panic ends QEMU at once (-no-reboot), and an oops is a panic: no test passes over one.
    let mut words = vec![
        "console=ttyS0",
        "panic=-1",
        "oops=panic",
        "loglevel=5",
        "random.trust_cpu=on",
        "mitigations=off",
    ];
    match machine.mode {
        Mode::Bare => words.push("guest.init=/payload/guest/bare-init"),
        Mode::LockedDown => {
            words.extend(["guest.init=/payload/guest/bare-init", "guest.lockdown"]);
        }
        Mode::Preempt => words.extend(["guest.init=/payload/guest/bare-init", "preempt=full"]),
        Mode::Systemd => words.extend([
            "guest.init=/usr/lib/systemd/systemd",
            "systemd.unit=sandbox-guest.target",
            "systemd.show_status=0",
        ]),
    }
    if machine.swap_mib.is_some() {
        words.push("guest.swap");
    }
    words.extend(machine.append.iter().map(String::as_str));
    words.join(" ")
}

/// A child process that does not outlive its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended by itself unless an error takes us past the end of `boot`.
        if self.0.try_wait().is_ok_and(|status| status.is_none()) && self.0.kill().is_ok() {
            drop(self.0.wait());
        }
    }
}

/// Listens on a socket in `run`, by way of the folder's descriptor: the whole path may be longer
/// than a socket address can hold.
fn listen(run: &Path, name: &str) -> Result<UnixListener> {
    let folder = File::open(run).with_context(|| format!("could not open {}", run.display()))?;
    let path = format!("/proc/self/fd/{}/{name}", folder.as_raw_fd());
    UnixListener::bind(&path)
        .with_context(|| format!("could not listen on {}", run.join(name).display()))
}

/// Waits for QEMU to connect; `None` where it ended instead.
fn accept(listener: &UnixListener, qemu: &mut Child) -> Result<Option<UnixStream>> {
    loop {
        let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(200_u16))
            .context("could not wait for QEMU to connect")?
            > 0
        {
            let (stream, _) = listener
                .accept()
                .context("could not accept QEMU's connection")?;
            return Ok(Some(stream));
        }
        if qemu
            .try_wait()
            .context("could not wait for QEMU")?
            .is_some()
        {
            return Ok(None);
        }
    }
}

fn forward(
    mut stream: UnixStream,
    source: Option<Stream>,
    sender: &Sender<(Option<Stream>, Vec<u8>)>,
) {
    let mut buffer = vec![0; 64 << 10];
    // An error here is QEMU's end, as an end of file is.
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if sender.send((source, buffer[..count].to_vec())).is_err() {
            return;
        }
    }
}

fn exit_status(control: &str) -> Option<i32> {
    let complete = &control[..control.rfind('\n')?];
    complete
        .lines()
        .find_map(|line| line.strip_prefix("exit ")?.trim().parse().ok())
}

/// The last lines of a log.
fn tail(log: &Path, count: usize) -> String {
    let text = read_log(log);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A log as text, without the blanks that a console adds to it. A missing one says nothing.
fn read_log(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_default();
    let lines = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

/// What a console tells of a kernel panic: from the first complaint on, without the return
/// addresses that the kernel is not sure of.
fn panic_in(console: &str) -> Option<String> {
    console.contains("Kernel panic - not syncing").then(|| {
        let complaints = ["BUG: ", "Oops", "Kernel panic", "WARNING: "];
        let lines = console
            .lines()
            .skip_while(|line| !complaints.iter().any(|word| line.contains(word)));
        lines
            .filter(|line| !line.contains("]  ? "))
            .take(40)
            .collect::<Vec<_>>()
            .join("\n")
    })
}

/// A folder for one boot, removed with its sockets and images at the end.
#[derive(Debug)]
pub(crate) struct RunFolder(PathBuf);

impl RunFolder {
    /// Makes the folder, and removes those that killed tasks left behind.
    pub(crate) fn new(label: &str) -> Result<Self> {
        let all = workspace::target().join("vm/run");
        workspace::make_dir(&all)?;
        for entry in fs::read_dir(&all)
            .with_context(|| format!("could not list {}", all.display()))?
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.split('-').next().unwrap_or_default();
            if !Path::new("/proc").join(owner).exists() {
                workspace::remove_dir(&entry.path())?;
            }
        }
        let folder = all.join(format!("{}-{label}", std::process::id()));
        workspace::remove_dir(&folder)?;
        workspace::make_dir(&folder)?;
        Ok(Self(folder))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if let Err(error) = workspace::remove_dir(&self.0) {
            eprintln!("warning: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_status_counts_only_once_its_line_is_complete() {
        assert_eq!(exit_status("ready 6.1 bare\n"), None);
        assert_eq!(exit_status("ready 6.1 bare\nexit 1"), None);
        assert_eq!(exit_status("ready 6.1 bare\nexit 13\n"), Some(13));
    }

    #[test]
    fn a_panic_is_told_from_its_first_complaint_on() {
        let log = "[ 1] up\n[ 2] BUG: kernel NULL pointer\n[ 2]  ? guess\n[ 2]  sure\n";
        assert_eq!(panic_in(log), None);
        let panicked = format!("{log}[ 3] Kernel panic - not syncing: Fatal exception\n");
        let expected = "[ 2] BUG: kernel NULL pointer\n[ 2]  sure\n[ 3] Kernel panic - not syncing: Fatal exception";
        assert_eq!(panic_in(&panicked).as_deref(), Some(expected));
    }

    #[test]
    fn extra_words_come_last_on_the_kernels_command_line() {
        let mut machine = Machine::new(Mode::Systemd);
        machine.append.push("preempt=full".to_owned());
        let line = command_line(&machine);
        assert!(line.ends_with(" preempt=full"), "{line}");
        assert!(line.contains("systemd.unit=sandbox-guest.target"), "{line}");
    }
}
