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

/// Waits for a signal as one that wants to write its results first does.
pub(crate) fn handle(signal: Signal) -> Result<()> {
    let mut set = SigSet::empty();
    set.add(signal);
    set.thread_block()?;
    crate::ready();
    set.wait()?;
    println!("handled {signal}");
    Ok(())
}
