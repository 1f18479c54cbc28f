//! The guest that a test runs in, and the promise to leave it as it was.

use std::fs;

use crate::leftovers::{Leftovers, SETTLING};

/// What runs as PID 1 of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A script: cgroup v2 and no manager.
    Bare,
    /// A full systemd userland.
    Systemd,
}

/// Held by every test from its first line on.
///
/// Dropped, it fails the test where the guest holds a leaf, a process or a pin more than when the
/// test began, and removes those so that the next test does not meet them.
#[derive(Debug)]
pub struct Guest {
    /// What `uname -r` says.
    pub kernel: String,
    /// What runs as PID 1.
    pub mode: Mode,
    before: Leftovers,
}

impl Guest {
    /// Enters the guest.
    ///
    /// # Panics
    ///
    /// Outside of a guest: what these tests do is meant for a machine that is thrown away.
    #[must_use]
    pub fn enter() -> Self {
        let marker = |name: &str| {
            fs::read_to_string(format!("/run/sandbox-guest/{name}"))
                .map(|text| text.trim().to_owned())
        };
        let (Ok(kernel), Ok(mode)) = (marker("kernel"), marker("mode")) else {
            panic!("this test needs a guest of its own: run it with `cargo xtask test`");
        };
        let mode = match mode.as_str() {
            "bare" => Mode::Bare,
            "systemd" => Mode::Systemd,
            other => panic!("/run/sandbox-guest/mode names the unknown mode {other:?}"),
        };
        Self {
            kernel,
            mode,
            before: Leftovers::find(),
        }
    }

    /// The major and minor version of the running kernel.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        let mut numbers = self
            .kernel
            .split('.')
            .map_while(|number| number.parse().ok());
        match (numbers.next(), numbers.next()) {
            (Some(major), Some(minor)) => (major, minor),
            _ => panic!(
                "the kernel's release {:?} does not begin with a version",
                self.kernel
            ),
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Some(left) = self.before.new_ones(SETTLING) else {
            return;
        };
        left.remove();
        if std::thread::panicking() {
            eprintln!("besides, the test left behind:\n{left}");
        } else {
            panic!("the test left behind:\n{left}");
        }
    }
}
