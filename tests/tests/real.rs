//! A real analysis: it must not notice that it runs in a sandbox.

use sandbox_tests::{Events, Guest, Sandbox, Scene, assert_has};
use serde_json::{Value, json};

/// Least squares on generated measurements, with answers that are known beforehand.
const ANALYSIS: &str = r#"
import sys
import numpy as np

rng = np.random.default_rng(20240229)
x = np.linspace(-3.0, 3.0, 20_000)
design = np.vander(x, 4, increasing=True)
truth = np.array([0.5, -1.25, 2.0, 0.75])
measured = design @ truth + rng.normal(0.0, 0.01, x.size)
fitted, residuals, rank, _ = np.linalg.lstsq(design, measured, rcond=None)
assert rank == 4
covariance = np.cov(np.stack([x, measured]))
eigenvalues = np.linalg.eigvalsh(covariance)
spectrum = np.abs(np.fft.rfft(np.sin(2 * np.pi * 50 * np.arange(1000) / 1000)))
print("fitted", " ".join(f"{value:.2f}" for value in fitted))
print("positive", bool((eigenvalues > 0).all()), "peak", int(spectrum.argmax()))
print("sum", int(np.arange(1_000_000, dtype=np.int64).sum()))
sys.stdout.write("no newline at the end \u00b5")
print("a warning of its own", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"#;

const STDOUT: &str = "fitted 0.50 -1.25 2.00 0.75\npositive True peak 50\nsum 499999500000\n\
                      no newline at the end \u{b5}";

/// A pool of workers that each do some linear algebra, and a main process that says what it and they
/// know of themselves: who is whose parent, and what getrusage(2) counted.
const POOL: &str = r#"
import json, multiprocessing, os, resource, sys
import numpy as np

def usage():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"pid": os.getpid(), "parent": os.getppid(),
            "cpu_us": round((used.ru_utime + used.ru_stime) * 1e6),
            "max_rss_bytes": used.ru_maxrss * 1024}

def work(part):
    matrix = np.random.default_rng(part).normal(size=(150 + 50 * part, 150 + 50 * part))
    np.linalg.eigvalsh(matrix @ matrix.T)
    held = np.ones((part + 1) << 20)
    return held.sum()

def worker(part, answers):
    result = work(part)
    answers.put({**usage(), "part": part, "result": result})
    answers.close()
    answers.join_thread()
    os._exit(10 + part)

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    workers = [context.Process(target=worker, args=(part, answers)) for part in range(3)]
    for process in workers:
        process.start()
    told = [answers.get() for _ in workers]
    for process in workers:
        process.join()
    codes = {process.pid: process.exitcode for process in workers}
    print("told", json.dumps({"main": usage(), "workers": told, "codes": codes}))
"#;

#[test]
fn the_tree_of_a_pool_of_workers_is_what_they_know_of_themselves() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let events = scene.path("events");
    let outcome = Sandbox::new()
        .options(["--memory", "512MiB", "--timeout", "90s", "--thread-env"])
        .options(["--events".as_ref(), events.as_os_str()])
        .command(["python3", "-c", POOL]);
    let record = outcome.ended(0, "completed", "none");
    let told = outcome.stdout.strip_prefix("told ").expect("it told");
    let told: Value = serde_json::from_str(told).expect("as JSON");
    let tree = record.list("/processes/tree");
    let node_of = |pid: &Value| {
        let node = tree.iter().find(|node| node["pid"] == *pid);
        node.unwrap_or_else(|| panic!("{pid} is not in the tree: {record}"))
    };
    let workers = told["workers"].as_array().expect("a list");
    assert_eq!(tree.len(), 1 + workers.len(), "{record}");
    // A tick's rounding between what getrusage tells and what the tree does.
    let rounding_us = 20_000;
    let mut together_us = 0;
    for process in workers.iter().chain([&told["main"]]) {
        let node = node_of(&process["pid"]);
        assert_eq!(node["parent_pid"], process["parent"], "{record}");
        assert_eq!(node["exe"], "/usr/bin/python3", "{record}");
        let number = |value: &Value| value.as_i64().unwrap_or_else(|| panic!("{node}\n{record}"));
        // It looked before it left.
        let cpu_us = number(&node["cpu_user_us"]) + number(&node["cpu_system_us"]);
        let known_us = number(&process["cpu_us"]);
        assert!(cpu_us >= known_us - rounding_us, "{process} {node}");
        together_us += cpu_us - rounding_us;
        // A fork shares its parent's pages, which getrusage counts as the tree does. Of main the kernel
        // also counts what `sandbox` held before the exec, and then the tree does not tell.
        let known = number(&process["max_rss_bytes"]);
        let is_main = process["pid"] == told["main"]["pid"];
        if !(is_main && node["max_rss_bytes"].is_null()) {
            let differs = number(&node["max_rss_bytes"]) - known;
            assert!((0..8 << 20).contains(&differs), "{process} {node}");
        }
    }
    let of_leaf_us = record.number("/usage/cpu_user_us") + record.number("/usage/cpu_system_us");
    assert!(together_us <= of_leaf_us, "{record}");
    for worker in workers {
        let node = node_of(&worker["pid"]);
        let code = &told["codes"][worker["pid"].to_string()];
        assert_eq!(&node["exit"]["code"], code, "{record}");
        assert_eq!(node["parent_pid"], told["main"]["pid"], "{record}");
    }
    let events = Events::parse(&scene.read("events"));
    let threads = events
        .of("birth")
        .filter(|birth| birth["task"]["pid"] != birth["task"]["tid"]);
    // Each worker has a thread that feeds the queue.
    assert_eq!(threads.count(), workers.len(), "{events}");
}

#[test]
fn numpy_computes_within_its_limits_and_its_output_and_status_come_through_untouched() {
    let _guest = Guest::enter();
    for (status, reason) in [(0, "completed"), (17, "exit_code")] {
        let outcome = Sandbox::new()
            .options(["--memory", "512MiB", "--timeout", "90s", "--thread-env"])
            .env("PYTHONIOENCODING", "utf-8")
            .command(["python3", "-c", ANALYSIS, &status.to_string()]);
        let record = outcome.ended(status, reason, "none");
        assert_eq!(outcome.stdout, STDOUT);
        assert!(
            outcome.stderr.starts_with("a warning of its own\n"),
            "{}",
            outcome.stderr
        );
        if status == 0 {
            assert_eq!(outcome.stderr, "a warning of its own\n");
        }
        assert_has(record.at("/exit"), &json!({"code": status, "signal": null}));
        assert!(record.kills().is_empty(), "{record}");
        let fatal = record
            .list("/limits_hit")
            .iter()
            .any(|hit| hit["fatal"] == true);
        assert!(!fatal, "{record}");
        assert_eq!(record.list("/command")[3], status.to_string().as_str());
        for used in ["cpu_user_us", "memory_peak_bytes", "pids_peak"] {
            assert!(record.number(&format!("/usage/{used}")) > 0, "{record}");
        }
        assert!(
            record.number("/usage/memory_peak_bytes") <= 512 << 20,
            "{record}"
        );
    }
}
