//! A manual page: what clap_mangen makes of a command, but for two things that it leaves out. In the synopsis the
//! values of options have their names, and what `--help` ends with has sections of its own.

use std::io;

use clap::{Arg, ArgAction, Command};
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

/// What the pages are of.
const SOURCE: &str = concat!("sandbox ", env!("CARGO_PKG_VERSION"));

/// The pages of a command and of all below it, each with the name of its file.
///
/// # Errors
/// Never here: those of writing to memory.
pub(crate) fn of_all(command: Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    for verb in command.get_subcommands() {
        add(verb, pages)?;
    }
    let shown = command.clone().override_usage(synopsis(command));
    let man = Man::new(shown.after_help(None::<&str>)).source(SOURCE);
    let mut page = Vec::new();
    man.render(&mut page)?;
    if let Some(text) = command.get_after_help() {
        sections(&text.to_string()).to_writer(&mut page)?;
    }
    pages.push((man.get_filename(), page));
    Ok(())
}

/// How it is called, with all that may be said.
fn synopsis(command: &Command) -> String {
    let mut parts = vec![
        command
            .get_bin_name()
            .unwrap_or_else(|| command.get_name())
            .to_owned(),
    ];
    let groups: Vec<Vec<&Arg>> = command
        .get_groups()
        .filter(|group| group.is_required_set())
        .map(|group| {
            let is_in = |arg: &&Arg| group.get_args().any(|id| id == arg.get_id());
            command.get_arguments().filter(is_in).collect()
        })
        .collect();
    let is_grouped = |arg: &Arg| {
        groups
            .iter()
            .flatten()
            .any(|grouped| grouped.get_id() == arg.get_id())
    };
    let said = |arg: &&Arg| {
        let is_for_help = matches!(
            arg.get_action(),
            ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
        );
        !arg.is_hide_set() && !is_for_help && !is_grouped(arg)
    };
    let options = command.get_opts().filter(said);
    let flags = command
        .get_arguments()
        .filter(|arg| !arg.is_positional() && !arg.get_action().takes_values());
    parts.extend(options.chain(flags.filter(said)).map(marked));
    for group in &groups {
        let members: Vec<String> = group.iter().map(|arg| spelled(arg)).collect();
        parts.push(format!("{{{}}}", members.join("|")));
    }
    parts.extend(command.get_positionals().filter(said).map(marked));
    if command.has_subcommands() {
        parts.push("COMMAND".to_owned());
    }
    parts.join(" ")
}

/// An argument, in brackets where it may be left out.
fn marked(arg: &Arg) -> String {
    let spelled = spelled(arg);
    let marked = match arg.is_required_set() {
        true => spelled,
        false => format!("[{spelled}]"),
    };
    if matches!(arg.get_action(), ArgAction::Append) && !arg.is_positional() {
        format!("{marked}...")
    } else {
        marked
    }
}

fn spelled(arg: &Arg) -> String {
    let mut parts = Vec::new();
    parts.extend(arg.get_long().map(|long| format!("--{long}")));
    if arg.get_action().takes_values() {
        parts.extend(
            arg.get_value_names()
                .unwrap_or_default()
                .iter()
                .map(ToString::to_string),
        );
    }
    if arg.is_trailing_var_arg_set() {
        parts.insert(0, "--".to_owned());
        parts.push("[ARG]...".to_owned());
    }
    parts.join(" ")
}

/// What stands at the end of `--help`, each paragraph that begins with a title under that.
fn sections(text: &str) -> Roff {
    let mut roff = Roff::new();
    let mut is_in_notes = false;
    for paragraph in text.split("\n\n") {
        let titled = paragraph
            .split_once(":\n")
            .or_else(|| paragraph.split_once(": "))
            .filter(|(title, _)| ["Exit status", "Examples"].contains(title));
        let (title, body) = titled.unwrap_or(("Notes", paragraph));
        if titled.is_some() || !is_in_notes {
            roff.control("SH", [title.to_uppercase().as_str()]);
        } else {
            roff.control("PP", []);
        }
        is_in_notes = titled.is_none();
        let is_list = body.lines().count() > 1;
        if is_list {
            roff.control("nf", []);
        }
        for line in body.lines() {
            roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        }
        if is_list {
            roff.control("fi", []);
        }
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::for_people;

    fn pages() -> Vec<(String, String)> {
        let pages = of_all(for_people()).expect("memory can be written to");
        let text = |page| String::from_utf8(page).expect("text");
        pages
            .into_iter()
            .map(|(name, page)| (name, text(page)))
            .collect()
    }

    #[test]
    fn no_page_has_a_section_whose_name_says_nothing() {
        let pages = pages();
        assert!(pages.len() > 10, "{pages:#?}");
        for (name, page) in pages {
            assert!(!page.contains("EXTRA"), "{name}: {page}");
        }
    }

    #[test]
    fn a_synopsis_names_what_options_take_and_what_help_ends_with_has_sections() {
        let shown: Vec<String> = pages()
            .into_iter()
            .filter(|(name, _)| {
                [
                    "sandbox.1",
                    "sandbox-run.1",
                    "sandbox-kill.1",
                    "sandbox-update.1",
                ]
                .contains(&name.as_str())
            })
            .map(|(_, page)| {
                let lines = page.lines().scan(true, |is_shown, line| {
                    if line.starts_with(".SH") {
                        let is_of_options =
                            ["OPTIONS", "LIMITS", "ANALYSIS", "RUNS", "OUTPUT", "REACHED"];
                        *is_shown = !is_of_options.iter().any(|title| line.contains(title));
                    }
                    Some((*is_shown).then(|| line.to_owned()))
                });
                lines.flatten().collect::<Vec<_>>().join("\n")
            })
            .collect();
        let version = env!("CARGO_PKG_VERSION");
        insta::assert_snapshot!(shown.join("\n\n").replace(version, "VERSION"));
    }
}
