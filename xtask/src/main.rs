//! The tasks of this repository, as `cargo xtask TASK`.
//!
//! A program rather than scripts: the tasks share what they know of the workspace, their logic has
//! unit tests, and a fresh machine needs nothing but cargo to start one.

mod command;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the sandbox repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Boot guests in QEMU: run a command there, or open a shell.
    #[command(subcommand)]
    Vm(vm::Vm),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Vm(vm) => vm.run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
