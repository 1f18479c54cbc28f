//! Sizes, times, cores and counts: what people write, and how it is written back to them.
//!
//! One grammar serves the command line and the metadata, so that `1.5GiB` means the same in both.
//! All arithmetic is checked and on integers: a limit is never rounded through a float, and a
//! number too large is an error instead of a wrapped limit. Errors name the part that is wrong;
//! whoever holds the flag or the key adds that and the whole text.

mod format;
mod text;

use std::time::Duration;

pub use format::{format_bytes, format_bytes_precise, format_cpus, format_duration};
pub use text::{Printable, Quoted, is_unprintable};

/// Why a text is not a size, a time, a number of cores or a count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Nothing, or only blanks.
    #[error("it is empty: {example}")]
    Empty {
        /// What could have stood there.
        example: &'static str,
    },
    /// It begins with a minus sign.
    #[error("it cannot be negative")]
    Negative,
    /// A word that other tools use where this one says `none`.
    #[error("write `none` to lift a limit")]
    Unlimited,
    /// It does not begin with a number.
    #[error("`{}` is not a number: {example}", Quoted(.part))]
    NotANumber {
        /// Where the number was expected.
        part: String,
        /// What could have stood there.
        example: &'static str,
    },
    /// The number is followed by something that is no unit.
    #[error("unknown unit `{}`: {accepted}", Quoted(.unit))]
    UnknownUnit {
        /// What stands in the unit's place.
        unit: String,
        /// The units that there are.
        accepted: &'static str,
    },
    /// A number without a unit, where it could mean several things.
    #[error("`{}` has no unit: {accepted}", Quoted(.part))]
    MissingUnit {
        /// The number.
        part: String,
        /// What to write.
        accepted: &'static str,
    },
    /// `1h2h`, or `30m1h`.
    #[error(
        "`{unit}` stands after a unit as small or smaller: write each unit once, the largest first, as in `1h30m`"
    )]
    UnitOrder {
        /// The unit out of place.
        unit: String,
    },
    /// A fraction of something that cannot be divided.
    #[error("it must be a whole number")]
    NotWhole,
    /// More than can be represented.
    #[error("it is too large to be represented; `none` lifts a limit")]
    TooLarge,
}

/// Bytes from `512MiB`, `2G`, `2 GiB` (binary), `2GB` (decimal) or a bare number.
///
/// Letters may be of either case, except that `Mb` and the like, which mean bits, are refused.
/// Fractions of a unit are rounded down to a whole byte.
///
/// # Errors
/// [`UnitError`] where the text is no size or exceeds 2⁶⁴−1 bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    const ACCEPTED: &str =
        "use B, K, M, G, T or KiB, MiB, GiB, TiB (binary), or kB, MB, GB, TB (decimal)";
    let (number, unit) = Decimal::lead(text, "a size is written 512MiB, 2GiB or 2GB")?;
    let unit = unit.trim();
    let unknown = || UnitError::UnknownUnit {
        unit: unit.to_owned(),
        accepted: ACCEPTED,
    };
    let is_bits = unit.len() == 2
        && unit.ends_with('b')
        && unit.starts_with(|c: char| c.is_ascii_uppercase());
    if is_bits {
        return Err(unknown());
    }
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" | "byte" | "bytes" if number.scale > 0 => {
            return Err(UnitError::MissingUnit {
                part: text.trim().to_owned(),
                accepted: "bytes are whole, a fraction is one of a unit, as in 1.5GiB",
            });
        }
        "" | "b" | "byte" | "bytes" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "p" | "pib" => 1 << 50,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "pb" => 1_000_000_000_000_000,
        _ => return Err(unknown()),
    };
    number.times(factor)
}

/// A bare number of some unit of `bytes_per_unit` bytes, as the aliases of metadata have them.
///
/// # Errors
/// [`UnitError`] where the text is not a plain number or is too large.
pub fn parse_bytes_in(text: &str, bytes_per_unit: u64) -> Result<u64, UnitError> {
    Decimal::alone(text, PLAIN_NUMBER)?.times(bytes_per_unit)
}

/// A time from `90s`, `30m`, `1h30m`, `250ms`, `1d 3h`, `2 hours`; a bare number is seconds.
///
/// # Errors
/// [`UnitError`] where the text is no time or exceeds 2⁶⁴−1 ns (584 years).
pub fn parse_time(text: &str) -> Result<Duration, UnitError> {
    match Decimal::alone(text, "a time is written 90s, 30m or 1h30m") {
        Ok(seconds) => Ok(Duration::from_nanos(seconds.times(NANOS_PER_SECOND)?)),
        Err(UnitError::UnknownUnit { .. }) => parse_time_with_units(text),
        Err(other) => Err(other),
    }
}

/// A time whose every number has its unit, as Nextflow's `time` (`2 h`, `1day`, `1d 3h`), where a
/// bare number would be milliseconds.
///
/// # Errors
/// As [`parse_time`], and for a number without a unit.
pub fn parse_time_with_units(text: &str) -> Result<Duration, UnitError> {
    const ACCEPTED: &str = "use ms, s, m, h or d, as in `90s` or `1h30m`";
    let mut rest = text.trim();
    let mut nanos: u64 = 0;
    let mut last_factor = u64::MAX;
    loop {
        let (number, after) = Decimal::lead(rest, "a time is written 90s, 30m or 1h30m")?;
        let after = after.trim_start();
        let end = after
            .find(|c: char| c.is_ascii_digit() || c.is_whitespace())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let factor = match unit {
            "" => {
                return Err(UnitError::MissingUnit {
                    part: rest.to_owned(),
                    accepted: ACCEPTED,
                });
            }
            "ms" | "milli" | "millis" => 1_000_000,
            "s" | "sec" | "second" | "seconds" => NANOS_PER_SECOND,
            "m" | "min" | "minute" | "minutes" => 60 * NANOS_PER_SECOND,
            "h" | "hour" | "hours" => 3_600 * NANOS_PER_SECOND,
            "d" | "day" | "days" => 86_400 * NANOS_PER_SECOND,
            _ => {
                return Err(UnitError::UnknownUnit {
                    unit: unit.to_owned(),
                    accepted: ACCEPTED,
                });
            }
        };
        if factor >= last_factor {
            return Err(UnitError::UnitOrder {
                unit: unit.to_owned(),
            });
        }
        last_factor = factor;
        nanos = nanos
            .checked_add(number.times(factor)?)
            .ok_or(UnitError::TooLarge)?;
        rest = next.trim_start();
        if rest.is_empty() {
            return Ok(Duration::from_nanos(nanos));
        }
    }
}

/// A bare number of some unit of `seconds_per_unit` seconds, as the aliases of metadata have them.
///
/// # Errors
/// [`UnitError`] where the text is not a plain number or is too large.
pub fn parse_time_in(text: &str, seconds_per_unit: u64) -> Result<Duration, UnitError> {
    let nanos = seconds_per_unit
        .checked_mul(NANOS_PER_SECOND)
        .ok_or(UnitError::TooLarge)?;
    Ok(Duration::from_nanos(
        Decimal::alone(text, PLAIN_NUMBER)?.times(nanos)?,
    ))
}

/// Cores from `1`, `0.5`.
///
/// # Errors
/// [`UnitError`] where the text is not a plain number; a percentage is told how to be written.
pub fn parse_cpus(text: &str) -> Result<f64, UnitError> {
    let (_, rest) = Decimal::lead(text, "a number of cores is written 2 or 0.5")?;
    match rest.trim() {
        "" => text.trim().parse().map_err(|_| UnitError::TooLarge),
        unit => Err(UnitError::UnknownUnit {
            unit: unit.to_owned(),
            accepted: "cores are a plain number, 1.5 for one and a half",
        }),
    }
}

/// Cores from a share of one core: `150%` is 1.5.
///
/// # Errors
/// [`UnitError`] where the text is not a number followed by `%`.
pub fn parse_percent(text: &str) -> Result<f64, UnitError> {
    const ACCEPTED: &str = "a quota is written 150%, for one and a half cores";
    let (_, rest) = Decimal::lead(text, ACCEPTED)?;
    match rest.trim() {
        "%" => {
            let number = text.trim().trim_end_matches('%').trim_end();
            number
                .parse::<f64>()
                .map(|percent| percent / 100.0)
                .map_err(|_| UnitError::TooLarge)
        }
        "" => Err(UnitError::MissingUnit {
            part: text.trim().to_owned(),
            accepted: ACCEPTED,
        }),
        unit => Err(UnitError::UnknownUnit {
            unit: unit.to_owned(),
            accepted: ACCEPTED,
        }),
    }
}

/// A whole number.
///
/// # Errors
/// [`UnitError`] where the text is not a plain whole number below 2⁶⁴.
pub fn parse_count(text: &str) -> Result<u64, UnitError> {
    let number = Decimal::alone(text, PLAIN_NUMBER)?;
    if number.scale > 0 {
        Err(UnitError::NotWhole)
    } else {
        number.times(1)
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const PLAIN_NUMBER: &str = "a plain number is expected";

/// Digits, and how many of them stand behind the point.
#[derive(Clone, Copy, Debug)]
struct Decimal {
    digits: u128,
    scale: u32,
}

impl Decimal {
    /// The number that `text` begins with, and what follows it.
    fn lead<'a>(text: &'a str, example: &'static str) -> Result<(Self, &'a str), UnitError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(UnitError::Empty { example });
        }
        if ["unlimited", "infinity", "inf", ".inf", "max", "-1", "never"]
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word))
        {
            return Err(UnitError::Unlimited);
        }
        if text.starts_with('-') {
            return Err(UnitError::Negative);
        }
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, rest) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let malformed = whole.is_empty()
            || fraction.contains('.')
            || (fraction.is_empty() && number.contains('.'));
        if malformed {
            return Err(UnitError::NotANumber {
                part: text.to_owned(),
                example,
            });
        }
        let mut digits: u128 = 0;
        for digit in whole.bytes().chain(fraction.bytes()) {
            digits = digits
                .checked_mul(10)
                .and_then(|shifted| shifted.checked_add(u128::from(digit - b'0')))
                .ok_or(UnitError::TooLarge)?;
        }
        let scale = u32::try_from(fraction.len()).map_err(|_| UnitError::TooLarge)?;
        Ok((Self { digits, scale }, rest))
    }

    /// The number that `text` is.
    fn alone(text: &str, example: &'static str) -> Result<Self, UnitError> {
        let (number, rest) = Self::lead(text, example)?;
        match rest.trim() {
            "" => Ok(number),
            unit => Err(UnitError::UnknownUnit {
                unit: unit.to_owned(),
                accepted: PLAIN_NUMBER,
            }),
        }
    }

    /// Itself times `factor`, rounded down.
    fn times(self, factor: u64) -> Result<u64, UnitError> {
        let product = self
            .digits
            .checked_mul(u128::from(factor))
            .ok_or(UnitError::TooLarge)?;
        let divisor = 10_u128.checked_pow(self.scale).ok_or(UnitError::TooLarge)?;
        u64::try_from(product / divisor).map_err(|_| UnitError::TooLarge)
    }
}

#[cfg(test)]
mod tests;
