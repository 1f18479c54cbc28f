//! A main process that the event loop has left without its wait status.
//!
//! Once the leaf is empty most of them can be waited for: a tracer that was in it is dead, and what was
//! slow to die has died. For the others the record says why not.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use crate::{
    evidence::WaitStatus,
    procfs,
    sys::pidfd::{self, Patience, Reap},
};

/// How long after the leaf has become empty a tracer's end may take to show.
const WITHIN: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Such a main process.
#[derive(Debug)]
pub(super) struct Unreaped {
    /// Its pidfd.
    pub(super) main: OwnedFd,
    /// Why it was left.
    pub(super) why: Why,
}

/// Why a main process was left without its wait status.
#[derive(Debug)]
pub(super) enum Why {
    /// It has ended, and somebody traces it.
    Withheld {
        /// The tracer, for people.
        tracer: String,
    },
    /// It was killed, and has not ended.
    Hangs,
    /// It could not be watched any longer.
    Lost,
}

impl Why {
    /// It has ended, and this process traces it; `None` where it cannot be seen.
    pub(super) fn withheld(tracer: Option<u32>) -> Self {
        let tracer = match tracer {
            Some(pid) => {
                let comm = procfs::bytes(format!("/proc/{pid}/comm")).unwrap_or_default();
                let comm = String::from_utf8_lossy(&comm);
                format!("{} (pid {pid})", comm.trim_end())
            }
            None => "a process that cannot be seen from here".to_owned(),
        };
        Self::Withheld { tracer }
    }
}

impl Unreaped {
    /// Waits for it once more; `None` where that cannot be had.
    ///
    /// # Errors
    /// Where it is no child of ours.
    pub(super) async fn wait(&self) -> io::Result<Option<WaitStatus>> {
        let until = Instant::now() + WITHIN;
        loop {
            let status = pidfd::wait(self.main.as_fd(), Reap::Take, Patience::Poll)?;
            if status.is_some() || Instant::now() > until {
                return Ok(status);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;
    use crate::{
        supervise::{
            docket::tests::docket,
            gather::{Ended, gather},
            journal::Journal,
            runtime::runtime,
        },
        sys::pidfd::open,
    };

    fn ended(child: &Child, why: Why) -> Ended {
        let pid = i32::try_from(child.id()).expect("a pid");
        Ended {
            unreaped: Some(Unreaped {
                main: open(pid).expect("it is our child"),
                why,
            }),
            ..Ended::default()
        }
    }

    fn degraded(mut ended: Ended) -> (Option<WaitStatus>, Vec<String>) {
        let runtime = runtime().expect("a runtime");
        runtime.block_on(ended.reap_main());
        let docket = docket();
        let gathered = gather(&docket, None, None, &mut ended, &mut Journal::default());
        let evidence = gathered.evidence;
        (evidence.status, evidence.degraded)
    }

    #[test]
    fn a_main_that_was_slow_to_die_and_has_died_does_not_hang() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "exit 3"])
            .spawn()
            .expect("there is a shell");
        let (status, degraded) = degraded(ended(&child, Why::Hangs));
        assert_eq!(status, Some(WaitStatus::Exited { code: 3 }));
        assert_eq!(degraded, [] as [&str; 0]);
        assert!(child.wait().is_err(), "it was waited for already");
    }

    #[test]
    fn why_a_main_was_never_waited_for_is_told() {
        let mut child = Command::new("/bin/sleep")
            .arg("60")
            .spawn()
            .expect("there is a sleep");
        for (why, expected) in [
            (Why::Hangs, Some("it hangs in the kernel")),
            (Why::withheld(Some(1)), Some("(pid 1), which traced it")),
            (Why::withheld(None), Some("how it ended is not known")),
            (Why::Lost, None),
        ] {
            let (status, degraded) = degraded(ended(&child, why));
            assert_eq!(status, None);
            match (expected, &degraded[..]) {
                (Some(expected), [only]) => assert!(only.contains(expected), "{only}"),
                (expected, told) => assert_eq!((expected, told), (None, &[] as &[String])),
            }
        }
        child.kill().expect("it is ours");
        child.wait().expect("it is our child");
    }
}
