//! Signals, by name and as an analysis with manners handles them.

use std::str::FromStr;

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal};

/// `TERM`, `SIGTERM` or a number.
pub(crate) fn parse(text: &str) -> Result<Signal, String> {
    let named = Signal::from_str(text).or_else(|_| Signal::from_str(&format!("SIG{text}")));
    let numbered = || {
        text.parse::<i32>()
            .ok()
            .and_then(|number| Signal::try_from(number).ok())
    };
    named
        .ok()
        .or_else(numbered)
        .ok_or_else(|| format!("{text} is not a signal"))
}

/// Waits for SIGTERM as one that wants to write its results first does.
pub(crate) fn handle_term() -> Result<()> {
    let mut term = SigSet::empty();
    term.add(Signal::SIGTERM);
    term.thread_block()?;
    crate::ready();
    term.wait()?;
    println!("handled SIGTERM");
    Ok(())
}
