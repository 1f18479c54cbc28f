//! Which Debian mirror to ask: the one that this machine's own apt is set up with.
//!
//! Build machines often reach no other. Both forms of apt's sources are read, one-line and deb822;
//! on a machine without a Debian mirror (Ubuntu, say) the environment can name one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Overrides what the machine's sources say.
const ARCHIVE_VARIABLE: &str = "SANDBOX_DEBIAN_MIRROR";
const SECURITY_VARIABLE: &str = "SANDBOX_DEBIAN_SECURITY_MIRROR";

/// Where the Debian archive is to be had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mirrors {
    /// Holds the releases and their backports.
    pub(crate) archive: String,
    /// Holds the security updates, where the machine knows of such a mirror.
    pub(crate) security: Option<String>,
}

/// One `URI suite` pair of a sources file.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
}

impl Mirrors {
    /// Reads them from the environment or from the machine's sources.
    pub(crate) fn of_this_machine() -> Result<Self> {
        let named = |variable: &str| {
            std::env::var(variable)
                .ok()
                .filter(|value| !value.is_empty())
        };
        let sources = read_sources(Path::new("/etc/apt"));
        let found = choose(&sources);
        let archive = named(ARCHIVE_VARIABLE)
            .or_else(|| found.as_ref().map(|mirrors| mirrors.archive.clone()))
            .with_context(|| {
                format!(
                    "no Debian mirror is named in /etc/apt/sources.list or /etc/apt/sources.list.d: \
                     set {ARCHIVE_VARIABLE} (and {SECURITY_VARIABLE}) to the address of one"
                )
            })?;
        let security =
            named(SECURITY_VARIABLE).or_else(|| found.and_then(|mirrors| mirrors.security));
        Ok(Self {
            archive: direct(&archive),
            security: security.as_deref().map(direct),
        })
    }
}

/// A `mirror+file:` address stands for the first address in that file: other tools than apt, in
/// another root, could not follow it.
fn direct(uri: &str) -> String {
    uri.strip_prefix("mirror+file:")
        .and_then(|list| fs::read_to_string(list).ok())
        .and_then(|list| list.split_whitespace().next().map(str::to_owned))
        .unwrap_or_else(|| uri.to_owned())
}

fn choose(sources: &[Source]) -> Option<Mirrors> {
    let releases = [
        "bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable", "bullseye",
    ];
    let is_security = |source: &&Source| {
        let suite = source.suite.trim_end_matches("/updates");
        suite
            .strip_suffix("-security")
            .is_some_and(|release| releases.contains(&release))
    };
    let archive = sources
        .iter()
        .find(|source| releases.contains(&source.suite.as_str()))?;
    let security = sources.iter().find(is_security);
    Some(Mirrors {
        archive: archive.uri.clone(),
        security: security.map(|source| source.uri.clone()),
    })
}

fn read_sources(etc: &Path) -> Vec<Source> {
    let mut files = vec![etc.join("sources.list")];
    let mut parts: Vec<PathBuf> = fs::read_dir(etc.join("sources.list.d"))
        .map(|folder| {
            folder
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .collect()
        })
        .unwrap_or_default();
    parts.sort();
    files.append(&mut parts);
    let mut sources = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(one_line(&text)),
            Some("sources") => sources.extend(deb822(&text)),
            Some(_) | None => {}
        }
    }
    sources
}

/// `deb [options] URI suite component…`
fn one_line(text: &str) -> Vec<Source> {
    let parse = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let rest = line.strip_prefix("deb ")?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let uri = words.next()?.trim_end_matches('/').to_owned();
        let suite = words.next()?.to_owned();
        words
            .any(|component| component == "main")
            .then_some(Source { uri, suite })
    };
    text.lines().filter_map(parse).collect()
}

/// Stanzas of `Types:`, `URIs:`, `Suites:`, `Components:`.
fn deb822(text: &str) -> Vec<Source> {
    let without_comments: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let mut sources = Vec::new();
    for stanza in without_comments.split(|line| line.trim().is_empty()) {
        let words = |key: &str| -> Vec<String> {
            let mut found = Vec::new();
            let mut inside = false;
            for line in stanza {
                if line.starts_with([' ', '\t']) {
                    if inside {
                        found.extend(line.split_whitespace().map(str::to_owned));
                    }
                    continue;
                }
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                inside = name.trim().eq_ignore_ascii_case(key);
                if inside {
                    found.extend(value.split_whitespace().map(str::to_owned));
                }
            }
            found
        };
        let disabled = words("Enabled")
            .iter()
            .any(|value| value.eq_ignore_ascii_case("no"));
        let holds = |key: &str, wanted: &str| words(key).iter().any(|word| word == wanted);
        if disabled || !holds("Types", "deb") || !holds("Components", "main") {
            continue;
        }
        let uris = words("URIs");
        for suite in words("Suites") {
            sources.extend(uris.iter().map(|uri| Source {
                uri: uri.trim_end_matches('/').to_owned(),
                suite: suite.clone(),
            }));
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb
# http://snapshot.test/debian
URIs: http://mirror.test/debian/
Suites: bookworm bookworm-updates
Components: main

Types: deb deb-src
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main
 contrib
Signed-By: /some/key.gpg
";

    #[test]
    fn a_deb822_file_names_archive_and_security_mirror() {
        assert_eq!(
            choose(&deb822(DEB822)),
            Some(Mirrors {
                archive: "http://mirror.test/debian".to_owned(),
                security: Some("http://mirror.test/debian-security".to_owned()),
            })
        );
    }

    #[test]
    fn a_disabled_stanza_is_not_used() {
        assert_eq!(
            deb822(&DEB822.replace("Types: deb\n", "Types: deb\nEnabled: no\n")).len(),
            1
        );
    }

    #[test]
    fn a_one_line_file_is_read_with_options_and_comments() {
        let text = "# deb http://old.test/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian trixie main contrib # ours\n";
        let expected = Mirrors {
            archive: "http://mirror.test/debian".to_owned(),
            security: None,
        };
        assert_eq!(choose(&one_line(text)), Some(expected));
    }

    #[test]
    fn other_vendors_archives_are_not_taken_for_debian() {
        let text =
            "deb http://vendor.test/ubuntu noble main\ndeb http://tool.test/repo nodistro main\n";
        assert_eq!(choose(&one_line(text)), None);
    }
}
