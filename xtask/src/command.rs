//! Running other programs, with errors worth reading.
//!
//! Most of what the tasks do is done by cargo, apt, mke2fs and QEMU. When one of them fails, the
//! person at the terminal needs the command line, its exit status and what it printed, and needs
//! them once: so every call goes through here.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `command` on our own terminal and fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = line(command);
    let status = command
        .status()
        .with_context(|| format!("could not start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// Runs `command` silently; on failure the error carries all that it printed.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    captured(command).map(drop)
}

/// Runs `command` silently and gives its standard output as text.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    let shown = line(command);
    let output = captured(command)?;
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` printed what is not UTF-8"))
}

/// Runs `command` with its diagnostics on our terminal and gives its standard output as text.
pub(crate) fn text_with_diagnostics(command: &mut Command) -> Result<String> {
    let shown = line(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("could not start `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` printed what is not UTF-8"))
}

/// The command line as a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn captured(command: &mut Command) -> Result<Output> {
    let shown = line(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not start `{shown}`"))?;
    if !output.status.success() {
        bail!(
            "`{shown}` failed: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output)
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        shell_quoted(&word)
    }
}

/// `word` in single quotes, safe to paste into a POSIX shell.
pub(crate) fn shell_quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_shown_as_it_would_be_typed() {
        let mut command = Command::new("echo");
        command.args(["plain", "two words", "it's", ""]);
        assert_eq!(line(&command), r"echo plain 'two words' 'it'\''s' ''");
    }

    #[test]
    fn a_failure_carries_the_command_and_what_it_printed() {
        let error = quiet(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]))
            .expect_err("exit 3 is a failure")
            .to_string();
        for part in ["sh -c", "exit status: 3", "out", "err"] {
            assert!(error.contains(part), "{part:?} is missing from {error:?}");
        }
    }
}
