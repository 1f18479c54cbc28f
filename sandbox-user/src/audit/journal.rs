//! The log's head in the journal, where who changes the log cannot change it as well without a trace.
//!
//! Written in journald's native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>), a datagram an
//! entry, which a crate would not make shorter; read back through journalctl(1), since the journal's files are
//! its own business. Everybody may send what they like there, but `_UID` is the kernel's word (SCM_CREDENTIALS).

use std::{
    io,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Stdio},
};

use serde::Deserialize;

use super::Head;
use crate::{spec::RunId, units::Printable};

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// What entries with a head are known by; it is this kind's alone.
const MESSAGE_ID: &str = "dce8d24df7d34a189cb6b84da093b3cd";
/// As many heads are compared, the latest: a log that was begun anew agrees with the very last.
const HEADS: &str = "10000";

/// What became of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// journald has it.
    ToJournal,
    /// This host has no journal.
    NoJournal,
}

/// Sends the journal the head of the log, with the run that its entry is about. This never waits.
///
/// # Errors
/// Where there is a journal that does not take it: the next head vouches for this one's entry too.
pub fn announce(head: Head, run_id: Option<RunId>) -> io::Result<Sent> {
    announce_to(Path::new(SOCKET), head, run_id)
}

fn announce_to(socket: &Path, head: Head, run_id: Option<RunId>) -> io::Result<Sent> {
    let [seq, hash] = [head.seq.to_string(), head.hash.to_string()];
    let message = format!("The audit log's head is {head}.");
    let run_id = run_id.map(|run_id| run_id.to_string());
    let mut fields = vec![
        ("MESSAGE", message.as_str()),
        ("MESSAGE_ID", MESSAGE_ID),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "sandbox"),
        ("SANDBOX_AUDIT_SEQ", &seq),
        ("SANDBOX_AUDIT_HASH", &hash),
    ];
    fields.extend(run_id.as_deref().map(|run_id| ("SANDBOX_RUN_ID", run_id)));
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    match sender.send_to(&datagram(&fields), socket) {
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

/// Why the journal tells of no head.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoHeads {
    #[error("there is no journalctl")]
    NoJournalctl,
    #[error("journalctl cannot be executed: {0}")]
    Io(io::Error),
    #[error("journalctl fails: {0}")]
    Failed(String),
    #[error("the journal has no head of it")]
    None,
}

/// The latest heads that root's processes have sent to the journal, never none.
///
/// # Errors
/// [`NoHeads`].
pub(super) fn heads() -> Result<Vec<Head>, NoHeads> {
    let output = Command::new("journalctl")
        .args(["--quiet", "--no-pager", "--system", "--output=json"])
        .arg("--output-fields=SANDBOX_AUDIT_SEQ,SANDBOX_AUDIT_HASH")
        .arg(format!("--lines={HEADS}"))
        .arg(format!("MESSAGE_ID={MESSAGE_ID}"))
        .arg("_UID=0")
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NoHeads::NoJournalctl),
        Err(error) => return Err(NoHeads::Io(error)),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or("it does not say why");
        return Err(NoHeads::Failed(Printable(first).to_string()));
    }
    match heads_in(&output.stdout) {
        heads if heads.is_empty() => Err(NoHeads::None),
        heads => Ok(heads),
    }
}

/// The heads in what `journalctl --output=json` prints; what is none says nothing of the log.
fn heads_in(output: &[u8]) -> Vec<Head> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(rename = "SANDBOX_AUDIT_SEQ")]
        seq: String,
        #[serde(rename = "SANDBOX_AUDIT_HASH")]
        hash: String,
    }
    output
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let Fields { seq, hash } = serde_json::from_slice(line).ok()?;
            format!("{seq}:{hash}").parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Hash;

    fn head() -> Head {
        Head {
            seq: 12,
            hash: Hash::of(b"abc"),
        }
    }

    #[test]
    fn a_head_goes_to_the_journal_as_its_protocol_has_it() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("socket");
        let absent = announce_to(&path, head(), None).expect("no failure");
        assert_eq!(absent, Sent::NoJournal);

        let journal = UnixDatagram::bind(&path).expect("bound");
        let run_id = RunId::now_v7();
        let sent = announce_to(&path, head(), Some(run_id)).expect("sent");
        assert_eq!(sent, Sent::ToJournal);
        let mut buffer = [0; 4096];
        let length = journal.recv(&mut buffer).expect("received");
        let hash = Hash::of(b"abc");
        let expected = format!(
            "MESSAGE=The audit log's head is 12:{hash}.\nMESSAGE_ID={MESSAGE_ID}\nPRIORITY=6\nSYSLOG_IDENTIFIER=sandbox\n\
             SANDBOX_AUDIT_SEQ=12\nSANDBOX_AUDIT_HASH={hash}\nSANDBOX_RUN_ID={run_id}\n"
        );
        assert_eq!(String::from_utf8_lossy(&buffer[..length]), expected);

        drop(journal);
        let gone = announce_to(&path, head(), None).expect("no failure");
        assert_eq!(gone, Sent::NoJournal, "its socket is there, it is not");
    }

    #[test]
    fn a_journal_that_does_not_keep_up_is_not_waited_for() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("socket");
        let _journal = UnixDatagram::bind(&path).expect("bound");
        let full = (0..100_000).find_map(|_| announce_to(&path, head(), None).err());
        let kind = full.expect("a queue has an end").kind();
        assert_eq!(kind, io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_value_of_several_lines_has_its_length_before_it() {
        let expected = b"A=b\nC\n\x03\0\0\0\0\0\0\0d\ne\nF=\n";
        let fields = [("A", "b"), ("C", "d\ne"), ("F", "")];
        assert_eq!(datagram(&fields), expected);
    }

    #[test]
    fn heads_are_read_from_what_journalctl_prints() {
        let hash = Hash::of(b"abc");
        let output = format!(
            "{{\"__CURSOR\":\"s=1\",\"SANDBOX_AUDIT_SEQ\":\"12\",\"SANDBOX_AUDIT_HASH\":\"{hash}\"}}\n\
             {{\"SANDBOX_AUDIT_SEQ\":[\"1\",\"2\"],\"SANDBOX_AUDIT_HASH\":\"{hash}\"}}\n\
             {{\"SANDBOX_AUDIT_SEQ\":\"x\",\"SANDBOX_AUDIT_HASH\":\"{hash}\"}}\n{{}}\n"
        );
        assert_eq!(heads_in(output.as_bytes()), [head()]);
    }
}
