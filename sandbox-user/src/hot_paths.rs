//! What is done for each event and at each end, for `cargo xtask test` to count the instructions of.
//!
//! It has callgrind count those of the functions here, which are never inlined, and compares them with
//! `tests/budgets.toml`: an input that stays the same takes as many each time.

use std::hint::black_box;

use nix::libc::SIGKILL;
use sandbox_ebpf as wire;

use crate::{
    attribution::{
        Attribution, attribute,
        case::{Case, Kill, LEAF},
    },
    evidence::Evidence,
    record::{Reason, RunRecord},
    trace::{DecodeError, Event, decode_event},
};

#[inline(never)]
fn decode(entry: &[u8]) -> Result<Event, DecodeError> {
    decode_event(black_box(entry))
}

#[inline(never)]
fn judge(evidence: &Evidence) -> Attribution {
    attribute(black_box(evidence))
}

#[inline(never)]
fn write(case: &Case) -> Vec<u8> {
    let record: RunRecord = black_box(case).record();
    serde_json::to_vec(&record).expect("a record is JSON")
}

/// A run whose child is killed for want of memory, and main after it.
fn out_of_memory() -> Case {
    Case::named("out of memory")
        .knows_tree()
        .dies_of(SIGKILL)
        .with(Kill::oom(false, Some(LEAF)))
        .with(Kill::oom(true, Some(LEAF)))
}

/// What `cargo xtask test` runs under callgrind: a test of its name for each function above.
mod counts {
    use super::*;

    #[test]
    fn decode() {
        let exec = wire::ExecEvent {
            header: wire::Header {
                kind: wire::EventKind::Exec as u32,
                ..Default::default()
            },
            ..bytemuck::Zeroable::zeroed()
        };
        assert!(super::decode(bytemuck::bytes_of(&exec)).is_ok());
    }

    #[test]
    fn judge() {
        let judged = super::judge(&out_of_memory().evidence);
        assert_eq!(judged.reason, Reason::Memory);
    }

    #[test]
    fn write() {
        assert!(super::write(&out_of_memory()).ends_with(b"}"));
    }
}
