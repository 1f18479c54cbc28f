//! Endings by a limit above the leaf. These need the guest for themselves, and bring what company
//! there is to be.

use nix::sys::signal::Signal;
use sandbox_tests::{Enclosing, Running, Sandbox, Withheld, enclosing};
use serde_json::{Value, json};

use crate::company::Company;
use crate::random::Random;
use crate::stage::{MIB, sandbox};
use crate::truth::{Case, Truth};

fn above(cgroup: &str, limit: usize) -> Value {
    json!({"scope": "ancestor", "cgroup": cgroup, "max_bytes": limit * MIB})
}

/// Main takes more than an enclosing cgroup may have, where others go on that it has too.
pub(crate) fn eats_too_much_for_an_ancestor(random: &mut Random) -> Case {
    let cgroup = random.pick(&[enclosing::RUNS, enclosing::BASE]);
    let limit = random.between(40, 56);
    // Up to so much that the kernel chooses a neighbour first.
    let company = Company::start(random, limit * 2 / 3);
    let _limit = Enclosing::limit(cgroup, "memory.max", &(limit * MIB).to_string());
    let running = sandbox()
        .options(["--memory", "1GiB"])
        .start_victim(["eat", &format!("{}MiB", limit + 24)]);
    company.stir();
    let outcome = running.finish();
    let oom = above(cgroup, limit);
    company.judge("memory_ancestor", &oom);
    Case::new(outcome, Truth::oom("memory_ancestor", &oom))
}

/// Two runs below one limit: one asks for too much, and the larger one dies.
pub(crate) fn is_killed_for_a_sibling(random: &mut Random) -> Case {
    let limit = random.between(48, 56);
    let bytes = (limit * MIB).to_string();
    let _limit = Enclosing::limit(enclosing::RUNS, "memory.max", &bytes);
    let run = || sandbox().options(["--memory", "1GiB"]);
    let holder = run().start_victim(["eat", &format!("{}MiB", limit - 16)]);
    let pid = holder.ready();
    let code = random.pick(&[0, 3]);
    let script = format!("echo main $$; exec victim eat 24MiB --exit {code}");
    let asker = run().start(["bash", "-c", &script]);
    let trigger: i64 = asker.line("main ").parse().expect("a pid");
    let asked = asker.finish();
    let oom = above(enclosing::RUNS, limit);
    let killed = Truth::oom("memory_ancestor", &oom);
    if asked.record().reason() == "memory_ancestor" {
        // The kernel chose the other one; or both, where the second asked again before what the first
        // had held was free.
        killed.assert(&asked);
        let cancelled = Truth::ended("cancelled", "same", 15);
        return Case::race(cancel(holder), [cancelled, killed]);
    }
    Truth::exited(code).assert(&asked);
    let story = json!({"victim": {"pid": pid}, "oom": {"trigger_pid": trigger}});
    Case::new(holder.finish(), killed.fatal(&story))
}

fn cancel(running: Running) -> sandbox_tests::Outcome {
    running.signal(Signal::SIGTERM);
    running.finish()
}

/// The host's memory runs out, while others go on.
pub(crate) fn uses_up_the_host(random: &mut Random) -> Case {
    let company = Company::start(random, 64);
    let outcome = {
        let _most = Withheld::all_but(300 * MIB as i64);
        let running = Sandbox::new()
            .options(["--timeout", "400s", "--memory", "64GiB", "--cpus", "2"])
            .start_victim(["devour"]);
        company.stir();
        running.finish()
    };
    let oom = json!({"scope": "host", "cgroup": null});
    company.judge("host_oom", &oom);
    Case::new(outcome, Truth::oom("host_oom", &oom))
}

/// An enclosing cgroup denies a fork, and that ends the run, or main goes on.
pub(crate) fn forks_too_often_for_an_ancestor(random: &mut Random) -> Case {
    let cgroup = enclosing::RUNS;
    let _limit = Enclosing::limit(cgroup, "pids.max", "8");
    if random.flip() {
        let outcome = sandbox().victim(["children", "20"]);
        let truth = Truth::ended("pids_ancestor", "same", 9).finding(
            "denied_forks",
            json!({"level": "ancestor", "cgroup": cgroup}),
        );
        return Case::new(outcome, truth);
    }
    let outcome = sandbox()
        .options(["--on-pids-limit", "deny"])
        .victim(["children", "10", "--exit", "0"]);
    let denied = json!({"level": "ancestor", "count": 3, "cgroup": cgroup});
    Case::new(outcome, Truth::exited(0).finding("denied_forks", denied))
}

/// There is no PID left to start with.
pub(crate) fn finds_no_pid_to_start_with(_: &mut Random) -> Case {
    let _limit = Enclosing::limit(enclosing::RUNS, "pids.max", "0");
    let outcome = sandbox().victim(["exit", "0"]);
    let truth = Truth::not_started(125).finding("setup_failure", json!({"kind": "out_of_pids"}));
    Case::new(outcome, truth)
}
