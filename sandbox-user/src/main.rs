//! The command: parse, run, map to an exit status.

use std::process::ExitCode;

use sandbox::{
    cli::{self, Cli, Command, RunArgs},
    config, host, identity,
    say::say,
    service::{self, launch::Charge},
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
        Command::List(args) => service::list(&args).map_err(Into::into).and_then(print),
        Command::Show(args) => service::show(&args).map_err(Into::into).and_then(print),
        Command::Serve => service::serve().map(|()| 0).map_err(Into::into),
        Command::Supervise { letter } => supervise_for_a_client(letter),
        Command::Guardian => supervise::guardian::main().map(|()| 0).map_err(Into::into),
    };
    status
        .unwrap_or_else(|error| {
            say(error);
            cli::EXIT_FAILURE
        })
        .into()
}

fn print(text: String) -> Result<u8, Box<dyn std::error::Error>> {
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    Ok(0)
}

fn run(args: RunArgs, rlimits: CallersLimits) -> Result<u8, Box<dyn std::error::Error>> {
    if !args.is_standalone() {
        let arguments = std::env::args_os().skip(2).collect();
        if let Some(status) = service::client::run(arguments, &rlimits)? {
            return Ok(status);
        }
    }
    Ok(supervise::foreground(spec(args)?, rlimits)?.status)
}

fn supervise_for_a_client(letter: i32) -> Result<u8, Box<dyn std::error::Error>> {
    // It was executed as /proc/self/exe, whose name is `exe`.
    nix::sys::prctl::set_name(c"sandbox")?;
    let charge = Charge::take(letter)?;
    let args = RunArgs::parse(charge.arguments.clone())?;
    let spec = charge.settle(spec(args)?)?;
    Ok(supervise::foreground(spec, charge.rlimits)?.status)
}

fn spec(args: RunArgs) -> Result<RunSpec, Box<dyn std::error::Error>> {
    let host = config::policy_of_host(args.user())?;
    let metadata = supervise::with_callers_rights(|| args.metadata())??;
    let (spec, lowered) = RunSpec::from_args(args, metadata, host)?;
    lowered.iter().for_each(say);
    Ok(spec)
}
