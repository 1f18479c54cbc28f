//! The verbs that ask the service about runs, and what they print.

use std::io;

use serde::Serialize;

use super::{
    client::{self, ClientError, Told, Watched},
    print,
    protocol::Verb,
};
use crate::{
    cli::{KillArgs, ListArgs, MeantArgs, ReadArgs, ShowArgs, UpdateArgs, WaitArgs},
    record::{self, RunRecord},
    say::{say, say_notes},
    spec::NotesPolicy,
    store::Filter,
};

/// Exit status where nothing was found, or is one's own.
const NOTHING: u8 = 1;

/// What a verb comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// For stdout.
    pub text: String,
    /// The exit status.
    pub status: u8,
}

impl Said {
    /// It is done.
    pub const fn done(text: String) -> Self {
        Self { text, status: 0 }
    }

    fn nothing(of: &str) -> Self {
        say(format_args!("there is no run {of} of yours"));
        Self {
            text: String::new(),
            status: NOTHING,
        }
    }
}

/// `sandbox list`.
///
/// # Errors
/// Where the service cannot be asked.
pub fn list(args: &ListArgs) -> Result<Said, ClientError> {
    let filter = args.filter();
    let runs = client::list(&filter, args.most)?;
    let found = !runs.is_empty() || filter == Filter::default();
    if !found {
        say(match nix::unistd::geteuid().is_root() {
            true => "no run matches",
            false => "no run of yours matches",
        });
    }
    Ok(Said {
        text: match args.json {
            true => json(&runs),
            false => print::table(&runs),
        },
        status: if found { 0 } else { NOTHING },
    })
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// `sandbox show`.
///
/// # Errors
/// As [`list`].
pub fn show(args: &ShowArgs) -> Result<Said, ClientError> {
    match client::show(&args.id)? {
        None => Ok(Said::nothing(&args.id)),
        Some((run, _)) if !args.json => Ok(Said::done(print::details(&run))),
        Some((_, Some(record))) => Ok(Said::done(format!("{record}\n"))),
        // Not ended, or lost.
        Some((run, None)) => Ok(Said::done(json(&run))),
    }
}

/// `sandbox wait`: the exit status is that of `sandbox run`.
///
/// # Errors
/// As [`list`]; where the run left no record.
pub fn wait(args: &WaitArgs) -> Result<Said, ClientError> {
    let Some((run, record)) = client::wait(&args.id)? else {
        return Ok(Said::nothing(&args.id));
    };
    let record = record.and_then(|record| serde_json::from_str::<RunRecord>(record.get()).ok());
    let Some(record) = record else {
        let notes = run
            .notes
            .unwrap_or_else(|| "it has left no record".to_owned());
        return Err(ClientError::Refused(format!("run {}: {notes}", run.run_id)));
    };
    say_notes(NotesPolicy::Failure, &record);
    Ok(Said {
        text: String::new(),
        status: record::exit_status(&record),
    })
}

/// `sandbox logs`: copies what a run has printed to stdout and to stderr.
///
/// # Errors
/// As [`list`]; where the run was not detached.
pub fn logs(args: &ReadArgs) -> Result<Said, ClientError> {
    let Some(([mut stdout, mut stderr], mut run)) = client::logs(&args.id)? else {
        return Ok(Said::nothing(&args.id));
    };
    read(args, &mut run, || {
        for left_out in [
            stdout.copy_to(&mut io::stdout())?,
            stderr.copy_to(&mut io::stderr())?,
        ] {
            if left_out > 0 {
                say(format_args!(
                    "{left_out} bytes were left out here, since it has printed so much"
                ));
            }
        }
        Ok(())
    })
}

/// `sandbox events`: copies the event stream of a run to stdout.
///
/// # Errors
/// As [`list`]; where none is kept.
pub fn events(args: &ReadArgs) -> Result<Said, ClientError> {
    let Some((mut events, mut run)) = client::events(&args.id)? else {
        return Ok(Said::nothing(&args.id));
    };
    read(args, &mut run, || events.copy_to(&mut io::stdout()))
}

/// Copies what there is of a run by now, or what comes until it has ended.
fn read(
    args: &ReadArgs,
    run: &mut Watched,
    mut copy: impl FnMut() -> io::Result<()>,
) -> Result<Said, ClientError> {
    loop {
        // In this order: what it has left before its end is not missed.
        let goes_on = args.follow && run.goes_on()?;
        match copy() {
            // Whoever closes a pipe has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(Said::done(String::new()));
            }
            copied => copied?,
        }
        if !goes_on {
            return Ok(Said::done(String::new()));
        }
        run.wait_for_more()?;
    }
}

/// `sandbox kill`: the ids of the runs that were told to end.
///
/// # Errors
/// As [`list`].
pub fn kill(args: &KillArgs) -> Result<Said, ClientError> {
    tell(Verb::Kill {
        filter: args.filter(),
        reason: args.reason.clone(),
    })
}

/// `sandbox freeze`: the ids of the runs that are held still.
///
/// # Errors
/// As [`list`].
pub fn freeze(args: &MeantArgs) -> Result<Said, ClientError> {
    let filter = args.filter();
    tell(Verb::Freeze { filter })
}

/// `sandbox thaw`: the ids of the runs that go on.
///
/// # Errors
/// As [`list`].
pub fn thaw(args: &MeantArgs) -> Result<Said, ClientError> {
    let filter = args.filter();
    tell(Verb::Thaw { filter })
}

/// `sandbox update`: the ids of the runs whose limit has changed.
///
/// # Errors
/// As [`list`].
pub fn update(args: &UpdateArgs) -> Result<Said, ClientError> {
    tell(Verb::Update {
        filter: args.filter(),
        timeout: args.timeout,
    })
}

fn tell(verb: Verb) -> Result<Said, ClientError> {
    let Told {
        run_ids,
        problems,
        remarks,
    } = client::tell(verb)?;
    problems.iter().chain(&remarks).for_each(say);
    if run_ids.is_empty() && problems.is_empty() {
        say("no run of yours that goes on is meant");
    }
    Ok(Said {
        status: if run_ids.is_empty() { NOTHING } else { 0 },
        text: run_ids.iter().map(|run_id| format!("{run_id}\n")).collect(),
    })
}
