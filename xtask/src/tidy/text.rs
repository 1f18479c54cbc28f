//! Rules for every text file: nothing unfinished, nothing of the machine that wrote it.

use std::path::Path;

use super::{Breach, File};

/// Words that mark unfinished work, in halves, so that this list does not break its own rule.
const UNFINISHED: &[(&str, &str)] = &[
    ("TO", "DO"),
    ("FIX", "ME"),
    ("XX", "X"),
    ("to", "do!("),
    ("unimple", "mented!("),
    ("d", "bg!("),
    ("<<<<", "<<< "),
    (">>>>", ">>> "),
];

/// How paths begin that only one machine has, in halves as well.
const MACHINE_PATHS: &[(&str, &str)] = &[("/wo", "rk/"), ("/ro", "ot/."), (".cargo/", "registry")];

/// Hosts of public documents. A registry's or mirror's address belongs to a machine's set-up.
const HOSTS: &[&str] = &[
    "github.com",
    "docs.rs",
    "docs.kernel.org",
    "www.kernel.org",
    "git.kernel.org",
    "man7.org",
    "www.rfc-editor.org",
    "systemd.io",
    "no-color.org",
    "json-schema.org",
];

/// Names that can never be a real host (RFC 2606).
const RESERVED: &[&str] = &[
    ".test",
    ".example",
    ".invalid",
    "example.com",
    "example.org",
];

/// Users of the guests and of examples: their homes are no machine's.
const MADE_UP_USERS: &[&str] = &["ada", "alice", "ana", "bob"];

/// All breaches in `file`.
pub(super) fn check(file: &File, root: &Path) -> Vec<Breach> {
    // Cargo's own file names its registry by a fixed address.
    let mut breaches = unfinished(file);
    breaches.extend(machine_paths(file, root));
    if file.path != "Cargo.lock" {
        breaches.extend(hosts(file));
    }
    breaches
}

fn unfinished(file: &File) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (number, line) in file.lines() {
        for (left, right) in UNFINISHED {
            let mark = format!("{left}{right}");
            if line
                .match_indices(&mark)
                .any(|(at, _)| stands_alone(line, at, mark.len()))
            {
                let why = format!(
                    "{} marks unfinished work: finish it, or open an issue",
                    mark.trim()
                );
                breaches.push(file.breaks(number, "unfinished", why));
            }
        }
    }
    breaches
}

fn machine_paths(file: &File, root: &Path) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let checkout = format!("{}/", root.display());
    for (number, line) in file.lines() {
        let at_start = |mark: &str| {
            line.match_indices(mark)
                .any(|(at, _)| !continues_path(line, at))
        };
        let home = line.match_indices("/home/").any(|(at, mark)| {
            let user: String = line[at + mark.len()..]
                .chars()
                .take_while(char::is_ascii_alphanumeric)
                .collect();
            !user.is_empty() && !continues_path(line, at) && !MADE_UP_USERS.contains(&user.as_str())
        });
        if home
            || at_start(&checkout)
            || MACHINE_PATHS
                .iter()
                .any(|(left, right)| at_start(&format!("{left}{right}")))
        {
            let why = "a path of one machine: derive it, or make it relative to the checkout";
            breaches.push(file.breaks(number, "machine-path", why));
        }
    }
    breaches
}

fn hosts(file: &File) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (number, line) in file.lines() {
        for scheme in ["http://", "https://"] {
            for (at, _) in line.match_indices(scheme) {
                let part_of_host = |c: &char| c.is_ascii_alphanumeric() || "-.".contains(*c);
                let host: String = line[at + scheme.len()..]
                    .chars()
                    .take_while(part_of_host)
                    .collect();
                let host = host.trim_end_matches('.');
                let reserved = RESERVED.iter().any(|suffix| host.ends_with(suffix));
                if !host.is_empty() && !reserved && !HOSTS.contains(&host) {
                    let why = format!(
                        "{host} is not on the list of hosts of public documents (xtask/src/tidy/text.rs); \
                         registries and mirrors come from the machine's own set-up"
                    );
                    breaches.push(file.breaks(number, "foreign-host", why));
                }
            }
        }
    }
    breaches
}

/// Whether a mark is a word of its own and not a part of another one.
fn stands_alone(line: &str, at: usize, length: usize) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let before = line[..at].chars().next_back().is_some_and(word);
    let ends_in_word = line[..at + length].chars().next_back().is_some_and(word);
    let after = ends_in_word && line[at + length..].chars().next().is_some_and(word);
    !before && !after
}

/// Whether the slash at `at` goes on a path that began before it.
fn continues_path(line: &str, at: usize) -> bool {
    line[..at]
        .chars()
        .next_back()
        .is_some_and(|c| c.is_ascii_alphanumeric() || "._-}".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<&'static str> {
        let file = File {
            path: "README.md".to_owned(),
            text: text.to_owned(),
        };
        check(&file, Path::new("/a/checkout"))
            .into_iter()
            .map(|breach| breach.rule)
            .collect()
    }

    #[test]
    fn marks_of_unfinished_work_are_found() {
        for (left, right) in UNFINISHED {
            assert_eq!(
                rules(&format!("// {left}{right} later")),
                ["unfinished"],
                "{left}{right}"
            );
        }
        assert_eq!(rules("mktemp sandbox.XXXXXX, METHODOLOGY"), [] as [&str; 0]);
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        let homes = ["", "home"].join("/");
        for path in [
            "/a/checkout/xtask",
            &format!("{homes}/somebody/.ssh"),
            concat!("/ro", "ot/.cargo/bin"),
            concat!("/wo", "rk/main"),
        ] {
            assert_eq!(rules(&format!("see {path}")), ["machine-path"], "{path}");
        }
        assert_eq!(
            rules("mount /new/root/payload; cd /home/ana; ls target/work/x"),
            [] as [&str; 0]
        );
    }

    #[test]
    fn hosts_of_registries_and_mirrors_are_found() {
        let registry = ["https:", "", "index.crates.io", "config.json"].join("/");
        assert_eq!(rules(&registry), ["foreign-host"]);
        assert_eq!(
            rules("https://github.com/aya-rs/aya and http://mirror.test/debian"),
            [] as [&str; 0]
        );
    }
}
