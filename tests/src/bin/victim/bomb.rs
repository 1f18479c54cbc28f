//! A fork bomb that keeps count of itself.

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sys::{self, Forked};

/// Every so many-th child is killed.
const KILLED: usize = 4;
/// Every so many-th child has a thread.
const THREADED: usize = 10;
/// How many children live at once.
const AT_ONCE: usize = 8;
/// After so many children it says that it is under way.
const UNDER_WAY: usize = 50;

/// What a bomb did, and saw.
#[derive(Default)]
struct Count {
    children: usize,
    threads: usize,
    ended: usize,
    killed: Vec<Pid>,
}

/// On SIGUSR1 starts so many children as fast as it can, some of them with a thread, kills some, waits
/// for all, and prints what became of them.
pub(crate) fn explode(children: usize) -> Result<()> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGUSR1);
    set.thread_block()?;
    crate::ready();
    set.wait()?;
    let mut count = Count::default();
    let mut alive = std::collections::VecDeque::new();
    for number in 0..children {
        alive.push_back((number, child(number, &mut count)?));
        if number == UNDER_WAY {
            println!("under way to {children}");
        }
        if alive.len() == AT_ONCE
            && let Some((number, pid)) = alive.pop_front()
        {
            end(number, pid, &mut count)?;
        }
    }
    for (number, pid) in alive {
        end(number, pid, &mut count)?;
    }
    let pid = |pid: Option<&Pid>| pid.map_or(0, |pid| pid.as_raw());
    println!(
        "counted {{\"children\": {}, \"threads\": {}, \"ended\": {}, \"killed\": {}, \"first_killed\": {}, \"last_killed\": {}}}",
        count.children,
        count.threads,
        count.ended,
        count.killed.len(),
        pid(count.killed.first()),
        pid(count.killed.last()),
    );
    Ok(())
}

fn child(number: usize, count: &mut Count) -> Result<Pid> {
    let threaded = number.is_multiple_of(THREADED) && !number.is_multiple_of(KILLED);
    match sys::fork()? {
        Forked::Child => {
            if number.is_multiple_of(KILLED) {
                loop {
                    std::thread::park();
                }
            }
            if threaded {
                // It has begun once it can be joined.
                drop(std::thread::spawn(|| ()).join());
            }
            std::process::exit(0)
        }
        Forked::Parent(pid) => {
            count.children += 1;
            count.threads += usize::from(threaded);
            Ok(pid)
        }
    }
}

fn end(number: usize, pid: Pid, count: &mut Count) -> Result<()> {
    if number.is_multiple_of(KILLED) {
        kill(pid, Signal::SIGKILL).context("could not kill a child")?;
    }
    let status = waitpid(pid, None).context("could not wait for a child")?;
    count.ended += 1;
    if let WaitStatus::Signaled(_, Signal::SIGKILL, _) = status {
        count.killed.push(pid);
    }
    Ok(())
}
