//! `sandbox run` at a terminal: job control, Ctrl-C and Ctrl-Z work as they do without it.
//!
//! Each test is a Python script that holds a pseudo-terminal, types, and waits for what it shows.

use std::{fs, path::Path};

use sandbox_tests::{Guest, Scene};

/// `Terminal(words)` runs a program at a terminal of its own.
const TERMINAL: &str = r#"
import fcntl, json, os, pty, re, select, signal, struct, sys, termios, time

LIMIT = 40

class Terminal:
    def __init__(self, *words):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvp(words[0], words)
        self.seen = b""

    def read(self, limit):
        if not select.select([self.fd], [], [], max(0, limit))[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.seen += data
        return bool(data)

    def expect(self, text):
        end = time.monotonic() + LIMIT
        pattern = re.compile(text.encode())
        while not (found := pattern.search(self.seen)):
            if not self.read(end - time.monotonic()):
                sys.exit(f"waited in vain for {text!r}; the terminal shows {self.seen!r}")
        self.seen = self.seen[found.end():]
        return [group.decode() for group in found.groups()]

    def type(self, text):
        os.write(self.fd, text.encode())

    def status(self):
        while self.read(LIMIT):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

def state(pid):
    return open(f"/proc/{pid}/stat").read().rsplit(") ")[-1][0]

def is_pending(pid, number):
    pending = re.search(r"ShdPnd:\s*(\w+)", open(f"/proc/{pid}/status").read())[1]
    return int(pending, 16) >> (number - 1) & 1

def in_foreground(terminal):
    return open(f"/proc/{os.tcgetpgrp(terminal.fd)}/comm").read().strip()

def until(what, condition):
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"waited in vain for {what}")
        time.sleep(0.02)

def record():
    return json.load(open("record.json"))

def equal(left, right):
    if left != right:
        sys.exit(f"{left!r} is not {right!r}")

RUN = ["sandbox", "run", "--user", "ana", "--record", "record.json"]

def shell():
    os.environ["PS1"] = "P> "
    terminal = Terminal("bash", "--norc", "--noprofile", "-i")
    terminal.expect("P> ")
    return terminal

def job(terminal):
    terminal.type("jobs; echo no$((1))more\n")
    state, = terminal.expect(r"\[1\]\+ +(\w+)")
    terminal.expect("no1more")
    return state
"#;

fn at_a_terminal(script: &str) -> Scene {
    let scene = Scene::new();
    let _ = scene.python(&format!("{TERMINAL}\n{script}")).expect(0);
    scene
}

#[test]
fn ctrl_c_cancels_the_run() {
    let _guest = Guest::enter();
    at_a_terminal(
        r#"
t = Terminal(*RUN, "--", "victim", "sleep")
t.expect("ready")
t.type("\x03")
equal(t.status(), 130)
equal(record()["termination"]["reason"], "cancelled")
equal(record()["exit"]["signal"], 2)
"#,
    );
}

#[test]
fn ctrl_c_that_the_analysis_handles_and_exits_0_on_is_cancelled_with_130() {
    let _guest = Guest::enter();
    at_a_terminal(
        r#"
t = Terminal(*RUN, "--", "bash", "-c", "trap 'exit 0' INT; echo re''ady; while :; do sleep 0.05; done")
t.expect("ready")
t.type("\x03")
equal(t.status(), 130)
equal(record()["termination"]["reason"], "cancelled")
equal(record()["exit"]["code"], 0)
"#,
    );
}

#[test]
fn ctrl_c_twice_ends_an_analysis_that_ignores_it() {
    let _guest = Guest::enter();
    at_a_terminal(
        r#"
t = Terminal(*RUN, "--grace", "1h", "--", "bash", "-c", "trap 'echo cau''ght' INT; echo re''ady; while :; do sleep 0.05; done")
t.expect("ready")
t.type("\x03")
t.expect("caught")
until("sandbox to take it", lambda: not is_pending(t.pid, signal.SIGINT))
t.type("\x03")
equal(t.status(), 137)
equal(record()["termination"]["reason"], "cancelled")
"#,
    );
}

#[test]
fn a_signal_to_the_whole_job_cancels_the_run_whoever_is_quicker_to_die() {
    let _guest = Guest::enter();
    at_a_terminal(
        r#"
t = shell()
for signal, status in [("TERM", 143), ("INT", 130), ("HUP", 129)]:
    t.type(" ".join(RUN) + " -- victim sleep &\n")
    t.expect("ready")
    t.type(f"kill -{signal} %1; wait %1; echo status=$?.\n")
    t.expect(f"status={status}\\.")
    equal(record()["termination"]["reason"], "cancelled")
    equal(record()["termination"]["confidence"], "exact")
t.type("exit\n")
t.status()
"#,
    );
}

#[test]
fn timeout_1_cancels_the_run() {
    let _guest = Guest::enter();
    at_a_terminal(
        r#"
t = Terminal("timeout", "10", *RUN, "--", "victim", "sleep")
t.expect("ready")
equal(t.status(), 124)
equal(record()["termination"]["reason"], "cancelled")
equal(record()["exit"]["signal"], 15)
"#,
    );
}

#[test]
fn it_keeps_the_foreground_so_that_an_interactive_analysis_can_read() {
    let _guest = Guest::enter();
    at_a_terminal(
        r#"
t = Terminal(*RUN, "--", "python3", "-c", "import os; print('got', input('name? '), os.getpgrp() == os.tcgetpgrp(0))")
t.expect(r"name\? ")
t.type("ana\n")
t.expect("got ana True")
equal(t.status(), 0)
equal(record()["termination"]["reason"], "completed")
"#,
    );
}

#[test]
fn ctrl_z_stops_both_and_fg_goes_on() {
    let _guest = Guest::enter();
    at_a_terminal(
        r#"
t = shell()
t.type(" ".join(RUN) + " -- bash -c 'echo pids=$PPID,$$.; read line; echo got $line'\n")
supervisor, main = t.expect(r"pids=(\d+),(\d+)\.")
t.type("\x1a")
t.expect("Stopped")
until("both to stop", lambda: (state(supervisor), state(main)) == ("T", "T"))
t.type("fg\n")
t.expect("sandbox run")
until("both to go on", lambda: "T" not in (state(supervisor), state(main)))
t.type("hello\n")
t.expect("got hello")
t.expect("P> ")
t.type("echo status=$?\n")
t.expect("status=0")
t.type("exit\n")
t.status()
equal(record()["termination"]["reason"], "completed")
"#,
    );
}

#[test]
fn a_background_job_that_reads_is_stopped_until_it_is_in_the_foreground() {
    let _guest = Guest::enter();
    at_a_terminal(
        r#"
t = shell()
t.type(" ".join(RUN) + " -- bash -c 'echo pid=$$.; read line; echo got $line' &\n")
main, = t.expect(r"pid=(\d+)\.")
until("main to be stopped by SIGTTIN", lambda: state(main) == "T")
# `fg` sends no SIGCONT while the shell takes the job for running.
until("the shell to know", lambda: job(t) == "Stopped")
t.type("fg\n")
t.expect("sandbox run")
until("main to go on", lambda: state(main) != "T")
t.type("hello\n")
t.expect("got hello")
t.type("exit\n")
t.status()
equal(record()["termination"]["reason"], "completed")
"#,
    );
}

#[test]
fn a_new_window_size_reaches_the_analysis() {
    let _guest = Guest::enter();
    at_a_terminal(
        r#"
t = Terminal(*RUN, "--", "python3", "-c", """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
print('ready', flush=True)
signal.sigwait([signal.SIGWINCH])
print('size', *os.get_terminal_size(), flush=True)
""")
t.expect("ready")
fcntl.ioctl(t.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
t.expect("size 77 33")
equal(t.status(), 0)
"#,
    );
}

#[test]
fn a_terminal_that_hangs_up_cancels_the_run() {
    let _guest = Guest::enter();
    at_a_terminal(
        r#"
t = Terminal(*RUN, "--", "victim", "sleep")
t.expect("ready")
os.close(t.fd)
os.waitpid(t.pid, 0)
equal(record()["termination"]["reason"], "cancelled")
"#,
    );
}

#[test]
fn an_interactive_shell_as_the_analysis_has_job_control() {
    let _guest = Guest::enter();
    at_a_terminal(
        r#"
os.environ["PS1"] = "P> "
t = Terminal(*RUN, "--", "bash", "--norc", "--noprofile", "-i")
t.expect("P> ")
t.type("sleep 1000\n")
until("sleep to run", lambda: in_foreground(t) == "sleep")
t.type("\x1a")
t.expect("Stopped")
t.type("kill %1; wait; echo do''ne\n")
t.expect("done")
t.type("sleep 1000\n")
until("sleep to run", lambda: in_foreground(t) == "sleep")
t.type("\x03")
t.expect("P> ")
t.type("exit 6\n")
equal(t.status(), 6)
equal(record()["termination"]["reason"], "exit_code")
"#,
    );
}

#[test]
fn an_analysis_cannot_type_into_its_callers_terminal() {
    let _guest = Guest::enter();
    // From 6.2 on Debian's kernels forbid it to everybody: then it is not we who do.
    let legacy = Path::new("/proc/sys/dev/tty/legacy_tiocsti");
    if legacy.exists() {
        fs::write(legacy, "1").expect("root may allow it");
    }
    at_a_terminal(
        r#"
t = Terminal(*RUN, "--", "python3", "-c", """
import fcntl, termios
try:
    fcntl.ioctl(0, termios.TIOCSTI, b'x')
    print('typed')
except OSError as error:
    print('refused', error.errno)
""")
t.expect(r"refused 1\b")
equal(t.status(), 0)
"#,
    );
}

#[test]
fn a_signal_that_main_handled_long_ago_is_not_the_one_that_cancels_the_run() {
    let _guest = Guest::enter();
    at_a_terminal(
        r#"
t = Terminal(*RUN, "--grace", "1h", "--", "bash", "-c",
    "trap 'n=$((n+1)); echo told $n; [ $n = 2 ] && exit 0' TERM; echo pid=$$.; while :; do sleep 0.05; done")
main, = t.expect(r"pid=(\d+)\.")
os.kill(int(main), signal.SIGTERM)
t.expect("told 1")
time.sleep(1.5)
os.kill(t.pid, signal.SIGTERM)
t.expect("told 2")
equal(t.status(), 143)
equal(record()["termination"]["reason"], "cancelled")
"#,
    );
}
