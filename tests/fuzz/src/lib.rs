//! What must hold for the decoder and for the readers of metadata, configuration and requests whatever they are
//! given.
//!
//! `cargo xtask fuzz` has libFuzzer look for input that breaks it; the tests of this package put the
//! committed corpus through the same checks with a plain compiler. A crash that was found is added
//! to `corpus/`, and is a regression test from then on.

mod checks;
mod config;
mod decoder;
mod metadata;
mod protocol;
mod seeds;

use std::process::ExitCode;

pub use self::{
    config::config, decoder::decoder, metadata::metadata, protocol::protocol, seeds::decoder_seeds,
};

/// Puts each file that is named on the command line through `target`, which panics where one breaks
/// it.
pub fn replay(target: fn(&[u8])) -> ExitCode {
    let mut files = std::env::args_os().skip(1).peekable();
    if files.peek().is_none() {
        eprintln!("error: name the files to run it on; `cargo xtask fuzz` looks for new ones");
        return ExitCode::FAILURE;
    }
    for path in files.map(std::path::PathBuf::from) {
        match std::fs::read(&path) {
            Ok(bytes) => target(&bytes),
            Err(error) => {
                eprintln!("error: {}: {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
        println!("{}: holds", path.display());
    }
    ExitCode::SUCCESS
}
