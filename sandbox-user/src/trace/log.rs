//! Where the eBPF programs' own log goes when `SANDBOX_EBPF_LOG` asks for it: stderr.

use aya_log::Level;

/// A sink for `aya_log`.
pub(super) struct StderrLog;

impl log::Log for StderrLog {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("sandbox: ebpf: {}: {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

/// The level of that name; `None` for others.
pub(super) fn level(name: &str) -> Option<Level> {
    Some(match name {
        "error" => Level::Error,
        "warn" => Level::Warn,
        "info" => Level::Info,
        "debug" => Level::Debug,
        "trace" => Level::Trace,
        _ => return None,
    })
}
