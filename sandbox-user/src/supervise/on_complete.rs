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
    time::{Instant, sleep_until, timeout},
};

use super::{caught::caught, docket::Docket, hook_cgroup::HookCgroup, orders::Orders};
use crate::{
    caller,
    record::RunRecord,
    say::say,
    sys::{child, pidfd, readiness},
};

/// How long it may take, all that it is run together.
const WITHIN: Duration = Duration::from_secs(600);
/// How long it may take to end once it was asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// How long it is waited before a command that failed is run once more; then it is given up.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

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

impl OnComplete<'_> {
    /// Runs it to its end, and where it fails a few times more; what goes wrong is said. Gives what went wrong the
    /// last time. What asks for the end of the run ends it too.
    pub(super) async fn run(
        &self,
        record: &RunRecord,
        mut orders: Option<&mut Orders>,
    ) -> Option<String> {
        let mut pauses = PAUSES.iter();
        let until = Instant::now() + WITHIN;
        loop {
            let (problem, is_last) = match self.try_run(record, until, orders.as_deref_mut()).await
            {
                Ok(ended) if ended.status.success() => return None,
                Ok(ended) => (format!("ended with {ended}"), ended.was_asked),
                Err(error) => (format!("could not be run: {error}"), false),
            };
            let pause = pauses.next().filter(|_| !is_last);
            let then = pause.map_or_else(String::new, |pause| {
                format!("; it is run once more in {} s", pause.as_secs())
            });
            let problem = format!("{}: {} {problem}", self.name, self.command);
            say(format_args!("{problem}{then}"));
            let Some(pause) = pause else {
                return Some(problem);
            };
            if is_ended_within(*pause, orders.as_deref_mut()).await {
                return Some(problem);
            }
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
        let waited = wait(&mut child, until, orders).await;
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
            let procs = cgroup.door().map_err(io::Error::other)?;
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
async fn is_ended_within(pause: Duration, orders: Option<&mut Orders>) -> bool {
    let asked = async {
        match orders {
            Some(orders) => loop {
                match orders.next().await {
                    Ok(order) if order.ends() => return,
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

/// Waits for its end; whether it was asked to, or took too long. What asks for one is passed on; the second time it
/// is killed, and where it takes too long.
async fn wait(
    child: &mut Child,
    until: Instant,
    mut orders: Option<&mut Orders>,
) -> io::Result<(ExitStatus, bool)> {
    let pidfd = pidfd::open(i32::try_from(child.id()).map_err(io::Error::other)?)?;
    let ended = readiness::watch(&pidfd, Interest::READABLE)?;
    let mut ask = libc::SIGTERM;
    let mut was_asked = false;
    let mut kill_at = until;
    loop {
        let order = async {
            match &mut orders {
                Some(orders) => orders.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = ended.readable() => {
                ready?.retain_ready();
                let status = child.wait()?;
                return Ok((status, was_asked));
            }
            order = order => {
                if order?.ends() {
                    // It may have ended just now.
                    let _ = pidfd::send_signal(pidfd.as_fd(), ask);
                    ask = libc::SIGKILL;
                    was_asked = true;
                    kill_at = kill_at.min(Instant::now() + ENDS_WITHIN);
                }
            }
            () = sleep_until(kill_at) => {
                let _ = pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL);
                was_asked = true;
                kill_at = Instant::now() + WITHIN;
            }
        }
    }
}
