//! The host's configuration: its defaults and ceilings, for whom they are, the budget of all runs, and what
//! a bad file comes to.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use sandbox_tests::enclosing::RUNS;
use sandbox_tests::{Configured, Enclosing, Guest, Sandbox, Scene, assert_has};
use serde_json::json;

#[test]
fn its_defaults_apply_where_a_run_says_nothing_and_are_named() {
    let _guest = Guest::enter();
    let _config = Configured::with("[defaults]\nmemory = '64MiB'\npids = 50\n");
    let outcome = Sandbox::new()
        .options(["--pids", "60"])
        .victim(["eat", "200MiB"]);
    let record = outcome.ended(137, "memory", "more_memory");
    assert_has(
        record.at("/limits/memory_bytes"),
        &json!({"requested": 64 << 20, "effective": 64 << 20, "source": "host"}),
    );
    assert_has(
        record.at("/limits/pids"),
        &json!({"effective": 60, "source": "command_line"}),
    );
    record.assert_notes(&["memory limit of 64 MiB (the host's default) reached"]);
}

#[test]
fn a_ceiling_lowers_what_is_asked_for_and_says_so() {
    let _guest = Guest::enter();
    let _config =
        Configured::with("[ceilings]\nmemory = '64MiB'\ntimeout = '1m'\notherwise = 'cap'\n");
    let outcome = Sandbox::new()
        .options(["--memory", "1GiB"])
        .victim(["eat", "200MiB"]);
    let told =
        "sandbox: `memory` is lowered to the host's ceiling of 64 MiB; 1 GiB was asked for\n";
    assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("`timeout`"), "{}", outcome.stderr);
    let record = outcome.ended(137, "memory", "more_memory");
    assert_has(
        record.at("/limits/memory_bytes"),
        &json!({"requested": 1 << 30, "effective": 64 << 20, "source": "ceiling"}),
    );
    assert_has(
        record.at("/limits/walltime_ns"),
        &json!({"requested": 60_000_000_000_u64, "effective": 60_000_000_000_u64, "source": "ceiling"}),
    );
    record.assert_notes(&[
        "memory limit of 64 MiB (the host's ceiling) reached",
        "only its administrator can raise it",
    ]);
}

#[test]
fn a_ceiling_refuses_before_anything_is_started() {
    let _guest = Guest::enter();
    let _config = Configured::with("[ceilings]\ncpus = 2\n");
    let scene = Scene::new();
    scene.write("a.json", r#"{"sandbox": {"cpus": 3}}"#);
    for (asked, by) in [
        ("--cpus 3", "3 cores (command line)"),
        ("--cpus none", "`none` (command line)"),
        ("--metadata a.json", "3 cores (metadata)"),
    ] {
        let refused = scene
            .bash(&format!(
                "sandbox run --user ana {asked} --record record.json -- touch started"
            ))
            .expect(125);
        assert!(
            refused.err().contains(by) && refused.err().contains("the host's ceiling is 2 cores"),
            "{refused}"
        );
        assert_eq!(scene.files().len(), 1, "{:?}", scene.files());
    }
    scene
        .bash("sandbox run --user ana --cpus 2 -- true")
        .expect(0);
}

#[test]
fn a_user_and_a_group_have_rules_of_their_own() {
    let _guest = Guest::enter();
    let _config = Configured::with(
        "[defaults]\npids = 50\n[groups.games.defaults]\npids = 60\n[users.ana.defaults]\npids = 70\n\
         [groups.1000.defaults]\ncpus = 0.5\n",
    );
    let scene = Scene::new();
    let limits = |call: &str| {
        scene
            .bash(&format!(
                "rm -f record.json; {call} --record record.json -- true"
            ))
            .expect(0);
        let record = scene.record();
        (
            record.number("/limits/pids/effective"),
            record.at("/limits/cpus/effective").clone(),
        )
    };
    let by_sudo = "runuser -u ana -- sudo -n sandbox run";
    assert_eq!(limits(by_sudo), (70, json!(0.5)), "who called sudo");
    assert_eq!(limits("sandbox run --user ana"), (70, json!(0.5)));
    assert_eq!(limits("sandbox run --user games"), (60, json!(1.0)));
    assert_eq!(limits("sandbox run --user nobody"), (50, json!(1.0)));
}

#[test]
fn whom_sudo_lets_name_somebody_else_keeps_their_own_ceilings() {
    let _guest = Guest::enter();
    let _config = Configured::with("[users.ana.ceilings]\npids = 50\n");
    let scene = Scene::new();
    let run = "sandbox run --user nobody --pids 60 -- true";
    let refused = scene
        .bash(&format!("runuser -u ana -- sudo -n {run}"))
        .expect(125);
    assert!(
        refused.err().contains("the host's ceiling is 50"),
        "{refused}"
    );
    scene.bash(run).expect(0);
}

#[test]
fn it_says_whom_roots_analyses_run_as_and_nobody_elses() {
    let _guest = Guest::enter();
    let _config = Configured::with("user = 'games'\n");
    let scene = Scene::new();
    let name = |call: &str| {
        let ran = scene.bash(&format!("{call} -- id -un")).expect(0);
        ran.out().trim().to_owned()
    };
    assert_eq!(name("sandbox run"), "games");
    assert_eq!(name("sandbox run --user nobody"), "nobody");
    assert_eq!(name("runuser -u ana -- sudo -n sandbox run"), "ana");
}

#[test]
fn the_budget_is_a_limit_of_all_runs_together() {
    let _guest = Guest::enter();
    let files = ["memory.max", "cpu.max", "pids.max"];
    // Each is put back in the end.
    let _unlimited = files.map(|file| Enclosing::limit(RUNS, file, "max"));
    let config = Configured::with("[budget]\nmemory = '96MiB'\ncpus = 1.5\npids = 40\n");
    let outcome = Sandbox::new()
        .options(["--memory", "1GiB"])
        .victim(["eat", "200MiB"]);
    let record = outcome.ended(137, "memory_ancestor", "same");
    let enclosing = |value| json!({"enclosing": {"value": value, "cgroup": RUNS}});
    assert_has(
        record.at("/limits/memory_bytes"),
        &enclosing(json!(96 << 20)),
    );
    assert_has(record.at("/limits/cpus"), &enclosing(json!(1.5)));
    assert_has(record.at("/limits/pids"), &enclosing(json!(40)));

    config.change("[budget]\nmemory = 'none'\npids = 30\n");
    let record = Sandbox::new()
        .victim(["exit", "0"])
        .ended(0, "completed", "none");
    assert!(record.at("/limits/memory_bytes/enclosing").is_null());
    assert_has(record.at("/limits/pids"), &enclosing(json!(30)));
    // Of which nothing is said any more.
    assert_has(record.at("/limits/cpus"), &enclosing(json!(1.5)));
}

#[test]
fn what_all_runs_may_have_of_memory_is_the_hosts_share_where_nobody_says_anything() {
    let _guest = Guest::enter();
    let limit = || {
        let text = fs::read_to_string("/sys/fs/cgroup/sandbox/runs/memory.max").expect("there");
        text.trim().to_owned()
    };
    let run = || {
        drop(
            Sandbox::new()
                .victim(["exit", "0"])
                .ended(0, "completed", "none"),
        )
    };
    // It is put back in the end.
    let _unlimited = Enclosing::limit(RUNS, "memory.max", "max");
    run();
    let info = fs::read_to_string("/proc/meminfo").expect("proc(5)");
    let total_kib = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let total_kib: u64 = total_kib
        .and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok())
        .expect("in KiB");
    // The guests are small hosts.
    assert!(total_kib < 2 << 20, "{total_kib}");
    let half = total_kib * 1024 / 2;
    assert_eq!(limit(), (half - half % 4096).to_string());

    // What an administrator has set stays.
    let _limited = Enclosing::limit(RUNS, "memory.max", "1073741824");
    run();
    assert_eq!(limit(), "1073741824");
}

#[test]
fn a_budget_is_not_lowered_under_what_others_need() {
    let _guest = Guest::enter();
    let _unlimited = Enclosing::limit(RUNS, "memory.max", "max");
    let config = Configured::with("[budget]\nmemory = 'none'\n");
    let holder = Sandbox::new().start_victim(["eat", "100MiB"]);
    let _pid = holder.ready();
    config.change("[budget]\nmemory = '64MiB'\n");
    let run = || {
        let outcome = Sandbox::new().victim(["exit", "0"]);
        assert_eq!(outcome.code(), 0, "{}", outcome.stderr);
        (outcome.record(), outcome.stderr)
    };
    let (record, said) = run();
    let told =
        "the host's memory budget of 64 MiB does not hold yet: the runs in /sandbox/runs need";
    assert!(said.contains(told), "{said}");
    assert!(record.at("/limits/memory_bytes/enclosing").is_null());

    holder.signal(Signal::SIGTERM);
    holder.finish().ended(143, "cancelled", "same");
    let (record, said) = run();
    assert!(!said.contains("budget"), "{said}");
    let enclosing = record.number("/limits/memory_bytes/enclosing/value");
    assert_eq!(enclosing, 64 << 20, "{record}");
}

#[test]
fn under_a_bad_file_nothing_is_started_and_check_says_why() {
    let _guest = Guest::enter();
    let config = Configured::with("[defaults]\npids = 50\n\n[ceilings]\nmemroy = '4GiB'\n");
    let scene = Scene::new();
    let run = || {
        scene
            .bash("sandbox run --user ana -- touch started")
            .expect(125)
    };
    let told = "/etc/sandbox/config.toml:5:1: ceilings.memroy: unknown key; did you mean `memory`?";
    assert!(run().err().contains(told), "{}", run());
    let check = scene.bash("sandbox check").expect(125);
    let line = format!("missing   configuration  {told}");
    assert!(check.out().contains(&line), "{check}");

    config.change("[defaults]\npids = 50\n");
    fs::set_permissions(Configured::FILE, fs::Permissions::from_mode(0o666)).expect("changed");
    assert!(run().err().contains("chmod go-w"), "{}", run());
    assert!(scene.files().is_empty(), "{:?}", scene.files());

    fs::set_permissions(Configured::FILE, fs::Permissions::from_mode(0o600)).expect("changed");
    scene.bash("sandbox run --user ana -- true").expect(0);
    let check = scene.bash("sandbox check").expect(0);
    assert!(
        check
            .out()
            .contains("configuration  /etc/sandbox/config.toml"),
        "{check}"
    );
}
