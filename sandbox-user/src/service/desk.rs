//! The service's end of the line to an attendant.

use std::{cell::RefCell, collections::HashSet, io, rc::Rc};

use serde_json::value::RawValue;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{
    office::{Call, Reply},
    protocol::to_line,
    records::Records,
};
use crate::{
    say::say,
    spec::RunId,
    store::{Run, StoreError},
};

/// All the attendants that are there.
#[derive(Clone, Debug)]
pub(super) struct Desks(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    records: Records,
    /// The runs that attendants look after.
    runs: RefCell<HashSet<RunId>>,
}

impl Desks {
    pub(super) fn new(records: Records) -> Self {
        Self(Rc::new(Shared {
            records,
            runs: RefCell::default(),
        }))
    }

    pub(super) fn records(&self) -> &Records {
        &self.0.records
    }

    /// Looks after the runs that no attendant here has.
    pub(super) fn look_after(&self) {
        let is_attended = |run_id| self.0.runs.borrow().contains(&run_id);
        self.records().look_after(is_attended);
    }

    /// Serves an attendant to its end. `asking` is let go once its client has said what it wants.
    pub(super) async fn serve(&self, line: UnixStream, asking: impl Sized) {
        let (calls, replies) = line.into_split();
        let mut desk = Desk {
            calls: BufReader::new(calls),
            replies,
            desks: self.clone(),
            run: None,
        };
        // What has gone wrong is that the attendant is no more.
        let _ = desk.serve(asking).await;
        if let Some(run_id) = desk.run {
            self.0.runs.borrow_mut().remove(&run_id);
            if let Err(error) = self.records().abandoned(run_id) {
                say(error);
            }
        }
    }
}

struct Desk {
    calls: BufReader<OwnedReadHalf>,
    replies: OwnedWriteHalf,
    desks: Desks,
    /// The run that was accepted here, and has not ended.
    run: Option<RunId>,
}

impl Desk {
    async fn serve(&mut self, asking: impl Sized) -> io::Result<()> {
        let mut call = self.next().await?;
        drop(asking);
        while let Some(asked) = call {
            let reply = self.reply_to(asked).await?;
            self.replies.write_all(&to_line(&reply)?).await?;
            call = self.next().await?;
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

    async fn reply_to(&mut self, call: Call) -> io::Result<Reply> {
        let records = &self.desks.0.records;
        Ok(match call {
            Call::Accept(application) => match records.accept(&application) {
                Ok(()) => {
                    self.run = Some(application.run_id);
                    self.desks.0.runs.borrow_mut().insert(application.run_id);
                    Reply::Done
                }
                Err(error) => Reply::Refused(error.to_string()),
            },
            Call::Ended { run_id, status } => {
                self.run = None;
                self.desks.0.runs.borrow_mut().remove(&run_id);
                match records.settle(run_id, status) {
                    Ok(()) => Reply::Done,
                    Err(error) => Reply::Refused(error.to_string()),
                }
            }
            Call::List {
                whose,
                filter,
                most,
            } => match records.list(whose, &filter, most) {
                Ok(runs) => Reply::Runs(runs),
                Err(error) => Reply::Refused(error.to_string()),
            },
            Call::Show { whose, id } => shown(records.show(whose, &id)),
            Call::Wait { whose, id } => {
                tokio::select! {
                    ended = records.once_ended(whose, &id) => shown(ended),
                    // It says nothing before it has its reply: it has gone.
                    gone = self.calls.fill_buf() => {
                        gone?;
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        })
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
