//! The command: parse, run, map to an exit status.

use std::process::ExitCode;

use sandbox::{
    cli::{self, Cli, Command, RunArgs},
    config, host, identity,
    say::say,
    spec::RunSpec,
    supervise,
    sys::{child, rlimits::CallersLimits},
};

fn main() -> ExitCode {
    if identity::is_setuid() {
        say("it is not to be installed setuid: it would lend its rights to everybody; use sudo");
        return cli::EXIT_FAILURE.into();
    }
    child::keep_until_waited_for();
    let rlimits = CallersLimits::lift();
    let cli = match Cli::parse_arguments(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Where nobody reads it there is nothing else to do.
            let _ = error.print();
            return cli::exit_status(&error).into();
        }
    };
    let status = match cli.command {
        Command::Run(args) => run(*args, rlimits),
        Command::Check(args) => host::check(&args),
        Command::Guardian => supervise::guardian::main().map(|()| 0).map_err(Into::into),
    };
    status
        .unwrap_or_else(|error| {
            say(error);
            cli::EXIT_FAILURE
        })
        .into()
}

fn run(args: RunArgs, rlimits: CallersLimits) -> Result<u8, Box<dyn std::error::Error>> {
    let host = config::policy_of_host(args.user())?;
    let metadata = supervise::with_callers_rights(|| args.metadata())??;
    let (spec, lowered) = RunSpec::from_args(args, metadata, host)?;
    lowered.iter().for_each(say);
    Ok(supervise::foreground(spec, rlimits)?.status)
}
