//! `sandbox run` before a command changes nothing that the command or its caller would notice:
//! as with `nice` or `timeout`. With a terminal: see `terminal.rs`.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::Signal;
use sandbox_tests::{Guest, Mode, Sandbox, Scene};
use serde_json::Value;

#[test]
fn bytes_pass_through_pipes_untouched_and_in_full() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    scene
        .bash(
            "head -c 20000000 /dev/urandom >in && \
             cat in | sandbox run --user ana -- cat | cmp - in && \
             sandbox run --user ana -- cat <in >out && cmp in out && \
             sandbox run --user ana -- sh -c 'cat >&2' <in 2>err && cmp in err",
        )
        .expect(0);
}

#[test]
fn stdout_and_stderr_are_kept_apart() {
    let _guest = Guest::enter();
    let said = Scene::new()
        .bash("sandbox run --user ana -- sh -c 'echo out; echo err >&2'")
        .expect(0);
    assert_eq!((said.out().as_str(), said.err().as_str()), ("out", "err\n"));
}

#[test]
fn a_closed_stdin_stdout_or_stderr_does_not_become_another_file() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let descriptors = "import os; print(*[(fd, os.readlink(f\"/proc/self/fd/{fd}\")) \
                       for fd in range(3)], file=open(\"seen\", \"w\"))";
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        scene
            .bash(&format!(
                "rm -f seen; sandbox run --user ana --record record.json \
                 -- python3 -c '{descriptors}' {closed}"
            ))
            .expect(0);
        let seen = scene.read("seen");
        assert!(!seen.contains("record"), "{closed}: {seen}");
        assert!(!seen.contains("cgroup"), "{closed}: {seen}");
        assert_eq!(scene.record().reason(), "completed", "{closed}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_by_sigpipe() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let statuses = scene
        .bash(
            "sandbox run --record record.json --notes never --user ana -- yes | head -1; \
             echo ${PIPESTATUS[@]}",
        )
        .expect(0);
    assert_eq!(statuses.out(), "y\n141 0", "{statuses}");
    let record = scene.record();
    assert_eq!(record.reason(), "signal", "{record}");
    assert_eq!(record.text("/exit/signal_name"), "SIGPIPE", "{record}");
}

#[test]
fn it_is_one_of_many_in_a_pipeline() {
    let _guest = Guest::enter();
    let out = Scene::new()
        .bash("set -o pipefail; seq 1000 | sandbox run --user ana -- tac | head -1")
        .out();
    assert_eq!(out, "1000");
}

#[test]
fn its_exit_status_is_the_analysiss_own() {
    let _guest = Guest::enter();
    for status in [0, 1, 3, 124, 125, 126, 127, 255] {
        let outcome = Sandbox::new().victim(["exit", &status.to_string()]);
        assert_eq!(outcome.code(), status);
        let record = outcome.record();
        assert_eq!(record.number("/exit/code"), i64::from(status), "{record}");
        assert!(record.at("/exit/signal").is_null(), "{record}");
        let reason = if status == 0 {
            "completed"
        } else {
            "exit_code"
        };
        assert_eq!(record.reason(), reason, "{record}");
    }
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGABRT] {
        let outcome = Sandbox::new().victim(["kill-self", signal.as_str()]);
        assert_eq!(outcome.code(), 128 + signal as i32);
        let record = outcome.record();
        assert!(record.at("/exit/code").is_null(), "{record}");
        assert_eq!(record.number("/exit/signal"), signal as i64, "{record}");
    }
}

#[test]
fn umask_rlimits_working_directory_and_niceness_are_the_callers() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let probe =
        "sh -c 'umask; ulimit -n; ulimit -c; ulimit -Hs; pwd; nice; taskset -p $$ | sed s/.*://'";
    let set = "umask 027; ulimit -n 123; ulimit -c 4; mkdir -m 755 d; cd d; renice -n 7 $$ >/dev/null; \
               taskset -p 1 $$ >/dev/null;";
    let without = scene.bash(&format!("{set} {probe}")).expect(0);
    fs::remove_dir(scene.path("d")).expect("it is empty");
    let within = scene
        .bash(&format!("{set} sandbox run --user ana -- {probe}"))
        .expect(0);
    assert_eq!(within.out(), without.out());
    assert!(within.out().starts_with("0027\n123\n"), "{within}");
}

#[test]
fn a_working_directory_that_its_user_could_not_enter_is_kept() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let at = scene
        .bash("mkdir -m 700 mine; chmod 700 mine; cd mine; sandbox run --user ana -- true")
        .expect(0);
    assert_eq!(at.out(), "");
}

#[test]
fn the_environment_is_the_callers_but_for_who_it_is() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let lines = |caller: &str| {
        let said = scene.bash(&format!(
            "export A='1 2' EMPTY= B=$'x\\ny'; {caller} env -0 | grep -zv ^_= | sort -z | tr '\\0' '|'"
        ));
        said.expect(0).out()
    };
    let own = lines("HOME=/home/ana USER=ana LOGNAME=ana");
    assert_eq!(lines("sandbox run --user ana --"), own);
}

#[test]
fn the_environment_can_be_changed_and_cleared() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let env = |options: &str| {
        let said = scene.bash(&format!(
            "export A=caller; sandbox run --user ana {options} -- /usr/bin/env | sort"
        ));
        said.expect(0).out()
    };
    let changed = env("--env A=mine --env B=two --env B=three --env HOME=/x");
    for line in ["A=mine", "B=three", "HOME=/x", "USER=ana"] {
        assert!(
            changed.lines().any(|found| found == line),
            "{line}: {changed}"
        );
    }
    assert_eq!(
        env("--clear-env --env A=only"),
        "A=only\nHOME=/home/ana\nLOGNAME=ana\nUSER=ana"
    );
}

#[test]
fn thread_pools_are_told_the_cores_where_nobody_told_them() {
    let _guest = Guest::enter();
    let said = Scene::new()
        .bash(
            "export MKL_NUM_THREADS=7; unset OMP_NUM_THREADS; \
             sandbox run --user ana --cpus 3 --thread-env -- env | grep -E 'THREADS|CPU_COUNT' | sort",
        )
        .expect(0);
    assert_eq!(
        said.out(),
        "MKL_NUM_THREADS=7\nNUMEXPR_NUM_THREADS=3\nOMP_NUM_THREADS=3\nOPENBLAS_NUM_THREADS=3\nPYTHON_CPU_COUNT=3"
    );
}

#[test]
fn its_output_goes_to_files_of_its_own_user() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene
        .bash(
            "sandbox run --user ana --stdout out --stderr err --chdir / -- sh -c 'pwd; echo e >&2'",
        )
        .expect(0);
    assert_eq!((said.out().as_str(), said.err().as_str()), ("", ""));
    assert_eq!(
        (scene.read("out").as_str(), scene.read("err").as_str()),
        ("/\n", "e\n")
    );
    let owner = fs::metadata(scene.path("out")).expect("it is there").uid();
    assert_eq!(owner, 1000);
    scene
        .bash("sandbox run --user ana --stdout both --stderr both -- sh -c 'echo 1; echo 2 >&2'")
        .expect(0);
    assert_eq!(scene.read("both"), "1\n2\n");
}

#[test]
fn a_record_on_stdout_sends_the_analysiss_stdout_to_stderr() {
    let _guest = Guest::enter();
    let said = Scene::new()
        .bash("sandbox run --record - --user ana -- echo hello")
        .expect(0);
    assert_eq!(said.json()["termination"]["reason"], "completed");
    assert_eq!(said.err(), "hello\n");
}

#[test]
fn signals_are_unblocked_and_at_their_defaults_whatever_the_callers_are() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    // cat is a C program, with no dispositions of its own.
    let said = scene
        .python(
            "import os, signal, subprocess\n\
             signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\n\
             os.execvp('sandbox', 'sandbox run --user ana -- cat /proc/self/status'.split())\n",
        )
        .expect(0);
    // Python itself ignores SIGPIPE and SIGXFSZ (25), which its caller's shell would not: an
    // ignored SIGPIPE is never passed on, the other is the caller's choice.
    let out = said.out();
    let signals: Vec<&str> = ["SigBlk:", "SigIgn:", "SigCgt:"]
        .iter()
        .filter_map(|set| out.lines().find_map(|line| line.strip_prefix(set)))
        .map(str::trim)
        .collect();
    assert_eq!(
        signals,
        ["0000000000000000", "0000000001000000", "0000000000000000"]
    );
    let plain = scene
        .bash("sandbox run --user ana -- grep ^SigIgn /proc/self/status")
        .expect(0);
    assert_eq!(plain.out(), "SigIgn:\t0000000000000000");
}

#[test]
fn nohup_keeps_sighup_ignored() {
    let _guest = Guest::enter();
    let said = Scene::new()
        .bash("nohup sandbox run --user ana -- grep ^SigIgn /proc/self/status")
        .expect(0);
    assert_eq!(said.out(), "SigIgn:\t0000000000000001");
}

#[test]
fn a_hangup_does_not_end_a_run_under_nohup() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    scene
        .bash(
            "mkfifo go; nohup sandbox run --record record.json --user ana -- \
             sh -c 'echo started; read x <go' >out 2>/dev/null & \
             until grep -q started out 2>/dev/null; do sleep 0.05; done; \
             kill -HUP $!; sleep 0.2; kill -0 $! || exit 3; echo >go; wait $!",
        )
        .expect(0);
    assert_eq!(scene.record().reason(), "completed");
}

#[test]
fn no_descriptor_but_the_standard_three_comes_along() {
    let _guest = Guest::enter();
    let said = Scene::new()
        .bash("exec 7</etc/passwd 8>seen; sandbox run --user ana -- ls /proc/self/fd")
        .expect(0);
    // The fourth is ls's own.
    assert_eq!(said.out(), "0\n1\n2\n3");
}

#[test]
fn without_a_terminal_it_has_a_session_of_its_own() {
    let _guest = Guest::enter();
    let it: Value = Scene::new()
        .bash("setsid --wait sandbox run --user ana -- victim print-identity")
        .expect(0)
        .json();
    assert_eq!(it["session"], it["pid"]);
    assert_eq!(it["process_group"], it["pid"]);
}

#[test]
fn user_signals_to_sandbox_reach_the_main_process() {
    let _guest = Guest::enter();
    let script = "trap 'echo got USR1' USR1; trap 'echo got USR2; exit 5' USR2; \
                  echo waiting; while :; do sleep 0.05; done";
    let running = Sandbox::new().start(["bash", "-c", script]);
    let _ = running.line("waiting");
    running.signal(Signal::SIGUSR1);
    let _ = running.line("got USR1");
    running.signal(Signal::SIGUSR2);
    let outcome = running.finish();
    assert_eq!(outcome.code(), 5, "{}", outcome.stderr);
    assert_eq!(outcome.record().reason(), "exit_code");
}

#[test]
fn what_it_leaves_in_shared_memory_is_charged_to_it_and_goes_with_it() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let shmem = || {
        let text = fs::read_to_string("/proc/meminfo").expect("proc is mounted");
        let line = text.lines().find_map(|line| line.strip_prefix("Shmem:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.expect("meminfo has Shmem")
    };
    let before = shmem();
    scene
        .bash(
            "sandbox run --record record.json --memory 256MiB --user ana -- victim eat-shm 100MiB",
        )
        .expect(0);
    let record = scene.record();
    let peak = record.number("/usage/memory_peak_bytes");
    assert!(peak > 100 << 20, "{record}");
    sandbox_tests::wait::until("the shared memory to be freed", || {
        shmem() < before + 10_240
    });
    let hosts = fs::read_dir("/dev/shm").expect("it is mounted").flatten();
    let left: Vec<_> = hosts.map(|entry| entry.file_name()).collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_string_lossy().starts_with("victim")),
        "{left:?}"
    );
    let starved = Sandbox::new()
        .options(["--memory", "64MiB"])
        .victim(["eat-shm", "100MiB"]);
    assert_eq!(starved.record().reason(), "memory", "{}", starved.record());
}

#[test]
fn shared_memory_and_queues_of_the_host_are_not_its_own() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    scene
        .bash(
            "echo host >/dev/shm/of-host; trap 'rm /dev/shm/of-host' EXIT; id=$(ipcmk -M 4096 | grep -o '[0-9]*$'); \
             sandbox run --user ana -- sh -c \
             'test ! -e /dev/shm/of-host && test -w /dev/shm && test $(wc -l </proc/sysvipc/shm) = 1'; \
             status=$?; test $(wc -l </proc/sysvipc/shm) = 2 || status=9; ipcrm -m $id; exit $status",
        )
        .expect(0);
}

#[test]
fn its_cgroup_namespace_is_rooted_at_its_leaf_and_read_only() {
    let _guest = Guest::enter();
    let running = Sandbox::new().options(["--memory", "100MiB"]).start([
        "sh",
        "-c",
        "cat /proc/self/cgroup; grep ' /sys/fs/cgroup ' /proc/self/mountinfo; \
         cat /sys/fs/cgroup/memory.max; echo done; sleep 1000",
    ]);
    let _ = running.line("done");
    assert_eq!(running.line("0::"), "/");
    running.signal(Signal::SIGTERM);
    let outcome = running.finish();
    assert_eq!(outcome.code(), 143, "{}", outcome.stderr);
    let out = &outcome.stdout;
    assert!(out.contains("\n104857600\n"), "{out}");
    let mounts: Vec<&str> = out
        .lines()
        .filter(|line| line.contains("cgroup2"))
        .collect();
    let [mount] = mounts[..] else {
        panic!("one cgroup2 mount: {mounts:?}")
    };
    let options: Vec<&str> = mount
        .split(' ')
        .nth(5)
        .expect("mount options")
        .split(',')
        .collect();
    assert!(options.contains(&"ro"), "{mount}");
    assert_eq!(outcome.record().reason(), "cancelled");
}

#[test]
fn the_sockets_of_the_hosts_managers_are_hidden_and_resolving_names_still_works() {
    let guest = Guest::enter();
    assert_eq!(
        guest.mode,
        Mode::Bare,
        "these folders would be a manager's own"
    );
    let scene = Scene::new();
    scene
        .bash(
            "mkdir -p /run/dbus /run/user/1000 /run/systemd/resolve /run/systemd/secret; \
             trap 'rm -r /run/dbus /run/user /run/systemd' EXIT; \
             touch /run/dbus/socket /run/user/1000/bus; echo nameserver >/run/systemd/resolve/conf; \
             for user in ana root; do sandbox run --notes never --user $user -- sh -c \
             'set -e; test -z \"$(ls -A /run/dbus /run/user | grep -v :)\"; test \"$(ls -A /run/systemd)\" = resolve; \
              test \"$(cat /run/systemd/resolve/conf)\" = nameserver; ! touch /run/user/x /run/dbus/x /run/systemd/x 2>/dev/null' \
             || exit; done; test -e /run/dbus/socket",
        )
        .expect(0);
}

#[test]
fn the_callers_limits_are_the_analysiss_and_do_not_keep_sandbox_from_its_work() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        "ulimit -n 20 -s 64 -t 1 -f 1; \
         sandbox run --user ana --record record.json --cpus none -- bash -c 'ulimit -n -s -t -f; while :; do :; done'",
    );
    assert_eq!(said.code(), 137, "{said}");
    let seen: Vec<String> = said
        .out()
        .lines()
        .filter_map(|line| line.split_whitespace().last().map(str::to_owned))
        .collect();
    assert_eq!(seen, ["20", "64", "1", "1"], "{said}");
    let record = scene.record();
    assert_eq!(record.reason(), "cputime", "{record}");
    assert_eq!(record.confidence(), "exact", "{record}");
}

#[test]
fn its_lock_is_roots_alone_whatever_the_callers_umask() {
    let _guest = Guest::enter();
    let said = Scene::new().bash(
        "rm -rf /run/sandbox; (umask 0; sandbox run --user ana -- true); stat -c '%a %u' /run/sandbox /run/sandbox/bpf.lock; \
         chmod 777 /run/sandbox; rm /run/sandbox/bpf.lock; ln -s /etc/lured /run/sandbox/bpf.lock; \
         sandbox run --user ana --record record.json -- true; stat -c %a /run/sandbox; \
         ls /etc/lured; rm /run/sandbox/bpf.lock",
    );
    assert_eq!(said.out(), "755 0\n600 0\n755", "{said}");
    assert!(said.err().contains("/etc/lured"), "it was not made: {said}");
}

#[test]
fn a_limit_on_descriptors_above_what_the_host_allows_is_no_obstacle() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        "ulimit -Hn 1048576; ulimit -Sn 20; allowed=$(cat /proc/sys/fs/nr_open); \
         echo 70000 >/proc/sys/fs/nr_open; \
         sandbox run --user ana --record record.json -- bash -c 'ulimit -Sn; ulimit -Hn'; \
         status=$?; echo $allowed >/proc/sys/fs/nr_open; exit $status",
    );
    assert_eq!(
        (said.code(), said.out().as_str()),
        (0, "20\n70000"),
        "{said}"
    );
    assert_eq!(scene.record().confidence(), "exact");
}
