//! Writing to who may not read: a pipe without a reader's attention holds nobody up for ever.
//!
//! O_NONBLOCK would be no way to that: it belongs to the open file, which `sandbox` shares with its caller.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// How long a reader may take over what comes last, once a run is over.
pub const WITHIN: Duration = Duration::from_secs(5);

/// Writes it all, in a thread of its own that is left behind where the reader does not take it in time.
///
/// # Errors
/// As write(2); TimedOut; where no thread can be had.
pub fn write_all(file: File, text: Vec<u8>) -> io::Result<()> {
    let (tell, ended) = sync_channel(1);
    thread::Builder::new()
        .name("sandbox-outlet".to_owned())
        .spawn(move || {
            // Who waits for it may have given up.
            let _ = tell.send(Patient(file).write_all(&text));
        })?;
    match ended.recv_timeout(WITHIN) {
        Ok(written) => written,
        Err(RecvTimeoutError::Timeout) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("its reader did not take it within {} s", WITHIN.as_secs()),
        )),
        Err(RecvTimeoutError::Disconnected) => {
            Err(io::Error::other("the thread that writes it has died"))
        }
    }
}

/// Whether there is room for a line by then; where that cannot be told writing will tell.
pub fn has_room(fd: &impl AsFd, within: Duration) -> bool {
    let mut room = [PollFd::new(fd, PollFlags::OUT)];
    let within = Timespec::try_from(within).ok();
    poll(&mut room, within.as_ref()) != Ok(0)
}

/// A file that is waited for where its descriptor, which others share, has O_NONBLOCK.
pub struct Patient(pub File);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut room = [PollFd::new(&self.0, PollFlags::OUT)];
                    match poll(&mut room, None) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::fd::OwnedFd};

    use super::*;

    #[test]
    fn what_is_read_is_written_whole_and_a_pipe_that_nobody_reads_has_no_room_in_the_end() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let file = File::from(OwnedFd::from(writer));
        let long = vec![b'x'; 1 << 20];
        let expected = long.len();
        let reading = thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).map(|_| text.len())
        });
        write_all(file, long).expect("it is read");
        let read = reading.join().expect("it has ended").expect("read");
        assert_eq!(read, expected);

        let (_reader, mut writer) = io::pipe().expect("a pipe");
        while has_room(&writer, Duration::ZERO) {
            writer.write_all(&[0; 4096]).expect("there is room");
        }
    }
}
