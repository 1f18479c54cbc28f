//! Who an analysis runs as: facts, then a decision, then a resolved identity.
//!
//! The caller; under sudo the user who called sudo; plain root has to say. A root analysis can leave its
//! cgroup, so that is never a default. The decision is pure; only [`Facts::gather`] and [`SystemAccounts`] look at the
//! system.

use std::ffi::{CString, OsStr, OsString};
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User};
use thiserror::Error;

use crate::caller::{self, Caller};
use crate::sys::creds::FileIdentity;

/// What the decision rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Uid of `sandbox`.
    pub uid: u32,
    /// `SUDO_UID`, as it is.
    pub sudo_uid: Option<String>,
    /// `SUDO_GID`, as it is.
    pub sudo_gid: Option<String>,
    /// `SUDO_USER`, as it is.
    pub sudo_user: Option<String>,
    /// `--user`.
    pub asked: Option<String>,
    /// `user` of the host's configuration: whom plain root's analyses run as.
    pub host_default: Option<String>,
}

impl Facts {
    /// Facts of the caller and its environment.
    pub fn gather(asked: Option<String>, host_default: Option<String>) -> Self {
        Self {
            uid: caller::uid(),
            sudo_uid: caller::variable("SUDO_UID"),
            sudo_gid: caller::variable("SUDO_GID"),
            sudo_user: caller::variable("SUDO_USER"),
            asked,
            host_default,
        }
    }

    /// Whether whoever called is root, and nobody else through sudo.
    pub fn is_plain_root(&self) -> bool {
        let unasked = Self {
            asked: None,
            host_default: None,
            ..self.clone()
        };
        choose(&unasked) == Err(IdentityError::RootMustSay)
    }
}

/// Who it is to be, before accounts are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Whoever called, as they are.
    Caller {
        /// Their uid.
        uid: u32,
    },
    /// Who called sudo.
    Sudo {
        /// `SUDO_UID`.
        uid: u32,
        /// `SUDO_GID`, for an account that the host does not know.
        gid: Option<u32>,
        /// `SUDO_USER`, likewise.
        name: Option<String>,
    },
    /// Who was named by `--user` or by the host's configuration.
    Named {
        /// A name or a uid.
        user: String,
    },
}

/// Why an analysis has nobody to run as. Exit status 125.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum IdentityError {
    /// Plain root, and nobody named.
    #[error(
        "root has to say whom the analysis runs as, since a root analysis can leave its cgroup: \
         use --user NAME (for example --user nobody), have `user` in /etc/sandbox/config.toml, or, \
         if it must be root, --user root"
    )]
    RootMustSay,
    /// `SUDO_UID` is no uid.
    #[error("SUDO_UID is {value:?}, not a user id: say --user NAME, or unset it")]
    BadSudoUid {
        /// What it says.
        value: String,
    },
    /// An unprivileged caller named somebody else.
    #[error(
        "only root can run an analysis as another user: leave --user {user} out, or call it through sudo"
    )]
    NotPrivileged {
        /// Who was named.
        user: String,
    },
    /// No such account.
    #[error("there is no user {user:?} on this host (see `getent passwd`)")]
    UnknownUser {
        /// Who was named.
        user: String,
    },
    /// The account database could not be read.
    #[error("could not look up user {user:?}: {reason}")]
    Lookup {
        /// Who was looked up.
        user: String,
        /// The system's reason.
        reason: String,
    },
}

/// Decides who it is to be.
///
/// # Errors
/// [`IdentityError::RootMustSay`], [`IdentityError::BadSudoUid`].
pub fn choose(facts: &Facts) -> Result<Choice, IdentityError> {
    if let Some(user) = &facts.asked {
        return Ok(Choice::Named { user: user.clone() });
    }
    // Not root: whoever called. SUDO_* then tell of an earlier sudo.
    if facts.uid != 0 {
        return Ok(Choice::Caller { uid: facts.uid });
    }
    if let Some(value) = &facts.sudo_uid {
        let uid = parse_id(value).ok_or_else(|| IdentityError::BadSudoUid {
            value: value.clone(),
        })?;
        // sudo called by root is plain root.
        if uid != 0 {
            return Ok(Choice::Sudo {
                uid,
                gid: facts.sudo_gid.as_deref().and_then(parse_id),
                name: facts.sudo_user.clone(),
            });
        }
    }
    match &facts.host_default {
        Some(user) => Ok(Choice::Named { user: user.clone() }),
        None => Err(IdentityError::RootMustSay),
    }
}

/// A uid or gid in decimal. 2³²−1 means "leave it" to the kernel and is none.
pub(crate) fn parse_id(text: &str) -> Option<u32> {
    let decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&id| decimal && id != u32::MAX)
}

/// Whether an analysis is somebody else than who called `sandbox`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The caller: the environment stays as it is.
    Same,
    /// Somebody else: HOME, USER and LOGNAME follow.
    Changed,
}

/// Who an analysis runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id: real, effective, saved and file system.
    pub uid: u32,
    /// Group id, likewise.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Login name; `None` where the host knows only the number.
    pub name: Option<String>,
    /// Home directory, likewise.
    pub home: Option<PathBuf>,
    /// Whether that is somebody else than the caller.
    pub change: Change,
}

impl Identity {
    /// Whether it keeps root's capabilities, and so can leave its cgroup.
    pub const fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// What the record's `degraded` says of it, and what the user is warned of.
    pub fn degraded(&self) -> Option<String> {
        self.is_root().then(|| {
            "runs as root, which can leave its cgroup and undo its limits: use --user".to_owned()
        })
    }

    /// HOME, USER and LOGNAME for somebody else than the caller, but for names in `explicit` (`--env`).
    ///
    /// Without an account, HOME is `/` and the names are the uid, so that nothing of the caller's is used.
    pub fn apply_to_env(&self, env: &mut Vec<(OsString, OsString)>, explicit: &[OsString]) {
        if self.change == Change::Same {
            return;
        }
        let name = self.name.clone().unwrap_or_else(|| self.uid.to_string());
        let home = self.home.clone().unwrap_or_else(|| PathBuf::from("/"));
        for (key, value) in [
            ("HOME", home.into_os_string()),
            ("USER", OsString::from(&name)),
            ("LOGNAME", OsString::from(&name)),
        ] {
            if explicit.iter().any(|name| name == key) {
                continue;
            }
            env.retain(|(name, _)| name != OsStr::new(key));
            env.push((key.into(), value));
        }
    }
}

impl From<&Identity> for FileIdentity {
    fn from(identity: &Identity) -> Self {
        Self {
            uid: identity.uid,
            gid: identity.gid,
            groups: identity.groups.clone(),
        }
    }
}

/// An entry of the account database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Login name.
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
}

/// The account database; errors are its own words.
pub trait Accounts {
    /// The account of that name.
    ///
    /// # Errors
    /// Where the database could not be asked; no such account is `None`.
    fn by_name(&self, name: &str) -> Result<Option<Account>, String>;
    /// The account of that number.
    ///
    /// # Errors
    /// As [`Accounts::by_name`].
    fn by_uid(&self, uid: u32) -> Result<Option<Account>, String>;
    /// All groups of an account, its primary one included.
    ///
    /// # Errors
    /// As [`Accounts::by_name`].
    fn groups(&self, account: &Account) -> Result<Vec<u32>, String>;
    /// The number of the group of that name.
    ///
    /// # Errors
    /// As [`Accounts::by_name`].
    fn group(&self, name: &str) -> Result<Option<u32>, String>;
}

/// The host's accounts, through NSS: getpwnam(3), getpwuid(3), getgrouplist(3),
/// getgrnam(3).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemAccounts;

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            name: user.name,
            home: user.dir,
        }
    }
}

impl Accounts for SystemAccounts {
    fn by_name(&self, name: &str) -> Result<Option<Account>, String> {
        let user = User::from_name(name).map_err(|errno| errno.to_string())?;
        Ok(user.map(Account::from))
    }

    fn by_uid(&self, uid: u32) -> Result<Option<Account>, String> {
        let user = User::from_uid(Uid::from_raw(uid)).map_err(|errno| errno.to_string())?;
        Ok(user.map(Account::from))
    }

    fn groups(&self, account: &Account) -> Result<Vec<u32>, String> {
        let name = CString::new(account.name.as_bytes()).map_err(|error| error.to_string())?;
        let groups = nix::unistd::getgrouplist(&name, Gid::from_raw(account.gid))
            .map_err(|errno| errno.to_string())?;
        Ok(groups.into_iter().map(Gid::as_raw).collect())
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        let group = Group::from_name(name).map_err(|errno| errno.to_string())?;
        Ok(group.map(|group| group.gid.as_raw()))
    }
}

/// Whether this process has more rights than its caller, by a set-user-ID or set-group-ID bit.
pub fn is_setuid() -> bool {
    Uid::current() != Uid::effective() || Gid::current() != Gid::effective()
}

/// Looks the choice up.
///
/// A uid without an account is allowed (images and NFS have them): its group is the one that sudo
/// names, else the gid of the same number, never 0 by default; it has no other groups.
///
/// # Errors
/// Unknown names, a database that cannot be read, an unprivileged caller who names somebody else.
pub fn resolve(
    choice: &Choice,
    caller: &Caller,
    accounts: &dyn Accounts,
) -> Result<Identity, IdentityError> {
    match choice {
        Choice::Caller { uid } => {
            let account = look_up(accounts.by_uid(*uid), &uid.to_string())
                .ok()
                .flatten();
            Ok(as_caller(caller, account))
        }
        Choice::Sudo { uid, gid, name } => {
            match look_up(accounts.by_uid(*uid), &uid.to_string())? {
                Some(account) => as_account(account, accounts),
                None => Ok(as_number(*uid, gid.unwrap_or(*uid), name.clone())),
            }
        }
        Choice::Named { user } => {
            let mut account = look_up(accounts.by_name(user), user)?;
            let number = parse_id(user);
            if let (None, Some(uid)) = (&account, number) {
                account = look_up(accounts.by_uid(uid), user)?;
            }
            let uid = account
                .as_ref()
                .map(|account| account.uid)
                .or(number)
                .ok_or_else(|| IdentityError::UnknownUser { user: user.clone() })?;
            match (account, caller.uid == 0) {
                (account, _) if uid == caller.uid && uid != 0 => Ok(as_caller(caller, account)),
                (_, false) => Err(IdentityError::NotPrivileged { user: user.clone() }),
                (Some(account), true) => as_account(account, accounts),
                (None, true) => Ok(as_number(uid, uid, None)),
            }
        }
    }
}

fn look_up(
    answer: Result<Option<Account>, String>,
    user: &str,
) -> Result<Option<Account>, IdentityError> {
    answer.map_err(|reason| IdentityError::Lookup {
        user: user.to_owned(),
        reason,
    })
}

fn as_caller(caller: &Caller, account: Option<Account>) -> Identity {
    let (name, home) = account.map(|account| (account.name, account.home)).unzip();
    Identity {
        uid: caller.uid,
        gid: caller.gid,
        groups: caller.groups.clone(),
        name,
        home,
        change: Change::Same,
    }
}

fn as_account(account: Account, accounts: &dyn Accounts) -> Result<Identity, IdentityError> {
    let groups = accounts
        .groups(&account)
        .map_err(|reason| IdentityError::Lookup {
            user: account.name.clone(),
            reason,
        })?;
    Ok(Identity {
        uid: account.uid,
        gid: account.gid,
        groups,
        name: Some(account.name),
        home: Some(account.home),
        change: Change::Changed,
    })
}

fn as_number(uid: u32, gid: u32, name: Option<String>) -> Identity {
    Identity {
        uid,
        gid,
        groups: vec![gid],
        name,
        home: None,
        change: Change::Changed,
    }
}

#[cfg(test)]
mod tests;
