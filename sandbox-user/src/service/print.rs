//! Runs as `sandbox list` and `sandbox show` print them.

use std::fmt::Write as _;

use crate::{
    store::{Run, RunState},
    units::Printable,
};

/// One line a run, below a line that names the columns.
pub(super) fn table(runs: &[Run]) -> String {
    let mut rows =
        vec![["RUN", "ACCEPTED", "USER", "ANALYSIS", "REASON", "COMMAND"].map(str::to_owned)];
    rows.extend(runs.iter().map(|run| {
        [
            run.run_id.to_string(),
            to_the_second(&run.accepted_at),
            Printable(&user(run)).to_string(),
            Printable(run.analysis_id.as_deref().unwrap_or("-")).to_string(),
            reason(run).to_owned(),
            command(run),
        ]
    }));
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What is to be said of one.
pub(super) fn details(run: &Run) -> String {
    let time = |at: &Option<String>| at.as_deref().map_or_else(|| "-".to_owned(), to_the_second);
    let mut lines = vec![
        ("run", run.run_id.to_string()),
        (
            "analysis",
            run.analysis_id.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        ("command", command(run)),
        ("asked for by", format!("uid {}", run.uid)),
        (
            "runs as",
            run.user.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        ("accepted", to_the_second(&run.accepted_at)),
        ("started", time(&run.started_at)),
        ("ended", time(&run.ended_at)),
        ("reason", reason(run).to_owned()),
        (
            "confidence",
            run.confidence.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        ("notes", run.notes.clone().unwrap_or_else(|| "-".to_owned())),
    ];
    if let Some(problem) = &run.hook_problem {
        lines.push(("hook", problem.clone()));
    }
    lines
        .iter()
        .map(|(name, value)| format!("{name:12}  {}\n", Printable(value)))
        .collect()
}

fn reason(run: &Run) -> &str {
    match run.state {
        RunState::Queued => "(queued)",
        RunState::Running => "(running)",
        RunState::Ended => run.reason.as_deref().unwrap_or("-"),
    }
}

fn user(run: &Run) -> String {
    run.user.clone().unwrap_or_else(|| run.uid.to_string())
}

fn command(run: &Run) -> String {
    Printable(&run.command.join(" ")).to_string()
}

/// RFC 3339 without what is behind the second.
fn to_the_second(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run {
            run_id: uuid::uuid!("019aa3c2-5e00-7000-8000-000000000001"),
            state: RunState::Ended,
            uid: 1000,
            user: Some("ana".to_owned()),
            analysis_id: None,
            labels: Default::default(),
            memory_bytes: None,
            cpus: None,
            pids: None,
            command: ["python3", "a \u{1b}[2J.py"].map(str::to_owned).to_vec(),
            accepted_at: "2026-11-26T18:00:01.123456789Z".to_owned(),
            started_at: None,
            ended_at: Some("2026-11-26T18:00:02Z".to_owned()),
            boot_id: "b".to_owned(),
            reason: Some("memory".to_owned()),
            confidence: Some("exact".to_owned()),
            exit_code: None,
            exit_signal: Some(9),
            notes: Some("Killed.".to_owned()),
            hook_problem: Some("--on-complete: tell ended with exit status: 3".to_owned()),
        }
    }

    #[test]
    fn a_run_is_a_line_and_what_a_command_hides_is_shown() {
        let expected = "\
RUN                                   ACCEPTED              USER  ANALYSIS  REASON  COMMAND
019aa3c2-5e00-7000-8000-000000000001  2026-11-26T18:00:01Z  ana   -         memory  python3 a \\u{1b}[2J.py
";
        assert_eq!(table(&[run()]), expected);
        let details = details(&run());
        assert!(details.contains("notes         Killed.\n"), "{details}");
        assert!(details.ends_with("hook          --on-complete: tell ended with exit status: 3\n"));
    }
}
