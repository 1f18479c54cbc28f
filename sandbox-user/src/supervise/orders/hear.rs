//! The run's own socket: who comes, says one line and hears what came of that.

use std::os::fd::AsRawFd as _;

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{Asked, MAX_LINE_BYTES, SAID_WITHIN};

/// Takes in what is said on a run's socket, until the run has ended.
pub(super) async fn listen(socket: UnixListener, orders: mpsc::UnboundedSender<Asked>) {
    loop {
        match socket.accept().await {
            Ok((connection, _)) => {
                tokio::spawn(hear(connection, orders.clone()));
            }
            // EMFILE: later there may be some again.
            Err(_) => tokio::time::sleep(SAID_WITHIN).await,
        }
    }
}

/// Takes in what one caller says, and answers that.
pub(super) async fn hear(connection: UnixStream, orders: mpsc::UnboundedSender<Asked>) {
    let (said, mut answers) = connection.into_split();
    let mut line = String::new();
    let mut said = BufReader::new(said).take(MAX_LINE_BYTES as u64);
    let Ok(Ok(_)) = timeout(SAID_WITHIN, said.read_line(&mut line)).await else {
        return;
    };
    let answer = match serde_json::from_str(&line) {
        Ok(control) => {
            if has_gone(said.get_ref().get_ref().as_ref()) {
                // It was told meanwhile that this is not done.
                return;
            }
            let (sender, answer) = oneshot::channel();
            let sent = orders.send((control, sender));
            match (sent, answer.await) {
                (Ok(()), Ok(answer)) => answer,
                // Closed without a word.
                (Ok(()) | Err(_), _) => return,
            }
        }
        Err(error) => Err(format!("not an order: {error}")),
    };
    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
    line.push(b'\n');
    // Who does not wait for it has no need of it.
    let _ = timeout(SAID_WITHIN, answers.write_all(&line)).await;
}

/// Whether the other end is closed.
fn has_gone(connection: &UnixStream) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let more = recv(connection.as_raw_fd(), &mut [0], flags);
    matches!(more, Ok(0) | Err(Errno::ECONNRESET))
}
