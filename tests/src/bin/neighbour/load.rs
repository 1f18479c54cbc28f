//! What wrk measures.

use std::process::Command;
use std::time::Duration;

/// A measurement.
#[derive(Debug, PartialEq)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    /// Connections that could not be made or broke, answers that did not come within 30 s or were no success.
    pub(crate) failed: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Load {
    pub(crate) fn measure(url: String, time: Duration) -> Self {
        let output = Command::new("wrk")
            .args([
                "--threads",
                "1",
                "--connections",
                "8",
                "--timeout",
                "30s",
                "--latency",
            ])
            .args(["--duration", &format!("{}s", time.as_secs()), &url])
            .output()
            .expect("the guest has wrk");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        Self::read(&text).unwrap_or_else(|| panic!("what wrk says is not understood:\n{text}"))
    }

    /// Reads what `wrk --latency` prints.
    fn read(text: &str) -> Option<Self> {
        let line = |start: &str| {
            text.lines()
                .find_map(|line| line.trim().strip_prefix(start))
        };
        let requests = text
            .lines()
            .find_map(|line| line.split_once(" requests in "))
            .and_then(|(count, _)| count.trim().parse().ok())?;
        let errors = line("Socket errors:").unwrap_or_default();
        let errors: u64 = errors
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|count| count.parse::<u64>().ok())
            .sum();
        let refused: u64 = match line("Non-2xx or 3xx responses:") {
            Some(count) => count.trim().parse().ok()?,
            None => 0,
        };
        Some(Self {
            requests,
            failed: errors + refused,
            p50_ms: milliseconds(line("50%")?)?,
            p99_ms: milliseconds(line("99%")?)?,
        })
    }
}

fn milliseconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let number: f64 = number.parse().ok()?;
    Some(match unit {
        "us" => number / 1e3,
        "ms" => number,
        "s" => number * 1e3,
        "m" => number * 6e4,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_understood() {
        let text = "Running 3s test @ …\n  1 threads and 8 connections\n  \
            Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency     4.52ms    3.18ms  56.59ms   98.52%\n  \
            Latency Distribution\n     50%  925.00us\n     75%    4.55ms\n     90%    5.31ms\n     99%    1.20s \n  \
            5412 requests in 3.01s, 22.75MB read\n  Socket errors: connect 0, read 2, write 0, timeout 1\n  \
            Non-2xx or 3xx responses: 4\nRequests/sec:   1799.65\nTransfer/sec:      7.56MB\n";
        let expected = Load {
            requests: 5412,
            failed: 7,
            p50_ms: 0.925,
            p99_ms: 1200.0,
        };
        assert_eq!(Load::read(text), Some(expected));
        assert_eq!(Load::read("unable to connect"), None);
    }
}
