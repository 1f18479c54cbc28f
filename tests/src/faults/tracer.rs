//! Runs `sandbox` under ptrace(2), counts the system calls of each of its processes and makes one of
//! them fail.
//!
//! strace can inject a fault too, but counts in each process alike: it would fail the same call in
//! the guardian and in the analysis as well. Here exactly one call fails, the analysis is let go as
//! soon as it is executed, and nothing is stopped any more once the fault is in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::call::{Call, Fault};
use super::witness::Witness;

/// How long a run may take, in an emulated machine that is busy.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// A process of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `sandbox run`, from its `main` on, with its threads.
    Supervisor,
    /// The guardian: from its birth until it is executed, and from its `main` on.
    Guardian,
    /// The analysis's main process, until it is executed.
    Child,
    /// The caller's command for the end, until it is executed.
    OnComplete,
}

/// The nth system call of a name, in a process of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// Whose.
    pub role: Role,
    /// Which.
    pub call: Call,
    /// How many of them there were, this one included.
    pub nth: u32,
}

/// A step that was taken, and on what.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The step.
    pub step: Step,
    /// The path or the command that it is about, as far as that can be told.
    pub subject: String,
    /// Whether main was running by then.
    pub started: bool,
}

/// What became of a run.
#[derive(Debug, Default)]
pub struct Traced {
    /// The steps until the fault; all of them without one.
    pub steps: Vec<Taken>,
    /// The one that was made to fail.
    pub failed: Option<Taken>,
    /// How `sandbox` ended: its exit status, or 128 and the signal.
    pub status: Option<i32>,
    /// The main process as it was executed.
    pub witness: Option<Witness>,
    /// Where its processes were when it had to be killed; empty where it was not.
    pub hung: Vec<String>,
}

struct Tracee {
    role: Role,
    /// Within a system call; the error that it is to report.
    inside: Option<Option<Errno>>,
}

/// Runs a command; the step, if it is reached, fails with this error.
#[expect(
    clippy::zombie_processes,
    reason = "the session waits for it, as its tracer"
)]
pub(super) fn run(command: &mut Command, fault: Option<(Step, Errno)>) -> Traced {
    // Seized while it waits for this, so that no call is missed.
    let mut child = command
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell can be started");
    let root = Pid::from_raw(i32::try_from(child.id()).expect("a pid is a positive i32"));
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE;
    ptrace::seize(root, options).expect("root may trace its own child");
    let mut stdin = child.stdin.take().expect("its stdin is a pipe");
    stdin.write_all(b"go\n").expect("it reads");
    drop(stdin);

    let alive = Arc::new(Mutex::new(BTreeSet::from([root])));
    let (over, is_over) = mpsc::channel::<()>();
    let watched = Arc::clone(&alive);
    let watchdog = std::thread::spawn(move || {
        if is_over.recv_timeout(HANGS_AFTER) != Err(mpsc::RecvTimeoutError::Timeout) {
            return Vec::new();
        }
        let alive = watched.lock().unwrap_or_else(PoisonError::into_inner);
        let places = alive.iter().map(|pid| place(*pid)).collect();
        for pid in alive.iter() {
            // It may have ended by now; then there is nothing to do.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        places
    });
    let mut session = Session {
        fault,
        root,
        alive,
        tracees: BTreeMap::new(),
        early: BTreeSet::new(),
        counts: BTreeMap::new(),
        in_main: BTreeSet::new(),
        guardian_born: false,
        started: false,
        traced: Traced::default(),
    };
    session.follow();
    // The watchdog may have gone, having bitten.
    let _ = over.send(());
    let mut traced = session.traced;
    traced.hung = watchdog.join().unwrap_or_default();
    traced
}

struct Session {
    fault: Option<(Step, Errno)>,
    root: Pid,
    alive: Arc<Mutex<BTreeSet<Pid>>>,
    tracees: BTreeMap<Pid, Tracee>,
    /// Stopped for the first time before their parents have told of them.
    early: BTreeSet<Pid>,
    counts: BTreeMap<(Role, Call), u32>,
    /// Whose own calls are made by now.
    in_main: BTreeSet<Role>,
    guardian_born: bool,
    started: bool,
    traced: Traced,
}

impl Session {
    /// Until all of them have ended.
    fn follow(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(pid, code)) => self.gone(pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => self.gone(pid, 128 + signal as i32),
                Ok(WaitStatus::PtraceSyscall(pid)) => self.at_call(pid),
                Ok(WaitStatus::PtraceEvent(pid, _, event)) => self.at_event(pid, event),
                Ok(WaitStatus::Stopped(pid, signal)) => self.resume(pid, Some(signal)),
                Ok(WaitStatus::Continued(_) | WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    fn gone(&mut self, pid: Pid, status: i32) {
        self.lock_alive().remove(&pid);
        self.tracees.remove(&pid);
        if pid == self.root {
            self.traced.status = Some(status);
        }
    }

    fn lock_alive(&self) -> std::sync::MutexGuard<'_, BTreeSet<Pid>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets it go on: to its next call, or freely where no call matters any more.
    fn resume(&self, pid: Pid, signal: Option<Signal>) {
        let tracee = self.tracees.get(&pid);
        let reporting = tracee.is_some_and(|tracee| matches!(tracee.inside, Some(Some(_))));
        let elsewhere = self
            .fault
            .zip(tracee)
            .is_some_and(|((step, _), tracee)| step.role != tracee.role);
        let free = elsewhere || self.traced.failed.is_some() && !reporting;
        // It may have been killed while it was stopped.
        let _ = match free {
            true => ptrace::cont(pid, signal),
            false => ptrace::syscall(pid, signal),
        };
    }

    fn at_event(&mut self, pid: Pid, event: i32) {
        match event {
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                if let Ok(born) = ptrace::getevent(pid) {
                    let born = Pid::from_raw(i32::try_from(born).expect("a pid is an i32"));
                    self.born(pid, born, event);
                }
            }
            libc::PTRACE_EVENT_EXEC => {
                // Not for the shell that it begins as.
                if pid == self.root && is_sandbox(pid) {
                    let inside = Some(None);
                    let role = Role::Supervisor;
                    self.tracees.insert(pid, Tracee { role, inside });
                } else if self.role(pid) == Some(Role::Guardian) {
                    self.in_main.remove(&Role::Guardian);
                } else if self.role(pid) == Some(Role::Child) {
                    self.traced.witness = Some(Witness::of(pid));
                    self.started = true;
                    self.gone(pid, 0);
                    // It may have been killed meanwhile.
                    let _ = ptrace::detach(pid, None);
                    return;
                } else if self.role(pid) == Some(Role::OnComplete) {
                    self.gone(pid, 0);
                    // It may have been killed meanwhile.
                    let _ = ptrace::detach(pid, None);
                    return;
                }
            }
            libc::PTRACE_EVENT_STOP if !self.tracees.contains_key(&pid) && pid != self.root => {
                self.early.insert(pid);
                return;
            }
            _ => {}
        }
        self.resume(pid, None);
    }

    fn role(&self, pid: Pid) -> Option<Role> {
        self.tracees.get(&pid).map(|tracee| tracee.role)
    }

    fn born(&mut self, parent: Pid, born: Pid, event: i32) {
        let role = match self.role(parent) {
            Some(Role::Supervisor) if event != libc::PTRACE_EVENT_CLONE => {
                match std::mem::replace(&mut self.guardian_born, true) {
                    false => Role::Guardian,
                    true if is_in_a_leaf(born) => Role::Child,
                    true => Role::OnComplete,
                }
            }
            Some(Role::Guardian) if event != libc::PTRACE_EVENT_CLONE => Role::OnComplete,
            Some(role) => role,
            None => Role::Supervisor,
        };
        // What is born of it shares its code, until it is executed.
        self.in_main.insert(role);
        self.tracees.insert(born, Tracee { role, inside: None });
        self.lock_alive().insert(born);
        if self.early.remove(&born) {
            self.resume(born, None);
        }
    }

    fn at_call(&mut self, pid: Pid) {
        let Some(tracee) = self.tracees.get_mut(&pid) else {
            self.resume(pid, None);
            return;
        };
        let role = tracee.role;
        match tracee.inside.take() {
            Some(Some(errno)) => {
                if let Ok(mut registers) = ptrace::getregs(pid) {
                    registers.rax = i64::from(errno as i32).wrapping_neg().cast_unsigned();
                    // It may have been killed while it was stopped.
                    let _ = ptrace::setregs(pid, registers);
                }
            }
            Some(None) => {}
            None => {
                tracee.inside = Some(None);
                self.enters(pid, role);
            }
        }
        self.resume(pid, None);
    }

    fn enters(&mut self, pid: Pid, role: Role) {
        let Ok(mut registers) = ptrace::getregs(pid) else {
            return;
        };
        let call = Call(registers.orig_rax.cast_signed());
        // The dynamic loader's and Rust's own start come first; they end the process themselves.
        if call == Call(libc::SYS_getuid) {
            self.in_main.insert(role);
        }
        if !self.in_main.contains(&role) {
            return;
        }
        // std looks at each descriptor that it closes, in debug builds only.
        if call == Call(libc::SYS_fcntl) && registers.rsi == u64::from(libc::F_GETFD.unsigned_abs())
        {
            return;
        }
        let nth = self.counts.entry((role, call)).or_default();
        *nth += 1;
        let step = Step {
            role,
            call,
            nth: *nth,
        };
        let taken = || Taken {
            step,
            subject: subject(pid, call, &registers),
            started: self.started,
        };
        match self.fault {
            None => {
                let taken = taken();
                self.traced.steps.push(taken);
            }
            Some((fails, errno)) if fails == step => {
                let taken = taken();
                // Another one of that name may have this number now, and fail otherwise.
                let errno = match call.fault(&taken.subject) {
                    Some(Fault::Error(errno)) => errno,
                    Some(Fault::Unfit(_)) | None => errno,
                };
                self.traced.failed = Some(taken);
                registers.orig_rax = u64::MAX;
                // It may have been killed while it was stopped.
                let _ = ptrace::setregs(pid, registers);
                if let Some(tracee) = self.tracees.get_mut(&pid) {
                    tracee.inside = Some(Some(errno));
                }
            }
            Some(_) => {}
        }
    }
}

/// Where a process is in the kernel, for whoever looks into a hang.
fn place(pid: Pid) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let state = read("status");
    let state = state.lines().find(|line| line.starts_with("State:"));
    format!(
        "{} {pid}: {}, system call {}, in {}",
        read("comm").trim(),
        state.unwrap_or_default(),
        read("syscall").trim(),
        read("stack").lines().next().unwrap_or_default()
    )
}

fn is_sandbox(pid: Pid) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("sandbox"))
}

fn is_in_a_leaf(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup"))
        .is_ok_and(|cgroup| cgroup.starts_with("0::/sandbox/runs/"))
}

/// What a call is about: a path, or what its descriptor is open on.
fn subject(pid: Pid, call: Call, registers: &libc::user_regs_struct) -> String {
    let text = |address: u64| {
        use std::os::unix::fs::FileExt as _;
        let mut bytes = [0; 128];
        let memory = fs::File::open(format!("/proc/{pid}/mem")).ok()?;
        let length = memory.read_at(&mut bytes, address).ok()?;
        let bytes = bytes.get(..length)?;
        let text = bytes.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    let open_on = |descriptor: u64| {
        fs::read_link(format!("/proc/{pid}/fd/{descriptor}"))
            .map(|path| path.display().to_string())
            .unwrap_or_default()
    };
    let said = match call.0 {
        libc::SYS_openat
        | libc::SYS_mkdirat
        | libc::SYS_unlinkat
        | libc::SYS_newfstatat
        | libc::SYS_faccessat
        | libc::SYS_linkat
        | libc::SYS_statx
        | libc::SYS_fspick => text(registers.rsi)
            .filter(|path| !path.is_empty())
            .map(|path| format!("{path} ({})", open_on(registers.rdi)))
            .or_else(|| Some(open_on(registers.rdi))),
        libc::SYS_open
        | libc::SYS_mkdir
        | libc::SYS_getxattr
        | libc::SYS_listxattr
        | libc::SYS_readlink
        | libc::SYS_rename
        | libc::SYS_execve
        | libc::SYS_access
        | libc::SYS_umount2
        | libc::SYS_chdir => text(registers.rdi),
        libc::SYS_mount => text(registers.rsi),
        libc::SYS_bpf | libc::SYS_prctl => Some(format!("{}", registers.rdi)),
        libc::SYS_prlimit64 | libc::SYS_rt_sigaction => {
            Some(format!("{} {}", registers.rdi, registers.rsi))
        }
        libc::SYS_mmap => Some(format!("{} bytes", registers.rsi)),
        libc::SYS_fcntl => Some(format!("{} {}", registers.rsi, open_on(registers.rdi))),
        _ => Some(open_on(registers.rdi)),
    };
    said.unwrap_or_default()
}
