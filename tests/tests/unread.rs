//! Outputs that nobody reads: they hold `sandbox` up for some seconds, not for ever.

use sandbox_tests::{Guest, Scene};

#[test]
fn a_record_on_a_pipe_that_nobody_reads_could_not_be_written() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    // The record has the command, and a pipe has room for 64 KiB.
    let said = scene
        .bash(
            "mkfifo pipe; sleep 1000 <pipe & \
             timeout -s KILL 60 sandbox run --user ana --notes never --record pipe -- \
             true $(head -c 100000 /dev/zero | tr '\\0' x); status=$?; kill $!; exit $status",
        )
        .expect(125);
    let err = said.err();
    let why = "/pipe: its reader did not take it within 5 s";
    assert!(
        err.contains("the record could not be written to ") && err.contains(why),
        "{said}"
    );
}

#[test]
fn notes_on_a_pipe_that_nobody_reads_are_done_without() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.python(
        r#"
import os, subprocess
reader, writer = os.pipe()
os.set_blocking(writer, False)
try:
    while True: os.write(writer, bytes(4096))
except BlockingIOError:
    pass
os.set_blocking(writer, True)
command = ["sandbox", "run", "--user", "ana", "--record", "record.json", "--", "sh", "-c", "exit 3"]
raise SystemExit(subprocess.run(command, stderr=writer, timeout=60).returncode)
"#,
    );
    assert_eq!(said.code(), 3, "{said}");
    assert_eq!(scene.record().reason(), "exit_code");
}
