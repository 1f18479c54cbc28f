//! How a run waits for its turn, whatever becomes of the service meanwhile.

use std::{io, os::fd::AsFd as _};

use nix::poll::PollTimeout;

use super::{
    super::{
        attendant::{answer, refused, tell},
        control,
        office::{Application, Call, Office, Reply, has_gone},
        protocol::Answer,
    },
    Charge,
};
use crate::sys::readiness::readable;

/// How often a run that is detached looks whether there is a service again.
const LOOK_EVERY_MS: u16 = 500;

impl Charge<'_> {
    /// Has it stored, and waits for its turn. Whoever says something to it meanwhile ends the wait: that is for
    /// its supervisor to hear.
    pub(super) fn wait(
        &mut self,
        application: Application,
        office: &mut Office,
    ) -> Result<(), Answer> {
        let mut reply = office.call(&Call::Accept(application.clone()));
        if matches!(reply, Ok(Reply::Done | Reply::Waiting(_))) {
            self.keep_events();
        }
        loop {
            let ahead = match reply {
                Ok(Reply::Done) => return Ok(()),
                Ok(Reply::Waiting(ahead)) => ahead,
                // The service has gone before it was this run's turn.
                Err(error) if has_gone(&error) && self.logging.is_none() => {
                    return Err(self.give_back());
                }
                Err(error) if has_gone(&error) => match self.once_it_is_back() {
                    Ok(Some(next)) => {
                        *office = next;
                        reply = office.call(&Call::Resume(application.clone()));
                        continue;
                    }
                    // It is to be ended, and needs nobody's leave for that.
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        let why = format!("there is no way back to the service: {error}");
                        return Err(self.comes_to_nothing(refused(why), office));
                    }
                },
                // The service has it: only what it has told to wait is to be settled with it.
                other if self.logging.is_some() => {
                    return Err(self.comes_to_nothing(answer(other), office));
                }
                other => return Err(answer(other)),
            };
            if !self.is_asked {
                self.tell_place(ahead)?;
            }
            reply = self.next_reply(office);
        }
    }

    /// It is its client's again, who asks the next service for another.
    fn give_back(&mut self) -> Answer {
        // One that somebody wants to be ended is lost, as whoever asks for it is told.
        if self.is_asked || !matches!(self.is_called(), Ok(false)) {
            return refused("it was ended before the run had begun: nothing of it was started");
        }
        match control::give_back(self.run_id) {
            Ok(()) => Answer::Again {},
            Err(error) => refused(format!(
                "the service was ended, and it cannot be noted that this run did not begin: {error}"
            )),
        }
    }

    /// Waits for the next service; `None` where it is to be ended meanwhile.
    fn once_it_is_back(&mut self) -> io::Result<Option<Office>> {
        while !self.is_asked {
            if let Some(office) = Office::of_the_service()? {
                return Ok(Some(office));
            }
            let fds = [self.control.as_fd(), self.cancellations.as_fd()];
            let [_, is_signalled] = readable(fds, LOOK_EVERY_MS)?;
            self.is_asked = is_signalled || self.is_called()?;
        }
        Ok(None)
    }

    fn tell_place(&mut self, ahead: usize) -> Result<(), Answer> {
        if self.logging.is_none() {
            // Where it has gone that is seen next.
            let _ = tell(self.client.socket, &Answer::Queued { ahead });
        }
        self.part()
    }

    /// What the service says next. Whoever asks for the end meanwhile has the run give up its turn.
    fn next_reply(&mut self, office: &mut Office) -> io::Result<Reply> {
        let is_attached = self.kept.logs.is_none();
        while !self.is_asked && !office.has_more() {
            // Also by what it has said right behind its request.
            if is_attached && self.client.wants_the_end() {
                return self.give_up(office);
            }
            let (line, control) = (office.line().as_fd(), self.control.as_fd());
            let signals = self.cancellations.as_fd();
            let [is_answered, is_signalled] = if is_attached {
                let client = self.client.socket.as_fd();
                let fds = [line, signals, control, client];
                let [line, signals, ..] = readable(fds, PollTimeout::NONE)?;
                [line, signals]
            } else {
                let [line, signals, _] = readable([line, signals, control], PollTimeout::NONE)?;
                [line, signals]
            };
            if is_answered {
                break;
            }
            if is_signalled || self.is_called()? {
                return self.give_up(office);
            }
        }
        office.reply()
    }

    /// Whether somebody has come to its socket with something to say, which its supervisor is to hear.
    fn is_called(&mut self) -> io::Result<bool> {
        self.callers.extend(control::callers(&self.control)?);
        Ok(!self.callers.is_empty())
    }

    /// It is not to wait any more: its supervisor is to hear first what is asked for.
    fn give_up(&mut self, office: &mut Office) -> io::Result<Reply> {
        self.is_asked = true;
        office.call(&Call::GiveUp)
    }
}
