use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<Duration, String> {
    parse_time(text).map_err(|error| error.to_string())
}

#[test]
fn sizes_are_binary_but_for_those_with_a_plain_b() {
    for (text, bytes) in [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("2G", 2 << 30),
        ("2g", 2 << 30),
        ("2GiB", 2 << 30),
        ("2 GiB", 2 << 30),
        ("2gib", 2 << 30),
        ("2GB", 2_000_000_000),
        ("2gb", 2_000_000_000),
        ("1kB", 1000),
        ("1.5GiB", 3 << 29),
        ("0.5K", 512),
        ("0.3K", 307),
        (" 64MiB ", 64 << 20),
        ("18446744073709551615", u64::MAX),
        ("007", 7),
    ] {
        assert_eq!(size(text), Ok(bytes), "{text}");
    }
}

#[test]
fn times_are_seconds_when_bare() {
    for (text, millis) in [
        ("90", 90_000),
        ("0", 0),
        ("1.5", 1_500),
        ("90s", 90_000),
        ("30m", 1_800_000),
        ("30 min", 1_800_000),
        ("1h30m", 5_400_000),
        ("1h 30m 5s", 5_405_000),
        ("1.5h", 5_400_000),
        ("250ms", 250),
        ("2 h", 7_200_000),
        ("1day", 86_400_000),
        ("1d 3h", 97_200_000),
        ("2 hours 1 minute", 7_260_000),
    ] {
        assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    assert!(
        parse_time_with_units("90").is_err(),
        "a bare number is refused where a unit is needed"
    );
}

#[test]
fn cores_may_be_fractions_and_quotas_are_percentages() {
    assert_eq!(parse_cpus("0.5"), Ok(0.5));
    assert_eq!(parse_cpus("2"), Ok(2.0));
    assert_eq!(parse_percent("150%"), Ok(1.5));
    assert_eq!(parse_percent(" 50 % "), Ok(0.5));
}

#[test]
fn what_is_wrong_is_named() {
    let lines: Vec<String> = [
        "", "   ", "12x", "abc", "-5", "-1", "max", "1.5", "1..5", "5.", ".5", "2Gb", "1e9", "0x10", "2 G B", "+5",
        "99999999999999999999", "99999P", "4\u{1b}[31m", "१२", "NaN", "1\u{202e}M",
        "111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111",
    ]
    .iter()
    .map(|text| format!("{text:?}: {}", size(text).expect_err("not a size")))
    .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn what_is_wrong_with_a_time_is_named() {
    let lines: Vec<String> = [
        "",
        "1h30",
        "30m1h",
        "1h1h",
        "5 parsecs",
        "30M",
        "1:30:00",
        "-3s",
        "unlimited",
        "99999999999999d",
        "18446744073709551615",
        "h",
        "1h-5m",
    ]
    .iter()
    .map(|text| format!("{text:?}: {}", time(text).expect_err("not a time")))
    .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn what_is_wrong_with_cores_quotas_and_counts_is_named() {
    let mut lines = Vec::new();
    for text in ["", "150%", "-1", "nan", "2 cores", "1,5", "1e3"] {
        lines.push(format!(
            "cpus {text:?}: {}",
            parse_cpus(text).expect_err("not cores")
        ));
    }
    for text in ["150", "x%", "-20%", "50%%", "%"] {
        lines.push(format!(
            "quota {text:?}: {}",
            parse_percent(text).expect_err("not a quota")
        ));
    }
    for text in ["1.5", "10k", "", "-1", "99999999999999999999999"] {
        lines.push(format!(
            "count {text:?}: {}",
            parse_count(text).expect_err("not a count")
        ));
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn quantities_read_well() {
    assert_eq!(format_bytes(2 << 30), "2 GiB");
    assert_eq!(format_bytes(64 << 20), "64 MiB");
    assert_eq!(format_bytes(3 << 29), "1.5 GiB");
    assert_eq!(format_bytes(2_000_000_000), "1.86 GiB");
    assert_eq!(format_bytes(0), "0 bytes");
    assert_eq!(format_bytes((1 << 30) - 1), "1 GiB", "never 1024 MiB");
    assert_eq!(format_bytes(u64::MAX), "16 EiB");
    assert_eq!(format_bytes_precise(2 << 30), "2.00 GiB");
    assert_eq!(format_bytes_precise(67_088_384), "63.98 MiB");
    assert_eq!(format_bytes_precise(100), "100 bytes");
    assert_eq!(format_duration(Duration::from_secs(192)), "3 min 12 s");
    assert_eq!(format_duration(Duration::from_secs(5_400)), "1 h 30 min");
    assert_eq!(
        format_duration(Duration::from_secs(90_061)),
        "1 d 1 h 1 min 1 s"
    );
    assert_eq!(format_duration(Duration::from_millis(1_250)), "1.25 s");
    assert_eq!(format_duration(Duration::from_millis(59_999)), "59.99 s");
    assert_eq!(format_duration(Duration::from_micros(10)), "0 ms");
    assert_eq!(format_duration(Duration::ZERO), "0 s");
    assert_eq!(format_cpus(1.5), "1.5 cores");
    assert_eq!(format_cpus(1.0), "1 core");
    assert_eq!(format_cpus(10.0), "10 cores");
    assert_eq!(format_cpus(0.001), "0.001 cores");
}

/// What each parser has against a text.
fn refusals(text: &str) -> Vec<String> {
    [
        parse_size(text).err(),
        parse_bytes_in(text, 1 << 20).err(),
        parse_time(text).err(),
        parse_time_with_units(text).err(),
        parse_time_in(text, 60).err(),
        parse_cpus(text).err(),
        parse_percent(text).err(),
        parse_count(text).err(),
    ]
    .into_iter()
    .flatten()
    .map(|error| error.to_string())
    .collect()
}

proptest! {
    #[test]
    fn any_text_is_a_quantity_or_an_error_that_can_be_printed(text in any::<String>()) {
        for error in refusals(&text) {
            prop_assert!(!error.contains(crate::escape::tests::is_dangerous), "{error:?}");
        }
    }

    #[test]
    fn nearly_right_text_is_a_quantity_or_an_error_that_can_be_printed(
        text in "[-+ ]?[0-9.]{0,45}[ \u{a0}\t]?[a-zA-Z%]{0,4}[0-9.\u{661}]{0,4}[a-z\u{202e}]{0,3}"
    ) {
        for error in refusals(&text) {
            prop_assert!(!error.contains(crate::escape::tests::is_dangerous), "{error:?}");
        }
    }

    #[test]
    fn a_fraction_of_a_unit_is_rounded_down_to_a_whole_byte(whole in 0_u64..1 << 20, thousandths in 0_u64..1000, exponent in 0_usize..4) {
        let unit = 1_u64 << (10 * (exponent + 1));
        let text = format!("{whole}.{thousandths:03}{}", ["K", "MiB", "g", "TiB"][exponent]);
        let expected = (u128::from(whole) * 1000 + u128::from(thousandths)) * u128::from(unit) / 1000;
        prop_assert_eq!(parse_size(&text).map(u128::from), Ok(expected));
    }

    #[test]
    fn the_parts_of_a_time_add_up(days in 0_u64..1000, hours in 0_u64..100, minutes in 0_u64..100, seconds in 0_u64..100) {
        let expected = Duration::from_secs(((days * 24 + hours) * 60 + minutes) * 60 + seconds);
        prop_assert_eq!(parse_time(&format!("{days}d {hours}h{minutes}m {seconds} s")), Ok(expected));
        prop_assert_eq!(parse_time_with_units(&format!("{days} days {hours}hours {minutes} min {seconds}sec")), Ok(expected));
    }

    #[test]
    fn plain_numbers_of_a_fixed_unit_come_back(number in 0_u64..1 << 28) {
        let text = number.to_string();
        prop_assert_eq!(parse_bytes_in(&text, 1 << 20), Ok(number << 20));
        prop_assert_eq!(parse_time_in(&text, 60), Ok(Duration::from_secs(number * 60)));
        prop_assert_eq!(parse_count(&text), Ok(number));
        prop_assert_eq!(parse_percent(&format!("{text}%")).map(|cores| (cores * 100.0).round()), Ok(f64::from(u32::try_from(number).expect("below 2²⁸"))));
    }

    #[test]
    fn bytes_come_back(bytes: u64) {
        prop_assert_eq!(parse_size(&bytes.to_string()), Ok(bytes));
        prop_assert_eq!(parse_size(&format!("{bytes} B")), Ok(bytes));
    }

    #[test]
    fn whole_binary_units_come_back_from_their_formatting(number in 1_u64..1024, exponent in 1_u32..6) {
        let bytes = number << (10 * exponent);
        prop_assert_eq!(parse_size(&format_bytes(bytes)), Ok(bytes));
        prop_assert_eq!(parse_size(&format_bytes_precise(bytes)), Ok(bytes));
    }

    #[test]
    fn formatted_bytes_are_within_half_a_hundredth_of_their_unit(bytes in 1024_u64..(1 << 59)) {
        let back = parse_size(&format_bytes(bytes)).expect("formatted sizes parse");
        prop_assert!(back.abs_diff(bytes) <= bytes / 190 + 1, "{} became {}", bytes, back);
    }

    #[test]
    fn whole_seconds_come_back_from_their_formatting(seconds in 0_u64..10_000_000_000) {
        let duration = Duration::from_secs(seconds);
        prop_assert_eq!(parse_time(&format_duration(duration)), Ok(duration));
    }

    #[test]
    fn milliseconds_come_back(millis: u32) {
        prop_assert_eq!(parse_time(&format!("{millis}ms")), Ok(Duration::from_millis(u64::from(millis))));
    }

    #[test]
    fn cores_come_back(thousandths in 1_u32..10_000_000) {
        let cores = f64::from(thousandths) / 1000.0;
        let text = format_cpus(cores);
        let number = text.split(' ').next().unwrap_or_default();
        prop_assert_eq!(parse_cpus(number), Ok(cores));
    }
}
