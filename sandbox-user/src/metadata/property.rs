//! Whatever a metadata document says: it is taken within the documented ranges, or refused with
//! file, line and key; and the three formats agree on it.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::document::Problem;
use crate::policy::{LimitOverrides, Setting};

const FORMATS: [(Format, &str); 3] = [
    (Format::Json, "a.json"),
    (Format::Yaml, "a.yaml"),
    (Format::Toml, "a.toml"),
];

/// Texts with many characters that a terminal would not just show.
fn dangerous_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[\\x00-\u{a0}\u{2000}-\u{2070}]{0,30}"]
}

/// Every key of the README's table, in one of its spellings.
const KEYS: [&str; 21] = [
    "memory",
    "memory_limit_mb",
    "mem_mib",
    "mem_mb",
    "swap",
    "cpus",
    "threads",
    "cpu_quota",
    "pids",
    "pids_limit",
    "timeout",
    "timeout_seconds",
    "runtime",
    "time",
    "cpu-time",
    "grace",
    "warn",
    "on_pids_limit",
    "oom",
    "thread-env",
    "labels",
];

/// A document whose `sandbox` table has these keys, each with this text, a line each, from line 2 on.
fn document(format: Format, pairs: &[(String, String)]) -> String {
    let quoted = |text: &str| serde_json::to_string(text).expect("text is JSON");
    // A JSON string of these characters is one in YAML and in TOML too.
    let line = |(key, value): &(String, String)| match format {
        Format::Json => format!("{}: {}", quoted(key), quoted(value)),
        Format::Yaml => format!("  {}: {}", quoted(key), quoted(value)),
        Format::Toml => format!("{} = {}", quoted(key), quoted(value)),
    };
    let lines: Vec<String> = pairs.iter().map(line).collect();
    match format {
        Format::Json => format!("{{\"sandbox\": {{\n{}}}}}", lines.join(",\n")),
        Format::Yaml => format!("sandbox:\n{}\n", lines.join("\n")),
        Format::Toml => format!("[sandbox]\n{}\n", lines.join("\n")),
    }
}

fn parse(format: Format, name: &str, text: &str) -> Result<Metadata, MetadataError> {
    Metadata::parse(text, format, Path::new(name))
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,20}",
        "[0-9]{1,4}\\.[0-9]{1,9}",
        "[0-9]{1,6} ?(B|K|MiB|G|TB|P|ms|s|m|min|h|d|%)",
        "(USR1|TERM|KILL|sigint|[0-9]{1,2}) ?@ ?[0-9]{1,9}(ms|s|m|d)?",
        Just("none".to_owned()),
        Just("kill".to_owned()),
        Just("whole".to_owned()),
        "[ -~]{0,12}",
    ]
}

fn pair() -> impl Strategy<Value = (String, String)> {
    (prop::sample::select(&KEYS[..]), value()).prop_map(|(key, value)| (key.to_owned(), value))
}

/// Checks a value, where there is one, against its range as the README and the kernel have it.
fn within<T: Copy + std::fmt::Debug>(
    setting: Option<Setting<T>>,
    is_right: impl Fn(T) -> bool,
) -> Result<(), TestCaseError> {
    if let Some(Setting::Value(value)) = setting {
        prop_assert!(is_right(value), "{value:?}");
    }
    Ok(())
}

fn ranges_hold(metadata: &Metadata) -> Result<(), TestCaseError> {
    let century = Duration::from_secs(36_525 * 86_400);
    let is_budget = |time| (Duration::from_millis(1)..=century).contains(&time);
    let LimitOverrides {
        memory_bytes,
        swap_bytes,
        cpus,
        pids,
        walltime,
        cputime,
    } = metadata.layer.limits;
    within(memory_bytes, |bytes| {
        (4096..=i64::MAX.unsigned_abs() - 4096).contains(&bytes)
    })?;
    within(swap_bytes, |bytes| bytes <= i64::MAX.unsigned_abs() - 4096)?;
    within(cpus, |cores| (0.001..=8192.0).contains(&cores))?;
    within(pids, |tasks| (1..=4_194_304).contains(&tasks))?;
    within(walltime, is_budget)?;
    within(cputime, is_budget)?;
    let actions = &metadata.layer.actions;
    within(actions.grace.map(Setting::Value), |grace| grace <= century)?;
    within(actions.warn, |warn| {
        matches!(warn.signal, 1..=8 | 10..=18 | 20..=31 | 34..=64)
            && !warn.before.is_zero()
            && warn.before <= century
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_text_makes_a_reader_panic(text in "(?s).{0,200}") {
        let _ = FORMATS.map(|(format, name)| parse(format, name, &text));
    }

    #[test]
    fn nearly_right_text_makes_no_reader_panic(
        parts in vec(
            prop_oneof![
                Just("sandbox"), Just("memory"), Just("labels"), Just(":"), Just(": "), Just("\n"), Just("  "), Just("{"),
                Just("}"), Just("["), Just("]"), Just("&a "), Just("*a"), Just("<<"), Just("\""), Just("'"), Just("="),
                Just(","), Just("1G"), Just("none"), Just("é"), Just("-"), Just("? "), Just("!!str "), Just("\\u00"),
            ],
            0..40,
        )
    ) {
        let text = parts.concat();
        let _ = FORMATS.map(|(format, name)| parse(format, name, &text));
    }

    #[test]
    fn sizes_mean_the_same_in_every_format(mebibytes in 1_u64..1_000_000) {
        let texts = [
            format!(r#"{{"sandbox": {{"mem_mib": {mebibytes}}}}}"#),
            format!("sandbox: {{memory: {mebibytes}MiB}}"),
            format!("sandbox.memory = {}", mebibytes << 20),
        ];
        for ((format, name), text) in FORMATS.into_iter().zip(texts) {
            let metadata = parse(format, name, &text).expect("accepted");
            prop_assert_eq!(metadata.layer.limits.memory_bytes, Some(Setting::Value(mebibytes << 20)));
        }
    }

    #[test]
    fn what_is_accepted_is_in_range_and_the_formats_agree(pairs in vec(pair(), 1..3)) {
        let mut outcomes = Vec::new();
        for (format, name) in FORMATS {
            let text = document(format, &pairs);
            outcomes.push(match parse(format, name, &text) {
                Ok(metadata) => {
                    ranges_hold(&metadata)?;
                    Ok((metadata.layer, metadata.thread_env))
                }
                Err(MetadataError::Document(DocumentError::Key { place, key, problem })) => {
                    Err((place.spot.map(|spot| spot.line), key, problem))
                }
                // Only TOML itself has something against a key that stands there twice.
                Err(MetadataError::Document(DocumentError::Syntax { .. }))
                    if format == Format::Toml && pairs.len() == 2 && pairs[0].0 == pairs[1].0 =>
                {
                    continue;
                }
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            });
        }
        let (first, others) = outcomes.split_first().expect("JSON has an outcome");
        for other in others {
            prop_assert_eq!(first, other);
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_line_and_key(
        key in prop_oneof![
            "[a-zA-Z0-9 _.@-]{1,20}",
            (prop::sample::select(&KEYS[..]), "[a-z ]?").prop_map(|(key, end)| key.to_uppercase() + &end),
            (prop::sample::select(&KEYS[..]), "[a-z ]").prop_map(|(key, end)| key.to_owned() + &end),
        ],
        before in 0..3_usize,
    ) {
        let is_known = KEYS.iter().any(|known| known.replace('_', "-") == key.replace('_', "-"));
        prop_assume!(!is_known);
        let known = [("memory", "4GiB"), ("cpus", "2"), ("pids", "200")];
        let known = known.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut pairs = known[..before].to_vec();
        pairs.push((key.clone(), "1".to_owned()));
        for (format, name) in FORMATS {
            let text = document(format, &pairs);
            let error = parse(format, name, &text).expect_err("an unknown key");
            let MetadataError::Document(DocumentError::Key { place, key: named, problem }) = &error else {
                return Err(TestCaseError::fail(error.to_string()));
            };
            prop_assert_eq!(place.path.as_path(), Path::new(name));
            prop_assert_eq!(place.spot.map(|spot| spot.line), Some(before + 2));
            prop_assert_eq!(named, &format!("sandbox.{key}"));
            let is_told = matches!(
                **problem,
                Problem::Unknown(_) | Problem::DidYouMean(_) | Problem::Forbidden(_)
            );
            prop_assert!(is_told, "{error}");
            let begins = error.to_string().starts_with(&format!("{name}:{}:", before + 2));
            prop_assert!(begins, "{error}");
        }
    }

    #[test]
    fn a_column_counts_characters(name in "[aé→𝄞]{0,20}") {
        let expected = name.chars().count();
        for (format, file, text, before) in [
            (Format::Json, "a.json", format!("{{\n\"{name}\": x}}"), 5),
            (Format::Yaml, "a.yaml", format!("x: 1\n\"{name}\": *b"), 5),
            (Format::Toml, "a.toml", format!("x = 1\n\"{name}\" = x"), 6),
        ] {
            let error = parse(format, file, &text).expect_err("no value");
            let MetadataError::Document(DocumentError::Syntax { place, .. }) = &error else {
                return Err(TestCaseError::fail(error.to_string()));
            };
            let spot = place.spot.map(|spot| (spot.line, spot.column));
            prop_assert_eq!(spot, Some((2, before + expected)), "{}", error);
        }
    }

    #[test]
    fn every_refusal_is_one_printable_line_that_names_the_file(text in dangerous_text(), key in dangerous_text()) {
        let around = document(Format::Json, &[(key, text.clone())]);
        for (format, name) in FORMATS {
            for text in [&text, &around] {
                if let Err(error) = parse(format, name, text) {
                    let shown = error.to_string();
                    prop_assert!(!shown.contains(crate::escape::tests::is_dangerous), "{shown:?}");
                    prop_assert!(shown.starts_with(name), "{shown}");
                    prop_assert!(shown.ends_with("(nothing was started)"), "{shown}");
                }
            }
        }
    }
}
