//! A kernel that is locked down (confidentiality): it refuses the programs, and the limits hold.

use sandbox_tests::{Guest, Sandbox, Scene};

#[test]
fn a_run_says_that_lockdown_is_why_less_is_known_and_its_limit_holds() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new()
        .options(["--memory", "64MiB"])
        .victim(["eat", "256MiB"]);
    assert_eq!(outcome.code(), 137, "{}", outcome.stderr);
    let record = outcome.record();
    assert_eq!(record.reason(), "memory", "{record}");
    assert_eq!(record.confidence(), "inferred", "{record}");
    let degraded = record.at("/tracing/degraded").to_string();
    assert!(
        degraded.contains("locked down (confidentiality)"),
        "{degraded}"
    );
    assert!(degraded.contains("lockdown=integrity"), "{degraded}");
}

#[test]
fn check_says_so_beforehand() {
    let _guest = Guest::enter();
    let said = Scene::new().bash("sandbox check").expect(0);
    let line = |name: &str| {
        let out = said.out();
        let mut lines = out.lines();
        let found = lines.find(|line| line.split_whitespace().nth(1) == Some(name));
        found.map_or_else(|| panic!("nothing on {name}: {said}"), str::to_owned)
    };
    assert!(line("lockdown").starts_with("degraded"), "{said}");
    assert!(line("tracing").contains("locked down"), "{said}");
}
