//! The value of each limit and action: its unit, and the range that the kernel can express.
//!
//! The range is checked where the value is read, so that the error can name the flag, or the file,
//! line and key. A value outside it would be refused by the kernel with a bare EINVAL, or be taken
//! as `max` without a word.

use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Setting, Warn};
use crate::limits::{OnPidsLimit, OomScope};
use crate::procfs::page_size;
use crate::units::{self, Quoted, UnitError, format_bytes, format_cpus, format_duration};

/// Why a value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// It cannot be read.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// It is below what can be set.
    #[error("{given} is too little, at least {least}: {why}")]
    TooLittle {
        /// What was asked for.
        given: String,
        /// The least.
        least: String,
        /// Who says so.
        why: &'static str,
    },
    /// It is above what can be set.
    #[error("{given} is too much, at most {most}: {why}")]
    TooMuch {
        /// What was asked for.
        given: String,
        /// The most.
        most: String,
        /// Who says so.
        why: &'static str,
    },
    /// It is none of a few words.
    #[error("`{}` is not known, use {words}", Quoted(.given))]
    UnknownWord {
        /// What was asked for.
        given: String,
        /// The words there are.
        words: &'static str,
    },
    /// It is not of the form SIGNAL@TIME.
    #[error("a warning is written SIGNAL@TIME, such as USR1@2m, or `none`")]
    NotAWarning,
    /// No such signal.
    #[error("unknown signal `{}`: use a name such as USR1 or a number from 1 to 64", Quoted(.name))]
    UnknownSignal {
        /// What was given.
        name: String,
    },
    /// SIGKILL or SIGSTOP.
    #[error("{name} cannot be caught, so it warns nobody: use a signal such as USR1 or TERM")]
    Uncatchable {
        /// The signal's name.
        name: &'static str,
    },
    /// A warning at the deadline itself.
    #[error("the warning must come some time before the deadline, such as USR1@2m")]
    WarningAtDeadline,
    /// `none` for what has to have a bound.
    #[error("this cannot be lifted: say how much it is at most")]
    NotLifted,
    /// It is no address with a port.
    #[error("an address is written 127.0.0.1:9464 or [::1]:9464, the port a number from 1 on")]
    NotAnAddress,
    /// Other hosts can reach it.
    #[error(
        "it is no loopback address, and other hosts could read what users' runs come to: use one such as 127.0.0.1:9464"
    )]
    NotLoopback,
    /// It is no plain absolute path.
    #[error("a directory is an absolute path, without `..`")]
    NotAbsolute,
}

/// `memory.max`, bytes or `none`.
///
/// # Errors
/// [`ValueError`] where it is no size, or out of [`check_memory`]'s range.
pub fn memory(text: &str) -> Result<Setting<u64>, ValueError> {
    or_none(text, |text| check_memory(units::parse_size(text)?))
}

/// `memory.swap.max`, bytes or `none`.
///
/// # Errors
/// [`ValueError`] where it is no size, or more than the kernel counts.
pub fn swap(text: &str) -> Result<Setting<u64>, ValueError> {
    or_none(text, |text| check_countable(units::parse_size(text)?))
}

/// `cpu.max`, cores or `none`.
///
/// # Errors
/// [`ValueError`] where it is no number, or out of [`check_cpus`]'s range.
pub fn cpus(text: &str) -> Result<Setting<f64>, ValueError> {
    or_none(text, |text| check_cpus(units::parse_cpus(text)?))
}

/// `pids.max` or `none`.
///
/// # Errors
/// [`ValueError`] where it is no whole number, or out of [`check_pids`]'s range.
pub fn pids(text: &str) -> Result<Setting<u64>, ValueError> {
    or_none(text, |text| check_pids(units::parse_count(text)?))
}

/// A budget of wall clock or CPU time, or `none`.
///
/// # Errors
/// [`ValueError`] where it is no time, or out of [`check_budget`]'s range.
pub fn budget(text: &str) -> Result<Setting<Duration>, ValueError> {
    or_none(text, |text| check_budget(units::parse_time(text)?))
}

/// The time between SIGTERM and cgroup.kill; 0 = at once.
///
/// # Errors
/// [`ValueError`] where it is no time, `none`, or longer than a budget may be.
pub fn grace(text: &str) -> Result<Duration, ValueError> {
    bounded(text, |text| check_not_endless(units::parse_time(text)?))
}

/// `USR1@2m`, `SIGUSR1@2m`, `10@2m` or `none`.
///
/// # Errors
/// [`ValueError`] where it is not of that form, the signal cannot be caught, or the time is 0.
pub fn warn(text: &str) -> Result<Setting<Warn>, ValueError> {
    or_none(text, |text| {
        let (name, time) = text.split_once('@').ok_or(ValueError::NotAWarning)?;
        let signal = signal(name.trim())?;
        let before = check_not_endless(units::parse_time(time)?)?;
        if before.is_zero() {
            return Err(ValueError::WarningAtDeadline);
        }
        Ok(Warn { signal, before })
    })
}

/// `kill` or `deny`.
///
/// # Errors
/// [`ValueError::UnknownWord`] for anything else.
pub fn on_pids_limit(text: &str) -> Result<OnPidsLimit, ValueError> {
    match text {
        "kill" => Ok(OnPidsLimit::Kill),
        "deny" => Ok(OnPidsLimit::Deny),
        _ => Err(ValueError::UnknownWord {
            given: text.to_owned(),
            words: "`kill` or `deny`",
        }),
    }
}

/// `whole` or `process`.
///
/// # Errors
/// [`ValueError::UnknownWord`] for anything else.
pub fn oom(text: &str) -> Result<OomScope, ValueError> {
    match text {
        "whole" => Ok(OomScope::Whole),
        "process" => Ok(OomScope::Process),
        _ => Err(ValueError::UnknownWord {
            given: text.to_owned(),
            words: "`whole` or `process`",
        }),
    }
}

/// Passes bytes that `memory.max` can hold: at least a page.
///
/// # Errors
/// [`ValueError::TooLittle`], [`ValueError::TooMuch`].
pub fn check_memory(bytes: u64) -> Result<u64, ValueError> {
    let page = page_size();
    if bytes < page {
        return Err(ValueError::TooLittle {
            given: format_bytes(bytes),
            least: format_bytes(page),
            why: "the kernel counts in pages, and a bare number is bytes",
        });
    }
    check_countable(bytes)
}

/// Passes cores that `cpu.max` can express: its quota is at least 1 ms in a period of at most 1 s
/// (`min_cfs_quota_period`, `max_cfs_quota_period` in kernel/sched/core.c), so 0.001.
///
/// # Errors
/// [`ValueError::TooLittle`], [`ValueError::TooMuch`].
pub fn check_cpus(cores: f64) -> Result<f64, ValueError> {
    if cores < MIN_CPUS {
        return Err(ValueError::TooLittle {
            given: format!("{cores} cores"),
            least: format_cpus(MIN_CPUS),
            why: "the kernel's smallest quota is 1 ms in a second",
        });
    }
    if cores > MAX_CPUS {
        return Err(ValueError::TooMuch {
            given: format!("{cores:e} cores"),
            most: format_cpus(MAX_CPUS),
            why: "no kernel runs on more; `none` lifts the limit",
        });
    }
    Ok(cores)
}

/// Passes a number of tasks that `pids.max` accepts: it refuses `PIDS_MAX`, which is
/// `PID_MAX_LIMIT` + 1 (kernel/cgroup/pids.c).
///
/// # Errors
/// [`ValueError::TooLittle`], [`ValueError::TooMuch`].
pub fn check_pids(tasks: u64) -> Result<u64, ValueError> {
    if tasks < 1 {
        return Err(ValueError::TooLittle {
            given: tasks.to_string(),
            least: "1".to_owned(),
            why: "the command itself is a task",
        });
    }
    if tasks > MAX_PIDS {
        return Err(ValueError::TooMuch {
            given: tasks.to_string(),
            most: MAX_PIDS.to_string(),
            why: "the kernel has no more process ids; `none` lifts the limit",
        });
    }
    Ok(tasks)
}

/// Passes a budget of time: more than nothing, at most 100 years.
///
/// # Errors
/// [`ValueError::TooLittle`], [`ValueError::TooMuch`].
pub fn check_budget(time: Duration) -> Result<Duration, ValueError> {
    if time < MIN_BUDGET {
        return Err(ValueError::TooLittle {
            given: format_duration(time),
            least: format_duration(MIN_BUDGET),
            why: "nothing could run; `none` lifts the limit",
        });
    }
    check_not_endless(time)
}

const SIGKILL: i32 = Signal::SIGKILL as i32;
const SIGSTOP: i32 = Signal::SIGSTOP as i32;
const MIN_CPUS: f64 = 0.001;
/// The largest CONFIG_NR_CPUS (arch/x86/Kconfig, MAXSMP).
const MAX_CPUS: f64 = 8192.0;
/// PID_MAX_LIMIT of a 64-bit kernel (include/linux/threads.h).
const MAX_PIDS: u64 = 4 << 20;
const MIN_BUDGET: Duration = Duration::from_millis(1);
/// 100 years: monotonic nanoseconds plus this stay within what timers and records hold.
const MAX_BUDGET: Duration = Duration::from_secs(36_525 * 86_400);

/// What `parse` makes of a text that is not `none`.
///
/// # Errors
/// Those of `parse`.
pub(crate) fn or_none<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, ValueError>,
) -> Result<Setting<T>, ValueError> {
    match text.trim() {
        "none" => Ok(Setting::Lifted),
        text => parse(text).map(Setting::Value),
    }
}

/// What `parse` makes of a text that asks for no limit under no name.
pub(crate) fn bounded<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, ValueError>,
) -> Result<T, ValueError> {
    match or_none(text, parse) {
        Ok(Setting::Value(value)) => Ok(value),
        Ok(Setting::Lifted) | Err(ValueError::Unit(UnitError::Unlimited)) => {
            Err(ValueError::NotLifted)
        }
        Err(error) => Err(error),
    }
}

/// PAGE_COUNTER_MAX (include/linux/page_counter.h) is what the kernel takes as `max`.
fn check_countable(bytes: u64) -> Result<u64, ValueError> {
    let most = i64::MAX.unsigned_abs() - page_size();
    if bytes > most {
        return Err(ValueError::TooMuch {
            given: format_bytes(bytes),
            most: format_bytes(most),
            why: "the kernel counts no further; `none` lifts the limit",
        });
    }
    Ok(bytes)
}

/// Passes a time of a hundred years at most.
///
/// # Errors
/// [`ValueError::TooMuch`].
pub(super) fn check_not_endless(time: Duration) -> Result<Duration, ValueError> {
    if time > MAX_BUDGET {
        return Err(ValueError::TooMuch {
            given: format_duration(time),
            most: format_duration(MAX_BUDGET),
            why: "that is a hundred years",
        });
    }
    Ok(time)
}

/// A signal by name, with or without SIG, or by number; not one that cannot be caught.
fn signal(name: &str) -> Result<i32, ValueError> {
    let unknown = || ValueError::UnknownSignal {
        name: name.to_owned(),
    };
    let number = match name.parse::<i32>() {
        // 32 and 33 belong to the C library (signal(7)).
        Ok(number @ (1..=31 | 34..=64)) if !name.starts_with('+') => number,
        Ok(_) => return Err(unknown()),
        Err(_) => {
            let upper = name.to_ascii_uppercase();
            let full = if upper.starts_with("SIG") {
                upper
            } else {
                format!("SIG{upper}")
            };
            Signal::from_str(&full).map_err(|_| unknown())? as i32
        }
    };
    match number {
        SIGKILL => Err(ValueError::Uncatchable { name: "SIGKILL" }),
        SIGSTOP => Err(ValueError::Uncatchable { name: "SIGSTOP" }),
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_lifts_every_limit() {
        assert_eq!(memory("none"), Ok(Setting::Lifted));
        assert_eq!(swap("none"), Ok(Setting::Lifted));
        assert_eq!(cpus("none"), Ok(Setting::Lifted));
        assert_eq!(pids("none"), Ok(Setting::Lifted));
        assert_eq!(budget("none"), Ok(Setting::Lifted));
        assert_eq!(warn("none"), Ok(Setting::Lifted));
    }

    #[test]
    fn the_ends_of_each_range_are_within_it() {
        assert_eq!(
            memory(&page_size().to_string()),
            Ok(Setting::Value(page_size()))
        );
        assert_eq!(swap("0"), Ok(Setting::Value(0)));
        assert_eq!(cpus("0.001"), Ok(Setting::Value(0.001)));
        assert_eq!(cpus("8192"), Ok(Setting::Value(8192.0)));
        assert_eq!(pids("1"), Ok(Setting::Value(1)));
        assert_eq!(pids("4194304"), Ok(Setting::Value(4_194_304)));
        assert_eq!(budget("1ms"), Ok(Setting::Value(Duration::from_millis(1))));
        assert_eq!(grace("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn signals_go_by_name_or_number() {
        let two_minutes = Duration::from_secs(120);
        for (text, number) in [
            ("USR1@2m", 10),
            ("SIGUSR1@2m", 10),
            ("usr1@120", 10),
            ("12@2m", 12),
            ("64@2m", 64),
            ("TERM @ 2m", 15),
        ] {
            let expected = Warn {
                signal: number,
                before: two_minutes,
            };
            assert_eq!(warn(text), Ok(Setting::Value(expected)), "{text}");
        }
    }

    #[test]
    fn values_out_of_range_say_what_the_range_is() {
        let mut lines = Vec::new();
        let mut say = |what: &str, text: &str, error: Option<ValueError>| {
            let error = error.expect("out of range");
            lines.push(format!("{what} {text}: {error}"));
        };
        for text in ["0", "1K", "18446744073709551615", "8192P", "half"] {
            say("memory", text, memory(text).err());
        }
        say("swap", "16383P", swap("16383P").err());
        for text in ["0", "0.0009", "8193", "1000000000000000000000000000000"] {
            say("cpus", text, cpus(text).err());
        }
        for text in ["0", "4194305", "1.5"] {
            say("pids", text, pids(text).err());
        }
        for text in ["0", "0.5ms", "40000d", "None"] {
            say("timeout", text, budget(text).err());
        }
        for text in ["none", "40000d"] {
            say("grace", text, grace(text).err());
        }
        for text in [
            "USR1",
            "@2m",
            "USR9@2m",
            "KILL@2m",
            "19@1s",
            "33@1s",
            "0@1s",
            "65@1s",
            "USR1@0",
            "USR1@",
            "USR1@soon",
        ] {
            say("warn", text, warn(text).err());
        }
        say("on-pids-limit", "stop", on_pids_limit("stop").err());
        say("oom", "", oom("").err());
        insta::assert_snapshot!(lines.join("\n"));
    }
}
