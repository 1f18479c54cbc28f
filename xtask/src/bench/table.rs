//! What a suite has measured, as people read it.

use std::fmt;

use anyhow::{Context, Result};
use serde_json::Value;

/// A suite's rows, and what it has measured besides.
#[derive(Debug)]
pub(super) struct Table {
    name: String,
    rows: Vec<Row>,
    besides: Vec<String>,
}

#[derive(Debug)]
struct Row {
    name: String,
    /// The median of the rounds, seconds.
    median_s: f64,
    /// Over what was measured of the first row in the same round: the median of the rounds, the lowest, the highest.
    ratios: [f64; 3],
}

impl Table {
    /// That of a result: its `rows`, and each number in it.
    pub(super) fn of(name: &str, result: &Value) -> Result<Self> {
        let rows = result["rows"].as_array().context("a result without rows")?;
        let all = result.as_object().context("a result that is no object")?;
        let number =
            |(name, value): (&String, &Value)| Some(format!("{name}: {:.0}", value.as_f64()?));
        Ok(Self {
            name: name.to_owned(),
            rows: rows.iter().map(Row::of).collect::<Result<_>>()?,
            besides: all.iter().filter_map(number).collect(),
        })
    }
}

impl Row {
    fn of(row: &Value) -> Result<Self> {
        let number = |name: &str| {
            let number = row[name].as_f64();
            number.with_context(|| format!("a row without {name}: {row}"))
        };
        let name = row["name"].as_str().map(ToOwned::to_owned);
        Ok(Self {
            name: name.with_context(|| format!("a row without a name: {row}"))?,
            median_s: number("median")?,
            ratios: [number("ratio")?, number("lowest")?, number("highest")?],
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = self.rows.first().map_or("", |row| &row.name);
        writeln!(
            f,
            "| {} | over {over} | lowest to highest round | ms |\n|---|---|---|---|",
            self.name
        )?;
        for Row {
            name,
            median_s,
            ratios: [ratio, lowest, highest],
        } in &self.rows
        {
            let ms = median_s * 1e3;
            writeln!(
                f,
                "| {name} | {ratio:.2} | {lowest:.2} to {highest:.2} | {ms:.1} |"
            )?;
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
        let row = |name: &str, ratio: f64| json!({"name": name, "median": ratio / 1e3, "ratio": ratio, "lowest": 1, "highest": 7});
        let rows = [row("nothing", 1.0), row("something", 4.256)];
        let result = json!({"suite": "launch", "rows": rows, "events": 17});
        let expected = "\
| launch | over nothing | lowest to highest round | ms |
|---|---|---|---|
| nothing | 1.00 | 1.00 to 7.00 | 1.0 |
| something | 4.26 | 1.00 to 7.00 | 4.3 |

events: 17
";
        let table = Table::of("launch", &result).expect("a table");
        assert_eq!(table.to_string(), expected);
        let nameless = json!({"rows": [{"median": 1}]});
        assert!(Table::of("launch", &nameless).is_err());
    }
}
