//! The command: parse, run, map to an exit status.

use std::process::ExitCode;

use sandbox::{
    audit,
    cli::{self, Cli, Command, RunArgs},
    config, host, identity, request,
    say::say,
    service::{self, ClientError, Followed, Said},
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
        Command::List(args) => print(service::list(&args)),
        Command::Show(args) => print(service::show(&args)),
        Command::Wait(args) => print(service::wait(&args)),
        Command::Logs(args) => print(service::logs(&args)),
        Command::Events(args) => print(service::events(&args)),
        Command::Kill(args) => print(service::kill(&args)),
        Command::Freeze(args) => print(service::freeze(&args)),
        Command::Thaw(args) => print(service::thaw(&args)),
        Command::Update(args) => print(service::update(&args)),
        Command::Serve(args) if args.check_config => match config::check() {
            Ok(text) => print(Ok(Said::done(text))),
            Err(error) => Err(error.into()),
        },
        Command::Serve(_) => service::serve().map(|()| 0).map_err(Into::into),
        Command::Audit(args) => audit::audit(&args),
        Command::Hold => service::hold().map(|()| 0).map_err(Into::into),
        Command::Attend {
            client,
            office,
            config,
        } => service::attend(client, office, config)
            .map(|()| 0)
            .map_err(Into::into),
        Command::Guardian => supervise::guardian::main().map(|()| 0).map_err(Into::into),
    };
    status
        .unwrap_or_else(|error| {
            say(error);
            cli::EXIT_FAILURE
        })
        .into()
}

fn print(said: Result<Said, ClientError>) -> Result<u8, Box<dyn std::error::Error>> {
    let Said { text, status } = said?;
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    Ok(status)
}

fn run(args: RunArgs, rlimits: CallersLimits) -> Result<u8, Box<dyn std::error::Error>> {
    if !args.is_standalone() {
        let arguments = std::env::args_os().skip(2).collect();
        match service::follow::run(arguments, &rlimits)? {
            Some(Followed::Ended { status }) => return Ok(status),
            Some(Followed::Detached { run_id }) => {
                return print(Ok(Said::done(format!("{run_id}\n"))));
            }
            None if args.is_detached() => return Err(ClientError::NoService.into()),
            None => {}
        }
    }
    let spec = request::put_together(args)?.spec;
    Ok(supervise::foreground(spec, rlimits, None, None)?.status)
}
