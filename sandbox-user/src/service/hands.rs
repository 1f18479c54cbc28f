//! What people have done to runs that go on: their supervisors are told, by the runs' own sockets.
//!
//! Each order is in the audit log before it is given; where it comes to nothing that is entered as well, and so is
//! one that is meant for others' runs.

use std::io;

use super::{
    attendant::{MOST_LISTED, answer, refused},
    control,
    office::{Call, Office, Ordered, Reply},
    peer::Peer,
    protocol::{Answer, MAX_REASON_BYTES},
};
use crate::{
    audit::Order,
    config::Config,
    identity::{self, Choice, SystemAccounts},
    policy::{Ceilings, TimeoutChange},
    store::{Filter, Run, RunState, Whose},
    supervise::{Asker, Control, Controlled, is_kept},
};

/// Ends runs.
pub(super) fn kill(
    peer: &Peer,
    filter: Filter,
    reason: Option<String>,
    office: &mut Office,
) -> Answer {
    if reason
        .as_ref()
        .is_some_and(|reason| reason.len() > MAX_REASON_BYTES)
    {
        return refused(format!("a reason has {MAX_REASON_BYTES} bytes at most"));
    }
    let order = Given {
        order: Order::Kill,
        detail: reason.clone(),
        control: Control::Kill {
            by: peer.name(),
            pid: peer.pid.unsigned_abs(),
            reason,
            is_patient: false,
        },
    };
    give(peer, filter, &order, office)
}

/// Holds runs still.
pub(super) fn freeze(peer: &Peer, filter: Filter, office: &mut Office) -> Answer {
    let order = Given {
        order: Order::Freeze,
        detail: None,
        control: Control::Freeze(asker(peer)),
    };
    give(peer, filter, &order, office)
}

/// Lets runs go on.
pub(super) fn thaw(peer: &Peer, filter: Filter, office: &mut Office) -> Answer {
    let order = Given {
        order: Order::Thaw,
        detail: None,
        control: Control::Thaw(asker(peer)),
    };
    give(peer, filter, &order, office)
}

/// Changes the wall clock limit of runs. Who is not root is held to the ceilings of who asks, as whom all their
/// runs go on.
pub(super) fn update(
    peer: &Peer,
    filter: Filter,
    timeout: TimeoutChange,
    config: &Config,
    office: &mut Office,
) -> Answer {
    let ceiling = match ceilings(peer, config) {
        Ok(ceilings) => ceilings.of_timeout(),
        Err(error) => return refused(error.to_string()),
    };
    let order = Given {
        order: Order::Update,
        detail: Some(format!("timeout {timeout}")),
        control: Control::Update {
            by: asker(peer),
            timeout,
            ceiling,
        },
    };
    give(peer, filter, &order, office)
}

fn ceilings(peer: &Peer, config: &Config) -> Result<Ceilings, Box<dyn std::error::Error>> {
    let uid = peer.caller.uid;
    if uid == 0 {
        return Ok(Ceilings::default());
    }
    let who = identity::resolve(&Choice::Caller { uid }, &peer.caller, &SystemAccounts)?;
    Ok(config.policy_for(Some(&who), &SystemAccounts)?.ceilings)
}

fn asker(peer: &Peer) -> Asker {
    Asker {
        by: peer.name(),
        uid: peer.caller.uid,
        pid: peer.pid.unsigned_abs(),
    }
}

/// What is to be done, as the audit log has it and as a supervisor is told it.
struct Given {
    order: Order,
    detail: Option<String>,
    control: Control,
}

impl Given {
    /// As the audit log has it.
    fn entry(&self, peer: &Peer, run: &Run) -> Ordered {
        Ordered {
            uid: peer.caller.uid,
            pid: peer.pid,
            run_id: run.run_id,
            order: self.order,
            detail: self.detail.clone(),
        }
    }
}

/// Tells the supervisors of the runs that are meant.
fn give(peer: &Peer, filter: Filter, given: &Given, office: &mut Office) -> Answer {
    let filter = Filter {
        unfinished: true,
        ..filter
    };
    let meant = Call::List {
        whose: peer.whose(),
        filter: filter.clone(),
        most: MOST_LISTED,
    };
    let runs = match office.call(&meant) {
        Ok(Reply::Runs(runs)) => runs,
        other => return answer(other),
    };
    if runs.is_empty() && names_whose(&filter) {
        refuse(peer, filter, given, office);
    }
    let (mut run_ids, mut problems, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
    for run in runs {
        match give_one(peer, &run, given, office) {
            Ok(Some(Ok(said))) => {
                run_ids.push(run.run_id);
                remarks.extend(said.map(|said| format!("{}: {said}", run.run_id)));
            }
            // It has ended meanwhile.
            Ok(None) => {}
            Ok(Some(Err(problem))) => problems.push(format!("{}: {problem}", run.run_id)),
            Err(error) => problems.push(format!("{}: {error}", run.run_id)),
        }
    }
    Answer::Told {
        run_ids,
        problems,
        remarks,
    }
}

/// Whether somebody's runs are asked for, and not whatever of one's own there is.
fn names_whose(filter: &Filter) -> bool {
    filter.id.is_some() || filter.user.is_some()
}

/// Enters that an order was meant for others' runs, the latest of them only: else one order
/// could enter thousands. To who gave it they are not there.
fn refuse(peer: &Peer, filter: Filter, given: &Given, office: &mut Office) {
    let others = Call::List {
        whose: Whose::All,
        filter,
        most: 1,
    };
    let Ok(Reply::Runs(others)) = office.call(&others) else {
        return;
    };
    for run in others {
        let reason = format!("refused: it is a run of uid {}", run.uid);
        // It is refused, whether that can be entered or not.
        let _ = office.call(&Call::Declined(given.entry(peer, &run), reason));
    }
}

fn give_one(
    peer: &Peer,
    run: &Run,
    given: &Given,
    office: &mut Office,
) -> io::Result<Option<Controlled>> {
    // Whatever is said to one that waits for its turn ends it.
    if run.state == RunState::Queued && given.order != Order::Kill {
        return Ok(Some(Err(
            "it waits for its turn, and has not begun".to_owned()
        )));
    }
    let entry = given.entry(peer, run);
    if let Reply::Refused(reason) = office.call(&Call::Ordered(entry.clone()))? {
        return Err(io::Error::other(reason));
    }
    let mut done = control::order(run.run_id, &given.control);
    if matches!(done, Ok(None)) && is_kept(run.run_id) {
        office.call(&Call::LookForLost)?;
        let said = "its supervisor was killed: it is being ended and recorded, see `sandbox show`";
        done = Ok(Some(Err(said.to_owned())));
    }
    let reason = match &done {
        Ok(Some(Ok(_))) => return done,
        Ok(Some(Err(problem))) => problem.clone(),
        Ok(None) => "it has ended".to_owned(),
        Err(error) => error.to_string(),
    };
    // What came of it stands, whether that can be entered or not.
    let _ = office.call(&Call::Declined(entry, reason));
    done
}
