//! Writes the manual pages and the shells' completions, from the command line as it is, into a directory.

mod page;

use std::{env, fs, io, path::Path};

use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate_to};
use sandbox::cli::Cli;

fn main() -> io::Result<()> {
    let directory = env::args_os()
        .nth(1)
        .ok_or_else(|| io::Error::other("name the directory that they go to"))?;
    let directory = Path::new(&directory);
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    for made in [&man, &completions] {
        fs::create_dir_all(made)?;
    }
    for (name, page) in page::of_all(for_people())? {
        fs::write(man.join(name), page)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut for_people(), "sandbox", &completions)?;
    }
    Ok(())
}

/// The command line without what is hidden, which completions would offer.
fn for_people() -> Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|verb| !verb.is_hide_set());
    Command::new("sandbox")
        .version(env!("CARGO_PKG_VERSION"))
        .about(all.get_about().cloned().unwrap_or_default())
        .subcommands(shown.cloned())
}
