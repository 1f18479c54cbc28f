//! `victim`: an analysis that misbehaves on request, one subcommand per way of ending.
//!
//! A victim that has come to the state its subcommand leads to prints `ready PID` and holds it, so
//! that a test can wait for that state instead of guessing when it was reached. What it meets on
//! the way (a denied fork, a child's end) it prints as well: tests compare that with the record.

mod bomb;
mod family;
mod identity;
mod memory;
mod signals;
mod sys;
mod tracer;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use nix::sys::signal::Signal;

use memory::Size;

/// An analysis that misbehaves on request.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Exit with this status.
    Exit { status: u8 },
    /// Open this file to write into, say there that we have begun, and hold: its reader sees our end.
    HoldOpen { path: PathBuf },
    /// Hold still, for ever or for some seconds.
    Sleep { seconds: Option<f64> },
    /// Use up a processor.
    Spin,
    /// Touch this much memory and hold it, or exit with a status.
    Eat {
        size: Size,
        #[arg(long)]
        exit: Option<u8>,
    },
    /// Touch memory in a child; print how it ended, then hold or exit with a status.
    EatInChild {
        size: Size,
        #[arg(long)]
        exit: Option<u8>,
    },
    /// Touch memory in this many threads at once.
    EatThreads { threads: usize, size: Size },
    /// Touch memory in this many processes at once, and hold.
    EatGroup { processes: usize, size: Size },
    /// Fill this much of /dev/shm, and exit.
    EatShm { size: Size },
    /// Touch memory, then crash by a wild write: close to the limit, yet no OOM.
    EatAndSegv { size: Size },
    /// Touch memory, then abort.
    EatAndAbort { size: Size },
    /// Touch memory without end.
    Devour,
    /// Fork for ever, children too.
    ForkBomb,
    /// On SIGUSR1 start this many children as fast as can be, some killed, some with a thread; print
    /// what became of them.
    CountedBomb { children: usize },
    /// Start this many children that hold; print how many forks were denied; hold, or exit.
    Children {
        count: usize,
        #[arg(long)]
        exit: Option<u8>,
    },
    /// Start this many threads; print how many were denied; hold, or exit.
    Threads {
        count: usize,
        #[arg(long)]
        exit: Option<u8>,
    },
    /// Use up processors in this many processes, this one included.
    SpinGroup { processes: usize },
    /// End the main thread; another one exits with this status later, or holds.
    OutliveMainThread { status: Option<u8> },
    /// Have a thread execute another act in this process's place.
    ExecInThread { act: Vec<String> },
    /// Have a grandchild get SIGKILL when its parent dies; exit once it is dead.
    DeathSignal,
    /// Get SIGKILL when our parent dies; hold.
    DieWithParent,
    /// Have a child trace us and do this to us.
    TracedByChild { deed: tracer::Deed },
    /// Trace this process and do this to it.
    Trace { pid: i32, deed: tracer::Deed },
    /// Break a seccomp filter that forbids everything.
    Seccomp,
    /// Make a system call that strict seccomp forbids.
    StrictSeccomp,
    /// Leave a child behind in a session of its own, and exit.
    Daemonise,
    /// Ignore SIGTERM and hold.
    IgnoreTerm,
    /// Handle a signal by exiting with this status.
    Handle {
        #[arg(value_parser = signals::parse)]
        signal: Signal,
        status: u8,
    },
    /// Stop ourselves by SIGSTOP.
    StopSelf,
    /// Send ourselves a signal.
    KillSelf {
        #[arg(value_parser = signals::parse)]
        signal: Signal,
    },
    /// Have a child send us a signal.
    SiblingKill {
        #[arg(value_parser = signals::parse)]
        signal: Signal,
    },
    /// Crash by a wild write.
    Segv,
    /// Abort.
    Abort,
    /// Allow ourselves this many seconds of CPU time, soft and hard, and use them up.
    RlimitCpu { soft: u64, hard: u64 },
    /// Print who and what we are, as JSON.
    PrintIdentity,
}

fn main() -> ExitCode {
    match Arguments::parse().act.play() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("victim: {error:#}");
            ExitCode::from(99)
        }
    }
}

impl Act {
    /// Plays the act and gives the exit status, where it has an end.
    fn play(self) -> anyhow::Result<u8> {
        match self {
            Self::Exit { status } => Ok(status),
            Self::HoldOpen { path } => {
                let mut file = OpenOptions::new().write(true).open(path)?;
                file.write_all(b"begun\n")?;
                hold()
            }
            Self::Sleep { seconds: None } => hold(),
            Self::Sleep {
                seconds: Some(seconds),
            } => {
                ready();
                std::thread::sleep(Duration::from_secs_f64(seconds));
                Ok(0)
            }
            Self::Spin => {
                ready();
                spin()
            }
            Self::Eat { size, exit } => {
                let _held = memory::touch(size);
                end(exit)
            }
            Self::EatInChild { size, exit } => {
                family::eat_in_child(size)?;
                end(exit)
            }
            Self::EatThreads { threads, size } => {
                let _held = memory::touch_in_threads(threads, size)?;
                hold()
            }
            Self::EatGroup { processes, size } => {
                family::eat_in_group(processes, size)?;
                hold()
            }
            Self::EatShm { size } => memory::fill_shm(size).map(|()| 0),
            Self::EatAndSegv { size } => {
                let _held = memory::touch(size);
                sys::write_to_null()
            }
            Self::EatAndAbort { size } => {
                let _held = memory::touch(size);
                std::process::abort()
            }
            Self::Devour => {
                ready();
                memory::devour()
            }
            Self::ForkBomb => family::fork_bomb(),
            Self::CountedBomb { children } => bomb::explode(children).map(|()| 0),
            Self::Children { count, exit } => {
                family::children(count)?;
                end(exit)
            }
            Self::Threads { count, exit } => {
                family::threads(count);
                end(exit)
            }
            Self::SpinGroup { processes } => {
                for _ in 1..processes {
                    if let sys::Forked::Child = sys::fork()? {
                        spin()
                    }
                }
                ready();
                spin()
            }
            Self::OutliveMainThread { status } => family::outlive_main_thread(status),
            Self::ExecInThread { act } => family::exec_in_thread(&act),
            Self::DeathSignal => family::death_signal().map(|()| 0),
            Self::DieWithParent => {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                hold()
            }
            Self::TracedByChild { deed } => {
                tracer::traced_by_child(deed)?;
                hold()
            }
            Self::Trace { pid, deed } => {
                tracer::trace(nix::unistd::Pid::from_raw(pid), deed).map(|()| 0)
            }
            Self::Seccomp => sys::break_a_seccomp_filter(),
            Self::StrictSeccomp => sys::break_strict_seccomp(),
            Self::Daemonise => family::daemonise().map(|()| 0),
            Self::IgnoreTerm => {
                sys::ignore(Signal::SIGTERM)?;
                hold()
            }
            Self::Handle { signal, status } => signals::handle(signal).map(|()| status),
            Self::StopSelf => {
                ready();
                nix::sys::signal::raise(Signal::SIGSTOP)?;
                Ok(0)
            }
            Self::KillSelf { signal } => {
                nix::sys::signal::kill(nix::unistd::getpid(), signal)?;
                hold()
            }
            Self::SiblingKill { signal } => {
                family::child_kills_us(signal)?;
                hold()
            }
            Self::Segv => sys::write_to_null(),
            Self::Abort => std::process::abort(),
            Self::RlimitCpu { soft, hard } => {
                use nix::sys::resource::{Resource, setrlimit};
                setrlimit(Resource::RLIMIT_CPU, soft, hard)?;
                ready();
                spin()
            }
            Self::PrintIdentity => {
                println!("{:#}", identity::read());
                Ok(0)
            }
        }
    }
}

fn end(exit: Option<u8>) -> anyhow::Result<u8> {
    match exit {
        Some(status) => Ok(status),
        None => hold(),
    }
}

/// Says that the act has come to its point.
fn ready() {
    println!("ready {}", std::process::id());
}

/// Says so, and stays.
fn hold() -> ! {
    ready();
    loop {
        std::thread::park();
    }
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}
