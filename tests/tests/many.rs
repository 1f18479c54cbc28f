//! Hundreds of runs watched at once in one guest, each ended in another way: every verdict is its
//! own run's, and what the maps held of them is given back.

use std::collections::BTreeMap;
use std::fs;

use sandbox_tests::{Crowd, Guest, Maps, Sandbox, wait};

/// As many as hosts run at a time, on one kernel: they take a guest some 1.2 GiB and many minutes.
const MANY: usize = 500;
/// That kernel.
const MANY_ON: (u32, u32) = (6, 12);
/// As many as show the same elsewhere.
const FEW: usize = 60;
/// How long one of so many may keep us waiting: the others need the processor too.
const PATIENCE_S: u64 = 240;

/// A field of `/proc/meminfo`, in KiB.
fn meminfo(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("proc is mounted");
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    let number = number.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("/proc/meminfo has no {field}"))
}

#[test]
fn of_hundreds_watched_at_once_each_is_told_as_it_ended_and_the_maps_are_given_back() {
    let guest = Guest::enter();
    let count = if guest.version() == MANY_ON {
        MANY
    } else {
        FEW
    };
    wait::be_patient(PATIENCE_S);
    // Loads the programs.
    let _first = Sandbox::new()
        .victim(["exit", "0"])
        .ended(0, "completed", "none");
    let before = Maps::read();
    let available = meminfo("MemAvailable");

    let clock = std::time::Instant::now();
    let crowd = Crowd::start(count);
    println!("{count} started after {:?}", clock.elapsed());

    let during = Maps::read();
    let new = during.keys_since(&before);
    for map in ["FACTS", "MAINS", "RINGS"] {
        assert_eq!(
            new.get(map),
            Some(&count),
            "one key a leaf in {map}: {new:?}"
        );
    }
    assert_eq!(during.maps_since(&before), count, "one ring a run");
    let used = available.saturating_sub(meminfo("MemAvailable"));
    println!("{} KiB a run, all in all", used / count as u64);

    crowd.end();
    println!("{count} ended after {:?}", clock.elapsed());

    let after = Maps::read();
    assert_eq!(after.keys_since(&before), BTreeMap::new(), "keys left");
    // Preallocated: as heavy with hundreds of leaves as with none. Rings are maps of their own.
    for (name, bytes) in &before.bytes {
        assert_eq!(during.bytes.get(name), Some(bytes), "{name} grew");
        assert_eq!(after.bytes.get(name), Some(bytes), "{name} grew");
    }
    // The kernel frees a map some time after its last user has gone.
    wait::until("the rings to be freed", || {
        Maps::read().maps_since(&before) == 0
    });
    let available = meminfo("MemAvailable").saturating_sub(available);
    println!("{available} KiB more than before");
}
