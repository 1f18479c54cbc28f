//! Sizes and durations as people say them.

use std::time::Duration;

const UNITS: [(u64, &str); 4] = [
    (1 << 40, "TiB"),
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
];

/// A limit as it was set: `2 GiB`, `1536 MiB`; two decimals where no unit divides it.
pub(super) fn format_bytes(bytes: u64) -> String {
    for (unit, name) in UNITS {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            let whole = bytes / unit;
            // 1048576 KiB-like figures are for nobody: only where the number stays short.
            if whole < 10_000 {
                return format!("{whole} {name}");
            }
        }
    }
    format_bytes_precise(bytes)
}

/// A measured figure: `2.00 GiB`.
pub(super) fn format_bytes_precise(bytes: u64) -> String {
    for (unit, name) in UNITS {
        if bytes >= unit {
            // Rounded to hundredths in whole numbers.
            let hundredths = (u128::from(bytes) * 100 + u128::from(unit / 2)) / u128::from(unit);
            return format!("{}.{:02} {name}", hundredths / 100, hundredths % 100);
        }
    }
    format!("{bytes} bytes")
}

/// `3 min 12 s`, `1 h 30 min`, `250 ms`: two units at most.
pub(super) fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 10 && duration.subsec_millis() > 0 {
        return match (seconds, duration.subsec_millis()) {
            (0, millis) => format!("{millis} ms"),
            (seconds, millis) => format!("{seconds}.{} s", millis / 100),
        };
    }
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    let parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")];
    let Some(first) = parts.iter().position(|(count, _)| *count > 0) else {
        return "0 s".to_owned();
    };
    parts
        .iter()
        .skip(first)
        .take(2)
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_they_were_set() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (512, "512 bytes"),
            (64 << 20, "64 MiB"),
            (2 << 30, "2 GiB"),
            (1536 << 20, "1536 MiB"),
            (2_000_000_000, "1.86 GiB"),
            (u64::MAX, "16777216.00 TiB"),
        ] {
            assert_eq!(format_bytes(bytes), shown);
        }
        assert_eq!(format_bytes_precise((2 << 30) - 1), "2.00 GiB");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (millis, shown) in [
            (0, "0 s"),
            (250, "250 ms"),
            (1_540, "1.5 s"),
            (12_900, "12 s"),
            (192_000, "3 min 12 s"),
            (1_800_000, "30 min"),
            (3_601_000, "1 h"),
            (93_600_000, "1 d 2 h"),
        ] {
            assert_eq!(format_duration(Duration::from_millis(millis)), shown);
        }
    }
}
