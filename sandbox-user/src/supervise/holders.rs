//! Who held the memory when it ran out.
//!
//! Of whoever was killed for it the kernel side has the resident memory at that very moment. The others
//! are looked at right after, and where they had gone by then their exit tells the most that they ever
//! had: each figure carries its time and its source.

use super::processes::{Look, Member, ProcessTable, key};
use crate::{
    evidence::{Delivery, Holder, HolderSource, Signal},
    procfs::{Stat, page_size},
};

/// How many holders are named.
const NAMED: usize = 10;
/// How many members are looked at after a kill, whichever they are: a look must not hold up a deadline.
const LOOKED_AT: usize = 256;
/// How many looks at one member are kept, the last ones.
const LOOKS: usize = 4;
/// Kills and looks that are of one OOM lie within this time.
const ONE_OOM_NS: u64 = 1_000_000_000;

/// Reads what the living members hold now.
pub(super) fn look(table: &mut ProcessTable, now_ns: u64) {
    for member in table.living().take(LOOKED_AT) {
        // Who has gone meanwhile tells by its exit.
        if let Ok(stat) = Stat::of(member.process.pid)
            && stat.started_at(member.process.start_time_ns)
        {
            if member.looks.len() == LOOKS {
                member.looks.remove(0);
            }
            member.looks.push(Look {
                rss_bytes: stat.rss_pages.saturating_mul(page_size()),
                at_ns: now_ns,
            });
        }
    }
}

/// Adds the holders to the first kill of each OOM, and to main's.
pub(super) fn add(table: &ProcessTable, signals: &mut [Signal]) {
    for index in 0..signals.len() {
        let (before, rest) = signals.split_at(index);
        let [kill, after @ ..] = rest else { break };
        if kill.oom.is_none() || kill.result != Delivery::Delivered {
            continue;
        }
        let is_first = !before.iter().any(|earlier| are_of_one_oom(earlier, kill));
        if is_first || kill.victim_is_main {
            let others: Vec<&Signal> = before
                .iter()
                .chain(after)
                .filter(|other| are_of_one_oom(other, kill))
                .collect();
            let holders = holders(table, kill, &others);
            if let Some(oom) = &mut signals[index].oom {
                oom.holders = holders;
            }
        }
    }
}

fn are_of_one_oom(one: &Signal, other: &Signal) -> bool {
    let (Some(left), Some(right)) = (&one.oom, &other.oom) else {
        return false;
    };
    one.result == Delivery::Delivered
        && (left.cgroup_id, left.chosen_pid, one.sender.pid)
            == (right.cgroup_id, right.chosen_pid, other.sender.pid)
        && one.at_ns.abs_diff(other.at_ns) < ONE_OOM_NS
}

fn holders(table: &ProcessTable, kill: &Signal, others: &[&Signal]) -> Vec<Holder> {
    let killed = || others.iter().copied().chain([kill]);
    let mut holders: Vec<Holder> = killed()
        .filter_map(|kill| {
            Some(Holder {
                pid: kill.victim.pid,
                comm: kill.victim.comm.clone(),
                rss_bytes: kill.oom.as_ref()?.victim_rss_bytes?,
                at_ns: kill.at_ns,
                source: HolderSource::Kill,
            })
        })
        .collect();
    let is_known = |member: &Member| killed().any(|kill| key(&kill.victim) == key(&member.process));
    holders.extend(
        table
            .members()
            .filter(|member| lived_at(member, kill.at_ns) && !is_known(member))
            .filter_map(|member| holder(member, kill.at_ns)),
    );
    holders.sort_by_key(|holder| (std::cmp::Reverse(holder.rss_bytes), holder.pid));
    holders.truncate(NAMED);
    holders
}

fn lived_at(member: &Member, at_ns: u64) -> bool {
    member.born_at_ns.is_none_or(|born| born <= at_ns)
        && member.ended_at_ns.is_none_or(|ended| ended >= at_ns)
}

/// What a member held that was not killed for it.
fn holder(member: &Member, at_ns: u64) -> Option<Holder> {
    let off = |look: &Look| look.at_ns.abs_diff(at_ns);
    let looks = member.looks.iter().filter(|look| off(look) < ONE_OOM_NS);
    let look = looks
        .min_by_key(|look| off(look))
        .map(|look| (look.rss_bytes, look.at_ns, HolderSource::Sample));
    let peak = || {
        let (bytes, at_ns) = (member.max_rss_bytes?, member.ended_at_ns?);
        Some((bytes, at_ns, HolderSource::ExitPeak))
    };
    let (rss_bytes, at_ns, source) = look.or_else(peak)?;
    Some(Holder {
        pid: member.process.pid,
        comm: member.process.comm.clone(),
        rss_bytes,
        at_ns,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evidence::{OomContext, Process, SignalInfo, WaitStatus},
        trace::{CpuTime, Event, EventKind},
    };

    fn process(pid: u32) -> Process {
        Process {
            pid,
            start_time_ns: u64::from(pid),
            tid: pid,
            comm: format!("c{pid}"),
            exe: None,
            uid: None,
            cgroup_id: 1,
        }
    }

    fn kill(pid: u32, at_ns: u64, victim_rss_bytes: Option<u64>) -> Signal {
        Signal {
            at_ns,
            signal: 9,
            si_code: None,
            info: SignalInfo::Priv,
            group: true,
            result: Delivery::Delivered,
            sender: process(2),
            victim: process(pid),
            victim_is_main: pid == 2,
            sender_in_leaf: true,
            sender_exiting: false,
            target_new: false,
            behind_another: false,
            by_sigqueue: false,
            injected: false,
            cpu_limit_s: None,
            cgroup_kill: None,
            oom: Some(OomContext {
                cgroup_id: Some(1),
                usage_bytes: None,
                max_bytes: None,
                points: 0,
                chosen_pid: 3,
                demanded: false,
                victim_rss_bytes,
                holders: Vec::new(),
            }),
            intent: None,
        }
    }

    /// Processes 2 to `last`, born at their pids.
    fn table(last: u32) -> ProcessTable {
        let mut table = ProcessTable::default();
        for pid in 2..=last {
            table.take(&Event {
                seq: 0,
                at_ns: u64::from(pid),
                cgroup_id: 1,
                kind: EventKind::Birth {
                    child: process(pid),
                    parent: process(1),
                },
            });
        }
        table
    }

    fn exits(table: &mut ProcessTable, pid: u32, at_ns: u64, max_rss_bytes: u64) {
        table.take(&Event {
            seq: 0,
            at_ns,
            cgroup_id: 1,
            kind: EventKind::Exit {
                process: process(pid),
                status: WaitStatus::Exited { code: 0 },
                group_status: None,
                live: 0,
                max_rss_bytes: Some(max_rss_bytes),
                cpu: CpuTime::default(),
            },
        });
    }

    fn named(signal: &Signal) -> Vec<(u32, u64, HolderSource)> {
        let holders = signal.oom.iter().flat_map(|oom| &oom.holders);
        holders
            .map(|holder| (holder.pid, holder.rss_bytes, holder.source))
            .collect()
    }

    #[test]
    fn each_is_told_by_the_best_that_is_known_of_it_largest_first() {
        let mut table = table(6);
        exits(&mut table, 4, 90, 4000);
        exits(&mut table, 5, 200, 500);
        for member in table.living().filter(|member| member.process.pid == 6) {
            member.looks = [(900, 50), (600, 101), (800, 190)]
                .map(|(rss_bytes, at_ns)| Look { rss_bytes, at_ns })
                .to_vec();
        }
        let mut signals = [
            kill(3, 100, Some(700)),
            kill(2, 102, Some(50)),
            kill(7, 103, Some(9)),
        ];
        add(&table, &mut signals);
        let expected = [
            (3, 700, HolderSource::Kill),
            (6, 600, HolderSource::Sample),
            (5, 500, HolderSource::ExitPeak),
            (2, 50, HolderSource::Kill),
            (7, 9, HolderSource::Kill),
        ];
        assert_eq!(named(&signals[0]), expected, "4 had gone before");
        assert_eq!(named(&signals[1]), expected, "it is main");
        assert_eq!(named(&signals[2]), [], "it is of the same OOM");
    }

    #[test]
    fn a_later_oom_has_its_own_holders_and_ten_at_most() {
        let mut table = table(40);
        for pid in 4..=40 {
            exits(&mut table, pid, 5_000_000_000, u64::from(pid));
        }
        let mut signals = [
            kill(3, 1_000_000_000, Some(7)),
            kill(3, 3_000_000_000, Some(1000)),
        ];
        add(&table, &mut signals);
        for signal in &signals {
            assert_eq!(named(signal).len(), NAMED);
        }
        assert_eq!(named(&signals[1])[0], (3, 1000, HolderSource::Kill));
        assert_eq!(named(&signals[0])[0], (40, 40, HolderSource::ExitPeak));
    }

    #[test]
    fn a_look_takes_the_memory_of_who_is_there() {
        let pid = std::process::id();
        let stat = Stat::of(pid).expect("we are there");
        let mut table = ProcessTable::default();
        let us = Process {
            pid,
            start_time_ns: stat.start_time_ticks * 10_000_000,
            ..process(pid)
        };
        let stranger = Process {
            start_time_ns: 0,
            ..us.clone()
        };
        for child in [us, stranger] {
            table.take(&Event {
                seq: 0,
                at_ns: 0,
                cgroup_id: 1,
                kind: EventKind::Birth {
                    child,
                    parent: process(1),
                },
            });
        }
        look(&mut table, 77);
        let looks: Vec<Look> = table
            .members()
            .flat_map(|member| member.looks.clone())
            .collect();
        assert_eq!(looks.len(), 1, "a namesake is another");
        assert!(looks[0].rss_bytes > 1 << 20 && looks[0].at_ns == 77);
    }
}
