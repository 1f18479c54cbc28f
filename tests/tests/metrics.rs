//! What the service tells a monitoring system.

use sandbox_tests::{Configured, Guest, Scene, Service};

#[test]
fn metrics_are_served_over_http_and_on_the_socket() {
    let _guest = Guest::enter();
    let _config = Configured::with("[service]\nmetrics = '127.0.0.1:9464'\n");
    let scene = Scene::new();
    scene.loopback_up();
    let _service = Service::start();
    let said = scene.ana("sandbox run -- bash -c 'exit 3'");
    assert_eq!(said.code(), 3, "{said}");
    let _ended = scene
        .ana("sandbox run --timeout 1s --grace 0 -- sleep 1000")
        .expect(137);
    let said = scene.python(
        r#"
import http.client, json, socket
over_http = http.client.HTTPConnection("127.0.0.1", 9464)
over_http.request("GET", "/metrics")
over_http = over_http.getresponse().read().decode()
with socket.socket(socket.AF_UNIX) as service:
    service.connect("/run/sandbox/sandbox.sock")
    service.sendall(b'{"version":1,"metrics":{}}\n')
    on_socket = json.loads(service.makefile().readline())["metrics"]
for text in over_http, on_socket:
    for sample in (
        'sandbox_runs_total{reason="exit_code",user="ana"} 1',
        'sandbox_runs_total{reason="walltime",user="ana"} 1',
        'sandbox_spawn_seconds_count 2',
        'sandbox_kill_seconds_count 1',
    ):
        if sample not in text: raise SystemExit(sample + text)
"#,
    );
    assert_eq!(said.code(), 0, "{said}");
}

/// Prints them.
const OVER_HTTP: &str = r#"
import http.client
service = http.client.HTTPConnection("127.0.0.1", 9464)
service.request("GET", "/metrics")
print(service.getresponse().read().decode(), end="")
"#;

#[test]
fn promtool_has_nothing_to_complain_of_once_runs_have_ended_in_many_ways() {
    let _guest = Guest::enter();
    let _config = Configured::with(
        "[service]\nmetrics = '127.0.0.1:9464'\nruns = 1\n[budget]\nmemory = 'keep'\n",
    );
    let scene = Scene::new();
    scene.loopback_up();
    let _service = Service::start();
    scene.write("over_http.py", OVER_HTTP);
    let said = scene.ana("setpriv --no-new-privs sandbox run -- true");
    assert_eq!(said.code(), 125, "{said}");
    for (options, command, status, reason) in [
        ("", "true", 0, "completed"),
        (
            "--timings",
            "bash -c 'sleep 98765 & exit 3'",
            3,
            "exit_code",
        ),
        (
            "--on-complete false",
            "bash -c 'kill -SEGV $$'",
            139,
            "signal",
        ),
        ("--memory 64MiB", "tail /dev/zero", 137, "memory"),
        (
            "--pids 5",
            "bash -c 'for n in 1 2 3 4 5 6 7 8 9; do sleep 98765 & done; wait'",
            137,
            "pids",
        ),
        ("--timeout 1 --grace 0", "sleep 98765", 137, "walltime"),
        ("", "/nowhere", 127, "setup_failed"),
    ] {
        let said = scene.ana(&format!("sandbox run {options} -- {command}"));
        assert_eq!(said.code(), status, "{reason}: {said}");
        let told = scene
            .bash("python3 over_http.py >metrics; promtool check metrics <metrics")
            .expect(0);
        assert_eq!((told.out().as_str(), told.err().as_str()), ("", ""));
        let counted = format!("sandbox_runs_total{{reason=\"{reason}\",user=\"ana\"}} 1\n");
        let metrics = scene.read("metrics");
        assert!(metrics.contains(&counted), "{metrics}");
    }
    // What it is there for.
    let complains = scene.bash("sed '0,/^# HELP.*/{//d}' metrics | promtool check metrics");
    assert_eq!(complains.code(), 3, "{complains}");
}
