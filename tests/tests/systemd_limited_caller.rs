//! A caller under a limit on a host with systemd: in a slice, in a unit, in a job of a workload manager's.

use sandbox_tests::{Guest, Mode, Scene, Spoken, systemctl};

/// Has a run done in a unit with these properties; gives what was said and, where it was done, its record.
fn run_in_a_unit(scene: &Scene, unit: &str, properties: &str, before: &str) -> Spoken {
    scene.write(
        "caller.sh",
        &format!("{before}exec /payload/bin/sandbox run --standalone --user ana --record record.json -- true"),
    );
    scene.bash(&format!(
        "systemd-run --quiet --wait --pipe --collect --unit={unit} -p WorkingDirectory=$PWD {properties} bash caller.sh"
    ))
}

fn enter() -> Guest {
    let guest = Guest::enter();
    assert_eq!(guest.mode, Mode::Systemd);
    guest
}

#[test]
fn a_run_of_a_limited_slices_stays_in_the_slice() {
    let _guest = enter();
    let scene = Scene::new();
    let holding = "systemd-run --quiet --collect --unit=lab-holder --slice=lab.slice sleep 1000 && \
                   systemctl set-property --runtime lab.slice MemoryMax=256M";
    let _held = scene.bash(holding).expect(0);
    let _done = run_in_a_unit(&scene, "in-the-lab", "--slice=lab.slice", "").expect(0);
    systemctl(&["stop", "lab-holder.service"]);
    let record = scene.record();
    let path = record.text("/cgroup/path");
    assert!(path.starts_with("/lab.slice/sandbox-"), "{path}");
    let enclosing = "/limits/memory_bytes/enclosing";
    assert_eq!(record.number(&format!("{enclosing}/value")), 256 << 20);
    assert_eq!(record.text(&format!("{enclosing}/cgroup")), "/lab.slice");
}

#[test]
fn a_run_of_a_limited_units_is_refused_where_systemd_keeps_the_unit_to_itself() {
    let _guest = enter();
    let scene = Scene::new();
    let said = run_in_a_unit(&scene, "kept", "-p MemoryMax=256M", "").expect(125);
    let expected = "your memory is limited by the cgroup /system.slice/kept.service, in which no leaf can be made: \
                    systemd keeps it to itself";
    assert!(said.err().contains(expected), "{said}");
}

/// As Slurm has it: a delegated unit, in it a limited cgroup for each job, in that one for each task.
#[test]
fn a_run_of_a_jobs_stays_in_the_job() {
    let _guest = enter();
    let scene = Scene::new();
    let job = "cd /sys/fs/cgroup/system.slice/jobs.service && echo +cpu +memory +pids >cgroup.subtree_control && \
               mkdir -p job_1/task_0 && echo 256M >job_1/memory.max && \
               echo $$ >job_1/task_0/cgroup.procs && cd - >/dev/null && ";
    let properties = "-p Delegate=yes -p DelegateSubgroup=manager";
    let _done = run_in_a_unit(&scene, "jobs", properties, job).expect(0);
    let record = scene.record();
    let path = record.text("/cgroup/path");
    let expected = "/system.slice/jobs.service/job_1/sandbox-";
    assert!(path.starts_with(expected), "{path}");
    let enclosing = record.text("/limits/memory_bytes/enclosing/cgroup");
    assert_eq!(enclosing, "/system.slice/jobs.service/job_1");
}
