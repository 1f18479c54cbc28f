//! The Debian package in a guest, for as long as a test holds it.

use std::process::Command;

use crate::scene::{Scene, Spoken};

/// Where `cargo xtask test` puts it, and `cargo xtask vm run --file`, for a shell.
const FILE: &str = "/payload/files/sandbox*.deb";

/// The package, installed. Dropped, it is purged.
#[derive(Debug)]
pub struct Package(());

impl Package {
    /// Installs it, as an operator would.
    #[must_use]
    #[track_caller]
    pub fn install() -> Self {
        let package = Self(());
        package.upgrade();
        package
    }

    /// Installs it once more.
    #[track_caller]
    pub fn upgrade(&self) {
        let _said = dpkg(&["--install", FILE]).expect(0);
    }

    /// Removes it, its state and its configuration.
    #[track_caller]
    pub fn purge(&self) {
        let _said = dpkg(&["--purge", "sandbox"]).expect(0);
    }
}

fn dpkg(words: &[&str]) -> Spoken {
    Scene::new().bash(&format!(
        "DEBIAN_FRONTEND=noninteractive dpkg {}",
        words.join(" ")
    ))
}

impl Drop for Package {
    fn drop(&mut self) {
        // It may have been purged already.
        let _ = dpkg(&["--purge", "sandbox"]);
        let _ = Command::new("systemctl").arg("reset-failed").status();
        let _ = Command::new("systemctl").arg("daemon-reload").status();
    }
}
