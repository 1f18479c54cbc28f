//! The most that the host lets a run have, limit by limit.
//!
//! What was asked for and is more is refused or lowered, as the host's configuration says; what nobody
//! asked for (a default) is lowered in silence, since nobody could have done better.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{PolicyError, Setting};
use crate::limits::{Limit, Limits, Source};
use crate::units::{format_bytes, format_cpus, format_duration};

/// The wall clock limit, by its flag's name.
const TIMEOUT: &str = "timeout";

/// What becomes of something that was asked for and is more than the host's ceiling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Excess {
    /// The run is refused.
    #[default]
    Refuse,
    /// The ceiling applies instead.
    Cap,
}

/// The most that something may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling<T> {
    /// The most; lifted = there is no ceiling for whom this is said.
    pub at_most: Setting<T>,
    /// What becomes of more, where this limit says so itself.
    pub otherwise: Option<Excess>,
}

/// The ceilings of one place, or of all together; `None` = nothing is said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ceilings {
    /// `memory.max`, bytes.
    pub memory_bytes: Option<Ceiling<u64>>,
    /// `memory.swap.max`, bytes.
    pub swap_bytes: Option<Ceiling<u64>>,
    /// `cpu.max`, cores.
    pub cpus: Option<Ceiling<f64>>,
    /// `pids.max`, tasks.
    pub pids: Option<Ceiling<u64>>,
    /// Wall clock.
    pub walltime: Option<Ceiling<Duration>>,
    /// CPU time of the whole leaf.
    pub cputime: Option<Ceiling<Duration>>,
    /// From SIGTERM at the deadline to cgroup.kill, by which a run may outlast its wall clock.
    pub grace: Option<Ceiling<Duration>>,
    /// What becomes of more, where a limit does not say.
    pub otherwise: Option<Excess>,
}

impl Ceilings {
    /// Lays what a stronger place says over these, limit by limit.
    pub fn overlay(&mut self, stronger: &Self) {
        self.memory_bytes = stronger.memory_bytes.or(self.memory_bytes);
        self.swap_bytes = stronger.swap_bytes.or(self.swap_bytes);
        self.cpus = stronger.cpus.or(self.cpus);
        self.pids = stronger.pids.or(self.pids);
        self.walltime = stronger.walltime.or(self.walltime);
        self.cputime = stronger.cputime.or(self.cputime);
        self.grace = stronger.grace.or(self.grace);
        self.otherwise = stronger.otherwise.or(self.otherwise);
    }

    /// The lower ones of these and others, limit by limit, each with what becomes of more.
    #[must_use]
    pub fn or_lower(&self, other: &Self) -> Self {
        let (these, those) = (self.otherwise, other.otherwise);
        Self {
            memory_bytes: lower(self.memory_bytes, these, other.memory_bytes, those),
            swap_bytes: lower(self.swap_bytes, these, other.swap_bytes, those),
            cpus: lower(self.cpus, these, other.cpus, those),
            pids: lower(self.pids, these, other.pids, those),
            walltime: lower(self.walltime, these, other.walltime, those),
            cputime: lower(self.cputime, these, other.cputime, those),
            grace: lower(self.grace, these, other.grace, those),
            otherwise: None,
        }
    }

    /// The ceiling of the wall clock by itself, with what becomes of more.
    pub fn of_timeout(&self) -> Option<Ceiling<Duration>> {
        self.walltime.map(|ceiling| Ceiling {
            otherwise: ceiling.otherwise.or(self.otherwise),
            ..ceiling
        })
    }

    /// Holds limits, and the grace, down to the ceilings. Returns what was asked for and is lowered, one
    /// sentence each.
    ///
    /// # Errors
    /// [`PolicyError::AboveCeiling`].
    pub(super) fn hold(
        &self,
        limits: &mut Limits,
        grace: &mut Limit<Duration>,
    ) -> Result<Vec<String>, PolicyError> {
        let otherwise = self.otherwise.unwrap_or_default();
        let time = format_duration;
        let bytes = format_bytes;
        let lowered = [
            hold(
                "memory",
                &mut limits.memory_bytes,
                self.memory_bytes,
                otherwise,
                bytes,
            )?,
            hold(
                "swap",
                &mut limits.swap_bytes,
                self.swap_bytes,
                otherwise,
                bytes,
            )?,
            hold("cpus", &mut limits.cpus, self.cpus, otherwise, format_cpus)?,
            hold("pids", &mut limits.pids, self.pids, otherwise, |pids| {
                pids.to_string()
            })?,
            hold(
                TIMEOUT,
                &mut limits.walltime,
                self.walltime,
                otherwise,
                time,
            )?,
            hold(
                "cpu-time",
                &mut limits.cputime,
                self.cputime,
                otherwise,
                time,
            )?,
            hold("grace", grace, self.grace, otherwise, time)?,
        ];
        Ok(lowered.into_iter().flatten().collect())
    }
}

impl Ceiling<Duration> {
    /// The same for who has so much already: more is not lowered to less than that, but refused.
    pub(super) fn not_below(self, present: Option<Duration>) -> Self {
        match (self.at_most, present) {
            (Setting::Value(most), Some(present)) if present <= most => self,
            (Setting::Value(_), _) => Self {
                otherwise: Some(Excess::Refuse),
                ..self
            },
            (Setting::Lifted, _) => self,
        }
    }

    /// Holds a wall clock limit down to this, as [`Ceilings::hold`] does at the start.
    ///
    /// # Errors
    /// [`PolicyError::AboveCeiling`].
    pub(super) fn hold_timeout(
        self,
        limit: &mut Limit<Duration>,
    ) -> Result<Option<String>, PolicyError> {
        hold(
            TIMEOUT,
            limit,
            Some(self),
            Excess::default(),
            format_duration,
        )
    }
}

/// The lower of two ceilings.
fn lower<T: PartialOrd>(
    one: Option<Ceiling<T>>,
    of_one: Option<Excess>,
    other: Option<Ceiling<T>>,
    of_other: Option<Excess>,
) -> Option<Ceiling<T>> {
    let whole = |ceiling: Option<Ceiling<T>>, otherwise: Option<Excess>| {
        ceiling.map(|ceiling| Ceiling {
            otherwise: ceiling.otherwise.or(otherwise),
            ..ceiling
        })
    };
    match (whole(one, of_one), whole(other, of_other)) {
        (Some(one), Some(other)) => Some(match (&one.at_most, &other.at_most) {
            (Setting::Value(most), Setting::Value(others)) if most <= others => one,
            (Setting::Value(_), Setting::Lifted) => one,
            (Setting::Value(_) | Setting::Lifted, _) => other,
        }),
        (one, other) => one.or(other),
    }
}

fn hold<T: Copy + PartialOrd + fmt::Debug, S: fmt::Display>(
    name: &'static str,
    limit: &mut Limit<T>,
    ceiling: Option<Ceiling<T>>,
    otherwise: Excess,
    shown: impl Fn(T) -> S,
) -> Result<Option<String>, PolicyError> {
    let Some(Ceiling {
        at_most: Setting::Value(most),
        otherwise: own,
    }) = ceiling
    else {
        return Ok(None);
    };
    if limit.value.is_some_and(|value| value <= most) {
        return Ok(None);
    }
    let (requested, source) = (limit.value, limit.source);
    *limit = Limit::new(Some(most), Source::Ceiling);
    match source {
        Source::Default | Source::Host | Source::Ceiling => return Ok(None),
        Source::Metadata | Source::CommandLine | Source::Update => limit.requested = requested,
    }
    let words = |value: T| shown(value).to_string();
    let asked = requested.map_or_else(|| "`none`".to_owned(), words);
    let (asked, most) = match requested {
        // What is rounded for people would hide what is too much.
        Some(value) if asked == words(most) => (format!("{value:?}"), format!("{most:?}")),
        Some(_) | None => (asked, words(most)),
    };
    match own.unwrap_or(otherwise) {
        Excess::Refuse => Err(PolicyError::AboveCeiling {
            name,
            asked,
            asked_by: source,
            most,
        }),
        Excess::Cap => Ok(Some(format!(
            "`{name}` is lowered to the host's ceiling of {most}; {asked} was asked for"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn memory(at_most: Setting<u64>, otherwise: Excess) -> Ceilings {
        Ceilings {
            memory_bytes: Some(Ceiling {
                at_most,
                otherwise: Some(otherwise),
            }),
            ..Ceilings::default()
        }
    }

    /// The limit as it is held, and what is said of that.
    fn held(
        limit: Limit<u64>,
        ceilings: &Ceilings,
    ) -> Result<(Limit<u64>, Vec<String>), PolicyError> {
        let mut limits = Limits {
            memory_bytes: limit,
            ..Limits::default()
        };
        let mut grace = Limit::new(Some(Duration::from_secs(5)), Source::Default);
        let lowered = ceilings.hold(&mut limits, &mut grace)?;
        Ok((limits.memory_bytes, lowered))
    }

    #[test]
    fn what_is_within_stays_as_it_was() {
        let asked = Limit::new(Some(4 * GIB), Source::CommandLine);
        for otherwise in [Excess::Refuse, Excess::Cap] {
            let ceilings = memory(Setting::Value(4 * GIB), otherwise);
            assert_eq!(held(asked, &ceilings), Ok((asked, Vec::new())));
        }
    }

    #[test]
    fn what_was_asked_for_beyond_is_refused_or_lowered_and_told() {
        for (value, said) in [(Some(8 * GIB), "8 GiB"), (None, "`none`")] {
            let asked = Limit::new(value, Source::Metadata);
            let error = held(asked, &memory(Setting::Value(4 * GIB), Excess::Refuse))
                .expect_err("refused")
                .to_string();
            assert!(error.contains(said) && error.contains("4 GiB"), "{error}");

            let lowered = Limit {
                requested: value,
                value: Some(4 * GIB),
                source: Source::Ceiling,
            };
            let told =
                format!("`memory` is lowered to the host's ceiling of 4 GiB; {said} was asked for");
            assert_eq!(
                held(asked, &memory(Setting::Value(4 * GIB), Excess::Cap)),
                Ok((lowered, vec![told]))
            );
        }
    }

    #[test]
    fn what_nobody_asked_for_is_lowered_in_silence() {
        for source in [Source::Default, Source::Host] {
            assert_eq!(
                held(
                    Limit::new(Some(2 * GIB), source),
                    &memory(Setting::Value(GIB), Excess::Refuse),
                ),
                Ok((Limit::new(Some(GIB), Source::Ceiling), Vec::new()))
            );
        }
    }

    #[test]
    fn a_stronger_place_raises_lowers_or_lifts_one_limit() {
        let mut ceilings = memory(Setting::Value(GIB), Excess::Refuse);
        ceilings.overlay(&Ceilings::default());
        assert_eq!(ceilings, memory(Setting::Value(GIB), Excess::Refuse));
        ceilings.overlay(&memory(Setting::Lifted, Excess::Refuse));
        let asked = Limit::new(None, Source::CommandLine);
        assert_eq!(held(asked, &ceilings), Ok((asked, Vec::new())));
    }

    #[test]
    fn what_becomes_of_more_is_the_strongest_word_there_is() {
        let beyond = Limit::new(Some(8 * GIB), Source::CommandLine);
        let silent = Ceilings {
            memory_bytes: Some(Ceiling {
                at_most: Setting::Value(GIB),
                otherwise: None,
            }),
            ..Ceilings::default()
        };
        let cap = Ceilings {
            otherwise: Some(Excess::Cap),
            ..Ceilings::default()
        };
        assert!(held(beyond, &silent).is_err(), "refused by default");
        for (weaker, stronger) in [(&silent, &cap), (&cap, &silent)] {
            let mut both = weaker.clone();
            both.overlay(stronger);
            assert!(held(beyond, &both).is_ok());
        }
        let mut both = memory(Setting::Value(GIB), Excess::Refuse);
        both.overlay(&cap);
        assert!(
            held(beyond, &both).is_err(),
            "the limit's own word goes first"
        );
    }

    #[test]
    fn of_two_ceilings_the_lower_holds() {
        let (low, high) = (Setting::Value(GIB), Setting::Value(2 * GIB));
        for (one, other) in [(low, high), (low, Setting::Lifted)] {
            let (one, other) = (memory(one, Excess::Cap), memory(other, Excess::Refuse));
            assert_eq!(one.or_lower(&other), one);
            assert_eq!(other.or_lower(&one), one);
            assert_eq!(one.or_lower(&Ceilings::default()), one);
            assert_eq!(Ceilings::default().or_lower(&one), one);
        }
    }

    #[test]
    fn what_would_round_to_the_ceiling_is_told_exactly() {
        let asked = Limit::new(Some(4 * GIB + 4096), Source::CommandLine);
        let error = held(asked, &memory(Setting::Value(4 * GIB), Excess::Refuse))
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("4294971392") && error.contains("4294967296"),
            "{error}"
        );
    }
}
