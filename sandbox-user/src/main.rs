//! The command: parse, run, map to an exit status.

use std::process::ExitCode;

use sandbox::{
    cli::{self, Cli, Command, RunArgs},
    host,
    say::say,
    spec::RunSpec,
    supervise,
};

fn main() -> ExitCode {
    let cli = match Cli::parse_arguments(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Where nobody reads it there is nothing else to do.
            let _ = error.print();
            return cli::exit_status(&error).into();
        }
    };
    let status = match cli.command {
        Command::Run(args) => run(*args),
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

fn run(args: RunArgs) -> Result<u8, Box<dyn std::error::Error>> {
    let metadata = supervise::with_callers_rights(|| args.metadata())??;
    let spec = RunSpec::from_args(args, metadata)?;
    Ok(supervise::foreground(spec)?.status)
}
