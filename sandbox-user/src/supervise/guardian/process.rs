//! The guardian process: it listens until the run is over, or its supervisor is.

use std::{
    fmt,
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::net::UnixStream,
    },
    thread,
    time::Duration,
};

use nix::unistd;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    time::{Instant, sleep_until},
};

use super::{
    Message, News, tell,
    ward::{Done, Ward},
};
use crate::{
    cgroup::enter,
    cli::EXIT_FAILURE,
    say::say,
    supervise::{
        record_file::{Announced, RecordFile},
        runtime::runtime,
        signals,
    },
    sys::fork::{be_listed_as, close_all_but},
};

/// How much later than the supervisor the guardian keeps a deadline.
const LATER: Duration = Duration::from_secs(1);
/// How long after it was told where it belongs, right before main starts, the guardian goes there. While it does, which
/// takes a grace period of RCU, nothing can be started in any cgroup, nor one be made or removed (`cgroup_mutex`,
/// kernel/cgroup/cgroup.c): a short run is to have none of that.
const SETTLES_AFTER: Duration = Duration::from_millis(200);

/// What it is listed as.
const LISTED_AS: &[u8] = b"sandbox-guardian\0guardian\0";

/// Is a guardian that was executed: hears on stdin, until the run is over or the supervisor is.
///
/// # Errors
/// Where the socket cannot be read or the run cannot be ended; what could not be done is in the
/// message.
pub fn main() -> io::Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    guard(socket.into(), None)
}

/// Is a guardian that was forked, with the open record, and gives its exit status.
pub(super) fn forked(socket: UnixStream, record: Option<RecordFile>) -> u8 {
    match part_with_the_supervisors(&socket, record.as_ref()).and_then(|()| guard(socket, record)) {
        Ok(()) => 0,
        Err(error) => {
            say(error);
            EXIT_FAILURE
        }
    }
}

/// Keeps nothing of what the supervisor has but these, and stderr.
fn part_with_the_supervisors(socket: &UnixStream, record: Option<&RecordFile>) -> io::Result<()> {
    be_listed_as(LISTED_AS);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    unistd::dup2_stdin(&null)?;
    unistd::dup2_stdout(&null)?;
    drop(null);
    let record = record.map(|record| record.as_fd().as_raw_fd());
    close_all_but(record.into_iter().chain([socket.as_raw_fd()]).collect())
}

fn guard(socket: UnixStream, record: Option<RecordFile>) -> io::Result<()> {
    signals::block_all()?;
    nix::sys::prctl::set_name(c"sandbox-guard")?;
    // Ctrl-C in the terminal is not for the guardian.
    unistd::setsid()?;
    runtime()?.block_on(async {
        let answers = socket.try_clone()?;
        socket.set_nonblocking(true)?;
        let lines = BufReader::new(tokio::net::UnixStream::from_std(socket)?).lines();
        watch_over(Ward::with(record), lines, answers).await
    })
}

async fn watch_over(
    mut ward: Ward,
    mut lines: Lines<BufReader<tokio::net::UnixStream>>,
    mut answers: UnixStream,
) -> io::Result<()> {
    let mut overdue: Option<Instant> = None;
    // When it goes where it belongs.
    let mut home: Option<(Instant, String)> = None;
    let mut failures = 0;
    loop {
        let line = tokio::select! {
            // A supervisor that dies with an answer unread resets the connection (net/unix/af_unix.c,
            // unix_release_sock), after which the end is read. What goes wrong just once is none.
            line = lines.next_line() => match line {
                Err(_) if failures == 0 => {
                    failures += 1;
                    continue;
                }
                line => line.unwrap_or(None),
            },
            () = until(overdue) => {
                overdue = None;
                ward.keep_deadline(&answers).await;
                continue;
            }
            () = until(home.as_ref().map(|(moment, _)| *moment)) => {
                if let Some((_, cgroup)) = home.take()
                    && let Err(error) = go_home(cgroup, &answers)
                {
                    tell(&answers, &News::Failed(stays(&error)));
                }
                continue;
            }
        };
        let Some(line) = line else { break };
        failures = 0;
        let taken = match serde_json::from_str(&line) {
            Ok(Message::Run(docket)) => ward.take(*docket),
            Ok(Message::Adopt(state)) => ward.adopt(*state).map(|()| Some(Done)),
            Ok(Message::Leaf(cgroup)) => {
                ward.announced = Some(cgroup);
                Ok(None)
            }
            Ok(Message::Home(cgroup)) => {
                home = Some((Instant::now() + SETTLES_AFTER, cgroup));
                Ok(None)
            }
            Ok(Message::Started(start)) => {
                ward.start = Some(start);
                overdue = start
                    .left()
                    .and_then(|time| Instant::now().checked_add(time.saturating_add(LATER)));
                Ok(None)
            }
            Ok(Message::Changed(change)) => {
                ward.change(*change);
                Ok(None)
            }
            Ok(Message::Recording) => {
                ward.announced_record = Announced::Yes;
                Ok(None)
            }
            Ok(Message::Recorded(errand)) => {
                ward.errand = Some(*errand);
                overdue = None;
                Ok(None)
            }
            Ok(Message::Over) => {
                ward.be_over();
                (overdue, home) = (None, None);
                Ok(Some(Done))
            }
            Err(error) => Err(error.to_string()),
        };
        let answer = match taken {
            Ok(None) => continue,
            Ok(Some(Done)) => String::new(),
            Err(problem) => problem.replace('\n', " "),
        };
        // Where the supervisor has gone the next line is the end.
        let _ = writeln!(answers, "{answer}");
    }
    ward.finish(answers).await
}

/// Goes there, which takes its time: the guardian listens meanwhile.
///
/// # Errors
/// Where there is no thread or no descriptor to be had.
fn go_home(cgroup: String, supervisor: &UnixStream) -> io::Result<()> {
    let supervisor = supervisor.try_clone()?;
    let going = move || {
        if let Err(error) = enter(&cgroup) {
            tell(&supervisor, &News::Failed(stays(&error)));
        }
    };
    thread::Builder::new().spawn(going).map(drop)
}

fn stays(why: &dyn fmt::Display) -> String {
    format!("the guardian stays in the cgroup of whoever started `sandbox`: {why}")
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
