//! Asking a guest's systemd.

use std::process::Command;

/// Runs systemctl(1); gives what it prints.
///
/// # Panics
///
/// Where it fails.
#[track_caller]
pub fn systemctl(words: &[&str]) -> String {
    let output = Command::new("systemctl").args(words).output();
    let output = output.expect("the guest has systemctl");
    assert!(output.status.success(), "systemctl {words:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
