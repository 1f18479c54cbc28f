//! Who and what a process is, as the kernel tells it: for tests of a clean child.
//!
//! Signal dispositions are this process's own: Rust's start-up ignores SIGPIPE and handles SIGSEGV
//! and SIGBUS. A test of inherited dispositions reads `/proc/self/status` with a C program.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Map, Value, json};

/// All of it.
pub(crate) fn read() -> Value {
    let status = status();
    let word = |key: &str| status.get(key).cloned().unwrap_or_default();
    let numbers = |key: &str| -> Vec<u32> {
        word(key)
            .split_whitespace()
            .filter_map(|id| id.parse().ok())
            .collect()
    };
    let text = |path: &str| {
        fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .ok()
    };
    json!({
        "pid": std::process::id(),
        "parent": word("PPid").parse::<u32>().ok(),
        "session": nix::unistd::getsid(None).map(i32::from).ok(),
        "process_group": nix::unistd::getpgrp().as_raw(),
        "uid": numbers("Uid"),
        "gid": numbers("Gid"),
        "groups": numbers("Groups"),
        "capabilities": {
            "inheritable": word("CapInh"),
            "permitted": word("CapPrm"),
            "effective": word("CapEff"),
            "bounding": word("CapBnd"),
            "ambient": word("CapAmb"),
        },
        "no_new_privs": word("NoNewPrivs") == "1",
        "umask": word("Umask"),
        "signals": {"blocked": word("SigBlk"), "ignored": word("SigIgn"), "caught": word("SigCgt")},
        "rlimits": rlimits(),
        "descriptors": links("/proc/self/fd"),
        "namespaces": links("/proc/self/ns"),
        "environment": std::env::vars().collect::<BTreeMap<_, _>>(),
        "arguments": std::env::args().collect::<Vec<_>>(),
        "cwd": std::env::current_dir().ok(),
        "oom_score_adj": text("/proc/self/oom_score_adj").and_then(|text| text.parse::<i32>().ok()),
        "cgroup": text("/proc/self/cgroup"),
        "mounts": text("/proc/self/mountinfo").map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()),
    })
}

fn status() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

/// `{"Max cpu time": {"soft": "unlimited", "hard": "unlimited"}, …}`
fn rlimits() -> Value {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let mut found = Map::new();
    for line in text.lines().skip(1) {
        // Columns of a fixed width, since the names have spaces.
        let column = |from: usize, to: usize| {
            line.get(from..to.min(line.len()))
                .unwrap_or_default()
                .trim()
        };
        found.insert(
            column(0, 26).to_owned(),
            json!({"soft": column(26, 47), "hard": column(47, 68)}),
        );
    }
    Value::Object(found)
}

fn links(folder: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let read = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some((
            entry.file_name().to_string_lossy().into_owned(),
            target.to_string_lossy().into_owned(),
        ))
    };
    entries.filter_map(read).collect()
}
