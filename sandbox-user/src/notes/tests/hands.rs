//! What the notes say of what people had done to a run while it went on.

use nix::libc::SIGTERM;

use super::reads;
use crate::attribution::case::Case;
use crate::evidence::IntentReason;
use crate::limits::Source;
use crate::record::{Deed, LimitKind, at_second};

#[test]
fn how_long_it_stood_still_is_told_and_so_is_that_it_did_at_its_deadline() {
    reads(
        Case::named("thawed")
            .has_done(at_second(60, Deed::Freeze))
            .has_done(at_second(90, Deed::Thaw)),
        "Completed after 3 min 12 s. sandbox freeze held it still for 30 s of that.",
    );
    let mut held = Case::named("held")
        .acts(IntentReason::Walltime, 1_800_000)
        .timeout(1800, Source::Default)
        .dies_at(1_800_010, SIGTERM)
        .has_done(at_second(60, Deed::Freeze));
    held.evidence.own_actions[0].detail = Some("frozen by sandbox freeze of ana".to_owned());
    reads(
        held,
        "Killed: wall clock limit of 30 min (default) reached; the analysis ended on SIGTERM after 30 min. At its deadline: frozen by sandbox freeze of ana. Raise it with sandbox.timeout. sandbox freeze held it still for 29 min of that.",
    );
}

#[test]
fn a_deadline_that_was_changed_is_named_with_who_changed_it_last() {
    let changed = |source, by: &str| {
        let update = |second| {
            at_second(
                second,
                Deed::Update {
                    limit: LimitKind::Walltime,
                    from_ns: None,
                    to_ns: Some(1_800_000_000_000),
                },
            )
        };
        let mut last = update(70);
        last.by = by.to_owned();
        Case::named("changed")
            .acts(IntentReason::Walltime, 1_800_000)
            .timeout(1800, source)
            .dies_at(1_800_010, SIGTERM)
            .has_done(update(60))
            .has_done(last)
    };
    for (by, said) in [("root", "root"), ("\u{1b}[2J", r"\x1b[2J")] {
        reads(
            changed(Source::Update, by),
            &format!(
                "Killed: wall clock limit of 30 min (sandbox update by {said}) reached; the analysis ended on SIGTERM after 30 min. Raise it with --timeout."
            ),
        );
    }
    reads(
        changed(Source::Ceiling, "ana"),
        "Killed: wall clock limit of 30 min (the host's ceiling) reached; the analysis ended on SIGTERM after 30 min. It is the host's ceiling; only its administrator can raise it.",
    );
}
