//! The two forms of metrics: OpenMetrics, and the older text format of Prometheus.
//!
//! They differ in how a counter's family is named, in types, and in the end mark; `promtool check
//! metrics` and many a tool read the older one only.

use std::fmt::Write as _;

/// In which form metrics are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus, 0.0.4.
    Prometheus,
}

impl Format {
    /// What HTTP calls it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// What to answer to who accepts this (the header `Accept`): OpenMetrics where it is named, since what
    /// does not name it need not know it.
    pub fn for_accept(accept: &str) -> Self {
        let names = |range: &str| {
            let name = range.split(';').next().unwrap_or_default();
            name.trim()
                .eq_ignore_ascii_case("application/openmetrics-text")
        };
        if accept.split(',').any(names) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }
}

/// The text format of Prometheus, from OpenMetrics as `prometheus-client` writes it: `# HELP` before
/// `# TYPE` before the family's samples.
pub(super) fn to_prometheus(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut help = "";
    for line in open.lines() {
        if let Some(description) = line.strip_prefix("# HELP ") {
            help = description.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|description| description.split_once(' '))
        {
            // There, a family is called as its samples are.
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}"
            );
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_whom_it_is_known_to() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            (
                "text/plain, Application/OpenMetrics-Text",
                Format::OpenMetrics,
            ),
            ("text/plain;version=0.0.4", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("", Format::Prometheus),
        ] {
            assert_eq!(Format::for_accept(accept), format, "{accept}");
        }
    }

    #[test]
    fn a_family_is_described_by_the_name_of_its_samples() {
        let open = "# HELP a_runs Runs.\n# TYPE a_runs counter\na_runs_total{user=\"# TYPE\"} 1\n\
            # HELP a_build B.\n# TYPE a_build info\na_build_info{v=\"1\"} 1\n\
            # HELP a_t_seconds T.\n# TYPE a_t_seconds histogram\n# UNIT a_t_seconds seconds\na_t_seconds_sum 0.0\n# EOF\n";
        let old = "# HELP a_runs_total Runs.\n# TYPE a_runs_total counter\na_runs_total{user=\"# TYPE\"} 1\n\
            # HELP a_build_info B.\n# TYPE a_build_info gauge\na_build_info{v=\"1\"} 1\n\
            # HELP a_t_seconds T.\n# TYPE a_t_seconds histogram\na_t_seconds_sum 0.0\n";
        assert_eq!(to_prometheus(open), old);
    }
}
