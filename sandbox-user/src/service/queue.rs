//! Which runs may be started, and which have to wait: a pure state, told of what comes and goes.
//!
//! Whoever has the fewest runs going on is next, of several the one for whom the longest time none was started, and
//! of one user's the oldest. Nobody overtakes the one who is next, or a large run would wait for ever.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::metrics::Refusal;
use crate::{spec::RunId, units::format_bytes};

/// What there is for all runs together; `None` is without limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Capacity {
    /// Runs at a time.
    pub(super) runs: Option<usize>,
    /// How many may wait.
    pub(super) queue: usize,
    /// Of these, of one user's.
    pub(super) queue_per_user: usize,
    /// What their limits may add up to.
    pub(super) total: Need,
}

/// What a run is held to, or what there is; `None` is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Need {
    /// Memory, bytes.
    pub(super) memory_bytes: Option<u64>,
    /// CPU bandwidth, cores.
    pub(super) cpus: Option<f64>,
    /// Processes and threads.
    pub(super) pids: Option<u64>,
}

/// A run that goes on or waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) run_id: RunId,
    /// Who asked for it.
    pub(super) uid: u32,
    /// How many runs of theirs there may be at once with it; `None` = no limit.
    pub(super) most_of_user: Option<usize>,
    pub(super) need: Need,
}

/// What becomes of a run that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may start.
    Start,
    /// It waits.
    Wait,
    /// It can never be started, or there are too many that wait.
    Refuse(Refusal, String),
}

/// The runs that go on, and those that wait, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    running: Vec<Entry>,
    waiting: Vec<Entry>,
    turns: Turns,
}

/// Which user's turn it was when, as long as they have any run here: the greater the number, the later.
#[derive(Clone, Debug, Default)]
struct Turns {
    latest: u64,
    of_users: HashMap<u32, u64>,
}

impl Turns {
    fn take(&mut self, uid: u32) {
        self.latest += 1;
        self.of_users.insert(uid, self.latest);
    }

    fn of(&self, uid: u32) -> u64 {
        self.of_users.get(&uid).copied().unwrap_or_default()
    }
}

impl Queue {
    /// Takes a run in, as far as there is room.
    pub(super) fn admit(&mut self, entry: Entry, capacity: &Capacity) -> Admission {
        if let Some(why) = never_fits(entry.need, capacity.total) {
            return Admission::Refuse(Refusal::Budget, why);
        }
        if self.takes_its_place(self.waiting.len(), entry, capacity) {
            return Admission::Start;
        }
        let of_user = |waiting: &&Entry| waiting.uid == entry.uid;
        let full = if self.waiting.len() > capacity.queue {
            Some((Refusal::Queue, "", capacity.queue))
        } else if self.waiting.iter().filter(of_user).count() > capacity.queue_per_user {
            Some((Refusal::UserQueue, " of yours", capacity.queue_per_user))
        } else {
            None
        };
        match full {
            Some((kind, whose, most)) => {
                self.remove(entry.run_id);
                let why =
                    format!("{most} runs{whose} wait already, and no more may: try again later");
                Admission::Refuse(kind, why)
            }
            None => Admission::Wait,
        }
    }

    /// Takes a run in that waited for a service before this one, ahead of those that are younger. Says whether it
    /// may start.
    ///
    /// # Errors
    /// Where it can never be started any more: why.
    pub(super) fn readmit(&mut self, entry: Entry, capacity: &Capacity) -> Result<bool, String> {
        if let Some(why) = never_fits(entry.need, capacity.total) {
            return Err(why);
        }
        // An id begins with the time at which it was made.
        let is_younger = |waiting: &Entry| waiting.run_id > entry.run_id;
        let place = self.waiting.iter().position(is_younger);
        Ok(self.takes_its_place(place.unwrap_or(self.waiting.len()), entry, capacity))
    }

    /// Has a run wait at this place, or start where it is next.
    fn takes_its_place(&mut self, place: usize, entry: Entry, capacity: &Capacity) -> bool {
        self.waiting.insert(place, entry);
        let is_next = self.next(capacity) == Some(entry.run_id);
        if is_next {
            self.start(entry.run_id);
        }
        is_next
    }

    /// Takes in a run that goes on already.
    pub(super) fn adopt(&mut self, entry: Entry) {
        if !self
            .running
            .iter()
            .any(|known| known.run_id == entry.run_id)
        {
            self.turns.take(entry.uid);
            self.running.push(entry);
        }
    }

    /// A run has ended, or does not want to wait any more.
    pub(super) fn remove(&mut self, run_id: RunId) {
        let removed = [&mut self.running, &mut self.waiting]
            .into_iter()
            .find_map(|runs| {
                let place = runs.iter().position(|entry| entry.run_id == run_id)?;
                Some(runs.remove(place).uid)
            });
        let mut left = self.running.iter().chain(&self.waiting);
        if let Some(uid) = removed
            && !left.any(|entry| entry.uid == uid)
        {
            self.turns.of_users.remove(&uid);
        }
    }

    /// Starts whoever may be started now. To be called after something has ended.
    pub(super) fn start_next(&mut self, capacity: &Capacity) -> Vec<RunId> {
        let mut started = Vec::new();
        while let Some(run_id) = self.next(capacity) {
            self.start(run_id);
            started.push(run_id);
        }
        started
    }

    /// Those that wait, in the order in which they will be started as things stand.
    pub(super) fn order(&self) -> Vec<RunId> {
        let (mut running, mut turns) = (self.runs_by_user(), self.turns.clone());
        let mut waiting: Vec<&Entry> = self.waiting.iter().collect();
        let mut order = Vec::new();
        while let Some(next) = first(&waiting, &running, &turns) {
            let entry = waiting.remove(next);
            order.push(entry.run_id);
            turns.take(entry.uid);
            *running.entry(entry.uid).or_default() += 1;
        }
        order
    }

    /// How many go on.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The runs that go on.
    pub(super) fn run_ids(&self) -> impl Iterator<Item = RunId> {
        self.running.iter().map(|entry| entry.run_id)
    }

    fn runs_by_user(&self) -> HashMap<u32, usize> {
        let mut runs = HashMap::new();
        for entry in &self.running {
            *runs.entry(entry.uid).or_default() += 1;
        }
        runs
    }

    fn start(&mut self, run_id: RunId) {
        if let Some(place) = self.waiting.iter().position(|entry| entry.run_id == run_id) {
            let entry = self.waiting.remove(place);
            self.turns.take(entry.uid);
            self.running.push(entry);
        }
    }

    /// Who is next, where there is room.
    fn next(&self, capacity: &Capacity) -> Option<RunId> {
        let running = self.runs_by_user();
        let is_below = |most: Option<usize>, now: usize| most.is_none_or(|most| now < most);
        if !is_below(capacity.runs, self.running.len()) {
            return None;
        }
        let of_user = |uid: &u32| running.get(uid).copied().unwrap_or_default();
        let may: Vec<&Entry> = self
            .waiting
            .iter()
            .filter(|entry| is_below(entry.most_of_user, of_user(&entry.uid)))
            .collect();
        let entry = may.get(first(&may, &running, &self.turns)?)?;
        let needs = self.running.iter().map(|entry| entry.need);
        fits(needs.chain([entry.need]), capacity.total).then_some(entry.run_id)
    }
}

/// Whoever has the fewest runs; of several, the one whose turn it was the longest time ago, and then the oldest.
fn first(waiting: &[&Entry], running: &HashMap<u32, usize>, turns: &Turns) -> Option<usize> {
    let runs = |entry: &Entry| running.get(&entry.uid).copied().unwrap_or_default();
    let places = waiting.iter().enumerate();
    places
        .min_by_key(|(place, entry)| (runs(entry), turns.of(entry.uid), *place))
        .map(|(place, _)| place)
}

/// Whether what they are held to is there. Where there is a limit, one that has none counts as all of it.
fn fits(needs: impl Iterator<Item = Need>, total: Need) -> bool {
    let needs: Vec<Need> = needs.collect();
    let sum = |most: Option<u64>, of: fn(&Need) -> Option<u64>| {
        most.is_none_or(|most| {
            let needs = needs.iter().map(|need| of(need).unwrap_or(most));
            needs.fold(0, u64::saturating_add) <= most
        })
    };
    let cpus = total.cpus.is_none_or(|most| {
        let needs = needs.iter().map(|need| need.cpus.unwrap_or(most));
        needs.sum::<f64>() <= most + f64::EPSILON
    });
    sum(total.memory_bytes, |need| need.memory_bytes) && sum(total.pids, |need| need.pids) && cpus
}

/// Why there will never be enough for it.
fn never_fits(need: Need, total: Need) -> Option<String> {
    let is_more =
        |need: Option<u64>, most: Option<u64>| need.zip(most).filter(|(need, most)| need > most);
    if let Some((need, most)) = is_more(need.memory_bytes, total.memory_bytes) {
        let [need, most] = [need, most].map(format_bytes);
        return Some(format!(
            "its memory limit of {need} is more than all runs together may have, {most}: lower --memory"
        ));
    }
    if let Some((need, most)) = is_more(need.pids, total.pids) {
        return Some(format!(
            "its limit of {need} PIDs is more than all runs together may have, {most}: lower --pids"
        ));
    }
    let cpus = need.cpus.zip(total.cpus).filter(|(need, most)| need > most);
    cpus.map(|(need, most)| {
        format!(
            "its limit of {need} cores is more than all runs together may have, {most}: lower --cpus"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(uid: u32) -> Entry {
        Entry {
            run_id: RunId::now_v7(),
            uid,
            most_of_user: None,
            need: Need {
                memory_bytes: Some(2 << 30),
                cpus: Some(1.0),
                pids: Some(100),
            },
        }
    }

    fn capacity(runs: Option<usize>) -> Capacity {
        Capacity {
            runs,
            queue: 1000,
            queue_per_user: 100,
            total: Need::default(),
        }
    }

    fn runs(runs: usize) -> Capacity {
        capacity(Some(runs))
    }

    #[test]
    fn without_a_limit_all_start() {
        let mut queue = Queue::default();
        for uid in 0..50 {
            let admitted = queue.admit(entry(uid % 3), &capacity(None));
            assert_eq!(admitted, Admission::Start);
        }
    }

    #[test]
    fn who_has_the_fewest_is_next_and_of_one_user_the_oldest() {
        let capacity = runs(2);
        let mut queue = Queue::default();
        let entries = [1, 1, 1, 1, 2, 3].map(entry);
        for (entry, expected) in entries.iter().zip([
            Admission::Start,
            Admission::Start,
            Admission::Wait,
            Admission::Wait,
            Admission::Wait,
            Admission::Wait,
        ]) {
            assert_eq!(queue.admit(*entry, &capacity), expected);
        }
        let ids = entries.map(|entry| entry.run_id);
        assert_eq!(queue.order(), [ids[4], ids[5], ids[2], ids[3]]);
        let mut order = Vec::new();
        for ended in [ids[0], ids[1], ids[4], ids[5]] {
            queue.remove(ended);
            order.extend(queue.start_next(&capacity));
        }
        // When the second of them has ended user 1 has none either, but had two before.
        assert_eq!(order, [ids[4], ids[5], ids[2], ids[3]]);
        assert!(queue.order().is_empty());
    }

    #[test]
    fn where_one_run_has_room_users_take_turns() {
        let capacity = runs(1);
        let mut queue = Queue::default();
        let entries = [1, 1, 1, 1, 2, 2].map(entry);
        for entry in entries {
            queue.admit(entry, &capacity);
        }
        let ids = entries.map(|entry| entry.run_id);
        let expected = [ids[4], ids[1], ids[5], ids[2], ids[3]];
        assert_eq!(queue.order(), expected);
        let mut order = Vec::new();
        let mut ended = ids[0];
        while let [started] = {
            queue.remove(ended);
            queue.start_next(&capacity)
        }[..]
        {
            order.push(started);
            ended = started;
        }
        assert_eq!(order, expected);
        assert!(queue.turns.of_users.is_empty());
    }

    #[test]
    fn one_user_has_at_most_so_many_and_holds_nobody_else_up() {
        let capacity = runs(9);
        let mut queue = Queue::default();
        let [first, second, other] = [1, 1, 2].map(|uid| Entry {
            most_of_user: Some(1),
            ..entry(uid)
        });
        assert_eq!(queue.admit(first, &capacity), Admission::Start);
        assert_eq!(queue.admit(second, &capacity), Admission::Wait);
        assert_eq!(queue.admit(other, &capacity), Admission::Start);
        queue.remove(first.run_id);
        assert_eq!(queue.start_next(&capacity), [second.run_id]);
    }

    #[test]
    fn what_all_may_have_together_is_not_exceeded_and_nobody_overtakes_a_large_one() {
        let gib = |gib: u64| Need {
            memory_bytes: Some(gib << 30),
            ..Need::default()
        };
        let capacity = Capacity {
            total: gib(8),
            ..capacity(None)
        };
        let mut queue = Queue::default();
        let of = |uid, need| Entry { need, ..entry(uid) };
        let [first, large, small] = [of(1, gib(5)), of(2, gib(6)), of(3, gib(1))];
        assert_eq!(queue.admit(first, &capacity), Admission::Start);
        assert_eq!(queue.admit(large, &capacity), Admission::Wait);
        assert_eq!(queue.admit(small, &capacity), Admission::Wait);
        // Without a limit of its own it takes all that there is.
        let unlimited = of(4, Need::default());
        assert_eq!(queue.admit(unlimited, &capacity), Admission::Wait);
        queue.remove(first.run_id);
        assert_eq!(queue.start_next(&capacity), [large.run_id, small.run_id]);
        queue.remove(large.run_id);
        assert!(queue.start_next(&capacity).is_empty());
        queue.remove(small.run_id);
        assert_eq!(queue.start_next(&capacity), [unlimited.run_id]);

        let Admission::Refuse(Refusal::Budget, why) = queue.admit(of(5, gib(9)), &capacity) else {
            panic!("it can never be started");
        };
        assert!(why.contains("9 GiB") && why.contains("8 GiB"), "{why}");
    }

    #[test]
    fn who_waited_for_a_service_before_keeps_the_place_and_is_never_one_too_many() {
        let capacity = Capacity {
            queue: 1,
            ..runs(1)
        };
        let mut queue = Queue::default();
        let [going_on, oldest, older, young] = [1, 1, 1, 1].map(entry);
        queue.adopt(going_on);
        assert_eq!(queue.admit(young, &capacity), Admission::Wait);
        assert_eq!(queue.readmit(older, &capacity), Ok(false));
        assert_eq!(queue.readmit(oldest, &capacity), Ok(false));
        let ids = [oldest, older, young].map(|entry| entry.run_id);
        assert_eq!(queue.order(), ids);
        queue.remove(going_on.run_id);
        assert_eq!(queue.start_next(&capacity), [oldest.run_id]);
        queue.remove(oldest.run_id);
        queue.remove(older.run_id);
        queue.remove(young.run_id);
        assert_eq!(queue.readmit(older, &capacity), Ok(true));
        let small = Capacity {
            total: Need {
                pids: Some(99),
                ..Need::default()
            },
            ..capacity
        };
        assert!(queue.readmit(oldest, &small).is_err());
    }

    #[test]
    fn a_queue_has_an_end_for_all_and_for_each() {
        let capacity = Capacity {
            queue: 3,
            queue_per_user: 2,
            ..runs(0)
        };
        let mut queue = Queue::default();
        let [mine, again, third, others, last] = [1, 1, 1, 2, 3].map(entry);
        assert_eq!(queue.admit(mine, &capacity), Admission::Wait);
        assert_eq!(queue.admit(again, &capacity), Admission::Wait);
        let refused = |admission| match admission {
            Admission::Refuse(kind, _) => Some(kind),
            Admission::Start | Admission::Wait => None,
        };
        assert_eq!(
            refused(queue.admit(third, &capacity)),
            Some(Refusal::UserQueue)
        );
        assert_eq!(queue.admit(others, &capacity), Admission::Wait);
        assert_eq!(refused(queue.admit(last, &capacity)), Some(Refusal::Queue));
        queue.remove(mine.run_id);
        assert_eq!(queue.admit(third, &capacity), Admission::Wait);
    }
}
