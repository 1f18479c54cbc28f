//! The tasks of this repository, as `cargo xtask TASK`.
//!
//! A program rather than scripts: the tasks share what they know of the workspace, their logic has
//! unit tests, and a fresh machine needs nothing but cargo to start one.

mod bench;
mod cargo_tool;
mod command;
mod debian;
mod demo;
mod ebpf;
mod files;
mod fuzz;
mod outage;
mod package;
mod soak;
mod test;
mod tidy;
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
    /// Measure `sandbox` beside what people use instead, in a guest.
    Bench(bench::Bench),
    /// Run a memory-hungry Python analysis under a limit, and show its notes and its record.
    Demo(demo::Demo),
    /// Build the eBPF object that is committed under `sandbox-ebpf/prebuilt`.
    Ebpf(ebpf::Ebpf),
    /// Look for input that breaks the decoder or the readers of what people write, with libFuzzer.
    Fuzz(fuzz::Fuzz),
    /// Cut a guest's power again and again while its service does runs, and look whether one is lost.
    Outage(outage::Outage),
    /// Make the Debian package, and say where it is.
    Package(package::Package),
    /// Run a random mix of all endings in guests, and say which verdicts were wrong.
    Soak(soak::Soak),
    /// Run the unit tests on this machine, then the guest tests on every supported kernel.
    Test(test::Test),
    /// Check the house rules that a program can check.
    Tidy,
    /// Boot guests in QEMU: run a command there, or open a shell.
    #[command(subcommand)]
    Vm(vm::Vm),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Bench(bench) => bench.run(),
        Task::Demo(demo) => demo.run(),
        Task::Ebpf(ebpf) => ebpf.run(),
        Task::Fuzz(fuzz) => fuzz.run(),
        Task::Outage(outage) => outage.run(),
        Task::Package(package) => package.run(),
        Task::Soak(soak) => soak.run(),
        Task::Test(test) => test.run(),
        Task::Tidy => tidy::run(),
        Task::Vm(vm) => vm.run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
