//! What the rows of a result hold, round by round.

use serde_json::{Value, json};

/// A result in the making: rows in the order in which they were first told of.
#[derive(Debug)]
pub(crate) struct Rows {
    name: String,
    unit: &'static str,
    rows: Vec<(String, Vec<f64>)>,
    unmeasured: Vec<(String, String)>,
}

impl Rows {
    /// Of the result `name`, whose rows are in `unit`.
    pub(crate) fn new(name: impl Into<String>, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            unit,
            rows: Vec::new(),
            unmeasured: Vec::new(),
        }
    }

    /// Adds what a round gave in a row.
    pub(crate) fn push(&mut self, row: &str, value: f64) {
        match self.rows.iter_mut().find(|(name, _)| name == row) {
            Some((_, rounds)) => rounds.push(value),
            None => self.rows.push((row.to_owned(), vec![value])),
        }
    }

    /// Says why a row has no numbers.
    pub(crate) fn unmeasured(&mut self, row: &str, why: &str) {
        if !self.unmeasured.iter().any(|(name, _)| name == row) {
            self.unmeasured.push((row.to_owned(), why.to_owned()));
        }
    }

    /// The result, with `besides` in it.
    pub(crate) fn result(self, besides: impl IntoIterator<Item = (String, f64)>) -> Value {
        let measured = self
            .rows
            .into_iter()
            .map(|(name, rounds)| json!({"name": name, "rounds": rounds}));
        let unmeasured = self
            .unmeasured
            .into_iter()
            .map(|(name, why)| json!({"name": name, "unmeasured": why}));
        let mut result = json!({
            "name": self.name,
            "unit": self.unit,
            "rows": measured.chain(unmeasured).collect::<Vec<_>>(),
        });
        for (name, number) in besides {
            result[name] = json!(number);
        }
        result
    }
}

/// The lowest of them that so many in a hundred do not exceed: 50 gives the median.
pub(crate) fn percentile(of: &[f64], percent: usize) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted[rank.max(1) - 1]
}
