//! Children: many, hungry, hostile, or left behind.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::memory::{Size, touch};
use crate::sys::{self, Forked};

/// Touches memory in a child and prints how the child ended.
pub(crate) fn eat_in_child(size: Size) -> Result<()> {
    match sys::fork()? {
        Forked::Child => {
            let _held = touch(size);
            std::process::exit(0);
        }
        Forked::Parent(child) => {
            let status =
                nix::sys::wait::waitpid(child, None).context("could not wait for the child")?;
            println!("child {status:?}");
            Ok(())
        }
    }
}

/// Touches so much memory in all, in processes at once that hold it.
pub(crate) fn eat_in_group(processes: usize, size: Size) -> Result<()> {
    let share = size.share(processes);
    for _ in 0..processes {
        if let Forked::Child = sys::fork()? {
            let _held = touch(share);
            println!("fed {}", std::process::id());
            loop {
                std::thread::park();
            }
        }
    }
    Ok(())
}

/// Forks for ever, in every process that comes of it.
pub(crate) fn fork_bomb() -> ! {
    loop {
        // A denied fork is what this is about: the next one may succeed.
        drop(sys::fork());
    }
}

/// Starts children that hold and prints how many the kernel denied.
pub(crate) fn children(count: usize) -> Result<()> {
    let mut denied = 0;
    for _ in 0..count {
        match sys::fork() {
            Ok(Forked::Child) => loop {
                std::thread::park();
            },
            Ok(Forked::Parent(_)) => {}
            Err(_) => denied += 1,
        }
    }
    println!("denied {denied}");
    Ok(())
}

/// Starts threads that hold and prints how many the kernel denied.
pub(crate) fn threads(count: usize) {
    let start = || {
        std::thread::Builder::new().stack_size(64 << 10).spawn(|| {
            loop {
                std::thread::park();
            }
        })
    };
    let denied = (0..count).filter(|_| start().is_err()).count();
    println!("denied {denied}");
}

/// Leaves a child behind that nobody waits for, in a session of its own and without our pipes.
pub(crate) fn daemonise() -> Result<()> {
    let mut daemon = this_program()?;
    daemon
        .arg("sleep")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match sys::fork()? {
        Forked::Child => {
            nix::unistd::setsid().context("could not start a session")?;
            let daemon: Child = daemon.spawn().context("could not start the daemon")?;
            println!("daemon {}", daemon.id());
            Ok(())
        }
        Forked::Parent(child) => {
            nix::sys::wait::waitpid(child, None).context("could not wait for the child")?;
            Ok(())
        }
    }
}

/// Has a child send this process a signal.
pub(crate) fn child_kills_us(signal: Signal) -> Result<()> {
    let us = nix::unistd::getpid();
    if let Forked::Child = sys::fork()? {
        nix::sys::signal::kill(us, signal).context("could not signal the parent")?;
        std::process::exit(0);
    }
    Ok(())
}

/// Ends the main thread, which leaves a zombie that leads the living; another thread exits later, or holds.
pub(crate) fn outlive_main_thread(status: Option<u8>) -> ! {
    let main = nix::unistd::gettid();
    std::thread::spawn(move || {
        let stat = format!("/proc/self/task/{main}/stat");
        // Only after the main thread has ended.
        while !std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z ")) {
            std::thread::yield_now();
        }
        println!("outlived {main}");
        match status {
            Some(status) => std::process::exit(i32::from(status)),
            None => crate::hold(),
        }
    });
    sys::end_this_thread()
}

/// Has a thread execute this program again: it takes over the pid of the main thread.
pub(crate) fn exec_in_thread(act: &[String]) -> ! {
    let act = act.to_vec();
    std::thread::spawn(move || {
        let error = this_program().map(|mut program| program.args(act).exec());
        panic!("a thread could not exec: {error:?}")
    });
    loop {
        std::thread::park();
    }
}

/// Has a grandchild get SIGKILL when its parent dies, and comes back once it is dead.
pub(crate) fn death_signal() -> Result<()> {
    let (mut ours, theirs) = std::io::pipe().context("could not make a pipe")?;
    if let Forked::Child = sys::fork()? {
        let (mut told, tell) = std::io::pipe().context("could not make a pipe")?;
        println!("parent {}", std::process::id());
        if let Forked::Child = sys::fork()? {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("no death signal")?;
            println!("grandchild {}", std::process::id());
            drop(tell);
            loop {
                std::thread::park();
            }
        }
        // It has asked for its signal once the pipe has no writer any more.
        drop(tell);
        told.read_to_end(&mut Vec::new())
            .context("could not read the pipe")?;
        std::process::exit(0);
    }
    drop(theirs);
    ours.read_to_end(&mut Vec::new())
        .context("could not read the pipe")?;
    Ok(())
}

fn this_program() -> Result<Command> {
    Ok(Command::new(
        std::env::current_exe().context("could not find out our own path")?,
    ))
}
