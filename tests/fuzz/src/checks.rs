//! What holds for every document of settings, whatever it is: the limits that are taken from it, and the
//! errors that refuse it.

use sandbox::document::Place;
use sandbox::policy::values::{check_budget, check_cpus, check_memory, check_pids};
use sandbox::policy::{Layer, LimitOverrides, Setting};
use sandbox::units::is_unprintable;

/// Whatever was taken as a limit or an action is one that there can be.
pub(crate) fn kept(layer: &Layer) {
    let LimitOverrides {
        memory_bytes,
        swap_bytes,
        cpus,
        pids,
        walltime,
        cputime,
    } = layer.limits;
    holds(memory_bytes, |bytes| check_memory(bytes).is_ok());
    holds(swap_bytes, |bytes| i64::try_from(bytes).is_ok());
    holds(cpus, |cores| cores.is_finite() && check_cpus(cores).is_ok());
    holds(pids, |tasks| check_pids(tasks).is_ok());
    holds(walltime, |time| check_budget(time).is_ok());
    holds(cputime, |time| check_budget(time).is_ok());
    holds(layer.actions.warn, |warn| {
        (1..=64).contains(&warn.signal)
            && ![9, 19, 32, 33].contains(&warn.signal)
            && !warn.before.is_zero()
    });
}

/// Whether a value, where there is one, is as it must be.
fn holds<T: Copy + std::fmt::Debug>(setting: Option<Setting<T>>, is_right: impl Fn(T) -> bool) {
    if let Some(Setting::Value(value)) = setting {
        assert!(is_right(value), "{value:?}");
    }
}

/// An error is a line that can be printed, and points to a place in the document.
pub(crate) fn said(shown: &str, place: &Place, name: &str, text: &str) {
    assert!(!shown.contains(is_unprintable), "{shown:?}");
    assert!(shown.starts_with(name), "{shown}");
    within(place, text);
}

/// Where an error points to is a place in the document, or its end.
fn within(place: &Place, text: &str) {
    let Some(spot) = place.spot else { return };
    // YAML ends a line at a lone carriage return too, which the others do not.
    let lines = text.matches(['\n', '\r']).count() + 1;
    assert!(
        (1..=lines + 1).contains(&spot.line),
        "{place} of {lines} lines"
    );
    assert!(
        (1..=text.chars().count() + 2).contains(&spot.column),
        "{place} of {} characters",
        text.chars().count()
    );
}
