//! An OCI bundle, for crun: this guest's own root, with the limits that `sandbox` sets by default.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

/// Where it is.
pub(crate) const FOLDER: &str = "/tmp/bundle";

/// Makes it, of what `crun spec` gives.
pub(crate) fn make() {
    let root = format!("{FOLDER}/rootfs");
    fs::create_dir_all(&root).expect("a bundle");
    run(Command::new("mount").args(["--bind", "/", &root]));
    run(Command::new("crun").arg("spec").current_dir(FOLDER));
    let path = format!("{FOLDER}/config.json");
    let text = fs::read_to_string(&path).expect("crun spec wrote it");
    let mut config: Value = serde_json::from_str(&text).expect("as JSON");
    config["process"]["args"] = json!(["/usr/bin/true"]);
    config["process"]["terminal"] = json!(false);
    let resources = &mut config["linux"]["resources"];
    resources["memory"] = json!({"limit": 2_u64 << 30, "swap": 2_u64 << 30});
    resources["cpu"] = json!({"quota": 100_000, "period": 100_000});
    resources["pids"] = json!({"limit": 100});
    fs::write(&path, config.to_string()).expect("a bundle");
}

fn run(command: &mut Command) {
    let status = command.status().expect("the guest has it");
    assert!(status.success(), "{command:?}: {status}");
}
