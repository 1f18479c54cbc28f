//! Entries of systemd's journal, with fields to select them by.
//!
//! Written in journald's native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>), a datagram an
//! entry, which a crate would not make shorter. Nothing here ever waits for journald.

use std::{
    env, io,
    os::unix::{ffi::OsStrExt as _, net::UnixDatagram},
    path::Path,
};

use rustix::fs::fstat;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// How much an entry matters, as syslog(3) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Somebody should look.
    Warning,
    /// Somebody may want to know of it later.
    Notice,
    /// All is as it should be.
    Info,
}

impl Priority {
    /// Its number, as text.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "4",
            Self::Notice => "5",
            Self::Info => "6",
        }
    }
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// journald has it.
    ToJournal,
    /// This host has no journal.
    NoJournal,
}

/// Whether what this process writes to stderr goes to the journal, so that it may as well go there with fields
/// (`$JOURNAL_STREAM`, systemd.exec(5)).
pub fn has_stderr() -> bool {
    let Some(stream) = env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    let is_it = |stat: rustix::fs::Stat| {
        format!("{}:{}", stat.st_dev, stat.st_ino).as_bytes() == stream.as_bytes()
    };
    fstat(io::stderr()).is_ok_and(is_it)
}

/// Sends an entry: its text, how much it matters, and what else it has.
///
/// # Errors
/// Where there is a journal that does not take it.
pub fn send(text: &str, priority: Priority, fields: &[(&str, &str)]) -> io::Result<Sent> {
    send_to(Path::new(SOCKET), text, priority, fields)
}

/// The same, to whoever listens there.
pub(crate) fn send_to(
    socket: &Path,
    text: &str,
    priority: Priority,
    fields: &[(&str, &str)],
) -> io::Result<Sent> {
    let mut all = vec![
        ("MESSAGE", text),
        ("PRIORITY", priority.as_str()),
        ("SYSLOG_IDENTIFIER", "sandbox"),
    ];
    all.extend_from_slice(fields);
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    match sender.send_to(&datagram(&all), socket) {
        Ok(_) => Ok(Sent::ToJournal),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(Sent::NoJournal)
        }
        Err(error) => Err(error),
    }
}

fn datagram(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut datagram = Vec::new();
    for (name, value) in fields {
        datagram.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            datagram.push(b'\n');
            datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            datagram.push(b'=');
        }
        datagram.extend_from_slice(value.as_bytes());
        datagram.push(b'\n');
    }
    datagram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_goes_to_the_journal_as_its_protocol_has_it() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("socket");
        let send = || {
            send_to(
                &path,
                "all is well",
                Priority::Info,
                &[("SANDBOX_A", "b\nc")],
            )
        };
        assert_eq!(send().expect("no failure"), Sent::NoJournal);

        let journal = UnixDatagram::bind(&path).expect("bound");
        assert_eq!(send().expect("sent"), Sent::ToJournal);
        let mut buffer = [0; 4096];
        let length = journal.recv(&mut buffer).expect("received");
        let expected: &[u8] = b"MESSAGE=all is well\nPRIORITY=6\nSYSLOG_IDENTIFIER=sandbox\n\
              SANDBOX_A\n\x03\0\0\0\0\0\0\0b\nc\n";
        assert_eq!(&buffer[..length], expected);

        drop(journal);
        let gone = send().expect("no failure");
        assert_eq!(gone, Sent::NoJournal, "its socket is there, it is not");
    }

    #[test]
    fn a_journal_that_does_not_keep_up_is_not_waited_for() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("socket");
        let _journal = UnixDatagram::bind(&path).expect("bound");
        let send = || send_to(&path, "again", Priority::Info, &[]);
        let full = (0..100_000).find_map(|_| send().err());
        let kind = full.expect("a queue has an end").kind();
        assert_eq!(kind, io::ErrorKind::WouldBlock);
    }
}
