//! The target `protocol`: what it checks stands in the library. Without cargo-fuzz, this is a program
//! that puts each file that it is given through the same checks.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sandbox_fuzz::protocol(bytes));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    sandbox_fuzz::replay(sandbox_fuzz::protocol)
}
