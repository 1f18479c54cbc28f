mod usage;

use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use clap::CommandFactory;

use super::*;
use crate::document::Format;
use crate::limits::{Limit, Limits, Source};
use crate::metadata::Metadata;
use crate::policy::values as limit;
use crate::policy::{HostPolicy, Setting};
use crate::spec::{
    Destination, EnvironmentBase, NotesPolicy, Output, RunAs, RunId, RunSpec, Sampling, ThreadEnv,
    Timings,
};

fn arguments(line: &[&str]) -> Vec<OsString> {
    ["sandbox"].iter().chain(line).map(OsString::from).collect()
}

fn run_args(line: Vec<OsString>) -> RunArgs {
    match Cli::parse_arguments(line).expect("understood").command {
        Command::Run(args) => *args,
        other @ (Command::Check(_)
        | Command::List(_)
        | Command::Show(_)
        | Command::Serve(_)
        | Command::Wait(_)
        | Command::Logs(_)
        | Command::Events(_)
        | Command::Kill(_)
        | Command::Freeze(_)
        | Command::Thaw(_)
        | Command::Update(_)
        | Command::Audit(_)
        | Command::Attend { .. }
        | Command::Hold
        | Command::Guardian) => panic!("not `run`: {other:?}"),
    }
}

fn spec_with(line: &[&str], metadata: Option<&str>) -> Result<RunSpec, UsageError> {
    let metadata = metadata.map(|text| {
        Metadata::parse(text, Format::Yaml, Path::new("a.yaml")).expect("metadata is right")
    });
    let granted = RunSpec::from_args(run_args(arguments(line)), metadata, HostPolicy::default());
    granted.map(|(spec, _)| spec)
}

fn spec(line: &[&str]) -> RunSpec {
    spec_with(line, None).expect("a run")
}

/// What a person reads after a line that is not right.
fn refusal(line: &[&str]) -> String {
    let text = match Cli::parse_arguments(arguments(line)) {
        Err(error) => {
            assert_eq!(exit_status(&error), 125, "{line:?}");
            error.to_string()
        }
        Ok(_) => spec_with(line, None).expect_err("refused").to_string(),
    };
    // What stands below the first line is the usage, the same each time, but for a hint.
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .take_while(|line| !line.starts_with("Usage"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn the_help_is_what_people_read() {
    let mut command = Cli::command().term_width(100);
    insta::assert_snapshot!("help", command.render_long_help().to_string());
    for verb in [
        "run",
        "check",
        "list",
        "show",
        "wait",
        "logs",
        "events",
        "kill",
        "freeze",
        "thaw",
        "update",
        "serve",
        "audit verify",
    ] {
        let line = ["sandbox"].into_iter().chain(verb.split(' '));
        let error = Cli::command()
            .term_width(100)
            .try_get_matches_from(line.chain(["--help"]));
        let error = error.expect_err("help is no command");
        assert_eq!(exit_status(&error), 0);
        insta::assert_snapshot!(
            format!("help_{}", verb.replace(' ', "_")),
            error.to_string()
        );
    }
    command.debug_assert();
}

#[test]
fn the_defaults_that_help_shows_are_those_that_apply() {
    let help = Cli::command()
        .find_subcommand_mut("run")
        .expect("there")
        .render_help()
        .to_string();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let default = |flag: &str| -> &str {
        let after = help
            .split(&format!(" {flag} <"))
            .nth(1)
            .expect("the flag is there");
        after
            .split("[default: ")
            .nth(1)
            .and_then(|rest| rest.split(']').next())
            .expect("has one")
    };
    let Limits {
        memory_bytes,
        swap_bytes,
        cpus,
        pids,
        walltime,
        cputime,
    } = Limits::default();
    let value = |setting: Setting<u64>| setting.into_option();
    assert_eq!(
        limit::memory(default("--memory")).map(value),
        Ok(memory_bytes.value)
    );
    assert_eq!(
        limit::swap(default("--swap")).map(value),
        Ok(swap_bytes.value)
    );
    assert_eq!(
        limit::cpus(default("--cpus")).map(Setting::into_option),
        Ok(cpus.value)
    );
    assert_eq!(limit::pids(default("--pids")).map(value), Ok(pids.value));
    assert_eq!(
        limit::budget(default("--timeout")).map(Setting::into_option),
        Ok(walltime.value)
    );
    assert_eq!(
        limit::budget(default("--cpu-time")).map(Setting::into_option),
        Ok(cputime.value)
    );
    assert_eq!(
        limit::grace(default("--grace")),
        Ok(crate::policy::DEFAULT_GRACE)
    );
    assert_eq!(
        limit::on_pids_limit(default("--on-pids-limit")),
        Ok(Default::default())
    );
    assert_eq!(limit::oom(default("--oom")), Ok(Default::default()));
    assert_eq!(
        values::notes(default("--notes")),
        Ok(NotesPolicy::default())
    );
}

#[test]
fn a_bare_command_runs_as_the_caller_under_the_defaults() {
    let spec = spec(&["run", "--", "true"]);
    assert_eq!(spec.command, ["true"]);
    assert_eq!(spec.limits, Limits::default());
    assert_eq!(spec.run_as, RunAs::Caller);
    assert_eq!(spec.cwd, std::env::current_dir().expect("there is one"));
    assert_eq!(
        (spec.stdout, spec.stderr, spec.record),
        (Output::Inherit, Output::Inherit, None)
    );
    assert_eq!(
        (spec.notes, spec.timings),
        (NotesPolicy::Failure, Timings::Omit)
    );
    assert_eq!(spec.run_id.get_version_num(), 7);
}

#[test]
fn everything_behind_the_command_is_the_commands() {
    let command = ["python3", "a.py", "--memory", "1G", "--", "-x", "--help"];
    for line in [
        vec!["run", "--memory", "3G", "--"],
        vec!["run", "--memory=3G"],
    ] {
        let line: Vec<&str> = line.into_iter().chain(command).collect();
        let spec = spec(&line);
        assert_eq!(spec.command, command);
        assert_eq!(
            spec.limits.memory_bytes,
            Limit::new(Some(3 << 30), Source::CommandLine)
        );
    }
    assert_eq!(spec(&["run", "--", "-x", "-y"]).command, ["-x", "-y"]);
    assert_eq!(spec(&["run", "--", "--", "x"]).command, ["--", "x"]);
}

#[test]
fn every_option_arrives() {
    let retried = RunId::now_v7();
    let spec = spec(&[
        "run",
        "--memory",
        "1G",
        "--swap",
        "none",
        "--cpus",
        "1.5",
        "--pids",
        "7",
        "--timeout",
        "10m",
        "--cpu-time",
        "5m",
        "--grace",
        "0",
        "--warn",
        "SIGUSR2@90",
        "--on-pids-limit",
        "deny",
        "--oom",
        "process",
        "--id",
        "a",
        "--label",
        "x=1",
        "--label",
        "y=",
        "--attempt",
        "2",
        "--retry-of",
        &retried.to_string(),
        "--user",
        "1000",
        "--chdir",
        "/tmp",
        "--env",
        "A=1",
        "--env",
        "A=2=3",
        "--env",
        "B=",
        "--clear-env",
        "--thread-env",
        "--stdout",
        "/tmp/out",
        "--stderr",
        "err",
        "--record",
        "fd:3",
        "--events",
        "-",
        "--sample",
        "100ms",
        "--ring-size",
        "4KiB",
        "--notes",
        "always",
        "--timings",
        "cmd",
    ]);
    let set = Source::CommandLine;
    assert_eq!(spec.limits.memory_bytes, Limit::new(Some(1 << 30), set));
    assert_eq!(spec.limits.swap_bytes, Limit::new(None, set));
    assert_eq!(spec.limits.cpus, Limit::new(Some(1.5), set));
    assert_eq!(spec.limits.pids, Limit::new(Some(7), set));
    assert_eq!(
        spec.limits.walltime,
        Limit::new(Some(Duration::from_secs(600)), set)
    );
    assert_eq!(
        spec.limits.cputime,
        Limit::new(Some(Duration::from_secs(300)), set)
    );
    assert_eq!(spec.grace, Duration::ZERO);
    assert_eq!(
        spec.warn.map(|warn| (warn.signal, warn.before.as_secs())),
        Some((12, 90))
    );
    assert_eq!(spec.analysis_id.as_deref(), Some("a"));
    assert_eq!(
        spec.labels.into_iter().collect::<Vec<_>>(),
        [
            ("x".to_owned(), "1".to_owned()),
            ("y".to_owned(), String::new())
        ]
    );
    assert_eq!((spec.attempt, spec.retry_of), (Some(2), Some(retried)));
    assert_eq!(spec.run_as, RunAs::User("1000".to_owned()));
    assert_eq!(spec.cwd, Path::new("/tmp"));
    assert_eq!(spec.environment.base, EnvironmentBase::Empty);
    let set: Vec<(OsString, OsString)> = spec.environment.set.into_iter().collect();
    assert_eq!(
        set,
        [("A".into(), "2=3".into()), ("B".into(), "".into())],
        "the last of a name counts"
    );
    assert_eq!(spec.thread_env, ThreadEnv::Set);
    assert_eq!(spec.stdout, Output::File("/tmp/out".into()));
    let here = std::env::current_dir().expect("there is one");
    assert_eq!(
        spec.stderr,
        Output::File(here.join("err")),
        "relative to here, not to --chdir"
    );
    assert_eq!(spec.record, Some(Destination::Fd(3)));
    assert_eq!(spec.events, Some(Destination::Stdout));
    assert_eq!(spec.sampling, Sampling::Every(Duration::from_millis(100)));
    assert_eq!(
        (spec.notes, spec.timings),
        (NotesPolicy::Always, Timings::Include)
    );
}

#[test]
fn the_command_line_overrides_the_metadata_and_each_limit_knows_its_source() {
    let metadata = "id: m\nsandbox: {memory: 4G, pids: 9, labels: {a: 1, b: 2}, thread-env: true}";
    let line = [
        "run", "--memory", "none", "--id", "c", "--label", "b=3", "x",
    ];
    let spec = spec_with(&line, Some(metadata)).expect("a run");
    assert_eq!(
        spec.limits.memory_bytes,
        Limit::new(None, Source::CommandLine)
    );
    assert_eq!(spec.limits.pids, Limit::new(Some(9), Source::Metadata));
    assert_eq!(spec.limits.cpus, Limit::new(Some(1.0), Source::Default));
    assert_eq!(spec.analysis_id.as_deref(), Some("c"));
    assert_eq!(spec.labels.get("a").map(String::as_str), Some("1"));
    assert_eq!(spec.labels.get("b").map(String::as_str), Some("3"));
    assert_eq!(spec.thread_env, ThreadEnv::Set);
}

#[test]
fn a_record_on_stdout_sends_the_analysiss_own_to_stderr_unless_it_has_a_file() {
    for record in ["-", "fd:1"] {
        let spec = spec(&["run", "--record", record, "x"]);
        assert_eq!(
            (spec.record, spec.stdout),
            (Some(Destination::Stdout), Output::Stderr)
        );
    }
    let spec = spec(&["run", "--record", "-", "--stdout", "/o", "x"]);
    assert_eq!(spec.stdout, Output::File("/o".into()));
}

#[test]
fn arguments_and_paths_need_not_be_utf_8() {
    let strange = OsString::from_vec(b"caf\xe9".to_vec());
    let mut line = arguments(&["run", "--stdout"]);
    line.extend([
        strange.clone(),
        "--env".into(),
        OsString::from_vec(b"K=\xff".to_vec()),
    ]);
    line.extend(["cat".into(), strange.clone()]);
    let granted = RunSpec::from_args(run_args(line), None, HostPolicy::default());
    let (spec, _) = granted.expect("a run");
    assert_eq!(spec.command, [OsString::from("cat"), strange.clone()]);
    assert!(matches!(spec.stdout, Output::File(path) if path.ends_with(&strange)));

    for flag in ["--memory", "--user", "--label", "--warn", "--retry-of"] {
        let mut line = arguments(&["run", flag]);
        line.extend([OsString::from_vec(b"a=\xff".to_vec()), "x".into()]);
        let error = Cli::parse_arguments(line)
            .expect_err("not text")
            .to_string();
        assert!(
            error.contains(flag) && error.contains("not UTF-8"),
            "{error}"
        );
    }
}
