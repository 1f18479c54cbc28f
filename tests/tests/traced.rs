//! A main process that somebody traces: its end is not its parent's to wait for, and is the run's all the same.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use sandbox_tests::{Guest, Outsider, Sandbox, wait};

/// Has `trace(pid)`, which says so and waits for nothing.
const TRACE: &str = "import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, PR_SET_PTRACER = 0x4206, 0x59616d61
def trace(pid):
    if libc.ptrace(PTRACE_SEIZE, pid, None, None):
        sys.exit(os.strerror(ctypes.get_errno()))
";

#[test]
fn a_main_that_its_own_child_traces_ends_the_run_when_it_exits() {
    let _guest = Guest::enter();
    let script = format!(
        "{TRACE}
libc.prctl(PR_SET_PTRACER, ctypes.c_ulong(-1 & 2**64 - 1))
main = os.getpid()
reader, writer = os.pipe()
if os.fork() == 0:
    trace(main)
    os.write(writer, b'x')
    time.sleep(1000)
os.read(reader, 1)
os._exit(3)"
    );
    let running = Sandbox::new()
        .options(["--timeout", "60s"])
        .start(["python3", "-c", &script]);
    let record = running.finish().ended(3, "exit_code", "none");
    assert_eq!(record.at("/processes/left_over"), 1, "{record}");
}

/// Somebody outside of every run who traces a process until this is dropped.
struct Tracer(Child);

impl Tracer {
    #[track_caller]
    fn of(pid: i32) -> Self {
        let script =
            format!("{TRACE}\ntrace({pid})\nprint('traced', flush=True)\ntime.sleep(1000)");
        let child = Command::new("python3")
            .args(["-c", &script])
            .stdout(Stdio::piped())
            .spawn();
        let mut tracer = Self(child.expect("the guest has Python"));
        let stdout = tracer.0.stdout.take().expect("its stdout is a pipe");
        let mut said = String::new();
        let read = BufReader::new(stdout).read_line(&mut said);
        read.expect("it can be read");
        assert_eq!(said, "traced\n");
        tracer
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It may have ended of an error.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_main_that_somebody_outside_traces_ends_the_run_and_what_kept_its_status_back_is_named() {
    let _guest = Guest::enter();
    let script = "import os, time
print('ready', os.getpid(), flush=True)
while not os.path.exists(f'/tmp/go-{os.getpid()}'):
    time.sleep(0.05)
os._exit(3)";
    let mut running = Sandbox::new()
        .options(["--timeout", "300s"])
        .start(["python3", "-c", script]);
    let pid = running.ready();
    let tracer = Tracer::of(pid);
    let go = format!("/tmp/go-{pid}");
    std::fs::write(&go, "").expect("a test can write to /tmp");
    wait::until("the run to end", || running.is_over());
    std::fs::remove_file(&go).expect("it is ours");
    let outcome = running.finish();
    assert_eq!(outcome.code(), 3, "{}", outcome.stderr);
    let record = outcome.record();
    assert_eq!(record.reason(), "exit_code", "{record}");
    assert_eq!(record.confidence(), "strong", "{record}");
    assert_eq!(record.at("/exit/code"), 3, "{record}");
    let degraded = record.at("/tracing/degraded").to_string();
    let named = format!("python3 (pid {}), which traced it", tracer.0.id());
    assert!(degraded.contains(&named), "{degraded}");
}

#[test]
fn a_signal_that_a_tracer_puts_in_anothers_place_is_the_tracers() {
    let _guest = Guest::enter();
    // The first SIGTERM it takes; the next is its end.
    let script = "import os, signal, time
def take(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    print('taken', flush=True)
signal.signal(signal.SIGTERM, take)
print('ready', os.getpid(), flush=True)
while True:
    time.sleep(0.05)";
    let running = Sandbox::new()
        .options(["--timeout", "300s"])
        .start(["python3", "-c", script]);
    let pid = running.ready();
    let handled = Outsider::signals(pid, Signal::SIGTERM);
    let _ = running.line("taken");
    let tracer = Command::new(sandbox_tests::victim())
        .args(["trace", &pid.to_string(), "inject-term"])
        .spawn();
    let mut tracer = tracer.expect("`victim` can be started");
    let pid_of_tracer = tracer.id();
    let status = tracer.wait().expect("a child can be waited for");
    assert!(status.success(), "it could not inject a signal: {status}");
    let record = running
        .finish()
        .ended(128 + Signal::SIGTERM as i32, "external_kill", "same");
    assert_eq!(record.confidence(), "exact", "{record}");
    let fatal = record.fatal();
    assert_eq!(fatal["injected"], true, "{record}");
    assert_eq!(fatal["sender"]["pid"], pid_of_tracer, "{record}");
    let senders = record.list("/kills").iter().map(|kill| &kill["sender"]);
    let of_handled = handled.as_sender();
    assert!(
        senders.clone().any(|sender| *sender == of_handled),
        "{record}"
    );
}
