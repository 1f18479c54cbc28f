//! When a cgroup became empty, and when it was gone, seen from outside.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread::{self, JoinHandle};

use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use sandbox_tests::wait;

/// The emptying of a cgroup to come.
#[derive(Debug)]
pub(crate) struct Emptying {
    emptied: JoinHandle<Timestamp>,
    removed: JoinHandle<Timestamp>,
}

impl Emptying {
    /// That of the cgroup of this folder.
    pub(crate) fn of(folder: &Path) -> Self {
        let events = File::open(folder.join("cgroup.events")).expect("it is there");
        let above = folder.parent().expect("it is not the root");
        let changes = Inotify::init(InitFlags::IN_CLOEXEC).expect("the kernel has inotify(7)");
        let watch = changes.add_watch(above, AddWatchFlags::IN_DELETE);
        let _ = watch.expect("it is there");
        let name = folder.file_name().expect("it has a name").to_owned();
        Self {
            emptied: thread::spawn(move || when_emptied(events)),
            removed: thread::spawn(move || {
                loop {
                    let gone = changes.read_events().expect("inotify(7)");
                    if gone.iter().any(|event| event.name.as_ref() == Some(&name)) {
                        return Timestamp::now();
                    }
                }
            }),
        }
    }

    /// When nobody was left in it: at the latest when it was gone.
    pub(crate) fn emptied(self) -> (Timestamp, JoinHandle<Timestamp>) {
        (self.emptied.join().expect("it looks on"), self.removed)
    }

    /// When nobody was left in it, and when it was gone.
    pub(crate) fn emptied_and_removed(self) -> (Timestamp, Timestamp) {
        let (emptied, removed) = self.emptied();
        let removed = removed.join().expect("it looks on");
        (emptied.min(removed), removed)
    }
}

/// When `cgroup.events` said that nobody was left.
fn when_emptied(mut events: File) -> Timestamp {
    let limit = PollTimeout::try_from(wait::limit()).expect("less than a month");
    loop {
        let mut text = String::new();
        // What cannot be read any more is gone.
        let read = events
            .rewind()
            .and_then(|()| events.read_to_string(&mut text));
        if read.is_err() || text.contains("populated 0") {
            return Timestamp::now();
        }
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        let ready = poll(&mut fds, limit).expect("cgroup.events can be waited for");
        assert_eq!(ready, 1, "waited in vain for a cgroup to become empty");
    }
}
