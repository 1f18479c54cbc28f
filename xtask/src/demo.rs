//! `cargo xtask demo`: what this project is for, in one command after a clone.
//!
//! A Python analysis outgrows its memory limit under `sandbox run`; its notes and its record tell
//! so. It runs on this machine where that can be done, else in a guest, and says which and why.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::debian::host;
use crate::vm::{self, Assets, Guest, Machine, Mode, Payload, Series, Task};
use crate::workspace;

const ANALYSIS: &str = include_str!("../demo/analysis.py");

/// The kernel of the demo's guest.
const KERNEL: Series = Series::V6_12;

/// Seconds for it all: the analysis itself takes a few.
const LIMIT: Duration = Duration::from_secs(180);

/// Run a memory-hungry Python analysis under a limit, and show its notes and its record.
#[derive(clap::Args, Debug)]
pub(crate) struct Demo {
    /// Run it in a guest even where this machine could.
    #[arg(long)]
    guest: bool,
}

impl Demo {
    /// Does the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let obstacles = if self.guest {
            vec!["--guest was given".to_owned()]
        } else {
            obstacles()
        };
        if obstacles.is_empty() {
            println!("The demo runs on this machine.\n");
            on_this_machine()
        } else {
            println!(
                "The demo runs in a QEMU guest with Debian's kernel {KERNEL}: {}.\n",
                obstacles.join("; ")
            );
            in_a_guest()
        }
    }
}

/// What keeps the demo from running on this machine.
fn obstacles() -> Vec<String> {
    let mut found = Vec::new();
    if !host::is_root() {
        found.push("this is not root".to_owned());
    }
    match fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        Ok(controllers) => {
            let lacks = |wanted: &&&str| {
                !controllers
                    .split_whitespace()
                    .any(|found| found == **wanted)
            };
            let missing: Vec<&str> = ["cpu", "memory", "pids"]
                .iter()
                .filter(lacks)
                .copied()
                .collect();
            if !missing.is_empty() {
                found.push(format!(
                    "cgroup v2 lacks the controllers {} here",
                    missing.join(", ")
                ));
            }
        }
        Err(_) => found.push("/sys/fs/cgroup is not cgroup v2 here".to_owned()),
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        found.push("this kernel has no BTF".to_owned());
    }
    if host::find("python3").is_none() {
        found.push("there is no python3 here".to_owned());
    }
    found
}

fn on_this_machine() -> Result<ExitCode> {
    // Not below the checkout, where another user may not go.
    let folder = std::env::temp_dir().join(format!("sandbox-demo-{}", std::process::id()));
    workspace::make_dir(&folder)?;
    workspace::write(&folder.join("analysis.py"), ANALYSIS)?;
    let sudo_uid = std::env::var("SUDO_UID").ok();
    if let Some(uid) = &sudo_uid {
        // Under sudo analysis and record are of who called it.
        let uid = uid.parse().context("SUDO_UID is not a number")?;
        std::os::unix::fs::chown(&folder, Some(uid), None)
            .with_context(|| format!("could not give {} away", folder.display()))?;
    }
    let programs = vm::guest_binaries()?;
    let (_, sandbox) = programs
        .iter()
        .find(|(name, _)| name == "sandbox")
        .context("cargo built no `sandbox`")?;
    let mut path = sandbox.parent().unwrap_or(sandbox).as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    // Plain root has to name somebody.
    let user = match sudo_uid {
        Some(_) => "",
        None => "--user nobody ",
    };
    let status = Command::new("sh")
        .arg("-c")
        .arg(script(user))
        .current_dir(&folder)
        .env("PATH", path)
        .status();
    let status = status.context("could not start a shell")?;
    workspace::remove_dir(&folder)?;
    Ok(verdict(status.success()))
}

fn in_a_guest() -> Result<ExitCode> {
    let programs = vm::guest_binaries()?;
    let assets = Assets::prepare(&[KERNEL])?;
    let payload = |folder: &Path| {
        let mut payload = Payload::with_programs(folder.join("payload"), &programs)?;
        payload.text("files/analysis.py", ANALYSIS, 0o644)?;
        Ok(payload)
    };
    let guest = Guest {
        series: KERNEL,
        machine: Machine::new(Mode::Bare),
        label: "demo".to_owned(),
        limit: LIMIT,
    };
    let script = format!("cp analysis.py /tmp && cd /tmp\n{}", script("--user ana "));
    let report = guest.run(&assets, payload, &Task::Command(&script), &mut vm::print)?;
    let Some(status) = report.ending.status() else {
        bail!(
            "{}\n(the whole console: {})",
            report.ending,
            report.console.display()
        )
    };
    Ok(verdict(status == 0))
}

/// Shows the command, runs it, shows the record; succeeds where that tells of the memory limit.
fn script(user: &str) -> String {
    let command =
        format!("sandbox run --memory 64MiB {user}--record record.json -- python3 analysis.py");
    format!(
        "echo '$ {command}'\n{command} 2>&1\n\
         echo \"\n(exit status $?)\n\n\\$ cat record.json\"\n\
         python3 -m json.tool record.json && grep -Eq '\"reason\": *\"memory\"' record.json"
    )
}

fn verdict(told: bool) -> ExitCode {
    if told {
        println!("\nThe limit held, and the record says what ended the analysis.");
        ExitCode::SUCCESS
    } else {
        println!(
            "\nThe record does not say that the memory limit ended the analysis: the demo failed."
        );
        ExitCode::FAILURE
    }
}
