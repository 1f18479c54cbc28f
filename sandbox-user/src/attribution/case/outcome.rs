//! What a verdict has to be like, said after the ending that it is of.

use super::{Attribution, Confidence, RetryHint};

/// A verdict to look at more closely.
pub(crate) struct Outcome {
    pub(super) name: &'static str,
    pub(crate) attribution: Attribution,
}

impl Outcome {
    #[track_caller]
    pub(crate) fn hint(self, hint: RetryHint) -> Self {
        assert_eq!(self.attribution.retry_hint, hint, "{}", self.name);
        self
    }

    #[track_caller]
    pub(crate) fn surely(self) -> Self {
        let Attribution {
            confidence,
            degraded,
            ..
        } = &self.attribution;
        assert_eq!(
            *confidence,
            Confidence::Exact,
            "{}: {degraded:?}",
            self.name
        );
        assert!(degraded.is_empty(), "{}: {degraded:?}", self.name);
        self
    }

    #[track_caller]
    pub(crate) fn confidence(self, confidence: Confidence) -> Self {
        assert_eq!(self.attribution.confidence, confidence, "{}", self.name);
        self
    }

    #[track_caller]
    pub(crate) fn rests_on(self, part: &str) -> Self {
        let lines: Vec<String> = self
            .attribution
            .evidence
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(
            lines.iter().any(|line| line.contains(part)),
            "{}: {part:?} is not in {lines:#?}",
            self.name
        );
        self
    }

    #[track_caller]
    pub(crate) fn degraded(self, part: &str) -> Self {
        let lines = &self.attribution.degraded;
        assert!(
            lines.iter().any(|line| line.contains(part)),
            "{}: {part:?} is not in {lines:#?}",
            self.name
        );
        self
    }

    #[track_caller]
    pub(crate) fn systemd(self, term: Option<&str>) -> Self {
        let found = self.attribution.nearest_terms.systemd.as_deref();
        assert_eq!(found, term, "{}", self.name);
        self
    }
}
