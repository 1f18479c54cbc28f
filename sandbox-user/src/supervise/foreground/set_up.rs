//! What is made for a run before it starts: place, leaf, limits, watch.
//!
//! What is known of it is kept at each step, from the first on: whenever both its processes are killed, whoever
//! comes next finds what there is to be removed and recorded.

use super::Made;
use crate::{
    cgroup::{self, LeafCgroup, Owner, Proc},
    evidence::Confidence,
    host::NESTED_PIDS,
    say::say,
    supervise::{
        docket::TraceDocket,
        prepare::{self, RunError},
        recover::recover_if_due,
        state::Reached,
    },
    trace::Tracer,
};

/// Makes place, leaf, limits and watch.
pub(super) async fn set_up(made: &mut Made, guardian_pid: u32) -> Result<(), RunError> {
    let run_id = made.docket.spec.run_id;
    let owner = Owner::of(&Proc::default(), std::process::id(), Some(guardian_pid))?;
    // What fails here is tried again below.
    let _ = made.keep(&owner, Reached::SetUp);
    // The service sees to it for its own, by itself.
    if made.docket.spec.spool.is_none() {
        recover_if_due(&cgroup::Mount::find()?).say();
    }
    made.lap("orphans");

    let place = cgroup::prepare(guardian_pid, run_id, made.docket.spec.limited_callers()).await?;
    made.docket.degraded.extend(place.degraded.iter().cloned());
    if let Some(warning) = place.hold(&made.docket.spec.budget).await? {
        say(warning);
    }
    if let Some(guardian) = &mut made.guardian {
        guardian.announce_leaf(cgroup::leaf_path(&place, run_id));
    }
    let leaf = made
        .leaf
        .insert(LeafCgroup::create(&place, run_id, &owner)?);
    made.docket.leaf = Some(leaf.cgroup().clone());
    made.docket.effective = Some(leaf.limit(&made.docket.spec.limits, made.docket.spec.oom)?);
    made.docket.enclosing = leaf.enclosing()?;
    made.docket.ancestors = leaf.ancestors()?;
    let before = leaf.counters();
    let ancestors_before = leaf.ancestor_counters();
    made.docket.degraded.extend(
        before
            .failures
            .iter()
            .chain(&ancestors_before.failures)
            .map(ToString::to_string),
    );
    made.docket.before = before.value;
    made.docket.ancestors_before = ancestors_before.value;
    let leaf_id = leaf.cgroup().id;
    made.place = Some(place);
    let _ = made.keep(&owner, Reached::SetUp);
    made.lap("cgroup");

    watch(made, leaf_id);
    made.lap("load");
    if let Some(guardian) = &mut made.guardian
        && let Err(problem) = guardian.entrust(&made.docket)
    {
        let warning = format!("no guardian, should `sandbox` be killed: {problem}");
        say(&warning);
        made.docket.degraded.push(warning);
    }
    if let (Some(guardian), Some(place)) = (&mut made.guardian, &made.place)
        && let Some(home) = place.home_of_guardian()
    {
        guardian.send_home(home);
    }
    if let Err(error) = made.keep(&owner, Reached::Ready) {
        // What was kept before says that nothing was started.
        made.forget();
        say(format_args!(
            "no record, should `sandbox` and its guardian both be killed: {error}"
        ));
    }
    Ok(())
}

/// Begins to watch; a host that does not allow it is degraded, not refused.
fn watch(made: &mut Made, leaf_id: u64) {
    if !Proc::default().is_in_first_pid_namespace() {
        // Ours and fugitives' pids are not those that the kernel side sees.
        made.docket
            .degraded
            .push(format!("no kernel side: {NESTED_PIDS}"));
        return;
    }
    let watched = Tracer::open().and_then(|mut tracer| {
        let ring = prepare::watch(&mut tracer, leaf_id, made.docket.spec.ring_bytes)?;
        Ok((tracer, ring))
    });
    match watched {
        Ok((tracer, ring)) => {
            made.docket.trace = TraceDocket::of(&tracer);
            if tracer.mode() < Confidence::Exact {
                made.docket.degraded.push(
                    "the kernel refuses fentry programs: OOM kills and cgroup.kill are told apart by counters"
                        .to_owned(),
                );
            }
            made.tracer = Some(tracer);
            made.ring = Some(ring);
        }
        Err(error) => made.docket.degraded.push(format!(
            "no kernel side, so the verdict rests on counters and the wait status, and an escape would go unseen: {error}"
        )),
    }
}
