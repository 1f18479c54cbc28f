//! `--on-complete`: a command that gets the record once the run is over, whoever wrote it.
//!
//! It runs as whoever called and under that one's limits, in a cgroup of its own ([`super::hook_cgroup`]), by
//! /bin/sh, and twice more at most where it fails. What it prints goes to stderr, since stdout is the
//! analysis's; how it ends changes nothing about the run.

use std::{
    fmt,
    fs::File,
    io::{self, Seek as _, Write as _},
    os::fd::AsFd as _,
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use nix::{libc, unistd::User};
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::{
    io::Interest,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{caught::caught, docket::Docket, hook_cgroup::HookCgroup, orders::Orders};
use crate::{
    caller,
    record::RunRecord,
    sys::{child, pidfd, readiness},
    units::Quoted,
};

/// How long it may take to end once it was asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Between two looks whether all that it has started has ended too.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A command for the end.
#[derive(Debug)]
pub(super) struct OnComplete<'a> {
    /// What it is called, for people.
    pub(super) name: &'static str,
    /// What the shell is given.
    pub(super) command: &'a str,
    /// The run: who called, and under which limits.
    pub(super) docket: &'a Docket,
}

/// How it ended.
struct Ended {
    status: ExitStatus,
    /// It was asked to, or took too long: it is not to be run once more.
    was_asked: bool,
    /// What it had run out of, for people.
    shortage: Option<&'static str>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.fmt(f)?;
        match self.shortage {
            Some(shortage) => write!(f, ", having run out of a completion hook's {shortage}"),
            None => Ok(()),
        }
    }
}

/// What went wrong with it.
pub(super) struct Problem {
    /// A sentence that names it.
    pub(super) text: String,
    /// It is not to be run once more.
    pub(super) is_last: bool,
}

impl Problem {
    /// One that may be over the next time.
    pub(super) fn of(hook: &OnComplete<'_>, what: impl fmt::Display) -> Self {
        Self {
            text: told(hook.name, hook.command, what),
            is_last: false,
        }
    }
}

/// What became of a command, with as much of it as is needed to know it again.
fn told(name: &str, command: &str, what: impl fmt::Display) -> String {
    format!("{name}: `{}` {what}", Quoted(command))
}

impl OnComplete<'_> {
    /// Runs it to its end, once; by `until` it has to be over. What asks for the end of the run ends it too.
    ///
    /// # Errors
    /// Where it cannot be run, or fails.
    pub(super) async fn run(
        &self,
        record: &RunRecord,
        until: Instant,
        orders: Option<&mut Orders>,
    ) -> Result<(), Problem> {
        match self.try_run(record, until, orders).await {
            Ok(ended) if ended.status.success() => Ok(()),
            Ok(ended) => Err(Problem {
                is_last: ended.was_asked,
                ..Problem::of(self, format_args!("ended with {ended}"))
            }),
            Err(error) => Err(Problem::of(self, format_args!("could not be run: {error}"))),
        }
    }

    async fn try_run(
        &self,
        record: &RunRecord,
        until: Instant,
        orders: Option<&mut Orders>,
    ) -> io::Result<Ended> {
        let stdin = written(record)?;
        let cgroup = HookCgroup::make(self.docket).await;
        let cgroup = cgroup.map_err(io::Error::other)?;
        let ended = self
            .spawn_and_wait(stdin, cgroup.as_ref(), until, orders)
            .await;
        let shortage = cgroup.as_ref().and_then(HookCgroup::shortage);
        if let Some(cgroup) = cgroup {
            cgroup.remove().await;
        }
        ended.map(|(status, was_asked)| Ended {
            status,
            was_asked,
            shortage,
        })
    }

    async fn spawn_and_wait(
        &self,
        stdin: File,
        cgroup: Option<&HookCgroup>,
        until: Instant,
        orders: Option<&mut Orders>,
    ) -> io::Result<(ExitStatus, bool)> {
        let mut child = self.spawn(stdin, cgroup)?;
        let waited = wait(&mut child, cgroup, until, orders).await;
        if waited.is_err() {
            // It is not to run on unseen.
            let _ = child.kill();
            let _ = child.wait();
        }
        waited
    }

    fn spawn(&self, stdin: File, cgroup: Option<&HookCgroup>) -> io::Result<Child> {
        let Docket {
            caller, rlimits, ..
        } = self.docket;
        let mut command = std::process::Command::new("/bin/sh");
        command
            .args(["-c", self.command])
            .env_clear()
            .envs(caller::environment())
            .stdin(stdin)
            .stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
        if caller.uid != nix::unistd::geteuid().as_raw() {
            let account = User::from_uid(caller.uid.into()).ok().flatten();
            let (home, name) = account.map_or_else(
                || (PathBuf::from("/"), caller.uid.to_string()),
                |user| (user.dir, user.name),
            );
            command
                .env("HOME", home)
                .env("USER", &name)
                .env("LOGNAME", &name);
        }
        if let Some(cgroup) = cgroup {
            let procs = cgroup.open_procs().map_err(io::Error::other)?;
            child::start_in_cgroup(&mut command, procs);
        }
        child::start_as_caller(&mut command, caller, rlimits.to_restore());
        // std panics where the socket breaks over which its child tells whether it could execute the command.
        caught(|| command.spawn(), "whether it was started is not known")
    }
}

/// The record in a file of its own: whether it is read, and when, is the command's affair then, and
/// nobody waits for that.
fn written(record: &RunRecord) -> io::Result<File> {
    let mut text = serde_json::to_vec(record)?;
    text.push(b'\n');
    let mut file = File::from(memfd_create("sandbox-record", MemfdFlags::CLOEXEC)?);
    file.write_all(&text)?;
    file.rewind()?;
    Ok(file)
}

/// Waits for a while; whether an end was asked for meanwhile.
pub(super) async fn is_ended_within(pause: Duration, orders: Option<&mut Orders>) -> bool {
    let asked = async {
        match orders {
            Some(orders) => loop {
                match orders.next().await {
                    Ok(order) if order.ends_hook() => return,
                    Ok(_) => {}
                    // Where signals cannot be read nobody is heard.
                    Err(_) => return std::future::pending().await,
                }
            },
            None => std::future::pending().await,
        }
    };
    timeout(pause, asked).await.is_ok()
}

/// Waits for its end; whether it was asked to, or took too long. What asks for one is passed on to all of it, which may
/// take its time then; the second time it is killed, and where it takes too long.
async fn wait(
    child: &mut Child,
    cgroup: Option<&HookCgroup>,
    until: Instant,
    mut orders: Option<&mut Orders>,
) -> io::Result<(ExitStatus, bool)> {
    let pidfd = pidfd::open(i32::try_from(child.id()).map_err(io::Error::other)?)?;
    let ended = readiness::watch(&pidfd, Interest::READABLE)?;
    let mut status = None;
    let mut was_asked = false;
    let mut kill_at = until;
    loop {
        let is_empty = || cgroup.is_none_or(HookCgroup::is_empty);
        if let Some(status) = status.filter(|_| !was_asked || is_empty()) {
            return Ok((status, was_asked));
        }
        let order = async {
            match &mut orders {
                Some(orders) => orders.next().await,
                None => std::future::pending().await,
            }
        };
        let is_killed = tokio::select! {
            ready = ended.readable(), if status.is_none() => {
                ready?.retain_ready();
                status = Some(child.wait()?);
                false
            }
            order = order => {
                let is_asked = order?.ends_hook();
                if is_asked && !was_asked {
                    match cgroup {
                        Some(cgroup) => cgroup.signal(libc::SIGTERM),
                        // It may have ended just now.
                        None => drop(pidfd::send_signal(pidfd.as_fd(), libc::SIGTERM)),
                    }
                    kill_at = kill_at.min(Instant::now() + ENDS_WITHIN);
                }
                is_asked && std::mem::replace(&mut was_asked, true)
            }
            () = sleep_until(kill_at) => true,
            () = sleep(LOOK_EVERY), if status.is_some() => false,
        };
        if is_killed {
            if let Some(status) = status {
                // What is left of it goes with its cgroup.
                return Ok((status, true));
            }
            let _ = pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL);
            was_asked = true;
            kill_at = Instant::now() + ENDS_WITHIN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_quoted_escaped_and_cut() {
        let short = told("--on-complete", "exit 9", "ended with exit status: 9");
        assert_eq!(short, "--on-complete: `exit 9` ended with exit status: 9");
        let long = format!("tell\n\u{1b}[2J{}", "x".repeat(200));
        let told = told("on-complete", &long, "failed");
        let kept = "x".repeat(71);
        let expected = format!("on-complete: `tell\\u{{a}}\\u{{1b}}[2J{kept}…` failed");
        assert_eq!(told, expected);
    }
}
