//! The host's configuration, `/etc/sandbox/config.toml`: whom root's analyses run as, the defaults of
//! runs that say nothing, what may be asked for at most, for everybody, for groups and for users, what all runs may have together,
//! and how the service goes about its work.
//!
//! It is read strictly, as metadata is. It holds other users' runs down, so that a file that others
//! than root can write is refused, and so is a run where it cannot be read.

mod service;
mod summary;
mod table;

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::caller::Caller;
use crate::document::{self, DocumentError, Format, Kind, toml};
use crate::identity::{self, Accounts, Choice, Facts, Identity, IdentityError, SystemAccounts};
use crate::limits::{DEFAULT_MEMORY_BYTES, Source};
use crate::policy::{Budget, Ceilings, HostPolicy, Layer, Setting};
use crate::units::{Printable, Quoted};

pub use service::ServiceConfig;
pub use summary::check;

/// Where it is; a host without the file has the built-in defaults and no ceilings, and all runs together its share of
/// the memory.
pub const PATH: &str = "/etc/sandbox/config.toml";

/// How deep tables are read: the document, `users`, one user, `ceilings`, one limit.
const MAX_TABLE_DEPTH: usize = 5;

/// What the file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Whom plain root's analyses run as where `--user` does not say.
    pub user: Option<String>,
    /// What the shell is to run in the end of each run, as whoever called, with the record on its stdin.
    pub on_complete: Option<String>,
    /// What all runs together may have.
    pub budget: Budget,
    /// How the service goes about its work.
    pub service: ServiceConfig,
    /// For everybody.
    pub rules: Rules,
    /// For those in a group, by its name or number; of several the last one wins.
    pub groups: Vec<(String, Rules)>,
    /// For a user, by name or number, over their groups.
    pub users: Vec<(String, Rules)>,
}

/// What is said of somebody's runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// What applies where a run says nothing.
    pub defaults: Layer,
    /// What it may ask for at most.
    pub ceilings: Ceilings,
    /// How many of them the service does at once, instead of `runs-per-user`.
    pub runs: Option<Setting<usize>>,
}

/// Why there is no configuration to go by. Exit status 125, and no record.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read, or something in it is not right.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Others than root could have written it.
    #[error(
        "{}: {why}, and whoever can write the host's configuration can lift everybody's limits: make it root's (chown root, chmod go-w)",
        Printable(&.path.to_string_lossy())
    )]
    NotRoots {
        /// The file, or the folder that it is in.
        path: PathBuf,
        /// Whose it is.
        why: String,
    },
    /// The account database could not be read.
    #[error("could not look up `{}`, which {} names: {reason}", Quoted(.name), PATH)]
    Lookup {
        /// The user or group.
        name: String,
        /// The system's reason.
        reason: String,
    },
    /// Whose run it is could not be looked up.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Config {
    /// The host's; `None` where there is no such file.
    ///
    /// # Errors
    /// [`ConfigError`] where the file is there and cannot be gone by.
    pub fn of_host() -> Result<Option<Self>, ConfigError> {
        Self::read(Path::new(PATH))
    }

    /// The file at `path`; `None` where there is none.
    ///
    /// # Errors
    /// As [`Config::of_host`].
    pub fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        match Self::text(path)? {
            Some(text) => Ok(Some(Self::parse(&text, path)?)),
            None => Ok(None),
        }
    }

    /// The text of the file at `path`, where nobody but root could have written it; `None` where there is none.
    ///
    /// # Errors
    /// As [`Config::of_host`], but for what is not right in it.
    pub fn text(path: &Path) -> Result<Option<String>, ConfigError> {
        let file = match document::open(path, Kind::Configuration) {
            Ok(file) => file,
            // Not even a link that leads nowhere.
            Err(DocumentError::Read { source, .. })
                if source.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        check_writers(&file, path)?;
        Ok(Some(document::text(file, path, Kind::Configuration)?))
    }

    /// Reads a configuration that is at hand; `path` is what errors call it.
    ///
    /// # Errors
    /// [`DocumentError`] where it is not accepted.
    pub fn parse(text: &str, path: &Path) -> Result<Self, DocumentError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let entries = toml::entries(text, MAX_TABLE_DEPTH - 1)
            .map_err(|error| DocumentError::syntax(error, Format::Toml, path))?;
        table::interpret(&entries, text).map_err(|fault| DocumentError::key(fault, text, path))
    }

    /// What it says of the runs of `who`; where that is not known, what it says of everybody's.
    ///
    /// # Errors
    /// [`ConfigError::Lookup`]: who is in a group that cannot be looked up is not known.
    pub fn policy_for(
        &self,
        who: Option<&Identity>,
        accounts: &dyn Accounts,
    ) -> Result<HostPolicy, ConfigError> {
        let mut policy = HostPolicy {
            on_complete: self.on_complete.clone(),
            budget: self.budget.clone(),
            limited_callers: self.service.limited_callers,
            runs: self.service.runs_per_user,
            metadata_paths: self.service.metadata_paths.clone(),
            ..HostPolicy::default()
        };
        policy
            .defaults
            .extend(self.default_memory_within_the_budget());
        policy.add(&self.rules);
        let Some(who) = who else {
            return Ok(policy);
        };
        for (group, rules) in &self.groups {
            let known = look_up(group, accounts.group(group))?;
            let gid = known.or_else(|| identity::parse_id(group));
            if gid.is_some_and(|gid| who.gid == gid || who.groups.contains(&gid)) {
                policy.add(rules);
            }
        }
        for (user, rules) in &self.users {
            let known = look_up(user, accounts.by_name(user))?.map(|account| account.uid);
            let uid = known.or_else(|| identity::parse_id(user));
            if uid == Some(who.uid) || (uid.is_none() && who.name.as_ref() == Some(user)) {
                policy.add(rules);
            }
        }
        Ok(policy)
    }

    /// Instead of the built-in default of memory what all runs may have, where that is less: else who says nothing
    /// could never run.
    fn default_memory_within_the_budget(&self) -> Option<Layer> {
        let budget = self.budget.memory_most_bytes()?;
        (budget < DEFAULT_MEMORY_BYTES).then(|| {
            let mut layer = Layer::silent(Source::Host);
            layer.limits.memory_bytes = Some(Setting::Value(budget));
            layer
        })
    }

    /// The users and groups it names that the host does not know: rules for nobody.
    ///
    /// # Errors
    /// [`ConfigError::Lookup`].
    pub fn strangers(&self, accounts: &dyn Accounts) -> Result<Vec<String>, ConfigError> {
        let mut strangers = Vec::new();
        for user in self
            .user
            .iter()
            .chain(self.users.iter().map(|(user, _)| user))
        {
            let known = look_up(user, accounts.by_name(user))?.is_some();
            if !known && identity::parse_id(user).is_none() {
                strangers.push(format!("user `{}`", Quoted(user)));
            }
        }
        for (group, _) in &self.groups {
            let known = look_up(group, accounts.group(group))?.is_some();
            if !known && identity::parse_id(group).is_none() {
                strangers.push(format!("group `{}`", Quoted(group)));
            }
        }
        Ok(strangers)
    }
}

fn look_up<T>(name: &str, answer: Result<T, String>) -> Result<T, ConfigError> {
    answer.map_err(|reason| ConfigError::Lookup {
        name: name.to_owned(),
        reason,
    })
}

impl HostPolicy {
    fn add(&mut self, rules: &Rules) {
        self.defaults.push(rules.defaults.clone());
        self.ceilings.overlay(&rules.ceilings);
        if let Some(runs) = rules.runs {
            self.runs = runs.into_option();
        }
    }
}

static IN_FORCE: OnceLock<Config> = OnceLock::new();

/// Goes by this configuration from now on, as the service does. To be called once, before anybody asks.
pub fn go_by(config: Config) {
    // Another one would not be gone by.
    let _ = IN_FORCE.set(config);
}

/// What the host's configuration says of a run that this process is to start, for `asked` (`--user`).
///
/// Who that is, is found out again when the run starts: where there is nobody, that is said there.
///
/// # Errors
/// [`ConfigError`]; never for an unprivileged caller, who cannot start a run.
pub fn policy_of_host(asked: Option<&str>) -> Result<HostPolicy, ConfigError> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(HostPolicy::default());
    }
    let config = match IN_FORCE.get() {
        Some(config) => config.clone(),
        None => match Config::of_host()? {
            Some(config) => config,
            None => return Config::parse("", Path::new(PATH))?.policy_for(None, &SystemAccounts),
        },
    };
    let policy_of = |facts: &Facts| {
        let who = identity::choose(facts).and_then(|choice| {
            let who = identity::resolve(&choice, &Caller::current()?, &SystemAccounts)?;
            Ok((choice, who))
        });
        match who {
            Ok((choice, who)) => Ok((
                config.policy_for(Some(&who), &SystemAccounts)?,
                Some(choice),
            )),
            Err(error @ IdentityError::Lookup { .. }) => Err(error.into()),
            Err(_) => Ok::<_, ConfigError>((config.policy_for(None, &SystemAccounts)?, None)),
        }
    };
    let facts = Facts::gather(asked.map(str::to_owned), config.user.clone());
    let (mut policy, choice) = policy_of(&facts)?;
    if facts.is_plain_root() {
        policy.metadata_paths = None;
    }
    match choice {
        Some(Choice::Named { .. }) if asked.is_some() => {
            let unasked = Facts {
                asked: None,
                ..facts
            };
            // Whom sudo lets name somebody else is held to their own ceilings too.
            if let (callers, Some(Choice::Sudo { .. })) = policy_of(&unasked)? {
                policy.ceilings = policy.ceilings.or_lower(&callers.ceilings);
            }
        }
        Some(Choice::Named { user }) => policy.user = Some(user),
        Some(Choice::Sudo { .. } | Choice::Caller { .. }) | None => {}
    }
    Ok(policy)
}

/// Refuses a file that others than root could have written or put there.
fn check_writers(file: &File, path: &Path) -> Result<(), ConfigError> {
    let unread = |source| DocumentError::read(path, Kind::Configuration, source);
    roots(path, &file.metadata().map_err(unread)?)?;
    let canonical = path.canonicalize().map_err(unread)?;
    for folder in [path.parent(), canonical.parent()].into_iter().flatten() {
        roots(folder, &folder.metadata().map_err(unread)?)?;
    }
    Ok(())
}

fn roots(path: &Path, metadata: &Metadata) -> Result<(), ConfigError> {
    let refused = |why| ConfigError::NotRoots {
        path: path.to_owned(),
        why,
    };
    if metadata.uid() != 0 {
        return Err(refused(format!("belongs to uid {}", metadata.uid())));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o022 != 0 {
        let why = format!("can be written by others than root (mode {mode:04o})");
        return Err(refused(why));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
