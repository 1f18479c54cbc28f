//! Requests that cannot be carried out: each is told clearly, nothing starts, nothing is left.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use sandbox_tests::{Guest, Record, Scene, Spoken};

/// The command of every refused run: it would leave a trace.
const STARTED: &str = "touch started";

/// Runs with these options; `sandbox` itself refuses, and says all of `words`.
#[track_caller]
fn refused(scene: &Scene, options: &str, words: &[&str]) -> Spoken {
    let before = scene.files();
    let said = scene.bash(&format!("sandbox run --user ana {options} -- {STARTED}"));
    assert_eq!(said.code(), 125, "{options}: {said}");
    for word in words {
        assert!(
            said.err().contains(word),
            "{options}: no {word:?} in {said}"
        );
    }
    assert_eq!(
        scene.files(),
        before,
        "{options}: nothing was started or left: {said}"
    );
    said
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn options_that_are_unknown_or_out_of_range_are_named() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    for (options, word) in [
        ("--memorry 1GiB", "--memorry"),
        ("--memory 1GiBB", "1GiBB"),
        ("--memory 0", "--memory"),
        ("--cpus -1", "--cpus"),
        ("--pids 0", "--pids"),
        ("--timeout soon", "soon"),
        ("--oom perhaps", "perhaps"),
        ("--on-pids-limit maybe", "maybe"),
        ("--warn NOSIGNAL@5s", "NOSIGNAL"),
        ("--env 1=$'\\t'x --env novalue", "novalue"),
        ("--record fd:x", "fd:x"),
        ("--attempt 0", "--attempt"),
    ] {
        let said = refused(&scene, options, &[word]);
        assert_eq!(said.out(), "", "{options}");
    }
}

#[test]
fn options_that_contradict_each_other_are_both_named() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    refused(
        &scene,
        "--record both --stdout both",
        &["--record", "--stdout", "both"],
    );
    refused(&scene, "--label a=1 --label a=2", &["--label", "a"]);
    refused(&scene, "--timeout 10s --warn USR1@20s", &["warn"]);
}

#[test]
fn no_command_is_a_usage_error() {
    let _guest = Guest::enter();
    let said = Scene::new().bash("sandbox run --user ana").expect(125);
    assert!(said.err().contains("COMMAND"), "{said}");
}

#[test]
fn mistakes_in_metadata_are_told_with_file_line_and_key() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    for (name, text, words) in [
        (
            "m.json",
            "{\"id\": \"a\",\n\"sandbox\": {\n\"memmory\": \"1GiB\"}}",
            ["m.json:3", "sandbox.memmory"],
        ),
        (
            "m.yaml",
            "id: a\nsandbox:\n  pids: 10\n  memory: 12 parsecs\n",
            ["m.yaml:4", "sandbox.memory"],
        ),
        (
            "m.toml",
            "[sandbox]\ntimeout = \"1h\"\ntimeout_seconds = 5\n",
            ["m.toml:3", "timeout"],
        ),
        (
            "u.yaml",
            "sandbox:\n  user: root\n",
            ["u.yaml:2", "sandbox.user"],
        ),
        (
            "p.yaml",
            "sandbox:\n  pids: 0\n",
            ["p.yaml:2", "sandbox.pids"],
        ),
        (
            "s.json",
            "{\"sandbox\": {\"memory\": \"1GiB\",}\n",
            ["s.json:1", "JSON"],
        ),
    ] {
        scene.write(name, text);
        refused(
            &scene,
            &format!("--record r.json --metadata {name}"),
            &words,
        );
    }
}

#[test]
fn metadata_that_cannot_be_read_is_told_apart() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    refused(
        &scene,
        "--metadata none.json",
        &["none.json", "No such file"],
    );
    scene.write("m.ini", "");
    refused(&scene, "--metadata m.ini", &["m.ini", ".json"]);
    fs::create_dir(scene.path("d.json")).expect("the scene can be written to");
    refused(&scene, "--metadata d.json", &["d.json", "directory"]);
    scene.write(
        "large.json",
        &format!("{{\"x\": \"{}\"}}", "x".repeat(2 << 20)),
    );
    refused(&scene, "--metadata large.json", &["large.json", "1 MiB"]);
    let fifo = scene.bash("mkfifo p.json").expect(0);
    drop(fifo);
    refused(&scene, "--metadata p.json", &["p.json", "regular file"]);
}

#[test]
fn under_sudo_metadata_that_the_user_may_not_read_is_not_read() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    scene.write("secret.json", "{\"sandbox\": {\"top-secret-key\": 1}}");
    scene.bash("chmod 600 secret.json").expect(0);
    let said = scene.bash("runuser -u ana -- sudo -n sandbox run --metadata secret.json -- true");
    assert_eq!(said.code(), 125, "{said}");
    assert!(!said.err().contains("top-secret-key"), "{said}");
}

#[test]
fn a_command_that_is_not_there_is_127_and_one_that_is_no_program_126() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    scene
        .bash("echo 'echo hi' >plain; chmod 644 plain; mkdir folder")
        .expect(0);
    for (command, code, word) in [
        ("no-such-command", 127, "no-such-command"),
        ("./no-such-file", 127, "./no-such-file"),
        ("./plain", 126, "./plain"),
        ("./folder", 126, "./folder"),
    ] {
        let said = scene.bash(&format!(
            "sandbox run --record record.json --user ana -- {command}"
        ));
        assert_eq!(said.code(), code, "{command}: {said}");
        assert!(said.err().contains(word), "{command}: {said}");
        let record = scene.record();
        assert_eq!(record.reason(), "setup_failed", "{command}: {record}");
        assert!(record.at("/exit/code").is_null(), "{command}: {record}");
        assert_eq!(record.at("/cleanup/removed"), true, "{command}: {record}");
    }
    assert_eq!(scene.files(), names(&["folder", "plain", "record.json"]));
}

#[test]
fn a_command_in_a_folder_that_its_user_may_not_enter_is_126() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said =
        scene.bash("mkdir -m 700 mine; cp /bin/true mine/; sandbox run --user ana -- mine/true");
    assert_eq!(said.code(), 126, "{said}");
}

#[test]
fn a_directory_that_is_not_there_or_not_to_be_entered_is_a_failed_setup() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    for chdir in ["/no/such/folder", "/root"] {
        let said = scene.bash(&format!(
            "chmod 700 /root; sandbox run --record record.json --user ana --chdir {chdir} -- {STARTED}"
        ));
        assert_eq!(said.code(), 125, "{chdir}: {said}");
        assert!(said.err().contains(chdir), "{said}");
        assert_eq!(scene.record().reason(), "setup_failed");
        assert_eq!(scene.files(), names(&["record.json"]));
    }
}

#[test]
fn a_record_that_cannot_be_made_is_found_before_the_start() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    fs::create_dir(scene.path("folder")).expect("the scene can be written to");
    scene.bash("mkfifo no-reader").expect(0);
    for (record, word) in [
        ("/no/such/folder/record.json", "/no/such/folder/record.json"),
        ("folder", "directory"),
        ("/proc/record.json", "/proc/record.json"),
        ("fd:77", "fd:77"),
        ("no-reader", "no-reader"),
        ("/dev/nothing-here/x", "/dev/nothing-here/x"),
    ] {
        refused(&scene, &format!("--record {record}"), &[word]);
    }
}

#[test]
fn under_sudo_the_record_is_written_with_the_users_rights() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    for path in ["/etc/record.json", "/root/record.json"] {
        let said = scene.bash(&format!(
            "runuser -u ana -- sudo -n sandbox run --record {path} -- {STARTED}"
        ));
        assert_eq!(said.code(), 125, "{said}");
        assert!(said.err().contains(path), "{said}");
        assert!(!std::path::Path::new(path).exists());
    }
    assert!(scene.files().is_empty());
}

#[test]
fn outputs_that_cannot_be_written_are_found_before_the_start() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    scene.bash("touch roots; chmod 600 roots").expect(0);
    for option in ["--stdout", "--stderr"] {
        for (path, word) in [("roots", "ana"), ("/no/such/x", "/no/such/x")] {
            refused(&scene, &format!("{option} {path}"), &[path, word]);
            let recorded = format!("sandbox run --user ana --record r.json {option} {path} --");
            let _ = scene.bash(&format!("{recorded} {STARTED}")).expect(125);
            let record = Record::parse(&scene.read("r.json"));
            assert_eq!(record.reason(), "setup_failed", "{record}");
            assert_eq!(scene.files(), names(&["r.json", "roots"]));
            fs::remove_file(scene.path("r.json")).expect("it is there");
        }
    }
}

#[test]
fn a_full_device_is_told_at_the_end_and_leaves_nothing() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash("sandbox run --user ana --record /dev/full -- sh -c 'echo done; exit 3'");
    assert_eq!(said.code(), 125, "{said}");
    assert_eq!(said.out(), "done");
    assert!(said.err().contains("/dev/full"), "{said}");
    assert!(said.err().contains("No space left"), "{said}");
}

#[test]
fn a_full_disk_is_told_at_the_end_and_leaves_no_half_record() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        "mkdir disk; mount -t tmpfs -o size=64k tmpfs disk; trap 'umount disk; rmdir disk' EXIT; chmod 777 disk; \
         sandbox run --user ana --record disk/record.json -- sh -c 'cat /dev/zero >disk/fill; echo done' 2>err; \
         status=$?; ls -A disk; exit $status",
    );
    assert_eq!(said.code(), 125, "{said}");
    assert_eq!(said.out(), "done\nfill", "{said}");
    let told = scene.read("err");
    assert!(told.contains("disk/record.json"), "{told}");
    assert!(told.contains("No space left"), "{told}");
}

#[test]
fn a_full_disk_keeps_the_record_that_was_there_before() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        "mkdir disk; mount -t tmpfs -o size=64k tmpfs disk; trap 'umount disk; rmdir disk' EXIT; chmod 777 disk; \
         echo old >disk/record.json; \
         sandbox run --user ana --record disk/record.json -- sh -c 'cat /dev/zero >disk/fill; true' 2>/dev/null; \
         status=$?; cat disk/record.json; exit $status",
    );
    assert_eq!((said.code(), said.out().as_str()), (125, "old"), "{said}");
}

#[test]
fn a_record_goes_to_a_fifo_a_descriptor_or_stdout() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let reason = |text: String| Record::parse(&text).reason().to_owned();
    scene
        .bash(
            "mkfifo pipe; cat pipe >from-pipe & \
             until sandbox run --user ana --record pipe -- true 2>/dev/null; do sleep 0.05; done; wait; \
             sandbox run --user ana --record fd:9 -- true 9>from-fd; \
             sandbox run --user ana --record - -- true >from-stdout; \
             sandbox run --user ana --record /dev/stdout -- true | cat >from-device",
        )
        .expect(0);
    for name in ["from-pipe", "from-fd", "from-stdout", "from-device"] {
        assert_eq!(reason(scene.read(name)), "completed", "{name}");
    }
    let pipe = fs::metadata(scene.path("pipe")).expect("it is still there");
    assert!(pipe.file_type().is_fifo());
}

#[test]
fn a_reader_of_the_record_that_goes_away_is_told_of_and_kills_nobody() {
    let _guest = Guest::enter();
    let said = Scene::new().bash(
        "sandbox run --user ana --record fd:9 -- sh -c 'exit 3' 9> >(exec true); echo status=$?",
    );
    assert_eq!(said.out(), "status=125", "{said}");
    assert!(said.err().contains("fd:9"), "{said}");
}

#[test]
fn a_record_replaces_what_was_there_as_a_whole() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    scene.write("record.json", "old");
    let before = fs::metadata(scene.path("record.json"))
        .expect("it is there")
        .ino();
    let during = scene
        .bash("sandbox run --user ana --record record.json -- cat record.json")
        .expect(0);
    assert_eq!(
        during.out(),
        "old",
        "it is there until the new one is whole"
    );
    let after = fs::metadata(scene.path("record.json"))
        .expect("it is there")
        .ino();
    assert_ne!(before, after, "a new file took the old one's name");
    assert_eq!(scene.record().reason(), "completed");
    assert_eq!(scene.files(), names(&["record.json"]));
}

#[test]
fn a_record_goes_where_links_lead_to_and_the_links_stay() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene
        .bash(
            "before=$(readlink /dev/stdout); mkdir results; ln -s results latest; ln -s latest/record.json record; ln -s /proc/self/fd/1 out; \
             sandbox run --user ana --record record -- true; \
             sandbox run --user ana --record out -- echo before >both; \
             test \"$(readlink /dev/stdout)\" = \"$before\" || exit 9; \
             readlink record out; ls -A results",
        )
        .expect(0);
    let links = "latest/record.json\n/proc/self/fd/1\nrecord.json";
    assert_eq!(said.out(), links, "{said}");
    let recorded = Record::parse(&scene.read("results/record.json"));
    assert_eq!(recorded.reason(), "completed");
    let both = scene.read("both");
    let (before, record) = both.split_once('\n').expect("the output comes first");
    assert_eq!(before, "before");
    assert_eq!(Record::parse(record).reason(), "completed");
}

#[test]
fn a_record_that_could_not_take_its_name_is_found_before_the_start() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    scene
        .bash("mkdir -m 1777 sticky; echo roots >sticky/r.json; echo mounted >m.json; mount --bind m.json m.json")
        .expect(0);
    let as_ana = "runuser -u ana -- sudo -n sandbox run --record sticky/r.json -- touch started";
    let said = scene.bash(as_ana).expect(125);
    assert!(said.err().contains("sticky/r.json"), "{said}");
    refused(&scene, "--record m.json", &["m.json", "busy"]);
    scene.bash("umount m.json; ls -A sticky").expect(0);
    assert_eq!(scene.read("sticky/r.json"), "roots\n");
}

#[test]
fn a_limit_on_the_size_of_files_is_the_analysiss_and_not_the_records() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        "(ulimit -f 0; sandbox run --user ana --record record.json -- dd if=/dev/zero of=big count=1)",
    );
    assert_eq!(said.code(), 153, "{said}");
    let record = scene.record();
    assert_eq!(record.text("/exit/signal_name"), "SIGXFSZ", "{record}");
}

#[test]
fn limits_that_the_host_cannot_give_are_refused_by_name() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    refused(&scene, "--memory 99999999999999999999", &["--memory"]);
    refused(&scene, "--cpus 1e300", &["--cpus"]);
    refused(&scene, "--pids 99999999999", &["--pids"]);
}

#[test]
fn an_analysis_can_neither_forge_nor_destroy_its_record() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    // Whatever is beside the record-to-be, it removes and replaces.
    scene.write(
        "forge",
        "#!/bin/bash\nfor f in .[!.]* *; do case $f in forge|out) ;; *) rm -f \"$f\"; echo forged >\"$f\" ;; esac; done\nexit 3\n",
    );
    let said = scene.bash("sandbox run --user ana --record record.json -- ./forge");
    assert_eq!(said.code(), 3, "{said}");
    let record = scene.record();
    assert_eq!(record.at("/exit/code"), 3, "{record}");
    let drafts = scene
        .files()
        .into_iter()
        .filter(|name| name.starts_with(".sandbox-"));
    assert_eq!(drafts.count(), 0);
}

#[test]
fn a_descriptor_that_is_not_the_callers_to_write_to_is_refused_before_the_start() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    for fd in 3..12 {
        let said = scene.bash(&format!(
            "sandbox run --user ana --record fd:{fd} -- touch started"
        ));
        assert_eq!(said.code(), 125, "{fd}: {said}");
        assert!(said.err().contains(&format!("fd:{fd}")), "{said}");
    }
    let read_only = "sandbox run --user ana --record fd:9 -- touch started 9</etc/passwd";
    assert_eq!(scene.bash(read_only).code(), 125);
    assert!(!scene.path("started").exists());
}

#[test]
fn an_output_that_nobody_reads_is_refused_and_not_waited_for() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said =
        scene.bash("mkfifo fifo; chmod 666 fifo; sandbox run --user ana --stdout fifo -- true");
    assert_eq!(said.code(), 125, "{said}");
    assert!(said.err().contains("fifo"), "{said}");
}

#[test]
fn a_record_may_go_where_it_can_be_written_and_not_read_and_have_a_long_name() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let name = format!("{}.json", "r".repeat(250));
    let said = scene.bash(&format!(
        "mkdir dir; chown ana dir; chmod 300 dir; \
         sudo -u ana sudo sandbox run --record dir/{name} -- true",
    ));
    assert_eq!(said.code(), 0, "{said}");
    let record = sandbox_tests::Record::parse(&scene.read(&format!("dir/{name}")));
    assert_eq!(record.reason(), "completed", "{record}");
}

#[test]
fn a_setuid_copy_lends_its_rights_to_nobody() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        // /tmp honours no such bit.
        "cp \"$SANDBOX\" /usr/local/bin/copy && chmod 4755 /usr/local/bin/copy && \
         setpriv --reuid ana --regid ana --clear-groups copy run --record /etc/pwn.json -- true; \
         status=$?; rm /usr/local/bin/copy; exit $status",
    );
    assert_eq!(said.code(), 125, "{said}");
    assert!(said.err().contains("setuid"), "{said}");
    assert!(!std::path::Path::new("/etc/pwn.json").exists());
}
