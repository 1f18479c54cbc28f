//! What clients may do to the service without harm to others: say nonsense, too much or nothing, pass traps, come
//! in thousands, and what they may do when it is not there.

use sandbox_tests::{Guest, Record, Scene, Service};

#[test]
fn a_descriptor_that_takes_its_time_to_be_closed_holds_nobody_else_up() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    scene.loopback_up();
    // close(2) waits until all that was sent has been taken: socket(7), SO_LINGER.
    let said = scene.python(
        r#"
import glob, socket, struct, subprocess, time
listener = socket.create_server(("127.0.0.1", 0))
trap = socket.create_connection(listener.getsockname())
trap.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 10_000))
trap.setblocking(False)
try:
    while True: trap.send(bytes(1 << 16))
except BlockingIOError:
    pass
service = socket.socket(socket.AF_UNIX)
service.connect("/run/sandbox/sandbox.sock")
socket.send_fds(service, [b'{"version":1,"list":{"most":1}}\n'], [trap.fileno()])
trap.close()
def lingers():
    for stack in glob.glob("/proc/[0-9]*/wchan"):
        try:
            command = open(stack.replace("wchan", "cmdline")).read()
            if command.startswith("sandbox\0attend") and "sk_stream_wait_close" in open(stack.replace("wchan", "stack")).read():
                return True
        except (FileNotFoundError, ProcessLookupError):
            pass
while not lingers(): time.sleep(0.05)
subprocess.run(["runuser", "-u", "ana", "--", "sandbox", "run", "--", "true"], check=True)
if not lingers(): raise SystemExit("nobody was held up")
listener.close()
"#,
    );
    assert_eq!(said.code(), 0, "{said}");
}

#[test]
fn nonsense_is_answered_and_harms_nobody() {
    let _guest = Guest::enter();
    let service = Service::start();
    let scene = Scene::new();
    let said = scene.python(&format!("service = {}\n{}", service.pid(), r#"
import json, os, socket
def ask(data, shut=True):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(60)
        s.connect("/run/sandbox/sandbox.sock")
        try:
            s.sendall(data)
            if shut: s.shutdown(socket.SHUT_WR)
        except BrokenPipeError:
            pass
        try:
            text = s.makefile().readline()
        except ConnectionResetError:
            text = ""
    return json.loads(text).get("refused", {}).get("reason") if text else None
for data, reason in [
    (b"x", "ended early"), (b"hello\n", "expected"), (b'{"version":1}\n', "not a request"),
    (b'{"version":2,"list":{"most":1}}\n', "version 2"), (b'{"version":1,"show":{"run":"x"}}\n', "not a request"),
    (b'{"version":1,"list":{"most":1}', "ended early"), (b"x" * (7 << 20), "longer than"),
    (b'{"version":1,"run":{"arguments":[],"environment":[]}}\n', "do not come along"),
    (b'{"version":1,"run":{"arguments":["a\\u0000b"],"environment":[]}}\n', "NUL"),
]:
    said = ask(data)
    if said is not None and reason not in said or said is None and len(data) < 100:
        raise SystemExit(f"{data[:60]!r} is answered {said!r}, not {reason!r}")
def descriptors(): return len(os.listdir(f"/proc/{service}/fd"))
before = descriptors()
for _ in range(50):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("/run/sandbox/sandbox.sock")
        socket.send_fds(s, [b"{"], [0] * 9)
        s.makefile().readline()
if descriptors() > before + 20: raise SystemExit(f"{descriptors()} descriptors, {before} before")
held = [socket.socket(socket.AF_UNIX) for _ in range(200)]
for s in held: s.connect("/run/sandbox/sandbox.sock")
if ask(b"nonsense\n") is None: raise SystemExit("it does not answer any more")
if ask(b'{"version":1,', shut=False) != "no whole request came within 10 s": raise SystemExit("it waits for ever")
"#));
    assert_eq!(said.code(), 0, "{said}");
    let _done = scene.ana("sandbox run -- true").expect(0);
}

#[test]
fn ten_thousand_connections_keep_neither_others_nor_root_out() {
    let _guest = Guest::enter();
    let service = Service::start();
    let scene = Scene::new();
    let said = scene.python(&format!("service = {}\n{}", service.pid(), r#"
import collections, json, os, resource, socket, subprocess
resource.setrlimit(resource.RLIMIT_NOFILE, (30000, 30000))
def descriptors(): return len(os.listdir(f"/proc/{service}/fd"))
def held(users, each):
    held = []
    for uid in users:
        os.seteuid(uid)
        for _ in range(each):
            s = socket.socket(socket.AF_UNIX)
            s.connect("/run/sandbox/sandbox.sock")
            held.append(s)
        os.seteuid(0)
    return held
def answers(held):
    answers = collections.Counter()
    for s in held:
        answers[json.loads(s.makefile().readline())["refused"]["reason"]] += 1
        s.close()
    return answers
IDLE = "no whole request came within 10 s"
before = descriptors()
one = held([3001], 10_000)
subprocess.run(["runuser", "-u", "ana", "--", "sandbox", "run", "--", "true"], check=True)
if descriptors() > before + 2048 + 20: raise SystemExit(f"one user has {descriptors()} descriptors")
said = answers(one)
if set(said) != {IDLE, "you have too many connections: close some"}: raise SystemExit(f"one user: {said}")
many = held(range(3001, 3006), 2000)
subprocess.run(["sandbox", "list"], check=True)
if descriptors() > before + 8192 + 20: raise SystemExit(f"all users have {descriptors()} descriptors")
said = answers(many)
if set(said) - {IDLE, "too many connections are open: try again later"}: raise SystemExit(f"all users: {said}")
while descriptors() > before + 5: pass
"#));
    assert_eq!(said.code(), 0, "{said}");
    let _done = scene.ana("sandbox run -- true").expect(0);
}

#[test]
fn a_client_that_nobody_hears_says_so_and_may_go() {
    let _guest = Guest::enter();
    let mut service = Service::activated();
    let scene = Scene::new();
    service.kill();
    // Its socket takes connections all the same, and holds the descriptors that come with them.
    let said = scene.ana(
        "sandbox run -- echo begun >out 2>err & client=$!
         until grep -q 'does not hear' err; do sleep 0.05; done
         kill $client; wait $client; echo $?",
    );
    assert_eq!(said.out(), "143", "{said}");
    let told = scene.read("err");
    assert!(told.contains("the service has not heard of it"), "{told}");
    service.restart();
    let runs = scene.ana("sandbox list --json").expect(0).json();
    assert_eq!(runs, serde_json::json!([]));
}

#[test]
fn a_client_that_was_heard_and_hears_nothing_may_go_at_its_second_signal() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.python(
        r#"
import os, socket, subprocess
SOCKET = "/run/sandbox/sandbox.sock"
os.makedirs(os.path.dirname(SOCKET), exist_ok=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(SOCKET)
listener.listen()
client = subprocess.Popen(["sandbox", "run", "--", "true"], stderr=subprocess.PIPE, text=True)
connection, _ = listener.accept()
while not connection.recv(1 << 16).endswith(b"\n"): pass
client.terminate()
first = client.stderr.readline()
client.terminate()
second = client.stderr.readline()
os.unlink(SOCKET)
if "a second signal" not in first or "has not answered" not in second or client.wait() != 143:
    raise SystemExit(f"{first}{second}{client.wait()}")
"#,
    );
    assert_eq!(said.code(), 0, "{said}");
}

#[test]
fn a_client_that_gives_no_rest_lifts_no_limit_and_keeps_nobody_alive() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    scene.write(
        "flood.py",
        r#"
import json, os, socket, sys, time
arguments = sys.argv[1:]
service = socket.socket(socket.AF_UNIX)
service.connect("/run/sandbox/sandbox.sock")
request = {"version": 1, "run": {"arguments": arguments, "environment": [["PATH", os.environ["PATH"]]]}}
socket.send_fds(service, [(json.dumps(request) + "\n").encode()], [0, 1, 2, os.open(".", os.O_PATH)])
answers = service.makefile()
while "accepted" not in (answer := answers.readline()):
    if not answer or "refused" in answer: raise SystemExit(answer)
# Main is deaf by then.
while not os.path.exists("ready"): time.sleep(0.02)
os.remove("ready")
try:
    # Until it is over: nobody reads it then any more.
    while True: service.sendall(b'{"signal":10}\n' * 100)
except (BrokenPipeError, ConnectionResetError):
    pass
"#,
    );
    scene.write("busy.sh", "trap '' USR1; touch ready; while :; do :; done");
    let flood = "timeout 100 python3 flood.py --grace 0 --timeout";
    let _busy = scene
        .ana(&format!(
            "{flood} none --cpu-time 2s --id busy -- bash busy.sh"
        ))
        .expect(0);
    let busy = scene.bash("sandbox show --json busy").expect(0);
    let busy = Record::parse(&busy.out());
    busy.assert_verdict("cputime", "more_time");

    scene.write(
        "leaves.sh",
        "trap '' USR1; touch ready; sleep 98765 & sleep 1",
    );
    let _leaves = scene
        .ana(&format!("{flood} 60s --id leaves -- bash leaves.sh"))
        .expect(0);
    let leaves = scene.bash("sandbox show --json leaves").expect(0);
    let leaves = Record::parse(&leaves.out());
    leaves.assert_verdict("completed", "none");
    assert_eq!(leaves.number("/processes/left_over"), 1, "{leaves}");
}

#[test]
fn a_user_who_waits_for_too_many_runs_is_told_and_others_are_not_kept_from_it() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let _id = scene
        .ana("sandbox run --detach --id long -- sleep 98765")
        .expect(0);
    let said = scene.python(
        r#"
import json, os, pwd, select, socket, subprocess
memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
places = max(32, memory // 16 // (1 << 20)) // 2
def answer(s): return json.loads(s.makefile().readline())
def wait_as_ana(told):
    os.setuid(pwd.getpwnam("ana").pw_uid)
    waiting, refused = [], []
    for _ in range(places + 5):
        s = socket.socket(socket.AF_UNIX)
        s.connect("/run/sandbox/sandbox.sock")
        s.sendall(b'{"version":1,"wait":{"id":"long"}}\n')
        waiting.append(s)
    while len(refused) < 5:
        for s in select.select(waiting, [], [])[0]:
            refused.append(answer(s)["refused"]["reason"])
            waiting.remove(s)
    if any("too many wait already" not in reason for reason in refused): return f"refused: {refused}"
    os.write(told, b".")
    ended = [answer(s) for s in waiting]
    if not all("run" in end for end in ended): return f"told: {ended}"
told, tell = os.pipe()
if os.fork() == 0:
    problem = wait_as_ana(tell)
    if problem: print(problem, flush=True)
    os._exit(1 if problem else 0)
os.close(tell)
if os.read(told, 1) == b".":
    root = subprocess.Popen(["sandbox", "wait", "long"])
    subprocess.run(["sandbox", "kill", "long"], check=True)
    if root.wait() != 143: raise SystemExit(f"root's ended with {root.returncode}")
if os.wait()[1]: raise SystemExit("ana's did not")
"#,
    );
    assert_eq!(said.code(), 0, "{said}");
}
