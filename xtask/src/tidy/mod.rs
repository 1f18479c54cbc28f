//! `cargo xtask tidy`: the house rules that a program can check.
//!
//! A rule that only people check is a rule with exceptions. Each of these says where it is broken,
//! why the rule is there, and stands in a unit test that proves it fires.

mod manifests;
mod readme;
mod rust;
mod text;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{files, workspace};

/// A file of the repository, with its text.
#[derive(Debug)]
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|extension| extension == "rs")
    }

    /// Its lines, counted from one.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    fn breaks(&self, line: usize, rule: &'static str, why: impl Into<String>) -> Breach {
        Breach {
            path: self.path.clone(),
            line,
            rule,
            why: why.into(),
        }
    }
}

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Breach {
    path: String,
    line: usize,
    rule: &'static str,
    why: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}:{}: {} — {}",
            self.path, self.line, self.rule, self.why
        )
    }
}

/// Checks all files of the repository.
pub(crate) fn run() -> Result<ExitCode> {
    let root = workspace::root();
    let mut read = Vec::new();
    for path in files::of_the_repository()? {
        let bytes = std::fs::read(root.join(&path))
            .with_context(|| format!("could not read {}", path.display()))?;
        // What is not text (the eBPF object) has checks of its own.
        if let Ok(text) = String::from_utf8(bytes) {
            read.push(File {
                path: path.to_string_lossy().into_owned(),
                text,
            });
        }
    }
    let mut breaches = Vec::new();
    for file in &read {
        breaches.extend(text::check(file, &root));
        if file.is_rust() {
            breaches.extend(rust::check(file));
        }
        breaches.extend(manifests::check(file));
        breaches.extend(readme::check(file, &root));
    }
    breaches.sort();
    for breach in &breaches {
        println!("{breach}");
    }
    if breaches.is_empty() {
        println!("tidy: {} files keep the house rules", read.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!("tidy: breaches of the house rules: {}", breaches.len());
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breach_names_file_line_rule_and_reason() {
        let file = File {
            path: "a/b.rs".to_owned(),
            text: String::new(),
        };
        assert_eq!(
            file.breaks(3, "rule", "why it is there").to_string(),
            "a/b.rs:3: rule — why it is there"
        );
    }
}
