//! `sandbox audit verify`: reads the log and what the journal knows of it, and says what is wrong.

use std::{
    error::Error,
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use nix::libc;
use serde::Serialize;

use super::{
    AuditError, FILE, Head,
    finding::{Finding, Witness},
    journal,
    verify::{Known, Report, verify},
};
use crate::{cli::AuditVerifyArgs, store};

/// Exit status where something is wrong with the log.
const EXIT_FOUND: u8 = 1;
/// How long the rest of a line may take that is being written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);

/// Whether the log's end could be compared with what somebody knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum End {
    /// It was.
    Compared {
        /// With what they know.
        with: Witness,
        /// The latest entry that they know.
        up_to: u64,
    },
    /// It was not, so that an end that was cut off would not show.
    NotCompared {
        /// Why.
        why: String,
    },
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct Document<'a> {
    log: &'a str,
    whole: bool,
    entries: u64,
    head: Option<String>,
    end: &'a End,
    findings: Vec<Told<'a>>,
    further_findings: u64,
}

#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    message: String,
}

/// `sandbox audit verify`: prints to stdout. Gives the exit status: 0 where the log is whole, else 1.
///
/// # Errors
/// Where the log cannot be read, or stdout not be written.
pub(super) fn verify_and_tell(args: &AuditVerifyArgs) -> Result<u8, Box<dyn Error>> {
    let path = Path::new(store::DIRECTORY).join(FILE);
    let known = match args.head {
        Some(head) => Ok((Witness::CommandLine, vec![head])),
        // Before the log is read, which has each entry before the journal has its hash.
        None => journal::heads().map(|heads| (Witness::Journal, heads)),
    };
    let (end, known) = match known {
        Ok((witness, heads)) => compared(witness, &heads),
        Err(why) => (
            End::NotCompared {
                why: why.to_string(),
            },
            Vec::new(),
        ),
    };
    let report = read(&path, known)?;
    let log = path.display().to_string();
    let text = if args.json {
        json(&log, &report, &end)? + "\n"
    } else {
        text(&log, &report, &end)
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(if is_whole(&report) { 0 } else { EXIT_FOUND })
}

fn compared(witness: Witness, heads: &[Head]) -> (End, Vec<Known>) {
    let known = heads.iter().map(|head| Known {
        head: *head,
        witness,
    });
    let up_to = heads.iter().map(|head| head.seq).max().unwrap_or(0);
    let end = End::Compared {
        with: witness,
        up_to,
    };
    (end, known.collect())
}

/// Verifies the log. One that is not there is an empty one, where somebody knows of entries.
fn read(path: &Path, known: Vec<Known>) -> Result<Report, AuditError> {
    let failed = |source| AuditError::file(path, source);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let path = || path.to_owned();
    match file {
        Ok(file) => verify(BufReader::new(file), known, WRITTEN_WITHIN).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(AuditError::NotRoot { path: path() })
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        Err(_) if known.is_empty() => Err(AuditError::None { path: path() }),
        Err(_) => verify(io::empty(), known, Duration::ZERO).map_err(failed),
    }
}

fn is_whole(report: &Report) -> bool {
    report.findings.is_empty() && report.further == 0
}

fn text(log: &str, report: &Report, end: &End) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = match (report.head, report.at) {
        (Some(head), Some(at)) => writeln!(
            text,
            "{log}: {} entries, the last of {at:.0}\nhead {head}",
            report.entries
        ),
        (None, _) | (_, None) => writeln!(text, "{log}: no entries"),
    };
    for finding in &report.findings {
        let _ = writeln!(text, "{finding}");
    }
    if report.further > 0 {
        let _ = writeln!(text, "and {} more", report.further);
    }
    let _ = match end {
        End::Compared { with, up_to } => {
            writeln!(
                text,
                "its end was compared with {with}, up to entry {up_to}"
            )
        }
        End::NotCompared { why } => writeln!(
            text,
            "its end could not be compared, so that one that was cut off would not show: {why} (--head says what is known)"
        ),
    };
    text.push_str(match is_whole(report) {
        true => "whole: nothing is changed, missing or reordered\n",
        false => "not whole\n",
    });
    text
}

fn json(log: &str, report: &Report, end: &End) -> serde_json::Result<String> {
    let told = report.findings.iter().map(|finding| Told {
        finding,
        message: finding.to_string(),
    });
    serde_json::to_string_pretty(&Document {
        log,
        whole: is_whole(report),
        entries: report.entries,
        head: report.head.map(|head| head.to_string()),
        end,
        findings: told.collect(),
        further_findings: report.further,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Hash;

    fn report(findings: Vec<Finding>) -> Report {
        Report {
            head: Some(Head {
                seq: 7,
                hash: Hash::ZERO,
            }),
            at: Some("2026-11-26T18:00:01.75Z".parse().expect("a date")),
            entries: 7,
            findings,
            further: 0,
        }
    }

    #[test]
    fn what_is_printed_says_whether_the_end_was_compared() {
        let (compared, _) = compared(Witness::Journal, &[]);
        let unknown = End::NotCompared {
            why: "there is no journalctl".to_owned(),
        };
        let cut = Finding::Cut {
            line: 8,
            first: 8,
            last: 9,
            witness: Witness::Journal,
        };
        let whole = report(Vec::new());
        let empty = Report {
            head: None,
            at: None,
            entries: 0,
            ..report(Vec::new())
        };
        let mut more = report(vec![cut]);
        let short = text("audit.jsonl", &more, &compared);
        more.further = 3;
        let printed = [
            text("audit.jsonl", &whole, &compared),
            text("audit.jsonl", &whole, &unknown),
            text("audit.jsonl", &empty, &unknown),
            short,
            json("audit.jsonl", &more, &compared).expect("JSON"),
            json("audit.jsonl", &empty, &unknown).expect("JSON"),
        ];
        insta::assert_snapshot!(printed.join("\n---\n"));
    }

    #[test]
    fn a_log_that_is_not_there_is_cut_where_somebody_knows_of_entries() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join(FILE);
        let error = read(&path, Vec::new()).expect_err("nobody knows");
        assert!(matches!(error, AuditError::None { .. }), "{error}");
        let head = Head {
            seq: 3,
            hash: Hash::ZERO,
        };
        let (end, known) = compared(Witness::CommandLine, &[head]);
        let with = Witness::CommandLine;
        assert_eq!(end, End::Compared { with, up_to: 3 });
        let report = read(&path, known).expect("an empty one");
        let cut = Finding::Cut {
            line: 1,
            first: 1,
            last: 3,
            witness: with,
        };
        assert_eq!(report.findings, [cut]);
    }
}
