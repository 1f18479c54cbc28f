//! A command that does nothing, under limits on memory, CPU and PIDs, from its start to its end.

use serde_json::Value;

use crate::hyperfine::{Contender, median_ms};
use crate::rows::Rows;
use crate::{benchexec, bundle};

/// Measures all so often; the first one is what the others are compared with.
pub(crate) fn measure(rounds: usize) -> Value {
    bundle::make();
    let contenders = contenders();
    let mut rows = Rows::new("launch", "ms");
    for _ in 0..rounds {
        for contender in &contenders {
            rows.push(contender.name, median_ms(contender));
        }
    }
    rows.result([])
}

/// No run at all.
pub(crate) fn fork_and_exec() -> Contender {
    contender("fork and exec", "/usr/bin/true", 30)
}

/// A run by the service.
pub(crate) fn by_service() -> Contender {
    contender(
        "sandbox run, by the service",
        "sandbox run --notes never -- /usr/bin/true",
        15,
    )
}

/// A run without it, the programs being loaded.
pub(crate) fn standalone() -> Contender {
    contender(
        "sandbox run --standalone",
        "sandbox run --standalone --notes never -- /usr/bin/true",
        15,
    )
}

fn contender(name: &'static str, command: &str, starts: u32) -> Contender {
    Contender {
        name,
        command: command.to_owned(),
        before: None,
        after: None,
        starts,
    }
}

fn contenders() -> Vec<Contender> {
    let limits = "-p MemoryMax=2G -p MemorySwapMax=0 -p CPUQuota=100% -p TasksMax=100";
    vec![
        fork_and_exec(),
        by_service(),
        standalone(),
        Contender {
            name: "sandbox run --standalone, programs not loaded",
            starts: 3,
            before: Some("systemctl stop sandbox.socket sandbox && sandbox check --clean"),
            after: Some("systemctl start sandbox.socket sandbox"),
            ..standalone()
        },
        contender(
            "bubblewrap (no limits)",
            "bwrap --bind / / --dev /dev --proc /proc --unshare-pid --unshare-ipc -- /usr/bin/true",
            20,
        ),
        contender(
            "crun",
            &format!(
                "crun --cgroup-manager=cgroupfs run --bundle {} bench",
                bundle::FOLDER
            ),
            15,
        ),
        contender(
            "systemd-run --scope",
            &format!("systemd-run --quiet --scope {limits} -- /usr/bin/true"),
            10,
        ),
        contender(
            "systemd-run --wait",
            &format!("systemd-run --quiet --wait --pipe {limits} -- /usr/bin/true"),
            10,
        ),
        contender(
            "runexec (BenchExec), in a scope of systemd's",
            &format!(
                "{} --memlimit 2147483648 --cores 0 --walltimelimit 1800 --output /dev/null -- /usr/bin/true",
                benchexec::RUNEXEC
            ),
            4,
        ),
    ]
}
