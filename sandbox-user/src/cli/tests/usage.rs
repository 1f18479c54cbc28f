//! What is said of a command line that is not right.

use super::*;

#[test]
fn usage_errors_name_the_option_and_what_is_wrong() {
    let v4 = "9f9ad1c0-0d65-4b3c-8f6a-6f5c7ad6a111";
    let lines: &[&[&str]] = &[
        &[],
        &["rum", "x"],
        &["run"],
        &["run", "--"],
        &["run", "--memory"],
        &["run", "--memory", "--cpus", "2", "x"],
        &["run", "--memory", "--", "x"],
        &["run", "--memory", "-1G", "x"],
        &["run", "--memory", "", "x"],
        &["run", "--memory", "12x", "x"],
        &["run", "--memory", "-1", "x"],
        &["run", "--memory=-5", "x"],
        &["run", "--memory", "2Gb", "x"],
        &["run", "--memory", "100", "x"],
        &["run", "--memory", "99999999999G", "x"],
        &["run", "--memory", "1G", "--memory", "2G", "x"],
        &["run", "--swap", "lots", "x"],
        &["run", "--cpus", "0", "x"],
        &["run", "--cpus", "nan", "x"],
        &["run", "--cpus", "inf", "x"],
        &["run", "--cpus", "150%", "x"],
        &["run", "--pids", "0", "x"],
        &["run", "--pids", "1e3", "x"],
        &["run", "--timeout", "0", "x"],
        &["run", "--timeout", "5 parsecs", "x"],
        &["run", "--timeout", "1h30", "x"],
        &["run", "--cpu-time", "-3s", "x"],
        &["run", "--grace", "none", "x"],
        &["run", "--grace", "max", "x"],
        &["run", "--cpus", "-2", "x"],
        &["run", "--warn", "-1", "x"],
        &["list", "--most", "-1"],
        &["list", "--since", "-2h"],
        &["run", "--warn", "USR1", "x"],
        &["run", "--warn", "USR9@2m", "x"],
        &["run", "--warn", "KILL@2m", "x"],
        &["run", "--warn", "USR1@2h", "x"],
        &["run", "--warn", "USR1@2m", "--timeout", "none", "x"],
        &["run", "--on-pids-limit", "explode", "x"],
        &["run", "--oom", "", "x"],
        &["run", "--metadata", "-", "x"],
        &["run", "--id", "", "x"],
        &["run", "--id", "a\u{7}b", "x"],
        &["run", "--label", "a", "x"],
        &["run", "--label", "=a", "x"],
        &["run", "--label", "a=1", "--label", "a=2", "x"],
        &["run", "--attempt", "0", "x"],
        &["run", "--attempt", "-1", "x"],
        &["run", "--retry-of", "yesterday", "x"],
        &["run", "--retry-of", v4, "x"],
        &["run", "--user", "", "x"],
        &["run", "--chdir", "", "x"],
        &["run", "--env", "PATH", "x"],
        &["run", "--env", "=x", "x"],
        &["run", "--clear-env=yes", "x"],
        &["run", "--stdout", "-", "x"],
        &["run", "--record", "", "x"],
        &["run", "--record", "fd:", "x"],
        &["run", "--record", "fd:-1", "x"],
        &["run", "--record", "fd:0", "x"],
        &["run", "--record", "fd:99999999999", "x"],
        &["run", "--record", "/tmp/r", "--stdout", "/tmp/./r", "x"],
        &[
            "run",
            "--record",
            "/tmp/a.json",
            "--metadata",
            "/tmp/a.json",
            "x",
        ],
        &["run", "--notes", "loud", "x"],
        &["run", "--memroy", "1G", "x"],
        &["run", "--events", "-", "--record", "-", "x"],
        &["run", "--events", "/tmp/e", "--stdout", "/tmp/e", "x"],
        &["run", "--sample", "1ms", "x"],
        &["run", "--sample", "often", "x"],
        &["run", "--ring-size", "3000", "x"],
        &["run", "--detach", "--standalone", "x"],
        &["run", "-m", "1G", "x"],
        &["run", "--a\u{1b}[31m", "1G", "x"],
        &["r\u{1b}[31mun", "x"],
        &["check", "--clear"],
        &["check", "now"],
        &["kill"],
        &["freeze"],
        &["thaw"],
        &["update", "a-17"],
        &["update", "--timeout", "+1h"],
        &["update", "a-17", "--timeout", "-soon"],
        &["update", "a-17", "--timeout", "+none"],
        &["kill", "--reason", "tired of it"],
        &["list", "--since", "yesterday"],
        &["list", "--reason", "bad luck"],
        &["audit", "verify", "--head", "12"],
        &["audit", "verify", "--head", "1:abc"],
        &["guardian", "x"],
    ];
    let said: Vec<String> = lines
        .iter()
        .map(|line| format!("{}\n    {}", line.join(" ").escape_debug(), refusal(line)))
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn too_many_labels_are_counted_together() {
    let labels: Vec<String> = (0..64)
        .map(|number| format!("--label=l{number}=1"))
        .collect();
    let mut line = vec!["run"];
    line.extend(labels.iter().map(String::as_str));
    line.push("x");
    assert!(spec_with(&line, None).is_ok());
    let error = spec_with(&line, Some("sandbox: {labels: {other: 1}}")).expect_err("too many");
    assert!(
        error.to_string().starts_with("65 labels are too many"),
        "{error}"
    );
}

#[test]
fn outputs_may_share_a_file_and_anything_may_share_a_device() {
    let spec = spec(&["run", "--stdout", "/tmp/log", "--stderr", "/tmp/log", "x"]);
    assert_eq!(spec.stdout, spec.stderr);
    assert!(
        spec_with(
            &["run", "--stdout", "/dev/null", "--record", "/dev/null", "x"],
            None
        )
        .is_ok()
    );
}

#[test]
fn check_and_the_guardian_are_understood() {
    let command = |line: &[&str]| {
        Cli::parse_arguments(arguments(line))
            .expect("understood")
            .command
    };
    let Command::Check(args) = command(&["check", "--clean", "--json"]) else {
        panic!("not `check`");
    };
    assert_eq!(
        (args.cleaning(), args.output()),
        (Cleaning::Remove, CheckOutput::Json)
    );
    assert!(matches!(command(&["guardian"]), Command::Guardian));
    let version = Cli::parse_arguments(arguments(&["--version"])).expect_err("no command");
    assert_eq!(exit_status(&version), 0);
}
