//! /proc/PID/stat. See proc_pid_stat(5).

use std::io;

/// What it says about a process, zombies included, as far as it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// R, S, D, T, Z …
    pub state: char,
    /// PF_* flags of include/linux/sched.h.
    pub flags: u32,
    /// When it started, in clock ticks since boot; with the pid it names one process.
    pub start_time_ticks: u64,
    /// Resident memory, pages; a zombie has none.
    pub rss_pages: u64,
}

impl Stat {
    /// PF_FORKNOEXEC: forked, and no exec since. Cleared past exec's point of no return
    /// (fs/exec.c, begin_new_exec).
    const PF_FORKNOEXEC: u32 = 0x40;

    /// Whether the process never got through an exec.
    pub const fn never_executed(self) -> bool {
        self.flags & Self::PF_FORKNOEXEC != 0
    }

    /// Whether it has not ended: it is not a zombie (Z) nor dead (X, x).
    pub const fn runs(self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// Whether it started then, in ns since boot: a clock tick is 1/100 s for user space (USER_HZ)
    /// on all Linux ABIs.
    pub const fn started_at(self, start_time_ns: u64) -> bool {
        self.start_time_ticks == start_time_ns / 10_000_000
    }

    /// Reads it.
    ///
    /// # Errors
    /// Where there is no such process, or its entry does not read as documented (InvalidData).
    pub fn of(pid: u32) -> io::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let text = super::bytes(&path)?;
        Self::parse(&String::from_utf8_lossy(&text)).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{path}: not as in proc(5)"),
            )
        })
    }

    /// Its text, decoded; `None` where it is not as documented.
    pub fn parse(text: &str) -> Option<Self> {
        // The name is in parentheses and may hold anything, parentheses too.
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        // `rest` begins with field 3 (state); flags is field 9, starttime field 22, rss field 24.
        let state = fields.next()?.chars().next()?;
        let flags = fields.nth(5)?.parse().ok()?;
        let start_time_ticks = fields.nth(12)?.parse().ok()?;
        let rss_pages = fields.nth(1)?.parse().ok()?;
        Some(Self {
            state,
            flags,
            start_time_ticks,
            rss_pages,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b) (c) S 1 42 42 0 -1 4194368 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 77 3";
        let stat = Stat::parse(text).expect("it is as documented");
        assert_eq!((stat.state, stat.start_time_ticks), ('S', 98765));
        assert_eq!(stat.rss_pages, 77);
        assert!(stat.never_executed() && stat.runs());
    }

    #[test]
    fn a_truncated_stat_is_no_stat() {
        assert_eq!(Stat::parse("42 (a) S 1 42"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn this_process_runs_has_executed_and_has_a_start_time() -> io::Result<()> {
        let stat = Stat::of(std::process::id())?;
        assert!(stat.start_time_ticks > 0);
        assert!(stat.runs() && !stat.never_executed());
        Ok(())
    }
}
