//! A real analysis: it must not notice that it runs in a sandbox.

use sandbox_tests::{Guest, Sandbox, assert_has};
use serde_json::json;

/// Least squares on generated measurements, with answers that are known beforehand.
const ANALYSIS: &str = r#"
import sys
import numpy as np

rng = np.random.default_rng(20240229)
x = np.linspace(-3.0, 3.0, 20_000)
design = np.vander(x, 4, increasing=True)
truth = np.array([0.5, -1.25, 2.0, 0.75])
measured = design @ truth + rng.normal(0.0, 0.01, x.size)
fitted, residuals, rank, _ = np.linalg.lstsq(design, measured, rcond=None)
assert rank == 4
covariance = np.cov(np.stack([x, measured]))
eigenvalues = np.linalg.eigvalsh(covariance)
spectrum = np.abs(np.fft.rfft(np.sin(2 * np.pi * 50 * np.arange(1000) / 1000)))
print("fitted", " ".join(f"{value:.2f}" for value in fitted))
print("positive", bool((eigenvalues > 0).all()), "peak", int(spectrum.argmax()))
print("sum", int(np.arange(1_000_000, dtype=np.int64).sum()))
sys.stdout.write("no newline at the end \u00b5")
print("a warning of its own", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"#;

const STDOUT: &str = "fitted 0.50 -1.25 2.00 0.75\npositive True peak 50\nsum 499999500000\n\
                      no newline at the end \u{b5}";

#[test]
fn numpy_computes_within_its_limits_and_its_output_and_status_come_through_untouched() {
    let _guest = Guest::enter();
    for (status, reason) in [(0, "completed"), (17, "exit_code")] {
        let outcome = Sandbox::new()
            .options(["--memory", "512MiB", "--timeout", "90s", "--thread-env"])
            .env("PYTHONIOENCODING", "utf-8")
            .command(["python3", "-c", ANALYSIS, &status.to_string()]);
        let record = outcome.ended(status, reason, "none");
        assert_eq!(outcome.stdout, STDOUT);
        assert!(
            outcome.stderr.starts_with("a warning of its own\n"),
            "{}",
            outcome.stderr
        );
        if status == 0 {
            assert_eq!(outcome.stderr, "a warning of its own\n");
        }
        assert_has(record.at("/exit"), &json!({"code": status, "signal": null}));
        assert!(record.kills().is_empty(), "{record}");
        let fatal = record
            .list("/limits_hit")
            .iter()
            .any(|hit| hit["fatal"] == true);
        assert!(!fatal, "{record}");
        assert_eq!(record.list("/command")[3], status.to_string().as_str());
        for used in ["cpu_user_us", "memory_peak_bytes", "pids_peak"] {
            assert!(record.number(&format!("/usage/{used}")) > 0, "{record}");
        }
        assert!(
            record.number("/usage/memory_peak_bytes") <= 512 << 20,
            "{record}"
        );
    }
}
