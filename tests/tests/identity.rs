//! Who an analysis is: whose uid, groups, home and rights, and that its supervisor stays who it was.

use std::fs;
use std::os::unix::fs::MetadataExt;

use sandbox_tests::{Guest, Sandbox, Scene};
use serde_json::{Value, json};

const PRINT: &str = "victim print-identity";

/// A file that a test changes, put back when it ends.
struct Restored {
    path: &'static str,
    text: String,
}

impl Restored {
    fn later(path: &'static str) -> Self {
        let text = fs::read_to_string(path).expect("the file can be read");
        Self { path, text }
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        fs::write(self.path, &self.text).expect("the file can be put back");
    }
}

fn sorted(numbers: &Value) -> Vec<u64> {
    let list = numbers.as_array().expect("a list of ids");
    let mut numbers: Vec<u64> = list.iter().filter_map(Value::as_u64).collect();
    numbers.sort_unstable();
    numbers
}

/// All that there is, is a record that says so.
#[track_caller]
fn never_started(scene: &Scene) {
    assert_eq!(scene.record().reason(), "setup_failed");
    assert_eq!(scene.files().len(), 1, "{:?}", scene.files());
}

#[test]
fn plain_root_has_to_say_whom_the_analysis_runs_as() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let refused = scene
        .bash("sandbox run --record record.json -- touch started")
        .expect(125);
    assert!(refused.err().contains("--user"), "{refused}");
    assert!(refused.err().contains("root"), "{refused}");
    never_started(&scene);
}

#[test]
fn an_unprivileged_caller_is_told_to_use_sudo() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let refused = scene
        .bash("runuser -u ana -- sandbox run --record record.json -- touch started")
        .expect(125);
    assert!(refused.err().contains("sudo"), "{refused}");
    never_started(&scene);
}

#[test]
fn under_sudo_it_is_the_user_who_called_sudo() {
    let _guest = Guest::enter();
    let _groups = Restored::later("/etc/group");
    let scene = Scene::new();
    let ran = scene
        .bash(&format!(
            "usermod -aG games,users ana && \
             runuser -u ana -- sudo -n sandbox run --record record.json -- {PRINT}"
        ))
        .expect(0);
    let it = ran.json();
    assert_eq!(it["uid"], json!([1000, 1000, 1000, 1000]));
    assert_eq!(it["gid"], json!([1000, 1000, 1000, 1000]));
    let games_and_users = vec![60, 100, 1000];
    assert_eq!(sorted(&it["groups"]), games_and_users);
    for (name, value) in [("HOME", "/home/ana"), ("USER", "ana"), ("LOGNAME", "ana")] {
        assert_eq!(it["environment"][name], value, "{name}");
    }
    assert_eq!(
        it["cwd"].as_str(),
        scene.folder().to_str(),
        "the working directory is the caller's"
    );
    assert_eq!(
        scene.record().at("/user"),
        &json!({"uid": 1000, "gid": 1000, "name": "ana"})
    );
    let file = fs::metadata(scene.path("record.json")).expect("the record is there");
    assert_eq!((file.uid(), file.gid()), (1000, 1000), "ana's own file");
}

#[test]
fn sudo_called_by_root_is_plain_root() {
    let _guest = Guest::enter();
    let refused = Scene::new().bash("sudo -n sandbox run -- true").expect(125);
    assert!(refused.err().contains("--user"), "{refused}");
}

#[test]
fn a_named_user_has_its_own_groups_and_home() {
    let _guest = Guest::enter();
    let _groups = Restored::later("/etc/group");
    let scene = Scene::new();
    let it = scene
        .bash(&format!(
            "usermod -aG games bob && sandbox run --record record.json --user bob -- {PRINT}"
        ))
        .expect(0)
        .json();
    assert_eq!(it["uid"], json!([1001, 1001, 1001, 1001]));
    assert_eq!(it["gid"], json!([1001, 1001, 1001, 1001]));
    assert_eq!(sorted(&it["groups"]), [60, 1001]);
    assert_eq!(it["environment"]["HOME"], "/home/bob");
    assert_eq!(it["environment"]["LOGNAME"], "bob");
    assert_eq!(scene.record().text("/user/name"), "bob");
}

#[test]
fn a_uid_without_an_account_will_do() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let it = scene
        .bash(&format!(
            "sandbox run --record record.json --user 4242 -- {PRINT}"
        ))
        .expect(0)
        .json();
    assert_eq!(it["uid"], json!([4242, 4242, 4242, 4242]));
    assert_eq!(it["gid"], json!([4242, 4242, 4242, 4242]));
    assert_eq!(sorted(&it["groups"]), [4242]);
    assert_eq!(it["environment"]["HOME"], "/");
    assert_eq!(it["environment"]["USER"], "4242");
    assert!(scene.record().at("/user/name").is_null());
}

#[test]
fn a_user_whom_nobody_knows_is_refused_by_name() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let refused = scene
        .bash("sandbox run --record record.json --user nobody-here -- touch started")
        .expect(125);
    assert!(refused.err().contains("nobody-here"), "{refused}");
    never_started(&scene);
}

#[test]
fn root_is_warned_of_and_noted() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let ran = scene
        .bash(&format!(
            "sandbox run --record record.json --user root -- {PRINT}"
        ))
        .expect(0);
    assert!(ran.err().contains("leave its cgroup"), "{ran}");
    let record = scene.record();
    let degraded = record.list("/tracing/degraded");
    assert!(
        degraded
            .iter()
            .any(|line| line.as_str().is_some_and(|line| line.contains("root"))),
        "{record}"
    );
    assert_eq!(ran.json()["uid"], json!([0, 0, 0, 0]));
}

#[test]
fn a_user_has_no_capability_and_gets_none_from_set_uid_programs() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    // A change of uid empties the other sets, and leaves what is inheritable.
    let it = scene
        .bash(&format!(
            "setpriv --inh-caps=+chown,+net_raw --ambient-caps=+chown sandbox run --user ana -- {PRINT}"
        ))
        .expect(0)
        .json();
    for set in [
        "inheritable",
        "permitted",
        "effective",
        "bounding",
        "ambient",
    ] {
        assert_eq!(it["capabilities"][set], "0000000000000000", "{set}");
    }
    assert_eq!(it["no_new_privs"], true);
    let sudo = scene.bash("sandbox run --user ana -- sudo -n id -u");
    assert_ne!(sudo.code(), 0, "{sudo}");
    let securebits = "import ctypes; print(ctypes.CDLL(None).prctl(27, 0, 0, 0, 0))";
    let bits = scene
        .bash(&format!(
            "sandbox run --user ana -- python3 -c '{securebits}'"
        ))
        .expect(0);
    assert_eq!(bits.out(), "0", "PR_GET_SECUREBITS");
}

#[test]
fn it_goes_before_the_hosts_services_when_memory_is_short() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    for callers in ["0", "-1000", "700"] {
        let line = format!(
            "echo {callers} >/proc/self/oom_score_adj && \
             sandbox run --user ana -- cat /proc/self/oom_score_adj"
        );
        assert_eq!(scene.bash(&line).expect(0).out(), "500", "from {callers}");
    }
}

#[test]
fn its_supervisor_stays_what_and_where_it_was() {
    let _guest = Guest::enter();
    // The first run on a bare host mounts nsdelegate, once and for all.
    assert_eq!(Sandbox::new().victim(["exit", "0"]).code(), 0);
    let look = |pid: &str| {
        let text = |file: &str| {
            fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the process is there")
        };
        let link = |file: &str| {
            fs::read_link(format!("/proc/{pid}/ns/{file}")).expect("the process is there")
        };
        let namespaces = ["mnt", "ipc", "cgroup", "pid", "net", "user", "uts"];
        (
            text("oom_score_adj"),
            text("cgroup"),
            text("mountinfo"),
            namespaces.map(link),
        )
    };
    let before = look("self");
    let running = Sandbox::new().start_victim(["sleep"]);
    let main = running.ready();
    assert_eq!(look(&running.pid().to_string()), before);
    assert_ne!(look(&main.to_string()).3, before.3);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(main),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("the victim holds");
    assert_eq!(running.finish().code(), 137);
    assert_eq!(look("self"), before);
}

#[test]
fn the_environment_is_in_no_record() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene
        .bash(
            "export TOKEN_OF_CALLER=hunter2-abc; \
             sandbox run --record record.json --user ana --env TOKEN_GIVEN=hunter2-def \
             --notes always -- sh -c 'env | grep -c hunter2; exit 3'",
        )
        .expect(3);
    assert_eq!(said.out(), "2", "both are the analysis's: {said}");
    assert!(!said.err().contains("hunter2"), "{said}");
    let record = scene.read("record.json");
    for secret in ["hunter2-", "TOKEN_", "\"PATH\""] {
        assert!(!record.contains(secret), "{secret} in {record}");
    }
}
