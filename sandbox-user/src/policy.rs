//! Who may say what, and who wins: built-in defaults < host defaults < metadata < command line; then
//! the host's ceilings lower or refuse.
//!
//! Each place that speaks about limits is a partial [`Layer`]; [`settle`] lays them over the
//! defaults and keeps with each limit the [`Source`] that set it, because completion notes and
//! records must say whose limit ended a run. Values arrive here parsed and in range (see
//! [`values`]); what is checked here is whether they make sense together.

mod budget;
mod ceilings;
mod timeout;
pub mod values;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{Limit, Limits, OnPidsLimit, OomScope, Source};
use crate::units::format_duration;

pub use budget::{Budget, share_of};
pub use ceilings::{Ceiling, Ceilings, Excess};
pub use timeout::{TimeoutChange, TimeoutError};

/// What was said about something that can be lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting<T> {
    /// This value.
    Value(T),
    /// `none`: no limit, or nothing to be done.
    Lifted,
}

impl<T> Setting<T> {
    /// The value; `None` where it was lifted.
    pub fn into_option(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Lifted => None,
        }
    }
}

/// A signal to the main process ahead of the deadline, for checkpointing (`--warn USR1@2m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warn {
    /// The signal's number.
    pub signal: i32,
    /// How long before the deadline.
    pub before: Duration,
}

/// What one place says about limits; `None` = nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitOverrides {
    /// `memory.max`, bytes.
    pub memory_bytes: Option<Setting<u64>>,
    /// `memory.swap.max`, bytes.
    pub swap_bytes: Option<Setting<u64>>,
    /// `cpu.max`, cores.
    pub cpus: Option<Setting<f64>>,
    /// `pids.max`, tasks.
    pub pids: Option<Setting<u64>>,
    /// Wall clock.
    pub walltime: Option<Setting<Duration>>,
    /// CPU time of the whole leaf.
    pub cputime: Option<Setting<Duration>>,
}

/// What one place says about the runner's actions; `None` = nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActionOverrides {
    /// From SIGTERM at the deadline to cgroup.kill.
    pub grace: Option<Duration>,
    /// The warning ahead of the deadline.
    pub warn: Option<Setting<Warn>>,
    /// What a denied fork means.
    pub on_pids_limit: Option<OnPidsLimit>,
    /// Whom the OOM killer takes.
    pub oom: Option<OomScope>,
}

/// Everything that one place says.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The place.
    pub source: Source,
    /// Its limits.
    pub limits: LimitOverrides,
    /// Its actions.
    pub actions: ActionOverrides,
}

impl Layer {
    /// A place that says nothing.
    pub fn silent(source: Source) -> Self {
        Self {
            source,
            limits: LimitOverrides::default(),
            actions: ActionOverrides::default(),
        }
    }
}

/// What becomes of a caller whose own cgroup is limited (a Slurm step, a container), where a run cannot be placed
/// under that limit, as the service's cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitedCallers {
    /// They are refused.
    #[default]
    Refuse,
    /// Their runs are done, held to the host's configuration only.
    Allow,
}

impl LimitedCallers {
    /// The word for it in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Allow => "allow",
        }
    }
}

/// What the host's configuration says of one user's runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostPolicy {
    /// Whom they run as, where that is the configuration's to say: for plain root.
    pub user: Option<String>,
    /// What applies where a run says nothing, weakest first.
    pub defaults: Vec<Layer>,
    /// What it may ask for at most.
    pub ceilings: Ceilings,
    /// What all the host's runs may have together.
    pub budget: Budget,
    /// Whether its runs may leave a limit that it is under.
    pub limited_callers: LimitedCallers,
    /// What the shell is to run in the end of each, with the record on its stdin.
    pub on_complete: Option<String>,
    /// How many of theirs the service does at once; `None` = no limit.
    pub runs: Option<usize>,
    /// Below which directories their metadata has to be; `None` = anywhere.
    pub metadata_paths: Option<Vec<PathBuf>>,
}

/// Limits and actions as they apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// The limits, each with its source.
    pub limits: Limits,
    /// From SIGTERM at the deadline to cgroup.kill; zero = cgroup.kill at once.
    pub grace: Duration,
    /// The warning ahead of the deadline.
    pub warn: Option<Warn>,
    /// What a denied fork means.
    pub on_pids_limit: OnPidsLimit,
    /// Whom the OOM killer takes.
    pub oom: OomScope,
    /// What was asked for and lowered to the host's ceiling, one sentence each.
    pub lowered: Vec<String>,
}

/// Settings that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A warning ahead of a deadline that does not exist.
    #[error(
        "`warn` ({}) asks for a signal before the deadline, but `timeout` is `none` ({}): give a timeout, or `--warn none`",
        source_name(*.warn_source), source_name(*.timeout_source)
    )]
    WarnWithoutDeadline {
        /// Who asked for the warning.
        warn_source: Source,
        /// Who lifted the timeout.
        timeout_source: Source,
    },
    /// A warning that would be due before the start.
    #[error(
        "`warn` ({}) asks for a signal {} before the deadline, but the whole `timeout` ({}) is {}: warn later, give more time, or `--warn none`",
        source_name(*.warn_source), format_duration(*.before), source_name(*.timeout_source), format_duration(*.timeout)
    )]
    WarnBeforeStart {
        /// Who asked for the warning.
        warn_source: Source,
        /// How long before the deadline.
        before: Duration,
        /// Who set the timeout.
        timeout_source: Source,
        /// How long the run may last.
        timeout: Duration,
    },
    /// More than the host allows.
    #[error(
        "`{name}` is {asked} ({}), and the host's ceiling is {most}: ask for no more; only the host's administrator can raise it",
        source_name(*.asked_by)
    )]
    AboveCeiling {
        /// The limit, by its flag's name.
        name: &'static str,
        /// What was asked for.
        asked: String,
        /// Who asked.
        asked_by: Source,
        /// The most there is to be had.
        most: String,
    },
}

/// From SIGTERM to cgroup.kill where nobody says otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(5);

/// Lays `layers`, weakest first, over the built-in defaults, and holds the outcome down to `ceilings`.
///
/// # Errors
/// [`PolicyError`] where what remains contradicts itself, or is more than the host allows.
pub fn settle(layers: &[Layer], ceilings: &Ceilings) -> Result<Settled, PolicyError> {
    let mut settled = Settled {
        limits: Limits::default(),
        grace: DEFAULT_GRACE,
        warn: None,
        on_pids_limit: OnPidsLimit::default(),
        oom: OomScope::default(),
        lowered: Vec::new(),
    };
    let mut warn_source = Source::Default;
    let mut grace = Limit::new(Some(DEFAULT_GRACE), Source::Default);
    for Layer {
        source,
        limits,
        actions,
    } in layers
    {
        lay(
            &mut settled.limits.memory_bytes,
            limits.memory_bytes,
            *source,
        );
        lay(&mut settled.limits.swap_bytes, limits.swap_bytes, *source);
        lay(&mut settled.limits.cpus, limits.cpus, *source);
        lay(&mut settled.limits.pids, limits.pids, *source);
        lay(&mut settled.limits.walltime, limits.walltime, *source);
        lay(&mut settled.limits.cputime, limits.cputime, *source);
        lay(&mut grace, actions.grace.map(Setting::Value), *source);
        settled.on_pids_limit = actions.on_pids_limit.unwrap_or(settled.on_pids_limit);
        settled.oom = actions.oom.unwrap_or(settled.oom);
        if let Some(warn) = actions.warn {
            settled.warn = warn.into_option();
            warn_source = *source;
        }
    }
    settled.lowered = ceilings.hold(&mut settled.limits, &mut grace)?;
    settled.grace = grace.value.unwrap_or(DEFAULT_GRACE);
    if let Some(warn) = settled.warn {
        match check_warning(warn, warn_source, settled.limits.walltime) {
            // Nobody asked for it: it gives way to the deadline that somebody did ask for.
            Err(_) if warn_source == Source::Host => settled.warn = None,
            checked => checked?,
        }
    }
    Ok(settled)
}

/// How a source is called in messages.
pub const fn source_name(source: Source) -> &'static str {
    match source {
        Source::Default => "default",
        Source::Host => "host's configuration",
        Source::Metadata => "metadata",
        Source::CommandLine => "command line",
        Source::Update => "sandbox update",
        Source::Ceiling => "host's ceiling",
    }
}

fn lay<T: Copy>(limit: &mut Limit<T>, setting: Option<Setting<T>>, source: Source) {
    if let Some(setting) = setting {
        *limit = Limit::new(setting.into_option(), source);
    }
}

fn check_warning(
    warn: Warn,
    warn_source: Source,
    walltime: Limit<Duration>,
) -> Result<(), PolicyError> {
    let timeout_source = walltime.source;
    match walltime.value {
        None => Err(PolicyError::WarnWithoutDeadline {
            warn_source,
            timeout_source,
        }),
        Some(timeout) if warn.before >= timeout => Err(PolicyError::WarnBeforeStart {
            warn_source,
            before: warn.before,
            timeout_source,
            timeout,
        }),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_timeout(source: Source, timeout: Setting<Duration>) -> Layer {
        let mut layer = Layer::silent(source);
        layer.limits.walltime = Some(timeout);
        layer
    }

    fn with_warn(source: Source, seconds: u64) -> Layer {
        let mut layer = Layer::silent(source);
        layer.actions.warn = Some(Setting::Value(Warn {
            signal: 10,
            before: Duration::from_secs(seconds),
        }));
        layer
    }

    #[test]
    fn without_layers_the_defaults_apply() {
        let settled = settle(&[], &Ceilings::default()).expect("defaults agree");
        assert_eq!(settled.limits, Limits::default());
        assert_eq!(settled.grace, DEFAULT_GRACE);
        assert_eq!(settled.warn, None);
    }

    #[test]
    fn the_later_layer_wins_limit_by_limit_and_leaves_its_name() {
        let mut host = Layer::silent(Source::Host);
        host.limits.memory_bytes = Some(Setting::Value(1 << 30));
        host.limits.pids = Some(Setting::Value(50));
        let mut metadata = Layer::silent(Source::Metadata);
        metadata.limits.memory_bytes = Some(Setting::Value(4 << 30));
        metadata.limits.cpus = Some(Setting::Value(2.0));
        metadata.actions.oom = Some(OomScope::Process);
        let mut command_line = Layer::silent(Source::CommandLine);
        command_line.limits.cpus = Some(Setting::Lifted);

        let settled =
            settle(&[host, metadata, command_line], &Ceilings::default()).expect("they agree");
        assert_eq!(
            settled.limits.memory_bytes,
            Limit::new(Some(4 << 30), Source::Metadata)
        );
        assert_eq!(settled.limits.pids, Limit::new(Some(50), Source::Host));
        assert_eq!(settled.limits.cpus, Limit::new(None, Source::CommandLine));
        assert_eq!(
            settled.limits.swap_bytes,
            Limit::new(Some(0), Source::Default)
        );
        assert_eq!(settled.oom, OomScope::Process);
    }

    #[test]
    fn a_warning_needs_a_deadline_that_comes_after_it() {
        let mut lines = Vec::new();
        for layers in [
            vec![
                with_warn(Source::Metadata, 60),
                with_timeout(Source::CommandLine, Setting::Lifted),
            ],
            vec![with_warn(Source::CommandLine, 1800)],
            vec![
                with_warn(Source::CommandLine, 90),
                with_timeout(Source::Metadata, Setting::Value(Duration::from_secs(60))),
            ],
        ] {
            lines.push(
                settle(&layers, &Ceilings::default())
                    .expect_err("contradictory")
                    .to_string(),
            );
        }
        insta::assert_snapshot!(lines.join("\n"));
        assert!(
            settle(
                &[with_warn(Source::CommandLine, 1799)],
                &Ceilings::default()
            )
            .is_ok()
        );
    }

    #[test]
    fn a_warning_that_is_the_hosts_gives_way() {
        for timeout in [Setting::Lifted, Setting::Value(Duration::from_secs(60))] {
            let layers = [
                with_warn(Source::Host, 90),
                with_timeout(Source::CommandLine, timeout),
            ];
            let settled = settle(&layers, &Ceilings::default()).expect("it was asked for nothing");
            assert_eq!(settled.warn, None);
        }
        let settled = settle(&[with_warn(Source::Host, 90)], &Ceilings::default());
        assert!(settled.expect("it fits").warn.is_some());
    }

    #[test]
    fn a_later_layer_can_take_a_warning_back() {
        let mut command_line = with_timeout(Source::CommandLine, Setting::Lifted);
        command_line.actions.warn = Some(Setting::Lifted);
        let settled = settle(
            &[with_warn(Source::Metadata, 60), command_line],
            &Ceilings::default(),
        )
        .expect("agree");
        assert_eq!(settled.warn, None);
    }

    #[test]
    fn a_warning_and_the_grace_go_by_the_deadline_that_a_ceiling_leaves() {
        let minute = Duration::from_secs(60);
        let cap = |most| {
            Some(Ceiling {
                at_most: Setting::Value(most),
                otherwise: Some(Excess::Cap),
            })
        };
        let ceilings = Ceilings {
            walltime: cap(minute),
            grace: cap(Duration::from_secs(10)),
            ..Ceilings::default()
        };
        let mut metadata = with_timeout(Source::Metadata, Setting::Lifted);
        metadata.actions.grace = Some(minute);
        let settled = settle(std::slice::from_ref(&metadata), &ceilings).expect("lowered");
        assert_eq!(settled.limits.walltime.value, Some(minute));
        assert_eq!(settled.grace, Duration::from_secs(10));
        assert_eq!(
            settled.lowered,
            [
                "`timeout` is lowered to the host's ceiling of 1 min; `none` was asked for",
                "`grace` is lowered to the host's ceiling of 10 s; 1 min was asked for"
            ]
        );

        let error = settle(&[metadata, with_warn(Source::CommandLine, 90)], &ceilings)
            .expect_err("the warning would be due before the start")
            .to_string();
        assert!(error.contains("host's ceiling"), "{error}");
    }
}
