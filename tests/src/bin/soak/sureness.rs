//! Why a record that says what is true may not know it exactly.
//!
//! That something is in `tracing.degraded` explains nothing by itself: it has to be a sentence that
//! lowers the confidence so far and no further, and that a run of its kind can come to.

use sandbox_tests::Record;

/// A reason not to be sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// The kernel makes no signal of what ended main, and another ending looks the same.
    NoSignal,
    /// The kernel skipped programs, or they had no room to mark what they saw: in any run of the
    /// host, so that it can befall each.
    Skipped,
    /// `sandbox` died before the kernel side watched.
    NotWatching,
}

/// What the evidence concludes from that.
const NO_SIGNAL: &str = "SIGKILL without a signal is strict seccomp's, or a kernel oops's";

/// How sure a record is, and whether it says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sureness {
    /// It knows exactly what can be known so.
    Exact,
    /// It does not, for this reason, which it gives.
    Explained(Doubt),
    /// It is not as sure as it should be, or surer, and gives no reason that explains it.
    Unexplained,
}

impl Doubt {
    /// What is known in spite of it.
    const fn confidence(self) -> &'static str {
        match self {
            Self::NoSignal | Self::Skipped => "strong",
            Self::NotWatching => "inferred",
        }
    }

    /// Whether the record gives it.
    fn is_in(self, record: &Record) -> bool {
        let told = |is_it: &dyn Fn(&str) -> bool| {
            let sentences = record.list("/tracing/degraded").iter();
            sentences
                .filter_map(|sentence| sentence.as_str())
                .any(is_it)
        };
        match self {
            Self::NoSignal => {
                record.has_finding("conclusion")
                    && record.finding("conclusion")["text"] == NO_SIGNAL
            }
            Self::Skipped => told(&|sentence| {
                sentence.starts_with("the kernel skipped ")
                    && sentence.ends_with(" meanwhile, in this run or in others")
                    || sentence.ends_with(" on this host found no room to be marked as such")
            }),
            Self::NotWatching => {
                told(&|sentence| sentence == "the kernel side was not watching when sandbox died")
            }
        }
    }
}

impl Sureness {
    /// That of a record: there has to be this doubt, where there is one, and these there may be.
    pub(crate) fn of(record: &Record, due: Option<Doubt>, possible: &[Doubt]) -> Self {
        let confidence = record.confidence();
        if confidence == "exact" {
            return match due {
                None => Self::Exact,
                Some(_) => Self::Unexplained,
            };
        }
        let explains = |doubt: &&Doubt| doubt.confidence() == confidence && doubt.is_in(record);
        let doubt = due.iter().chain(possible).find(explains);
        doubt.map_or(Self::Unexplained, |doubt| Self::Explained(*doubt))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SKIPPED: &str = "the kernel skipped 2 runs of exec meanwhile, in this run or in others";
    const NOT_WATCHING: &str = "the kernel side was not watching when sandbox died";

    fn of(confidence: &str, degraded: &[&str], due: Option<Doubt>, possible: &[Doubt]) -> Sureness {
        let conclusion = json!({"fact": "conclusion", "text": NO_SIGNAL});
        let evidence = if due.is_some() {
            vec![conclusion]
        } else {
            vec![]
        };
        let record = json!({
            "termination": {"confidence": confidence, "evidence": evidence},
            "tracing": {"degraded": degraded},
        });
        Sureness::of(&Record::parse(&record.to_string()), due, possible)
    }

    #[test]
    fn a_sentence_explains_the_confidence_that_it_leads_to_and_no_other() {
        let possible = [Doubt::Skipped, Doubt::NotWatching];
        for (confidence, sentence, doubt) in [
            ("strong", SKIPPED, Doubt::Skipped),
            ("inferred", NOT_WATCHING, Doubt::NotWatching),
        ] {
            let explained = Sureness::Explained(doubt);
            assert_eq!(
                of(confidence, &["so", sentence], None, &possible),
                explained
            );
            let other = if confidence == "strong" {
                "inferred"
            } else {
                "strong"
            };
            assert_eq!(
                of(other, &[sentence], None, &possible),
                Sureness::Unexplained
            );
        }
    }

    #[test]
    fn what_cannot_come_of_a_run_of_its_kind_or_is_about_something_else_explains_nothing() {
        let unexplained = Sureness::Unexplained;
        assert_eq!(
            of("inferred", &[NOT_WATCHING], None, &[Doubt::Skipped]),
            unexplained
        );
        assert_eq!(
            of("strong", &["runs as root"], None, &[Doubt::Skipped]),
            unexplained
        );
        assert_eq!(of("strong", &[], None, &[Doubt::Skipped]), unexplained);
    }

    #[test]
    fn who_is_exact_needs_no_excuse_unless_nobody_can_be() {
        assert_eq!(of("exact", &[], None, &[Doubt::Skipped]), Sureness::Exact);
        let due = Some(Doubt::NoSignal);
        assert_eq!(of("exact", &[], due, &[]), Sureness::Unexplained);
        assert_eq!(
            of("strong", &[], due, &[]),
            Sureness::Explained(Doubt::NoSignal)
        );
        assert_eq!(of("inferred", &[], due, &[]), Sureness::Unexplained);
    }
}
