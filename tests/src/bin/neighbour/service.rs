//! How soon the service answers meanwhile.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sandbox_tests::Service;

const PAUSE: Duration = Duration::from_millis(200);

/// What came of asking it again and again.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) times: u64,
    pub(crate) failed: u64,
    pub(crate) slowest_ms: f64,
}

/// Somebody who asks as a user does, as long as there is a service to be asked.
pub(crate) struct Asking {
    /// Dropped, it ends.
    goes_on: Sender<()>,
    thread: JoinHandle<Asked>,
}

impl Asking {
    pub(crate) fn begin() -> Self {
        let (goes_on, ended) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut asked = Asked::default();
            while Path::new(Service::SOCKET).exists() {
                asked.ask();
                if ended.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            asked
        });
        Self { goes_on, thread }
    }

    pub(crate) fn end(self) -> Asked {
        let Self { goes_on, thread } = self;
        drop(goes_on);
        thread.join().expect("asking does not panic")
    }
}

impl Asked {
    fn ask(&mut self) {
        let before = Instant::now();
        let said = Command::new("sandbox")
            .args(["list", "--most", "1"])
            .stdout(Stdio::null())
            .status();
        self.times += 1;
        self.failed += u64::from(!said.is_ok_and(|status| status.success()));
        self.slowest_ms = self.slowest_ms.max(before.elapsed().as_secs_f64() * 1e3);
    }
}
