//! What a fully preemptible kernel needs to be one.

use std::fs;

use sandbox_tests::Guest;

#[test]
fn the_kernel_is_fully_preemptible() {
    let _guest = Guest::enter();
    let mode = fs::read_to_string("/sys/kernel/debug/sched/preempt").expect("debugfs is mounted");
    assert!(mode.contains("(full)"), "{mode}");
}
