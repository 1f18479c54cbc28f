//! Reading a client's request, with the descriptors that come on its way.

use std::{
    io::{self, IoSliceMut},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};

use super::protocol::{DESCRIPTORS, MAX_REQUEST_BYTES, Request};
use crate::sys::fd;

/// How long a client may take to say what it wants.
pub(super) const ASKED_WITHIN: Duration = Duration::from_secs(10);

/// What a client has said.
#[derive(Debug)]
pub(super) struct Heard {
    /// What it wants.
    pub(super) request: Request,
    /// What it passes.
    pub(super) descriptors: Vec<OwnedFd>,
    /// What came right behind that: orders to the run.
    pub(super) rest: Vec<u8>,
}

/// Hears it out.
///
/// # Errors
/// Where no whole request comes in time, or what comes is none: what is wrong, for the client.
pub(super) fn hear(socket: &UnixStream) -> Result<Heard, String> {
    let Line {
        text,
        descriptors,
        rest,
    } = read_line(socket, ASKED_WITHIN).map_err(|error| {
        if error.kind() == io::ErrorKind::WouldBlock {
            "no whole request came within 10 s".to_owned()
        } else {
            format!("not a request: {error}")
        }
    })?;
    Ok(Heard {
        request: Request::parse(&text)?,
        descriptors,
        rest,
    })
}

/// A line.
#[derive(Debug)]
pub(super) struct Line {
    /// It, with its newline.
    pub(super) text: Vec<u8>,
    /// What came on it.
    pub(super) descriptors: Vec<OwnedFd>,
    /// What came right behind it.
    rest: Vec<u8>,
}

/// Reads a line of at most a request's length, and what comes on it.
///
/// # Errors
/// WouldBlock where it does not come in time; UnexpectedEof; where it is too long; those of recvmsg(2).
pub(super) fn read_line(socket: &UnixStream, within: Duration) -> io::Result<Line> {
    let until = Instant::now() + within;
    let (mut text, mut descriptors) = (Vec::new(), Vec::new());
    let mut part = vec![0; 64 << 10];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // A timeout of 0 would be none.
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let length = match receive(socket, &mut part, &mut descriptors) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it ended early",
                ));
            }
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let before = text.len();
        text.extend(part.iter().take(length));
        let end = part.iter().take(length).position(|byte| *byte == b'\n');
        let rest = end.map(|end| text.split_off(before + end + 1));
        if text.len() > MAX_REQUEST_BYTES {
            return Err(io::Error::other("it is longer than 6 MiB"));
        }
        if let Some(rest) = rest {
            return Ok(Line {
                text,
                descriptors,
                rest,
            });
        }
    }
}

/// Reads some of what has come, with the descriptors that are on it.
///
/// # Errors
/// Those of recvmsg(2); where there are more descriptors than belong to anything.
fn receive(
    socket: &UnixStream,
    part: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    /// SCM_MAX_FD (include/net/scm.h): as many as one message can bring. All are taken, so that none stays open.
    const MOST: usize = 253;
    let mut space = cmsg_space!([i32; MOST]);
    let mut parts = [IoSliceMut::new(part)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            descriptors.extend(fd::received(received));
        }
    }
    if descriptors.len() > DESCRIPTORS {
        return Err(io::Error::other("more descriptors came than belong to it"));
    }
    Ok(message.bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn heard(said: &[u8]) -> Result<Heard, String> {
        let (mut near, far) = UnixStream::pair().expect("a pair");
        let said = said.to_owned();
        let client = std::thread::spawn(move || near.write_all(&said));
        let heard = hear(&far);
        drop(far);
        // Where it says too much nobody listens to its end.
        let _ = client.join().expect("it ends");
        heard
    }

    #[test]
    fn a_request_is_heard_and_what_is_none_is_told_why() {
        let said = b"{\"version\":1,\"list\":{\"most\":1}}\n{\"signal\":15}\n";
        assert_eq!(heard(said).expect("a request").rest, b"{\"signal\":15}\n");
        for (said, why) in [
            (&b""[..], "ended early"),
            (b"{\"version\":1,\"list\":{\"most\":1}}", "ended early"),
            (b"hello\n", "expected"),
            (b"{\"version\":2,\"list\":{\"most\":1}}\n", "version 2"),
            (&vec![b'x'; MAX_REQUEST_BYTES + 1], "longer than"),
        ] {
            let error = heard(said).expect_err("not a request");
            assert!(error.contains(why), "{error}");
        }
    }
}
