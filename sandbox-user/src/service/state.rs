//! What the service knows besides its records: the configuration in force, and which runs go on or wait.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    io,
    os::fd::OwnedFd,
    rc::Rc,
};

use tokio::sync::Notify;

use super::{
    in_force::InForce,
    metrics::{Format, Metrics, Refusal},
    office::{Application, Ordered, Refused},
    queue::{Admission, Capacity, Entry, Need, Queue},
    records::Records,
    serve::ServeError,
    trail::Trail,
    waiters::Waiters,
};
use crate::{
    audit::{AuditError, Event, Excerpt, Words},
    cgroup::Proc,
    say::{mention, say},
    spec::RunId,
    store::{Now, Run, RunState, StoreError},
};

/// The service's state, which its tasks share.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) records: Records,
    /// Told whenever the queue has moved.
    pub(super) queue_moved: Notify,
    /// Told where a run was met that has lost its supervisor.
    pub(super) lost: Notify,
    /// Who waits for runs that go on.
    pub(super) waiters: Waiters,
    in_force: RefCell<InForce>,
    queue: RefCell<Queue>,
    /// How many are before each that waits.
    places: RefCell<HashMap<RunId, usize>>,
    /// The runs that an attendant here looks after.
    attended: RefCell<HashSet<RunId>>,
    /// Whether nothing is started yet, since those that wait have still to come.
    is_gathering: Cell<bool>,
    trail: Rc<Trail>,
    metrics: Rc<Metrics>,
}

impl Service {
    /// Begins with the runs that a service before this one had started.
    ///
    /// # Errors
    /// Where the store cannot be read, or the audit log not be written.
    pub(super) fn new(
        records: Records,
        in_force: InForce,
        trail: Rc<Trail>,
        metrics: Rc<Metrics>,
    ) -> Result<Self, ServeError> {
        trail.keep_policy(&in_force)?;
        trail.enter(&Event::ServiceStarted {
            version: Excerpt::from(env!("CARGO_PKG_VERSION")),
            boot_id: Excerpt::from(Proc::default().boot_id().unwrap_or_default()),
            config_sha256: in_force.sha256(),
        })?;
        let service = Self {
            records,
            queue_moved: Notify::new(),
            lost: Notify::new(),
            waiters: Waiters::on(Proc::default().memory_total_bytes().unwrap_or_default()),
            in_force: RefCell::new(in_force),
            queue: RefCell::default(),
            places: RefCell::default(),
            attended: RefCell::default(),
            is_gathering: Cell::default(),
            trail,
            metrics,
        };
        service.look_after();
        service.adopt()?;
        Ok(service)
    }

    /// Those that wait come by themselves ([`Self::readmit`]), and none is started before they are all there.
    fn adopt(&self) -> Result<(), StoreError> {
        for run in self.records.unfinished()? {
            if run.state == RunState::Queued {
                self.is_gathering.set(true);
                continue;
            }
            self.queue.borrow_mut().adopt(Entry {
                run_id: run.run_id,
                uid: run.uid,
                most_of_user: None,
                need: Need {
                    memory_bytes: run.memory_bytes,
                    cpus: run.cpus,
                    pids: run.pids,
                },
            });
        }
        self.count();
        Ok(())
    }

    /// Begins to start runs, now that those that waited have had the time to come.
    pub(super) fn has_gathered(&self) {
        self.is_gathering.set(false);
        self.move_up();
    }

    fn capacity(&self) -> Capacity {
        let capacity = self.in_force.borrow().capacity();
        match self.is_gathering.get() {
            true => Capacity {
                runs: Some(0),
                ..capacity
            },
            false => capacity,
        }
    }

    /// The text of the configuration in force, for a process that is to go by it.
    ///
    /// # Errors
    /// EMFILE and the like.
    pub(super) fn config_file(&self) -> io::Result<OwnedFd> {
        self.in_force.borrow().to_file()
    }

    /// Reads the configuration anew; one that is not right changes nothing.
    pub(super) fn reload(&self) {
        let read = match InForce::read() {
            Ok(read) => read,
            Err(error) => {
                return say(format_args!(
                    "{error}; the configuration that was read before stays in force"
                ));
            }
        };
        if *self.in_force.borrow() == read {
            return mention("the configuration is the same as before");
        }
        if self.in_force.borrow().config.service.metrics != read.config.service.metrics {
            say("where metrics are served changes only when the service is started again");
        }
        if let Err(error) = self.trail.keep_policy(&read) {
            say(error);
        }
        self.trail.tell(&Event::ConfigLoaded {
            config_sha256: read.sha256(),
        });
        *self.in_force.borrow_mut() = read;
        mention("the configuration was read anew");
        self.move_up();
    }

    /// Takes a run in: stores it, to be started at once or to wait for its turn.
    ///
    /// # Errors
    /// Why it is refused, or can be neither stored nor entered in the audit log, for the client.
    pub(super) fn admit(&self, application: &Application) -> Result<(), String> {
        let run_id = application.run_id;
        let capacity = self.capacity();
        let admission = self
            .queue
            .borrow_mut()
            .admit(application.entry(), &capacity);
        let state = match admission {
            Admission::Start => RunState::Running,
            Admission::Wait => RunState::Queued,
            Admission::Refuse(kind, reason) => {
                self.refused(Refused {
                    uid: application.uid,
                    pid: application.pid,
                    kind,
                    reason: reason.clone(),
                });
                return Err(reason);
            }
        };
        if let Err(error) = self.store(application, state) {
            self.queue.borrow_mut().remove(run_id);
            self.move_up();
            return Err(error);
        }
        self.attended.borrow_mut().insert(run_id);
        self.count();
        Ok(())
    }

    /// Takes a run in that waits since a service before this one has accepted it.
    ///
    /// # Errors
    /// Where it does not wait as far as is known, or could never be started any more: for the run's own process.
    pub(super) fn readmit(&self, application: &Application) -> Result<(), String> {
        let run_id = application.run_id;
        let state = self.records.state(run_id);
        match state.map_err(|error| error.to_string())? {
            Some(RunState::Queued) => {
                let capacity = self.capacity();
                let mut queue = self.queue.borrow_mut();
                queue.readmit(application.entry(), &capacity)?;
            }
            // It was its turn, and the service was ended before it could say so.
            Some(RunState::Running) => {}
            Some(RunState::Ended) | None => return Err(format!("run {run_id} does not wait")),
        }
        self.attended.borrow_mut().insert(run_id);
        self.count();
        Ok(())
    }

    fn store(&self, application: &Application, state: RunState) -> Result<(), String> {
        let accepted = Event::Accepted {
            run_id: application.run_id,
            uid: application.uid,
            pid: application.pid,
            user: application.asked_user.as_deref().map(Excerpt::from),
            command: Words::from(application.command.as_slice()),
            config_sha256: self.in_force.borrow().sha256(),
        };
        self.trail
            .enter(&accepted)
            .map_err(|error| error.to_string())?;
        self.records.accept(application, state).map_err(|error| {
            self.trail.tell(&Event::Withdrawn {
                run_id: application.run_id,
                reason: Excerpt::from("it could not be stored"),
            });
            error.to_string()
        })
    }

    /// How many are before a run that waits; `None` where it does not: it may start.
    pub(super) fn ahead(&self, run_id: RunId) -> Option<usize> {
        self.places.borrow().get(&run_id).copied()
    }

    /// Says of a run that waits how many are before it.
    pub(super) fn place(&self, run: &mut Run) {
        if run.state == RunState::Queued {
            run.now = Some(Now {
                ahead: self.ahead(run.run_id),
                ..Now::default()
            });
        }
    }

    /// A run that waited is started.
    ///
    /// # Errors
    /// Where that cannot be stored.
    pub(super) fn starts(&self, run_id: RunId) -> Result<(), StoreError> {
        self.records.start(run_id)
    }

    /// A run does not want to wait for its turn, where it has not had it just now.
    ///
    /// # Errors
    /// As [`Self::starts`].
    pub(super) fn gives_up(&self, run_id: RunId) -> Result<(), StoreError> {
        if self.ahead(run_id).is_some() {
            self.queue.borrow_mut().remove(run_id);
            self.move_up();
        }
        self.records.start(run_id)
    }

    /// A run is over, with this exit status.
    ///
    /// # Errors
    /// Where its record cannot be stored, which then waits in the spool.
    pub(super) fn ended(&self, run_id: RunId, status: u8) -> Result<(), StoreError> {
        self.release(run_id);
        self.records.settle(run_id, status)
    }

    /// A run's attendant has gone without a word.
    ///
    /// # Errors
    /// As [`Self::ended`].
    pub(super) fn abandoned(&self, run_id: RunId) -> Result<(), StoreError> {
        self.release(run_id);
        self.records.abandoned(run_id, RunState::Running)
    }

    fn release(&self, run_id: RunId) {
        self.attended.borrow_mut().remove(&run_id);
        self.queue.borrow_mut().remove(run_id);
        self.move_up();
    }

    /// Starts those whose turn it is now, and tells all that wait.
    fn move_up(&self) {
        let capacity = self.capacity();
        self.queue.borrow_mut().start_next(&capacity);
        self.count();
        self.queue_moved.notify_waiters();
    }

    fn count(&self) {
        let queue = self.queue.borrow();
        let order = queue.order().into_iter();
        *self.places.borrow_mut() = order
            .enumerate()
            .map(|(place, run_id)| (run_id, place))
            .collect();
        self.metrics.set_running(queue.running());
        self.metrics.set_queued(queue.waiting());
    }

    /// Takes in what runs have left, whose places are free from then on, whatever they still do.
    pub(super) fn take_in(&self) {
        let over = self.records.take_in_all();
        if over.is_empty() {
            return;
        }
        for run_id in over {
            self.queue.borrow_mut().remove(run_id);
        }
        self.move_up();
    }

    /// Looks after runs that no attendant here has: takes in what they have left, and lets their places go.
    pub(super) fn look_after(&self) {
        let is_attended = |run_id| self.attended.borrow().contains(&run_id);
        self.take_in();
        self.records.look_after(is_attended);
        self.records.expire(&self.in_force.borrow().config.service);
        let adopted: Vec<RunId> = self
            .queue
            .borrow()
            .run_ids()
            .filter(|run_id| !is_attended(*run_id))
            .collect();
        for run_id in adopted {
            if self.records.is_over(run_id).is_ok_and(|is_over| is_over) {
                self.release(run_id);
            }
        }
    }

    /// Somebody is about to have something done to a run.
    ///
    /// # Errors
    /// Where that cannot be entered in the audit log; it is not to be done then.
    pub(super) fn ordered(&self, order: Ordered) -> Result<(), AuditError> {
        let Ordered {
            uid,
            pid,
            run_id,
            order,
            detail,
        } = order;
        self.trail.enter(&Event::Ordered {
            uid,
            pid,
            run_id,
            order,
            detail: detail.as_deref().map(Excerpt::from),
        })
    }

    /// What somebody was about to have done to a run came to nothing.
    pub(super) fn declined(&self, order: &Ordered, reason: &str) {
        self.trail.tell(&Event::Declined {
            uid: order.uid,
            pid: order.pid,
            run_id: order.run_id,
            order: order.order,
            detail: order.detail.as_deref().map(Excerpt::from),
            reason: Excerpt::from(reason),
        });
    }

    /// Somebody was refused.
    pub(super) fn refused(&self, refused: Refused) {
        let Refused {
            uid,
            pid,
            kind,
            reason,
        } = refused;
        self.metrics.refuse(kind);
        self.trail.tell(&Event::Refused {
            uid,
            pid,
            what: Excerpt::from("run"),
            reason: Excerpt::from(reason.as_str()),
        });
    }

    /// A client was not even heard.
    pub(super) fn turned_away(&self, kind: Refusal) {
        self.metrics.refuse(kind);
    }

    /// How many clients there are.
    pub(super) fn count_clients(&self, clients: usize) {
        self.metrics.set_connections(clients);
    }

    /// What is counted, as OpenMetrics has it.
    pub(super) fn metrics(&self) -> String {
        self.metrics.render(Format::OpenMetrics)
    }
}
