//! The kinds of runs, and which of them the run of an index is.
//!
//! A deck that is shuffled anew for each round: every kind comes as often as its weight says, and
//! some dozens of runs have met all of them.

use crate::random::Random;
use crate::truth::Case;
use crate::{above, limits, outside, own, racing, runner, unusual};

/// Whether other runs may go on meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    /// Any others.
    Any,
    /// What it does would reach them.
    None,
}

/// A kind of run.
pub(crate) struct Kind {
    /// What people call it.
    pub(crate) name: &'static str,
    /// How often it is in the deck.
    weight: usize,
    /// It is in the first round and in every so manieth after it: some take long.
    every: u64,
    /// Who may be there.
    pub(crate) company: Company,
    /// Plays one to its end.
    pub(crate) play: fn(&mut Random) -> Case,
}

macro_rules! kinds {
    ($($module:ident :: $name:ident $company:ident $weight:literal every $every:literal,)*) => {
        &[$(Kind {
            name: stringify!($name),
            weight: $weight,
            every: $every,
            company: Company::$company,
            play: $module::$name,
        },)*]
    };
}

/// All kinds.
const KINDS: &[Kind] = kinds![
    own::exits Any 4 every 1,
    own::kills_itself Any 2 every 1,
    own::is_killed_by_its_child Any 2 every 1,
    own::crashes Any 2 every 1,
    own::breaks_a_rule Any 1 every 1,
    own::breaks_a_filter Any 1 every 1,
    own::breaks_strict_seccomp Any 1 every 1,
    own::loses_a_grandchild Any 1 every 1,
    own::leaves_a_daemon Any 1 every 1,
    own::handles_a_signal Any 1 every 1,
    limits::eats_too_much Any 4 every 1,
    limits::loses_a_child_to_its_memory Any 2 every 1,
    limits::is_killed_after_an_oom Any 1 every 1,
    limits::forks_too_often Any 2 every 1,
    limits::is_denied_forks Any 1 every 1,
    limits::takes_too_long Any 2 every 1,
    limits::uses_up_its_cpu_time Any 1 every 1,
    limits::uses_up_its_rlimit Any 1 every 1,
    outside::is_signalled Any 3 every 1,
    outside::is_signalled_until_it_ends Any 1 every 1,
    outside::is_signalled_twice Any 2 every 1,
    outside::is_killed_while_it_handles Any 1 every 1,
    outside::passes_a_signal_on Any 1 every 1,
    outside::loses_a_child Any 1 every 1,
    outside::is_killed_as_a_cgroup Any 1 every 1,
    outside::is_killed_with_its_siblings None 1 every 1,
    outside::is_killed_as_oomd_does Any 1 every 1,
    outside::is_killed_with_all_of_its_user None 1 every 1,
    outside::is_traced_to_death Any 1 every 1,
    outside::is_frozen Any 1 every 1,
    racing::is_signalled_at_some_moment Any 5 every 1,
    racing::is_killed_as_a_cgroup_at_some_moment Any 2 every 1,
    racing::is_killed_by_two Any 1 every 1,
    racing::ends_about_its_deadline Any 1 every 1,
    racing::is_cancelled_at_some_moment Any 2 every 1,
    racing::loses_its_runner_at_some_moment Any 1 every 1,
    runner::is_cancelled Any 2 every 1,
    runner::loses_its_runner Any 1 every 1,
    runner::loses_everybody Any 1 every 1,
    runner::is_not_started Any 2 every 1,
    runner::hardly_starts Any 1 every 1,
    runner::escapes Any 1 every 1,
    unusual::is_traced_by_its_child Any 1 every 1,
    unusual::ends_a_pid_namespace Any 1 every 1,
    unusual::loses_a_pid_namespace Any 1 every 1,
    unusual::is_killed_by_the_pid_of_a_member None 1 every 1,
    unusual::is_killed_by_the_pid_of_an_outsider None 1 every 1,
    unusual::calls_sandbox_itself Any 1 every 1,
    above::eats_too_much_for_an_ancestor None 1 every 1,
    above::is_killed_for_a_sibling None 1 every 1,
    above::uses_up_the_host None 1 every 6,
    above::forks_too_often_for_an_ancestor None 1 every 1,
    above::finds_no_pid_to_start_with None 1 every 1,
];

/// What is played in the place of a kind that is not in a round, or cannot be played.
const STAND_IN: &str = "is_signalled_at_some_moment";

/// What needs `sandbox run` to be the supervisor itself, which it is not where the host's service does the run.
const OF_THE_RUNNER: &[&str] = &[
    "loses_its_runner",
    "loses_everybody",
    "loses_its_runner_at_some_moment",
];

/// The kind of the run of this index, where the host's service does it or not.
pub(crate) fn of_run(seed: u64, index: u64, by_service: bool) -> &'static Kind {
    let mut deck: Vec<&Kind> = KINDS
        .iter()
        .flat_map(|kind| std::iter::repeat_n(kind, kind.weight))
        .collect();
    let cards = deck.len() as u64;
    let round = index / cards;
    Random::of_run(!seed, round).shuffle(&mut deck);
    let kind = deck[usize::try_from(index % cards).unwrap_or(0)];
    if round.is_multiple_of(kind.every) && !(by_service && OF_THE_RUNNER.contains(&kind.name)) {
        kind
    } else {
        named(STAND_IN)
    }
}

/// The kind of this name.
///
/// # Panics
///
/// Where there is none.
pub(crate) fn named(name: &str) -> &'static Kind {
    let found = KINDS.iter().find(|kind| kind.name == name);
    found.unwrap_or_else(|| {
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        panic!("{name} is none of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_round_has_every_kind_as_often_as_its_weight_says() {
        let cards: usize = KINDS.iter().map(|kind| kind.weight).sum();
        for round in [0, 5] {
            let mut counts = BTreeMap::new();
            for card in 0..cards as u64 {
                let kind = of_run(3, round * cards as u64 + card, false);
                *counts.entry(kind.name).or_insert(0) += 1;
            }
            for kind in KINDS {
                let expected = match kind.name {
                    STAND_IN if round == 5 => kind.weight + 1,
                    _ if round.is_multiple_of(kind.every) => kind.weight,
                    _ => 0,
                };
                let count = counts.get(kind.name).copied().unwrap_or(0);
                assert_eq!(count, expected, "{}", kind.name);
            }
        }
    }

    #[test]
    fn the_service_is_given_nothing_that_only_sandbox_itself_can_meet() {
        let names = |by_service| (0..500).map(move |index| of_run(3, index, by_service).name);
        for name in OF_THE_RUNNER {
            assert_eq!(named(name).name, *name);
            assert!(names(false).any(|played| played == *name), "{name}");
            assert!(names(true).all(|played| played != *name), "{name}");
        }
    }
}
