//! Those who serve on the same host while analyses misbehave.

use std::process::Command;

use sandbox_tests::Guest;

#[test]
fn no_request_of_a_neighbour_fails_while_analyses_attack_the_host_and_the_service_answers() {
    let _guest = Guest::enter();
    let output = Command::new("neighbour")
        .args(["--seconds", "15", "--only-confined"])
        // As many as there can be in that time: a thousand are for the benchmark.
        .args(["--short-runs", "10"])
        .output()
        .expect("`neighbour` lies beside `sandbox`");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
