//! The audit log as whoever looks into it a year later needs it: under which policy, and whether it is all there.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use sandbox_tests::{Configured, Guest, Scene, Service, wait};
use serde_json::{Value, json};

/// What the log has, in its order.
fn entries() -> Vec<Value> {
    let log = Path::new(Service::STORE).join("audit.jsonl");
    let entries = fs::read_to_string(log).expect("it is there");
    let entries = entries.lines().map(serde_json::from_str);
    entries.map(|entry| entry.expect("JSON")).collect()
}

#[test]
fn the_policy_that_an_entry_names_can_be_read_after_it_was_changed_and_taken_away() {
    let _guest = Guest::enter();
    let first = "[ceilings]\nmemory = '1GiB'\n[budget]\nmemory = 'keep'\n";
    let config = Configured::with(first);
    let mut service = Service::start();
    let scene = Scene::new();
    let _held = scene.ana("sandbox run -- true").expect(0);
    let second = "[budget]\nmemory = 'keep'\n";
    config.change(second);
    service.signal(Signal::SIGHUP);
    let loaded = |entry: &Value| entry["event"] == "config_loaded";
    wait::until("it to be read", || entries().iter().any(loaded));
    let _held = scene.ana("sandbox run -- true").expect(0);
    service.kill();
    fs::remove_file(Configured::FILE).expect("root may");
    service.restart();

    let of = |name: &str| -> Vec<Value> {
        let named = |entry: &Value| entry["event"] == name;
        let found = entries().into_iter().filter(named);
        found.map(|entry| entry["config_sha256"].clone()).collect()
    };
    let accepted = of("accepted");
    assert_eq!(of("service_started"), [accepted[0].clone(), Value::Null]);
    for (hash, text) in accepted.iter().zip([first, second]) {
        let hash = hash.as_str().expect("a hash");
        let kept = format!("{}/policies/{hash}.toml", Service::STORE);
        assert_eq!(fs::read_to_string(&kept).expect("kept"), text);
        let sum = scene.bash(&format!("sha256sum {kept}")).expect(0);
        assert!(sum.out().starts_with(hash), "{sum}");
    }
    assert_eq!(accepted.len(), 2);
}

#[test]
fn a_log_that_was_replaced_is_kept_and_the_next_one_and_verify_say_so() {
    let _guest = Guest::enter();
    let mut service = Service::start();
    let scene = Scene::new();
    service.kill();
    let log = Path::new(Service::STORE).join("audit.jsonl");
    fs::write(&log, "not by its writer").expect("root may");
    let before = scene.bash("sandbox audit verify").expect(1);
    assert!(before.out().contains("this is no entry"), "{before}");
    service.restart();

    let entries = entries();
    assert_eq!(entries[0]["event"], "damaged", "{entries:?}");
    assert_eq!(entries[1]["event"], "service_started", "{entries:?}");
    let kept_in = entries[0]["kept_in"].as_str().expect("a name");
    let kept = fs::read_to_string(Path::new(Service::STORE).join(kept_in)).expect("kept");
    assert_eq!(kept, "not by its writer");
    let found = scene.bash("sandbox audit verify --json").expect(1).json();
    assert_eq!(found["findings"][0]["kind"], "damaged", "{found}");
    assert_eq!(found["findings"][0]["kept_in"], json!(kept_in), "{found}");
    let _runs = scene.ana("sandbox run -- true").expect(0);
}
