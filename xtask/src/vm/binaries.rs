//! Builds what guests run, and asks cargo where it put it.
//!
//! Guests get a build of their own profile: optimised enough for an emulated processor, with
//! overflow checks, and without the minutes that a release build takes after each edit.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{command, workspace};

/// The cargo profile of what guests run, and of all tests: dependencies are built once.
pub(crate) const PROFILE: &str = "guest";

/// A program that cargo made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Executable {
    /// The name of its target.
    pub(crate) name: String,
    /// What kind of target it is: `bin`, `test`, `lib` …
    pub(crate) kind: String,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// Builds `sandbox` and `victim`, and gives their names and places.
pub(crate) fn guest_binaries() -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = workspace::cargo();
    cargo.args([
        "build",
        "--package",
        "sandbox-user",
        "--package",
        "sandbox-tests",
        "--bins",
    ]);
    let built = executables(&mut cargo)?;
    Ok(built
        .into_iter()
        .map(|executable| (executable.name, executable.path))
        .collect())
}

/// Runs a cargo build of `command` in the guests' profile and gives the programs it made.
pub(crate) fn executables(command: &mut Command) -> Result<Vec<Executable>> {
    command.args([
        "--profile",
        PROFILE,
        "--message-format=json-render-diagnostics",
    ]);
    // The first build takes minutes and shows its progress; after that it is not worth a line.
    if workspace::target().join(PROFILE).join("sandbox").exists() {
        command.arg("--quiet");
    }
    parse(&command::text_with_diagnostics(command)?)
}

fn parse(messages: &str) -> Result<Vec<Executable>> {
    let mut found = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Value =
            serde_json::from_str(line).context("cargo printed a message that is not JSON")?;
        let (Some("compiler-artifact"), Some(path)) =
            (message["reason"].as_str(), message["executable"].as_str())
        else {
            continue;
        };
        let target = &message["target"];
        found.push(Executable {
            name: target["name"].as_str().unwrap_or_default().to_owned(),
            kind: target["kind"][0].as_str().unwrap_or_default().to_owned(),
            path: PathBuf::from(path),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_artifacts_with_an_executable_are_programs() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"serde","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"sandbox","kind":["bin"]},"executable":"/t/sandbox"}
{"reason":"build-finished","success":true}
"#;
        let expected = Executable {
            name: "sandbox".to_owned(),
            kind: "bin".to_owned(),
            path: PathBuf::from("/t/sandbox"),
        };
        assert_eq!(
            parse(messages).expect("these are cargo's messages"),
            vec![expected]
        );
    }
}
