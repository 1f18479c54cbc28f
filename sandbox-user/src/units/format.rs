//! Quantities for people, as notes and errors show them.
//!
//! Binary units and short words; what the parsers of the parent module wrote is read back by them.

use std::fmt::Write;
use std::time::Duration;

const SIZE_UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// `2 GiB`, `64 MiB`, `1.5 GiB`, `512 bytes`: at most two decimals, none that says nothing.
pub fn format_bytes(bytes: u64) -> String {
    let (hundredths, unit) = in_binary_units(bytes);
    let number = trimmed(hundredths);
    format!("{number} {unit}")
}

/// `2.00 GiB`, `63.98 MiB`, `512 bytes`: always two decimals, for a measured value.
pub fn format_bytes_precise(bytes: u64) -> String {
    let (hundredths, unit) = in_binary_units(bytes);
    if unit == SIZE_UNITS[0] {
        return format!("{bytes} {unit}");
    }
    format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100)
}

/// `3 min 12 s`, `1 h 30 min`, `250 ms`, `1.25 s`, `2 d 4 h`; parts of a second are left out from
/// a minute on, and what is shorter than a millisecond is `0 ms`.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 {
        return match duration.subsec_millis() {
            0 if duration.is_zero() => "0 s".to_owned(),
            millis => format!("{millis} ms"),
        };
    }
    if seconds < 60 {
        let hundredths = u128::from(seconds) * 100 + u128::from(duration.subsec_millis() / 10);
        return format!("{} s", trimmed(hundredths));
    }
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let mut text = String::new();
    for (number, unit) in parts.into_iter().filter(|(number, _)| *number > 0) {
        let gap = if text.is_empty() { "" } else { " " };
        // Writing into a String cannot fail.
        let _ = write!(text, "{gap}{number} {unit}");
    }
    text
}

/// `1 core`, `1.5 cores`, `0.001 cores`.
pub fn format_cpus(cores: f64) -> String {
    let number = format!("{cores:.3}");
    let number = number.trim_end_matches('0').trim_end_matches('.');
    let noun = if number == "1" { "core" } else { "cores" };
    format!("{number} {noun}")
}

/// The value in hundredths of the largest unit that it holds at least once, and that unit; one unit
/// up where rounding would make it 1024.
fn in_binary_units(bytes: u64) -> (u128, &'static str) {
    let mut best = (u128::from(bytes) * 100, SIZE_UNITS[0]);
    for (exponent, unit) in SIZE_UNITS.iter().enumerate().skip(1) {
        let one = 1_u128 << (10 * exponent);
        if u128::from(bytes) < one && best.0 < 102_400 {
            break;
        }
        best = ((u128::from(bytes) * 100 + one / 2) / one, unit);
    }
    best
}

/// Hundredths as a number without zeros at its end.
fn trimmed(hundredths: u128) -> String {
    match (hundredths / 100, hundredths % 100) {
        (whole, 0) => format!("{whole}"),
        (whole, part) if part % 10 == 0 => format!("{whole}.{}", part / 10),
        (whole, part) => format!("{whole}.{part:02}"),
    }
}
