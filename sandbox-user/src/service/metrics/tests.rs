use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::attribution::case::{Case, Kill, LEAF};
use crate::evidence::IntentReason;

/// A run that its own memory limit ended, of a user.
fn record(user: &str) -> RunRecord {
    let case = Case::named("own limit")
        .dies_at(192_000, nix::libc::SIGKILL)
        .with(Kill::oom(true, Some(LEAF)).at(191_991))
        .counts_own_oom();
    let mut record = case.record();
    record.user.name = Some(user.to_owned());
    record
}

fn samples(metrics: &Metrics) -> BTreeMap<String, f64> {
    let text = metrics.render(Format::OpenMetrics);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

#[test]
fn a_run_is_counted_with_all_that_its_record_says() {
    let metrics = Metrics::new();
    let mut record = record("ana");
    record.tracing.events = Some(11);
    record.tracing.dropped = Some(2);
    record.accepted_at = record.started_at.expect("it was started") - Duration::from_millis(250);
    record.walltime_ns = Some(192_000_000_000);
    record.cleanup.wall_ms = Some(12);
    let latencies = Latencies {
        spawn_ns: Some(5_000_000),
        kill_ns: Some(3_000_000),
    };
    metrics.record(&record, latencies);
    metrics.record(&record, latencies);

    let samples = samples(&metrics);
    for (name, value) in [
        (r#"sandbox_runs_total{reason="memory",user="ana"}"#, 2.0),
        (r#"sandbox_verdicts_total{confidence="exact"}"#, 2.0),
        (r#"sandbox_limits_hit_total{limit="memory"}"#, 2.0),
        (r#"sandbox_limits_hit_total{limit="pids"}"#, 0.0),
        (r#"sandbox_kills_total{cause="oom"}"#, 2.0),
        ("sandbox_kernel_events_total", 22.0),
        ("sandbox_kernel_events_dropped_total", 4.0),
        ("sandbox_start_seconds_sum", 0.5),
        (r#"sandbox_start_seconds_bucket{le="0.256"}"#, 2.0),
        (r#"sandbox_start_seconds_bucket{le="0.064"}"#, 0.0),
        ("sandbox_spawn_seconds_sum", 0.01),
        ("sandbox_kill_seconds_sum", 0.006),
        ("sandbox_cleanup_seconds_sum", 0.024),
        ("sandbox_walltime_seconds_sum", 384.0),
        (r#"sandbox_walltime_seconds_bucket{le="60.0"}"#, 0.0),
        (r#"sandbox_walltime_seconds_bucket{le="300.0"}"#, 2.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name} in {samples:#?}");
    }
}

#[test]
fn what_a_record_does_not_know_is_not_counted() {
    let metrics = Metrics::new();
    let mut record = Case::named("nobody watching")
        .unseen_end()
        .inferred()
        .record();
    record.started_at = None;
    record.walltime_ns = None;
    record.cleanup.wall_ms = None;
    metrics.record(&record, Latencies::default());
    // The clock was put back.
    record.started_at = Some(record.accepted_at - Duration::from_secs(3600));
    metrics.record(&record, Latencies::default());
    let samples = samples(&metrics);
    assert_eq!(
        samples.get(r#"sandbox_verdicts_total{confidence="inferred"}"#),
        Some(&2.0)
    );
    for name in ["start", "spawn", "kill", "cleanup", "walltime"] {
        let name = format!("sandbox_{name}_seconds_count");
        assert_eq!(samples.get(&name), Some(&0.0), "{name}");
    }
    assert_eq!(samples.get("sandbox_kernel_events_total"), Some(&0.0));
}

#[test]
fn a_signal_that_was_not_delivered_killed_nobody() {
    let metrics = Metrics::new();
    let mut record = record("ana");
    for kill in &mut record.kills {
        kill.delivered = None;
    }
    metrics.record(&record, Latencies::default());
    let counted = samples(&metrics);
    assert_eq!(
        counted.get(r#"sandbox_kills_total{cause="oom"}"#),
        Some(&0.0)
    );
}

#[test]
fn users_beyond_the_most_are_told_together() {
    let metrics = Metrics::new();
    let record = Case::named("completed").record();
    for number in 0..MOST_USERS + 20 {
        let mut record = record.clone();
        record.user.name = Some(format!("user{number}"));
        metrics.record(&record, Latencies::default());
        metrics.record(&record, Latencies::default());
    }
    let samples = samples(&metrics);
    let users: BTreeSet<&String> = samples
        .keys()
        .filter(|name| name.starts_with("sandbox_runs_total{"))
        .collect();
    assert_eq!(users.len(), MOST_USERS + 1);
    let of = |user: &str| {
        let name = format!(r#"sandbox_runs_total{{reason="completed",user="{user}"}}"#);
        samples.get(&name).copied()
    };
    assert_eq!(of("user0"), Some(2.0));
    assert_eq!(of(OTHER), Some(40.0));
}

#[test]
fn what_goes_on_and_what_was_refused_is_told() {
    let metrics = Metrics::default();
    metrics.set_running(3);
    metrics.set_running(2);
    metrics.set_queued(7);
    metrics.set_connections(9);
    metrics.refuse(Refusal::Queue);
    let samples = samples(&metrics);
    for (name, value) in [
        ("sandbox_running", 2.0),
        ("sandbox_queued", 7.0),
        ("sandbox_connections", 9.0),
        (r#"sandbox_refused_total{kind="queue"}"#, 1.0),
        (r#"sandbox_refused_total{kind="user_queue"}"#, 0.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}");
    }
}

#[test]
fn metrics_look_like_this() {
    let metrics = Metrics::new();
    metrics.record(&record("ana"), Latencies::default());
    let ended = Case::named("ended").acts(IntentReason::Walltime, 10);
    metrics.record(&ended.exits_at(11, 0).record(), Latencies::default());
    let text = metrics.render(Format::OpenMetrics);
    let families: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("# TYPE") || line.starts_with("# HELP"))
        .collect();
    insta::assert_snapshot!(families.join("\n"));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("sandbox_"), "{line}");
    }
}

/// The rules of OpenMetrics 1.0 that a text can break here: a family's lines stand together, `# TYPE` first of
/// all; samples have the suffixes of their type; no sample stands there twice; values are numbers; the end is
/// marked.
#[test]
fn the_text_is_openmetrics() {
    let metrics = Metrics::new();
    metrics.record(&record("a \"strange\\name\n# EOF"), Latencies::default());
    let text = metrics.render(Format::OpenMetrics);
    let body = text.strip_suffix("# EOF\n").expect("the end is marked");
    let (mut families, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let (mut family, mut kind) = ("", "");
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name, rest) = (words.next(), words.next(), words.next());
            let (Some(what), Some(name), Some(rest)) = (what, name, rest) else {
                panic!("a comment of three parts: {line}");
            };
            match what {
                "HELP" => {
                    assert!(families.insert(name), "{name} comes twice");
                    family = name;
                }
                "TYPE" => kind = rest,
                "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "{line}"),
                other => panic!("{other}: {line}"),
            }
            assert_eq!(name, family, "{line}");
            continue;
        }
        assert!(seen.insert(sample_of(line)), "{line} comes twice");
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let suffix = name.strip_prefix(family).expect("of its family");
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_count", "_sum"],
            "info" => &["_info"],
            other => panic!("{other}: {line}"),
        };
        assert!(suffixes.contains(&suffix), "{line}");
    }
    assert_eq!(families.len(), 17, "{families:?}");
}

/// A sample's name with its labels, once it is one: quotes in values are escaped, its value is a number.
fn sample_of(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    let end = line
        .find(|character| {
            match character {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                ' ' => return !quoted,
                _ => {}
            }
            false
        })
        .expect("a blank before the value");
    let (sample, value) = line.split_at(end);
    assert!(value.trim_start().parse::<f64>().is_ok(), "{line}");
    sample
}
