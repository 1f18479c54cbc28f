//! What a suite has measured, as people read it.

use std::fmt;

use anyhow::{Context, Result};
use serde_json::Value;

/// The rows of one measurement, and what was measured besides.
#[derive(Debug)]
pub(super) struct Table {
    name: String,
    /// Of what the rows say.
    unit: String,
    rows: Vec<Row>,
    besides: Vec<String>,
}

#[derive(Debug)]
struct Row {
    name: String,
    found: Found,
}

#[derive(Debug)]
enum Found {
    Measured {
        /// The median of the rounds.
        median: f64,
        /// Over what was measured of the first row in the same round: the median of the rounds, the lowest, the
        /// highest.
        ratios: [f64; 3],
    },
    /// Why there is nothing.
    Unmeasured(String),
}

impl Table {
    /// That of a result: its `name`, its `rows`, which are in its `unit`, and each number in it.
    pub(super) fn of(result: &Value) -> Result<Self> {
        let text = |key: &str| {
            let text = result[key].as_str().map(ToOwned::to_owned);
            text.with_context(|| format!("a result without {key}: {result}"))
        };
        let rows = result["rows"].as_array().context("a result without rows")?;
        let over = rounds(rows.first().context("a result without rows")?)?;
        let all = result.as_object().context("a result that is no object")?;
        let number =
            |(name, value): (&String, &Value)| Some(format!("{name}: {:.0}", value.as_f64()?));
        Ok(Self {
            name: text("name")?,
            unit: text("unit")?,
            rows: rows
                .iter()
                .map(|row| Row::of(row, &over))
                .collect::<Result<_>>()?,
            besides: all.iter().filter_map(number).collect(),
        })
    }

    /// What was measured.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Row {
    /// That of one with so much in each round, over what the first one has there.
    fn of(row: &Value, over: &[f64]) -> Result<Self> {
        let name = row["name"].as_str().map(ToOwned::to_owned);
        let name = name.with_context(|| format!("a row without a name: {row}"))?;
        if let Some(why) = row["unmeasured"].as_str() {
            let found = Found::Unmeasured(why.to_owned());
            return Ok(Self { name, found });
        }
        let rounds = rounds(row)?;
        let ratios: Vec<f64> = rounds
            .iter()
            .zip(over)
            .map(|(one, other)| one / other)
            .collect();
        let found = Found::Measured {
            median: median(&rounds),
            ratios: [
                median(&ratios),
                ratios.iter().copied().fold(f64::INFINITY, f64::min),
                ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            ],
        };
        Ok(Self { name, found })
    }
}

/// What was measured, round by round.
fn rounds(row: &Value) -> Result<Vec<f64>> {
    let rounds = row["rounds"].as_array().filter(|rounds| !rounds.is_empty());
    let rounds = rounds.and_then(|rounds| rounds.iter().map(Value::as_f64).collect());
    rounds.with_context(|| format!("a row without rounds: {row}"))
}

/// The middle of them; of an even number the higher one.
fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// A ratio to four digits or so.
fn digits(ratio: f64) -> String {
    if ratio < 10.0 {
        format!("{ratio:.3}")
    } else {
        format!("{ratio:.1}")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = self.rows.first().map_or("", |row| &row.name);
        writeln!(
            f,
            "| {} | over {over} | lowest to highest round | {} |\n|---|---|---|---|",
            self.name, self.unit
        )?;
        for Row { name, found } in &self.rows {
            match found {
                Found::Measured {
                    median,
                    ratios: [ratio, lowest, highest],
                } => writeln!(
                    f,
                    "| {name} | {} | {} to {} | {median:.1} |",
                    digits(*ratio),
                    digits(*lowest),
                    digits(*highest)
                )?,
                Found::Unmeasured(why) => writeln!(f, "| {name} | | | {why} |")?,
            }
        }
        if !self.besides.is_empty() {
            writeln!(f, "\n{}", self.besides.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_result_becomes_a_table() {
        let rows = [
            json!({"name": "nothing", "rounds": [1, 2, 4]}),
            json!({"name": "something", "rounds": [4, 2, 36]}),
            json!({"name": "else", "unmeasured": "too old"}),
        ];
        let result = json!({"name": "launch", "unit": "ms", "rows": rows, "events": 17});
        let expected = "\
| launch | over nothing | lowest to highest round | ms |
|---|---|---|---|
| nothing | 1.000 | 1.000 to 1.000 | 2.0 |
| something | 4.000 | 1.000 to 9.000 | 4.0 |
| else | | | too old |

events: 17
";
        let table = Table::of(&result).expect("a table");
        assert_eq!(table.to_string(), expected);
        for row in [json!({"rounds": [1]}), json!({"name": "x", "rounds": []})] {
            let result = json!({"name": "launch", "unit": "ms", "rows": [row]});
            assert!(Table::of(&result).is_err());
        }
    }
}
