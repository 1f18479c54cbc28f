//! How many times as long as something else, round by round.

use serde_json::{Value, json};

/// The middle of them; of an even number the higher one.
pub(crate) fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// A row of a table: what was measured of one in each round, over what was measured of the other in the same round.
pub(crate) fn row(name: &str, measured: &[f64], over: &[f64]) -> Value {
    let ratios: Vec<f64> = measured
        .iter()
        .zip(over)
        .map(|(one, other)| one / other)
        .collect();
    json!({
        "name": name,
        "median": median(measured),
        "ratio": median(&ratios),
        "lowest": ratios.iter().copied().fold(f64::INFINITY, f64::min),
        "highest": ratios.iter().copied().fold(0.0, f64::max),
        "rounds": measured,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_those_of_each_round() {
        let row = row("one", &[2.0, 9.0, 4.0], &[1.0, 3.0, 4.0]);
        assert_eq!(row["median"], 4.0);
        assert_eq!(
            (&row["ratio"], &row["lowest"], &row["highest"]),
            (&json!(2.0), &json!(1.0), &json!(3.0))
        );
    }
}
