//! How the wall clock limit of a run that goes on is changed (`sandbox update --timeout`), and whether it
//! may be.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::values::{self, ValueError};
use super::{Ceiling, PolicyError, Setting};
use crate::limits::{Limit, Source};
use crate::units::format_duration;

/// `+1h`, `-10m`, `2h` or `none`; in JSON the same text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TimeoutChange {
    /// So much more than it has.
    More(Duration),
    /// So much less.
    Less(Duration),
    /// This instead, from its start.
    To(Setting<Duration>),
}

/// Why a run's wall clock limit is not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeoutError {
    /// There is nothing to add to.
    #[error("it has no timeout that could be made longer or shorter: give a whole one, such as 2h")]
    None,
    /// It would have ended by then.
    #[error(
        "with a timeout of {} it would have ended already, since it goes on for {}: give it more, or `sandbox kill` it",
        format_duration(*.timeout), format_duration(*.elapsed)
    )]
    Passed {
        /// The limit that it was to have.
        timeout: Duration,
        /// How long it goes on.
        elapsed: Duration,
    },
    /// It is out of range.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// It is more than the host allows.
    #[error(transparent)]
    Ceiling(#[from] PolicyError),
}

impl TimeoutChange {
    /// What becomes of a run's limit, of which so much has passed, and what is to be said of that. It is held to
    /// a ceiling where it is more than it was.
    ///
    /// # Errors
    /// [`TimeoutError`]; the limit then stays.
    pub fn settle(
        self,
        present: Limit<Duration>,
        elapsed: Duration,
        ceiling: Option<Ceiling<Duration>>,
    ) -> Result<(Limit<Duration>, Option<String>), TimeoutError> {
        let has = || present.value.ok_or(TimeoutError::None);
        let wanted = match self {
            Self::More(time) => Some(values::check_not_endless(has()?.saturating_add(time))?),
            Self::Less(time) => Some(has()?.saturating_sub(time)),
            Self::To(setting) => setting.into_option(),
        };
        let mut limit = Limit::new(wanted, Source::Update);
        let is_more = match (wanted, present.value) {
            (Some(wanted), Some(has)) => wanted > has,
            (None, Some(_)) => true,
            (Some(_) | None, None) => false,
        };
        let lowered = match ceiling.filter(|_| is_more) {
            Some(ceiling) => ceiling.not_below(present.value).hold_timeout(&mut limit)?,
            None => None,
        };
        match limit.value {
            Some(timeout) if timeout <= elapsed => Err(TimeoutError::Passed { timeout, elapsed }),
            Some(_) | None => Ok((limit, lowered)),
        }
    }
}

impl FromStr for TimeoutChange {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        let time = |text| match values::budget(text)? {
            Setting::Value(time) => Ok(time),
            Setting::Lifted => Err(ValueError::NotLifted),
        };
        match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(more), _) => time(more).map(Self::More),
            (None, Some(less)) => time(less).map(Self::Less),
            (None, None) => values::budget(text).map(Self::To),
        }
    }
}

impl fmt::Display for TimeoutChange {
    /// In seconds, so that nothing is rounded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, time) = match self {
            Self::More(time) => ("+", time),
            Self::Less(time) => ("-", time),
            Self::To(Setting::Value(time)) => ("", time),
            Self::To(Setting::Lifted) => return f.write_str("none"),
        };
        let (seconds, nanos) = (time.as_secs(), time.subsec_nanos());
        match nanos {
            0 => write!(f, "{sign}{seconds}s"),
            nanos => {
                let fraction = format!("{nanos:09}");
                write!(f, "{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
            }
        }
    }
}

impl TryFrom<String> for TimeoutChange {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<TimeoutChange> for String {
    fn from(change: TimeoutChange) -> Self {
        change.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Excess;

    const MINUTE: Duration = Duration::from_secs(60);

    fn change(text: &str) -> TimeoutChange {
        text.parse().expect(text)
    }

    /// An hour, of which so many minutes have passed.
    fn settled(
        text: &str,
        minutes: u32,
        ceiling: Option<Ceiling<Duration>>,
    ) -> Result<(Limit<Duration>, Option<String>), String> {
        let hour = Limit::new(Some(60 * MINUTE), Source::Metadata);
        let settled = change(text).settle(hour, minutes * MINUTE, ceiling);
        settled.map_err(|error| error.to_string())
    }

    fn at_most(minutes: u32, otherwise: Excess) -> Option<Ceiling<Duration>> {
        Some(Ceiling {
            at_most: Setting::Value(minutes * MINUTE),
            otherwise: Some(otherwise),
        })
    }

    #[test]
    fn each_form_is_read_and_written_the_same() {
        for (text, expected) in [
            ("+1h", TimeoutChange::More(60 * MINUTE)),
            (" -10m", TimeoutChange::Less(10 * MINUTE)),
            ("1h30m", TimeoutChange::To(Setting::Value(90 * MINUTE))),
            ("+0.25", TimeoutChange::More(Duration::from_millis(250))),
            ("none", TimeoutChange::To(Setting::Lifted)),
        ] {
            let read = change(text);
            assert_eq!(read, expected, "{text}");
            assert_eq!(change(&read.to_string()), expected, "{read}");
            let json = serde_json::to_string(&read).expect("JSON");
            assert_eq!(
                serde_json::from_str::<TimeoutChange>(&json).expect("its own"),
                read
            );
        }
        for text in [
            "", "+", "-", "+0", "++1h", "+-1h", "+none", "-none", "soon", "40000d",
        ] {
            assert!(text.parse::<TimeoutChange>().is_err(), "{text}");
        }
    }

    #[test]
    fn more_and_less_count_from_what_it_has_and_the_rest_from_its_start() {
        for (text, minutes) in [
            ("+1h", Some(120)),
            ("-10m", Some(50)),
            ("2h", Some(120)),
            ("none", None),
        ] {
            let expected = Limit::new(minutes.map(|minutes| minutes * MINUTE), Source::Update);
            assert_eq!(settled(text, 30, None), Ok((expected, None)), "{text}");
        }
        let lifted = Limit::new(None, Source::CommandLine);
        for text in ["+1h", "-1h"] {
            let settled = change(text).settle(lifted, MINUTE, None);
            assert_eq!(settled, Err(TimeoutError::None));
        }
        assert!(change("1h").settle(lifted, MINUTE, None).is_ok());
    }

    #[test]
    fn a_deadline_that_has_passed_is_refused() {
        for (text, said) in [("-30m", "30 min"), ("30m", "30 min"), ("-2h", "0 s")] {
            let error = settled(text, 30, None).expect_err("it has passed");
            assert!(
                error.contains(&format!("with a timeout of {said} it")),
                "{error}"
            );
            assert!(error.contains("goes on for 30 min"), "{error}");
        }
        assert!(settled("31m", 30, None).is_ok());
        assert!(settled("+36525d", 30, None).is_err_and(|error| error.contains("hundred years")));
    }

    #[test]
    fn what_is_more_than_the_ceiling_is_refused_or_lowered_as_at_the_start() {
        for text in ["+1h", "2h", "none"] {
            let error = settled(text, 30, at_most(90, Excess::Refuse)).expect_err("refused");
            assert!(
                error.contains("(sandbox update)") && error.contains("1 h 30 min"),
                "{error}"
            );
            let (limit, said) = settled(text, 30, at_most(90, Excess::Cap)).expect("lowered");
            assert_eq!(
                (limit.value, limit.source),
                (Some(90 * MINUTE), Source::Ceiling)
            );
            assert!(said.is_some_and(|said| said.contains("lowered")), "{text}");
        }
        assert!(settled("+30m", 30, at_most(90, Excess::Refuse)).is_ok());
        // Root had given it more, some of which is given back.
        assert!(settled("-1m", 30, at_most(30, Excess::Refuse)).is_ok());
        // Who asks for more is not given less.
        assert!(settled("+1m", 10, at_most(30, Excess::Cap)).is_err());
    }
}
