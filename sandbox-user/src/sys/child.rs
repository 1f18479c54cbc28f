//! Children that std starts.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Has a command start with an empty signal mask: this process blocks its signals, and std passes the
/// mask on.
pub fn unblock_signals(command: &mut Command) {
    // SAFETY: the closure makes one system call, which is signal-safe, in the forked child.
    unsafe {
        command.pre_exec(|| {
            super::clone::set_signal_mask(0)
                .map(drop)
                .map_err(std::io::Error::from_raw_os_error)
        });
    }
}
