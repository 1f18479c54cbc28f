//! The host's configuration in a guest, for as long as a test holds it.

use std::fs;
use std::path::Path;

/// A configuration file of the guest's. Dropped, the guest has none again.
#[derive(Debug)]
pub struct Configured(());

impl Configured {
    /// Where it is.
    pub const FILE: &str = "/etc/sandbox/config.toml";
    const FOLDER: &str = "/etc/sandbox";

    /// Writes it.
    #[must_use]
    #[track_caller]
    pub fn with(text: &str) -> Self {
        assert!(
            !Path::new(Self::FILE).exists(),
            "the guest has none of its own"
        );
        fs::create_dir_all(Self::FOLDER).expect("the folder can be made");
        let configured = Self(());
        configured.change(text);
        configured
    }

    /// Writes another in its place.
    #[track_caller]
    pub fn change(&self, text: &str) {
        fs::write(Self::FILE, text).expect("the file can be written");
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        fs::remove_dir_all(Self::FOLDER).expect("the folder can be removed");
    }
}
