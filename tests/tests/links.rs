//! Links that a user lays to what is not the user's, in the paths of a run of the service's: they lead no farther than
//! that user's own rights.

use std::fs;

use sandbox_tests::{Guest, Scene, Service};

/// A scene with files and folders of root's and bob's, and links of ana's to them.
fn laid() -> Scene {
    let scene = Scene::new();
    let _laid = scene
        .bash(
            "for owner in root bob; do \
                 install -d -m 700 -o $owner $owner; printf '[sandbox]\\npids = 50\\n' >$owner/file; chown $owner $owner/file; chmod 600 $owner/file; \
                 install -m 600 -o $owner $owner/file $owner.toml; \
             done; \
             runuser -u ana -- bash -c 'for owner in root bob; do ln -s $owner.toml file-of-$owner; ln -s $owner folder-of-$owner; done; \
                 ln -s /etc/shadow shadow; ln -s file-of-root far; ln -s /proc/self/mem memory'",
        )
        .expect(0);
    scene
}

/// What there is in it that is not ana's, with all that stat(2) knows of it, and in /etc.
fn state(scene: &Scene) -> String {
    let found = scene.bash(
        "stat -c '%n %U %a %s %Y %Z %i' *.toml root root/* bob bob/* /etc/shadow; sha256sum *.toml */file /etc/shadow; ls /etc",
    );
    found.expect(0).out()
}

#[test]
fn what_a_user_may_not_write_or_read_is_not_reached_by_links() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = laid();
    let before = state(&scene);
    // Of one that is detached its log says it, once it is over.
    let followed = "&& { sandbox wait link; status=$?; sandbox logs link; exit $status; }";
    for (how, then) in [("", ""), ("--detach", followed)] {
        for option in ["--stdout", "--stderr", "--record", "--events", "--metadata"] {
            for path in [
                "file-of-root",
                "file-of-bob",
                "folder-of-root/file",
                "folder-of-bob/file",
                "far",
                "shadow",
                "memory",
            ] {
                let said = scene.ana(&format!(
                    "sandbox run {how} --id link {option} {path} -- echo reached >out {then}; status=$?; \
                     grep reached out; exit $status"
                ));
                let reached = format!("{how} {option} {path}: {said}");
                assert_eq!(said.code(), 125, "{reached}");
                assert_eq!(said.out(), "", "{reached}");
                // The second where a record would take the place of another's file, in a folder that is sticky.
                let is_for_want_of_rights = ["Permission denied", "Operation not permitted"]
                    .iter()
                    .any(|why| said.err().contains(why));
                assert!(is_for_want_of_rights, "{reached}");
                assert!(!said.err().contains("pids"), "{reached}");
            }
        }
    }
    for option in ["--stdout", "--record", "--events"] {
        let new = scene.ana(&format!(
            "sandbox run {option} folder-of-bob/new -- echo reached"
        ));
        assert_eq!((new.code(), new.out().as_str()), (125, ""), "{new}");
    }
    assert_eq!(state(&scene), before);
    let runs = scene.bash("sandbox list --json").expect(0).json();
    for run in runs.as_array().expect("a list") {
        assert_eq!(run["reason"], "setup_failed", "{run}");
    }

    let inside = scene.ana("sandbox run --chdir folder-of-bob -- pwd");
    assert_eq!(
        (inside.code(), inside.out().as_str()),
        (125, ""),
        "{inside}"
    );
    // With nobody in the way they are as good as any other path.
    let _own = scene
        .ana("mkdir own; ln -s own mine; sandbox run --chdir mine --stdout mine/out --record mine/record.json -- pwd")
        .expect(0);
    assert_eq!(
        scene.read("own/out").trim(),
        scene.path("own").display().to_string()
    );
}

#[test]
fn what_its_supervisor_has_open_is_not_the_users_to_write_to_or_to_read() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    for option in ["--stdout", "--metadata"] {
        for number in 3..24 {
            let said = scene.ana(&format!(
                "ln -sf /proc/self/fd/{number} link; sandbox run {option} link -- true"
            ));
            assert_eq!(said.code(), 125, "{option} {number}: {said}");
            assert!(said.err().contains("link"), "{option} {number}: {said}");
        }
    }
    // What is its client's own is.
    let own = scene.ana(
        "ln -sf /proc/self/fd/1 link; sandbox run --stderr link -- sh -c 'echo told >&2' >out",
    );
    assert_eq!(
        (own.code(), scene.read("out").as_str()),
        (0, "told\n"),
        "{own}"
    );
}

#[test]
fn logs_do_not_go_where_a_link_in_their_place_leads() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let planted = scene.ana(
        "for at in /var/lib/sandbox/logs /var/lib/sandbox /run/sandbox /run/sandbox/control /run/sandbox/runs; do \
             ln -s $PWD $at/planted && echo $at; mv $at $at.moved && echo $at; done; ls -d /run/sandbox/* 2>/dev/null | grep -c planted",
    );
    assert_eq!(planted.out(), "0", "{planted}");

    // Were it there all the same, laid by whoever made the folder above:
    let elsewhere = scene.path("elsewhere");
    fs::create_dir(&elsewhere).expect("it is not there yet");
    std::os::unix::fs::symlink(&elsewhere, "/var/lib/sandbox/logs").expect("no run has had any");
    let said = scene
        .ana("sandbox run --detach --id a-17 -- echo told")
        .expect(125);
    assert!(
        said.err()
            .contains("its logs cannot be made: /var/lib/sandbox/logs is somebody else's"),
        "{said}"
    );
    assert_eq!(fs::read_dir(&elsewhere).expect("it is there").count(), 0);
}
