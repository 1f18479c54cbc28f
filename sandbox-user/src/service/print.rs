//! Runs as `sandbox list` and `sandbox show` print them.

use std::{fmt::Write as _, time::Duration};

use nix::unistd::User;

use crate::{
    record::signal_name,
    store::{Run, RunState},
    units::{Printable, format_bytes, format_duration},
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
            reason(run),
            start_of(&command(run)),
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
        ("asked for by", asker(run.uid)),
        (
            "runs as",
            run.user.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        ("accepted", to_the_second(&run.accepted_at)),
        ("started", time(&run.started_at)),
        ("ended", time(&run.ended_at)),
        ("reason", reason(run)),
        (
            "confidence",
            run.confidence.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        ("notes", run.notes.clone().unwrap_or_else(|| "-".to_owned())),
    ];
    if let Some(exit) = exit(run) {
        lines.push(("exit", exit));
    }
    if let Some(problem) = &run.hook_problem {
        lines.push(("hook", problem.clone()));
    }
    lines.extend(at_present(run));
    lines
        .iter()
        .map(|(name, value)| format!("{name:12}  {}\n", Printable(value)))
        .collect()
}

fn reason(run: &Run) -> String {
    let now = run.now.as_ref();
    match run.state {
        RunState::Queued => match now.and_then(|now| now.ahead) {
            Some(ahead) => format!("(queued behind {ahead})"),
            None => "(queued)".to_owned(),
        },
        RunState::Running if now.is_some_and(|now| now.frozen_by.is_some()) => {
            "(frozen)".to_owned()
        }
        RunState::Running => "(running)".to_owned(),
        RunState::Ended => run.reason.clone().unwrap_or_else(|| "-".to_owned()),
    }
}

fn exit(run: &Run) -> Option<String> {
    let signal = run
        .exit_signal
        .map(|signal| signal_name(signal).to_string());
    signal.or(run.exit_code.map(|code| format!("code {code}")))
}

/// What is to be said of how it is just now.
fn at_present(run: &Run) -> Vec<(&'static str, String)> {
    let Some(now) = &run.now else {
        return Vec::new();
    };
    let of = |most: Option<String>| most.map_or_else(String::new, |most| format!(" of {most}"));
    let memory = now.memory_bytes.map(|bytes| {
        let most = of(run.memory_bytes.map(format_bytes));
        format!("{}{most}", format_bytes(bytes))
    });
    let cpu = now.cpu_usage_us.map(Duration::from_micros);
    let tasks = now.pids.map(|count| {
        let most = of(run.pids.map(|most| most.to_string()));
        format!("{count}{most}")
    });
    let lines = [
        ("deadline", now.deadline.as_deref().map(to_the_second)),
        ("frozen by", now.frozen_by.clone()),
        ("memory", memory),
        ("CPU time", cpu.map(format_duration)),
        ("tasks", tasks),
    ];
    lines
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

fn asker(uid: u32) -> String {
    let account = User::from_uid(uid.into()).ok().flatten();
    account.map_or_else(
        || format!("uid {uid}"),
        |account| format!("{} (uid {uid})", account.name),
    )
}

fn user(run: &Run) -> String {
    run.user.clone().unwrap_or_else(|| run.uid.to_string())
}

fn command(run: &Run) -> String {
    Printable(&run.command.join(" ")).to_string()
}

/// What a line of a list has room for.
fn start_of(command: &str) -> String {
    const SHOWN_CHARS: usize = 80;
    match command.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &command[..end]),
        None => command.to_owned(),
    }
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
    use crate::store::Now;

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
            spec: None,
            now: None,
            hook_problem: Some("--on-complete: `tell` ended with exit status: 3".to_owned()),
        }
    }

    #[test]
    fn a_run_is_a_line_and_what_a_command_hides_is_shown() {
        let expected = "\
RUN                                   ACCEPTED              USER  ANALYSIS  REASON  COMMAND
019aa3c2-5e00-7000-8000-000000000001  2026-11-26T18:00:01Z  ana   -         memory  python3 a \\u{1b}[2J.py
";
        assert_eq!(table(&[run()]), expected);
        let mut long = run();
        long.command = vec!["é".repeat(90)];
        assert!(table(&[long]).ends_with(&format!("memory  {}…\n", "é".repeat(80))));
        let details = details(&run());
        assert!(details.contains("notes         Killed.\n"), "{details}");
        assert!(details.contains("exit          SIGKILL\n"), "{details}");
        assert!(
            details.ends_with("hook          --on-complete: `tell` ended with exit status: 3\n")
        );
    }

    #[test]
    fn a_run_that_has_not_ended_is_told_of_as_it_is_just_now() {
        let mut run = Run {
            state: RunState::Running,
            memory_bytes: Some(2 << 30),
            pids: Some(100),
            ended_at: None,
            exit_signal: None,
            hook_problem: None,
            now: Some(Now {
                ahead: None,
                deadline: Some("2026-11-26T18:30:01.5Z".to_owned()),
                frozen_by: Some("sandbox freeze of bob".to_owned()),
                memory_bytes: Some(3 << 20),
                cpu_usage_us: Some(1_500_000),
                pids: Some(5),
            }),
            ..run()
        };
        assert!(table(&[run.clone()]).contains("(frozen)"));
        let expected = "\
deadline      2026-11-26T18:30:01Z
frozen by     sandbox freeze of bob
memory        3 MiB of 2 GiB
CPU time      1.5 s
tasks         5 of 100
";
        let details = details(&run);
        assert!(details.ends_with(expected), "{details}");
        run.state = RunState::Queued;
        run.now = Some(Now {
            ahead: Some(3),
            ..Now::default()
        });
        assert!(table(&[run]).contains("(queued behind 3)"));
    }
}
