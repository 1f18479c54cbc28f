//! The service's end of the line to an attendant.

use std::{io, rc::Rc};

use serde_json::value::RawValue;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::OwnedSemaphorePermit,
};

use super::{
    office::{Application, Call, Reply},
    protocol::to_line,
    state::Service,
};
use crate::{
    say::say,
    spec::RunId,
    store::{Run, StoreError},
};

/// Serves an attendant to its end. `asking` is let go once that has been answered, or a run is to be started or
/// waited for.
pub(super) async fn serve(
    service: Rc<Service>,
    line: UnixStream,
    asking: Option<OwnedSemaphorePermit>,
) {
    let (calls, replies) = line.into_split();
    let mut desk = Desk {
        calls: BufReader::new(calls),
        replies,
        service,
        asking,
        run: None,
    };
    // What has gone wrong is that the attendant is no more.
    let _ = desk.serve().await;
    if let Some(run_id) = desk.run
        && let Err(error) = desk.service.abandoned(run_id)
    {
        say(error);
    }
}

struct Desk {
    calls: BufReader<OwnedReadHalf>,
    replies: OwnedWriteHalf,
    service: Rc<Service>,
    asking: Option<OwnedSemaphorePermit>,
    /// The run that was accepted here, and has not ended.
    run: Option<RunId>,
}

impl Desk {
    async fn serve(&mut self) -> io::Result<()> {
        while let Some(call) = self.next().await? {
            if let Some(reply) = self.reply_to(call).await? {
                self.say(&reply).await?;
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> io::Result<Option<Call>> {
        let mut line = String::new();
        match self.calls.read_line(&mut line).await? {
            0 => Ok(None),
            _ => Ok(Some(serde_json::from_str(&line)?)),
        }
    }

    async fn say(&mut self, reply: &Reply) -> io::Result<()> {
        self.replies.write_all(&to_line(reply)?).await
    }

    async fn reply_to(&mut self, call: Call) -> io::Result<Option<Reply>> {
        let service = Rc::clone(&self.service);
        Ok(Some(match call {
            Call::Accept(application) => self.accept(&application).await?,
            Call::Resume(application) => self.resume(&application).await?,
            // It was given its turn just now, and has been told so.
            Call::GiveUp => return Ok(None),
            Call::Ended { run_id, status } => {
                self.run = None;
                done(service.ended(run_id, status))
            }
            Call::List {
                whose,
                filter,
                most,
            } => match service.records.list(whose, &filter, most) {
                Ok(mut runs) => {
                    runs.iter_mut().for_each(|run| service.place(run));
                    Reply::Runs(runs)
                }
                Err(error) => Reply::Refused(error.to_string()),
            },
            Call::Show { whose, id } => {
                let mut found = service.records.show(whose, &id);
                if let Ok(Some((run, _))) = &mut found {
                    service.place(run);
                }
                shown(found)
            }
            Call::Wait { whose, id } => {
                let _waiter = match service.waiters.admit(whose) {
                    Ok(waiter) => waiter,
                    Err(reason) => return Ok(Some(Reply::Refused(reason))),
                };
                self.asking = None;
                tokio::select! {
                    ended = service.records.once_ended(whose, &id) => shown(ended),
                    gone = self.calls.fill_buf() => {
                        // It says nothing before it has its reply: it has gone.
                        gone?;
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
            Call::Ordered(order) => done(service.ordered(order)),
            Call::Declined(order, reason) => {
                service.declined(&order, &reason);
                Reply::Done
            }
            Call::LookForLost => {
                service.lost.notify_one();
                Reply::Done
            }
            Call::Refused(refusal) => {
                service.refused(refusal);
                Reply::Done
            }
            Call::Metrics => Reply::Metrics(service.metrics()),
        }))
    }

    /// Takes a run in, and lets it wait for its turn.
    async fn accept(&mut self, application: &Application) -> io::Result<Reply> {
        self.asking = None;
        let run_id = application.run_id;
        if let Err(reason) = self.service.admit(application) {
            return Ok(Reply::Refused(reason));
        }
        self.run = Some(run_id);
        match self.service.ahead(run_id) {
            // It is stored as running.
            None => Ok(Reply::Done),
            Some(_) => self.wait(run_id).await,
        }
    }

    /// Lets a run wait on.
    async fn resume(&mut self, application: &Application) -> io::Result<Reply> {
        let run_id = application.run_id;
        if let Err(reason) = self.service.readmit(application) {
            return Ok(Reply::Refused(reason));
        }
        self.run = Some(run_id);
        self.wait(run_id).await
    }

    /// Until it is the turn of a run that is stored as waiting.
    async fn wait(&mut self, run_id: RunId) -> io::Result<Reply> {
        let service = Rc::clone(&self.service);
        let mut told = None;
        loop {
            // Before it is looked, so that nothing is missed.
            let moved = service.queue_moved.notified();
            let Some(ahead) = service.ahead(run_id) else {
                return Ok(done(service.starts(run_id)));
            };
            if told != Some(ahead) {
                told = Some(ahead);
                self.say(&Reply::Waiting(ahead)).await?;
            }
            tokio::select! {
                () = moved => {}
                call = self.next() => match call? {
                    // What it has been told is for the run itself to hear.
                    Some(Call::GiveUp) => return Ok(done(service.gives_up(run_id))),
                    Some(_) | None => return Err(io::ErrorKind::UnexpectedEof.into()),
                },
            }
        }
    }
}

fn done<E: ToString>(done: Result<(), E>) -> Reply {
    match done {
        Ok(()) => Reply::Done,
        Err(error) => Reply::Refused(error.to_string()),
    }
}

fn shown(found: Result<Option<(Run, Option<String>)>, StoreError>) -> Reply {
    match found {
        Ok(Some((run, record))) => Reply::Run(
            Box::new(run),
            record.and_then(|record| RawValue::from_string(record).ok()),
        ),
        Ok(None) => Reply::Nothing,
        Err(error) => Reply::Refused(error.to_string()),
    }
}
