//! Who may come in: connections are counted by user, and each that says something gets a process that
//! attends to it.
//!
//! Nothing that a client sends is read here, least of all descriptors.

use std::{
    cell::RefCell, collections::HashMap, io, os::fd::AsRawFd as _, rc::Rc, sync::Arc,
    time::Duration,
};

use nix::sys::socket::{MsgFlags, recv};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use super::{
    attendant::{refused, tell},
    desk,
    hearing::ASKED_WITHIN,
    launch,
    metrics::Refusal,
    peer::Peer,
    protocol::to_line,
    state::Service,
};
use crate::say::say;

/// Connections at a time; further ones wait.
const CONNECTIONS: usize = 8192;
/// Of these, all users' at most, root apart: further ones are refused. Whoever holds them, root is heard.
const CONNECTIONS_OF_USERS: usize = CONNECTIONS - 256;
/// One user's at most.
const CONNECTIONS_OF_A_USER: usize = 2048;
/// How long one may wait for being heard out.
const HEARD_WITHIN: Duration = Duration::from_secs(60);
/// How many of a user's clients are heard out at a time; the others wait. It bounds the processes and the memory
/// that somebody can have before it is known what for.
const ASKING_OF_A_USER: usize = 16;

/// Receives whoever connects.
pub(super) async fn receive(listener: UnixListener, service: Rc<Service>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let users = Users::default();
    loop {
        // Never closed.
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((socket, _)) => {
                let (users, service) = (users.clone(), Rc::clone(&service));
                tokio::task::spawn_local(async move {
                    welcome(socket, &users, &service).await;
                    service.count_clients(users.connections());
                    drop(place);
                });
            }
            // EMFILE and the like: it goes on once others have gone.
            Err(error) => {
                say(format_args!("a connection could not be accepted: {error}"));
                sleep(ASKED_WITHIN).await;
            }
        }
    }
}

/// Receives those attendants that have lost their line to a service before this one: root's, and no analysis.
pub(super) async fn receive_attendants(listener: UnixListener, service: Rc<Service>) {
    loop {
        match listener.accept().await {
            Ok((line, _)) if is_an_attendants(&line) => {
                tokio::task::spawn_local(desk::serve(Rc::clone(&service), line, None));
            }
            Ok(_) => say("somebody who is no attendant of the service's was not let in"),
            Err(error) => {
                say(format_args!("an attendant cannot be heard: {error}"));
                sleep(ASKED_WITHIN).await;
            }
        }
    }
}

fn is_an_attendants(line: &UnixStream) -> bool {
    let Ok(peer) = Peer::of(line) else {
        return false;
    };
    peer.caller.uid == 0 && peer.leaf().is_ok_and(|leaf| leaf.is_none())
}

async fn welcome(socket: UnixStream, users: &Users, service: &Rc<Service>) {
    let Ok(peer) = socket.peer_cred() else {
        return;
    };
    let visit = users.admit(peer.uid());
    service.count_clients(users.connections());
    let visit = match visit {
        Ok(visit) => visit,
        Err(reason) => {
            service.turned_away(Refusal::Connections);
            return refuse(&socket, reason);
        }
    };
    match timeout(ASKED_WITHIN, says_something(&socket)).await {
        Err(_) => {
            service.turned_away(Refusal::Malformed);
            return refuse(&socket, "no whole request came within 10 s");
        }
        Ok(Err(_) | Ok(false)) => return,
        Ok(Ok(true)) => {}
    }
    let Ok(asking) = timeout(HEARD_WITHIN, visit.asks()).await else {
        service.turned_away(Refusal::Connections);
        return refuse(
            &socket,
            "too many of your requests are being heard: try again later",
        );
    };
    match attended(socket, service) {
        Ok(line) => desk::serve(Rc::clone(service), line, asking).await,
        Err(error) => say(format_args!("a client cannot be attended to: {error}")),
    }
}

/// Waits until there is something to be read; `false` where the client has gone.
async fn says_something(socket: &UnixStream) -> io::Result<bool> {
    let peek = || {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        Ok(recv(socket.as_raw_fd(), &mut [0], flags)?)
    };
    socket
        .async_io(Interest::READABLE, peek)
        .await
        .map(|length| length > 0)
}

/// Starts the process that attends to it; gives the line to that.
fn attended(socket: UnixStream, service: &Service) -> io::Result<UnixStream> {
    let client = socket.into_std()?;
    client.set_nonblocking(false)?;
    let (near, far) = std::os::unix::net::UnixStream::pair()?;
    near.set_nonblocking(true)?;
    let config = service.config_file()?;
    let client = client.into();
    if let Err(error) = launch::attendant(&client, &far.into(), &config) {
        service.turned_away(Refusal::Connections);
        let answer = refused(format!(
            "no process can be started that attends to you: {error}"
        ));
        // A new connection has room for it.
        let _ = tell(&client.into(), &answer);
        return Err(error);
    }
    UnixStream::from_std(near)
}

fn refuse(socket: &UnixStream, reason: &str) {
    if let Ok(line) = to_line(&refused(reason)) {
        // A new connection has room for it; one that has gone needs none.
        let _ = socket.try_write(&line);
    }
}

/// The users who are there.
#[derive(Clone, Debug, Default)]
struct Users(Rc<RefCell<HashMap<u32, User>>>);

#[derive(Debug)]
struct User {
    connections: usize,
    asking: Arc<Semaphore>,
}

/// One connection. Dropped, it counts no more.
#[derive(Debug)]
struct Visit(Users, u32);

impl Users {
    /// Counts one more.
    ///
    /// # Errors
    /// Where that user has enough, or all have: what is to be said.
    fn admit(&self, uid: u32) -> Result<Visit, &'static str> {
        if uid != 0 && self.of_others_than_root() >= CONNECTIONS_OF_USERS {
            return Err("too many connections are open: try again later");
        }
        let mut users = self.0.borrow_mut();
        let user = users.entry(uid).or_insert_with(|| User {
            connections: 0,
            asking: Arc::new(Semaphore::new(ASKING_OF_A_USER)),
        });
        if uid != 0 && user.connections >= CONNECTIONS_OF_A_USER {
            return Err("you have too many connections: close some");
        }
        user.connections += 1;
        Ok(Visit(self.clone(), uid))
    }

    fn of_others_than_root(&self) -> usize {
        let users = self.0.borrow();
        let others = users.iter().filter(|(uid, _)| **uid != 0);
        others.map(|(_, user)| user.connections).sum()
    }

    /// How many connections there are.
    fn connections(&self) -> usize {
        let users = self.0.borrow();
        users.values().map(|user| user.connections).sum()
    }
}

impl Visit {
    /// Waits until it may be heard out.
    async fn asks(&self) -> Option<OwnedSemaphorePermit> {
        let Self(Users(users), uid) = self;
        let asking = Arc::clone(&users.borrow().get(uid)?.asking);
        // Never closed.
        asking.acquire_owned().await.ok()
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Self(Users(users), uid) = self;
        let mut users = users.borrow_mut();
        if let Some(user) = users.get_mut(uid) {
            user.connections -= 1;
            if user.connections == 0 {
                users.remove(uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_all_connections() {
        let users = Users::default();
        let visits: Vec<Visit> = (0..CONNECTIONS_OF_A_USER)
            .map(|_| users.admit(1000).expect("there is room"))
            .collect();
        assert!(users.admit(1000).is_err());
        assert!(users.admit(1001).is_ok() && users.admit(0).is_ok());
        drop(visits);
        assert!(users.admit(1000).is_ok());
        assert!(users.0.borrow().is_empty(), "nobody is there any more");
    }

    #[test]
    fn users_together_leave_places_for_root() {
        let users = Users::default();
        let visits: Vec<Visit> = (0..)
            .map_while(|number| users.admit(1000 + number / 1000).ok())
            .collect();
        assert_eq!(visits.len(), CONNECTIONS_OF_USERS);
        assert!(users.admit(7).is_err());
        let roots: Vec<Visit> = (visits.len()..CONNECTIONS)
            .map_while(|_| users.admit(0).ok())
            .collect();
        assert_eq!(visits.len() + roots.len(), CONNECTIONS);
        assert!(users.admit(7).is_err(), "root's are not theirs");
    }
}
