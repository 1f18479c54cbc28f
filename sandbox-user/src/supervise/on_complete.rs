//! `--on-complete`: a command that gets the record once the run is over, whoever wrote it.
//!
//! It runs as whoever called and under that one's limits, outside of every leaf, by /bin/sh, and twice
//! more at most where it fails. What it prints goes to stderr, since stdout is the analysis's; how it
//! ends changes nothing about the run.

use std::{
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

use super::{caught::caught, docket::Docket, orders::Orders, spool};
use crate::{
    caller,
    record::RunRecord,
    say::say,
    sys::{child, creds::FileIdentity, pidfd, readiness, rlimits::CallersLimits},
};

/// How long it may take, all that it is run together.
const WITHIN: Duration = Duration::from_secs(600);
/// How long it may take to end once it was asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// How long it is waited before a command that failed is run once more; then it is given up.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Runs what is to be run in the end, one after another, and leaves for the service what went wrong.
pub(super) async fn run_all(docket: &Docket, record: &RunRecord, mut orders: Option<&mut Orders>) {
    let mut problems = Vec::new();
    for on_complete in docket.on_complete() {
        problems.extend(on_complete.run(record, orders.as_deref_mut()).await);
    }
    if !problems.is_empty() {
        spool::leave_hook_problem(docket, &problems.join("; "));
    }
}

/// A command for the end.
#[derive(Debug)]
pub(super) struct OnComplete<'a> {
    /// What it is called, for people.
    pub(super) name: &'static str,
    /// What the shell is given.
    pub(super) command: &'a str,
    /// Whom it runs as.
    pub(super) caller: &'a FileIdentity,
    /// Under which limits.
    pub(super) rlimits: &'a CallersLimits,
}

/// How it ended.
struct Ended {
    status: ExitStatus,
    /// It was asked to, or took too long: it is not to be run once more.
    was_asked: bool,
}

impl OnComplete<'_> {
    /// Runs it to its end, and where it fails a few times more; what goes wrong is said. Gives what went wrong the
    /// last time. What asks for the end of the run ends it too.
    async fn run(&self, record: &RunRecord, mut orders: Option<&mut Orders>) -> Option<String> {
        let mut pauses = PAUSES.iter();
        let until = Instant::now() + WITHIN;
        loop {
            let (problem, is_last) = match self.try_run(record, until, orders.as_deref_mut()).await
            {
                Ok(Ended { status, .. }) if status.success() => return None,
                Ok(Ended { status, was_asked }) => (format!("ended with {status}"), was_asked),
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
        let mut child = self.spawn(written(record)?)?;
        let waited = wait(&mut child, until, orders).await;
        if waited.is_err() {
            // It is not to run on unseen.
            let _ = child.kill();
            let _ = child.wait();
        }
        waited
    }

    fn spawn(&self, stdin: File) -> io::Result<Child> {
        let mut command = std::process::Command::new("/bin/sh");
        command
            .args(["-c", self.command])
            .env_clear()
            .envs(caller::environment())
            .stdin(stdin)
            .stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
        if self.caller.uid != nix::unistd::geteuid().as_raw() {
            let account = User::from_uid(self.caller.uid.into()).ok().flatten();
            let (home, name) = account.map_or_else(
                || (PathBuf::from("/"), self.caller.uid.to_string()),
                |user| (user.dir, user.name),
            );
            command
                .env("HOME", home)
                .env("USER", &name)
                .env("LOGNAME", &name);
        }
        child::start_as_caller(&mut command, self.caller, self.rlimits.to_restore());
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

/// Waits for its end. What asks for one is passed on; the second time it is killed, and where it takes
/// too long.
async fn wait(
    child: &mut Child,
    until: Instant,
    mut orders: Option<&mut Orders>,
) -> io::Result<Ended> {
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
                return Ok(Ended { status, was_asked });
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
