//! What `sandbox check` prints: findings as text or JSON, and what was cleaned up.
//!
//! Colour only repeats what the first word of a line says, and control characters of anything that
//! was read from the host never reach the terminal.

use std::error::Error;
use std::fmt::Write;

use serde::Serialize;

use super::HostInfo;
use super::assess::{Finding, Status, assess, will_run};
use super::facts::HostFacts;
use super::pins::{Removed, remove_pins};
use crate::cgroup::Mount;
use crate::cli::{CheckArgs, CheckOutput, Cleaning, EXIT_FAILURE};
use crate::evidence::Confidence;
use crate::supervise::{Recovered, recover};
use crate::trace::{Tracer, Unused};
use crate::units::Printable;

/// Whether text may carry colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// It may.
    On,
    /// Plain.
    Off,
}

impl Colour {
    /// On for a terminal, unless NO_COLOR is set and not empty (<https://no-color.org>).
    pub fn for_stdout() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if std::io::IsTerminal::is_terminal(&std::io::stdout()) && !no_color {
            Self::On
        } else {
            Self::Off
        }
    }
}

/// `sandbox check`: looks, removes what nobody looks after, prints to stdout. Returns the exit status.
///
/// # Errors
/// Where stdout cannot be written.
pub fn check(args: &CheckArgs) -> Result<u8, Box<dyn Error>> {
    // First of all: what the pins hold of lost runs is needed for their records.
    let recovered = recover_as_root();
    // Before programs are loaded only to see whether they can be, which are not worth a word.
    let cleaned = (args.cleaning() == Cleaning::Remove).then(|| remove_pins(Unused::Any));
    let mut report = CheckReport::gather(|| match Tracer::open() {
        Ok(tracer) => Ok(tracer.mode()),
        Err(error) => Err(error.to_string()),
    });
    report.recovered(recovered);
    if let Some(cleaned) = cleaned {
        report.clean(|| cleaned);
        report.clean(|| remove_pins(Unused::Any).map(|(_, problems)| (Vec::new(), problems)));
    }
    let text = match args.output() {
        CheckOutput::Text => report.text(Colour::for_stdout()),
        CheckOutput::Json => report.json()? + "\n",
    };
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    Ok(report.exit_status())
}

/// Sees to leaves that nobody looks after, on a host where leaves can be; blocks.
fn recover_as_root() -> Recovered {
    match Mount::find() {
        Ok(mount) if nix::unistd::geteuid().is_root() => recover(&mount),
        Ok(_) | Err(_) => Recovered::default(),
    }
}

/// The result of `sandbox check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// `sandbox run` will work.
    pub ok: bool,
    /// The host's service does the runs of whoever looks.
    pub served: bool,
    /// The host.
    pub host: HostInfo,
    /// What was looked at.
    pub findings: Vec<Finding>,
    /// What was removed, one item each: orphaned leaves, stale pins.
    pub removed: Vec<String>,
    /// What could not be removed or judged, one sentence each.
    pub problems: Vec<String>,
}

impl CheckReport {
    /// Looks at this host. `tracing` says what loading the eBPF programs comes to, which root alone may.
    pub fn gather(tracing: impl FnOnce() -> Result<Confidence, String>) -> Self {
        let facts = HostFacts::gather();
        let tracing = (facts.euid == 0).then(tracing);
        Self::new(&facts, tracing.as_ref())
    }

    /// Judges facts.
    pub fn new(facts: &HostFacts, tracing: Option<&Result<Confidence, String>>) -> Self {
        let findings = assess(facts, tracing);
        Self {
            ok: will_run(&findings),
            served: facts.is_served(),
            host: facts.info.clone(),
            findings,
            removed: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// What became of leaves that nobody looked after.
    fn recovered(&mut self, recovered: Recovered) {
        let named = |left| format!("orphaned leaf {left}");
        self.removed.extend(recovered.left.iter().map(named));
        self.problems.extend(recovered.problems);
    }

    /// Removes what `--clean` removes besides (stale pins): `clean` names what it removed, and what
    /// it could not judge.
    pub(crate) fn clean(&mut self, clean: impl FnOnce() -> Result<Removed, String>) {
        match clean() {
            Ok((removed, problems)) => {
                self.removed.extend(removed);
                self.problems.extend(problems);
            }
            Err(problem) => self.problems.push(problem),
        }
    }

    /// Exit status of `sandbox check`: 0 when `run` will work, else 125.
    pub fn exit_status(&self) -> u8 {
        if self.ok { 0 } else { EXIT_FAILURE }
    }

    /// For people.
    pub fn text(&self, colour: Colour) -> String {
        let width = self
            .findings
            .iter()
            .map(|finding| finding.name.len())
            .max()
            .unwrap_or(0);
        let mut out = String::new();
        for finding in &self.findings {
            let word = paint(finding.status, colour);
            let (name, found) = (clean(&finding.name), clean(&finding.found));
            let _ = writeln!(out, "{word}  {name:width$}  {found}");
            if let Some(mend) = &finding.mend {
                let _ = writeln!(out, "          {:width$}  → {}", "", clean(mend));
            }
        }
        for removed in &self.removed {
            let _ = writeln!(out, "removed   {}", clean(removed));
        }
        for problem in &self.problems {
            let _ = writeln!(out, "problem   {}", clean(problem));
        }
        let degraded = self
            .findings
            .iter()
            .any(|finding| finding.status == Status::Degraded);
        out.push_str(match (self.ok, degraded) {
            (true, _) if self.served => {
                "\n`sandbox run` will work here: the host's service does your runs.\n"
            }
            (true, false) => "\n`sandbox run` will work on this host.\n",
            (true, true) => "\n`sandbox run` will work on this host, with what is degraded above.\n",
            (false, _) => "\n`sandbox run` will not work on this host before what is missing above is mended.\n",
        });
        out
    }

    /// For programs.
    ///
    /// # Errors
    /// Never on this data; serde_json's own type.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

fn paint(status: Status, colour: Colour) -> String {
    let (word, code) = match status {
        Status::Ok => ("ok      ", 32),
        Status::Degraded => ("degraded", 33),
        Status::Missing => ("missing ", 31),
        Status::Unknown => ("unknown ", 33),
    };
    match colour {
        Colour::On => format!("\x1b[{code}m{word}\x1b[0m"),
        Colour::Off => word.to_owned(),
    }
}

/// Keeps a line a line, and free of control characters.
fn clean(text: &str) -> String {
    Printable(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(status: Status) -> CheckReport {
        CheckReport {
            ok: status != Status::Missing,
            served: false,
            host: HostInfo::default(),
            findings: vec![
                Finding {
                    name: "privileges".to_owned(),
                    status,
                    found: "running as uid\x1b[2J 1000".to_owned(),
                    mend: Some("run it with sudo".to_owned()),
                },
                Finding {
                    name: "BTF".to_owned(),
                    status: Status::Ok,
                    found: "/sys/kernel/btf/vmlinux".to_owned(),
                    mend: None,
                },
            ],
            removed: vec!["orphaned leaf /sandbox/runs/x".to_owned()],
            problems: Vec::new(),
        }
    }

    #[test]
    fn the_text_is_readable_without_colour_and_carries_no_control_characters() {
        let expected = "\
missing   privileges  running as uid\\u{1b}[2J 1000
                      → run it with sudo
ok        BTF         /sys/kernel/btf/vmlinux
removed   orphaned leaf /sandbox/runs/x

`sandbox run` will not work on this host before what is missing above is mended.
";
        assert_eq!(report(Status::Missing).text(Colour::Off), expected);
    }

    #[test]
    fn colour_changes_nothing_but_the_colour() {
        let coloured = report(Status::Degraded).text(Colour::On);
        assert!(
            coloured.starts_with("\x1b[33mdegraded\x1b[0m  "),
            "{coloured}"
        );
        assert!(coloured.contains("with what is degraded above"));
    }

    #[test]
    fn a_user_whose_runs_the_service_does_is_told_so() {
        let served = CheckReport {
            served: true,
            ..report(Status::Unknown)
        };
        let text = served.text(Colour::Off);
        assert!(text.starts_with("unknown   privileges"), "{text}");
        assert!(text.ends_with("the host's service does your runs.\n"));
    }

    #[test]
    fn only_what_is_missing_fails_the_check() {
        assert_eq!(report(Status::Missing).exit_status(), EXIT_FAILURE);
        assert_eq!(report(Status::Degraded).exit_status(), 0);
    }

    #[test]
    fn the_json_names_each_status() {
        let json = report(Status::Missing).json().expect("JSON");
        assert!(
            json.contains(r#""status": "missing""#) && json.contains(r#""ok": false"#),
            "{json}"
        );
    }

    #[test]
    fn what_clean_fails_on_is_a_problem_and_not_the_end() {
        let mut report = report(Status::Ok);
        report.clean(|| Err("pin is busy".to_owned()));
        report.clean(|| Ok((vec!["stale pins v1".to_owned()], Vec::new())));
        assert_eq!(report.problems, ["pin is busy"]);
        assert_eq!(report.removed.len(), 2);
    }
}
