//! When somebody last looked on this host for runs that were lost, where there are many to look at.
//!
//! Looking takes the longer the more leaves there are, and each run would do it. So where there are many and none was
//! lost, one look does for [`DOES_FOR`].

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use nix::libc;

/// Was written when the last look that found many and none lost was over, or a later one began; empty, gone with the boot.
const LAST: &str = "/run/sandbox/recovered";
/// For so long.
const DOES_FOR: Duration = Duration::from_secs(10);
/// So many leaves are looked at every time.
const FEW: usize = 100;

/// A look that has begun.
pub(super) struct Round {
    last: PathBuf,
    /// Whether the last one found many.
    is_kept: bool,
}

impl Round {
    /// Begins one; `None` where the last one is to do for now.
    pub(super) fn if_due() -> Option<Self> {
        Self::after(Path::new(LAST), SystemTime::now())
    }

    fn after(last: &Path, now: SystemTime) -> Option<Self> {
        let began = fs::symlink_metadata(last).and_then(|last| last.modified());
        // What is yet to come was another clock's.
        let age = began.ok().and_then(|began| now.duration_since(began).ok());
        let does = age.is_some_and(|age| age < DOES_FOR);
        (!does).then(|| Self::begin_at(last))
    }

    /// Begins one in any case.
    pub(super) fn begin() -> Self {
        Self::begin_at(Path::new(LAST))
    }

    /// Where one was to do for a while, this one does for those that begin beside it.
    fn begin_at(last: &Path) -> Self {
        Self {
            last: last.to_owned(),
            is_kept: write(last, OpenOptions::new().write(true)).is_ok(),
        }
    }

    /// It is over, having come to so many leaves, and found all as it should be or not.
    pub(super) fn end(self, leaves: usize, all_is_well: bool) {
        // What cannot be done has the next one look.
        if leaves > FEW && all_is_well {
            let _ = write(
                &self.last,
                OpenOptions::new().write(true).create(true).mode(0o600),
            );
        } else if self.is_kept {
            let _ = fs::remove_file(&self.last);
        }
    }
}

/// Writes down that one begins.
fn write(last: &Path, how: &mut OpenOptions) -> io::Result<()> {
    let file = how.custom_flags(libc::O_NOFOLLOW).open(last)?;
    file.set_modified(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// Where the last look is written down, and whether one is due so long after now.
    struct Kept(tempfile::TempDir);

    impl Kept {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("temp dir"))
        }

        fn last(&self) -> PathBuf {
            self.0.path().join("recovered")
        }

        fn is_due_in(&self, time: Duration) -> bool {
            Round::after(&self.last(), SystemTime::now() + time).is_some()
        }
    }

    #[test]
    fn one_that_came_to_many_leaves_does_for_a_while() {
        let kept = Kept::new();
        assert!(kept.is_due_in(Duration::ZERO), "there was none");
        Round::begin_at(&kept.last()).end(FEW + 1, true);
        let mode = fs::metadata(kept.last()).expect("kept").mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!kept.is_due_in(Duration::ZERO));
        assert!(kept.is_due_in(DOES_FOR));
    }

    #[test]
    fn one_that_is_yet_to_come_is_none() {
        let kept = Kept::new();
        Round::begin_at(&kept.last()).end(FEW + 1, true);
        let before = SystemTime::now() - Duration::from_secs(3600);
        assert!(Round::after(&kept.last(), before).is_some());
    }

    #[test]
    fn one_that_came_to_few_or_to_a_lost_one_does_for_nobody() {
        for (leaves, all_is_well) in [(FEW, true), (FEW + 1, false)] {
            let kept = Kept::new();
            Round::begin_at(&kept.last()).end(FEW + 1, true);
            Round::begin_at(&kept.last()).end(leaves, all_is_well);
            assert!(kept.is_due_in(Duration::ZERO), "{leaves} {all_is_well}");
        }
    }

    #[test]
    fn one_that_goes_on_where_there_were_many_does_already() {
        let kept = Kept::new();
        Round::begin_at(&kept.last()).end(FEW + 1, true);
        let old = SystemTime::now() - DOES_FOR;
        let file = fs::File::open(kept.last()).expect("kept");
        file.set_modified(old).expect("it is ours");
        let _goes_on = Round::after(&kept.last(), SystemTime::now()).expect("it is due");
        assert!(!kept.is_due_in(Duration::ZERO));
    }
}
