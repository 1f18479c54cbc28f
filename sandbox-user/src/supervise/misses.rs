//! What the kernel side did not do: runs of programs that the kernel skipped, brackets that found no
//! room. Both are counted for the whole host, so that a run compares what was with what is.

use std::collections::BTreeMap;

use crate::trace::{Misses, TraceError, Tracer};

/// Where the brackets stand among the programs.
const UNMARKED: &str = "(unmarked)";

/// Both, by program, to compare with later.
pub(super) fn by_program(tracer: &Tracer) -> BTreeMap<String, u64> {
    let programs = tracer.misses().into_iter();
    let unmarked = tracer.unmarked().ok();
    programs
        .filter_map(|misses| Some((misses.program.to_owned(), misses.count?)))
        .chain(unmarked.map(|count| (UNMARKED.to_owned(), count)))
        .collect()
}

/// What was missed since a run began.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Since {
    /// Runs of any program that the kernel skipped.
    pub(super) runs: u64,
    /// Why a verdict may lack something, one sentence each: with any of them it is not exact.
    pub(super) doubts: Vec<String>,
}

impl Since {
    /// Compares.
    pub(super) fn the_run_began(
        before: &BTreeMap<String, u64>,
        programs: &[Misses],
        unmarked: Result<u64, TraceError>,
    ) -> Self {
        let before = |name: &str| before.get(name).copied().unwrap_or_default();
        let mut since = Self {
            runs: 0,
            doubts: Vec::new(),
        };
        for misses in programs {
            let program = misses.program;
            let during = misses
                .count
                .map(|count| count.saturating_sub(before(program)));
            since.runs += during.unwrap_or_default();
            match during {
                None if misses.verdict => since.doubts.push(format!(
                    "whether the kernel skipped runs of {program} meanwhile cannot be read"
                )),
                Some(during @ 1..) if misses.verdict => since.doubts.push(format!(
                    "the kernel skipped {during} runs of {program} meanwhile, in this run or in others"
                )),
                Some(_) | None => {}
            }
        }
        match unmarked.map(|count| count.saturating_sub(before(UNMARKED))) {
            Ok(0) => {}
            Ok(during) => since.doubts.push(format!(
                "{during} OOM kills or writes to cgroup.kill on this host found no room to be marked as such"
            )),
            Err(error) => since.doubts.push(error.to_string()),
        }
        since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(count: Option<u64>, verdict: bool, unmarked: u64) -> (u64, String) {
        let before = BTreeMap::from([("exec".to_owned(), 3), (UNMARKED.to_owned(), 2)]);
        let misses = Misses {
            program: "exec",
            count,
            verdict,
        };
        let Since { runs, doubts } = Since::the_run_began(&before, &[misses], Ok(unmarked));
        (runs, doubts.join("; "))
    }

    #[test]
    fn what_was_before_is_of_no_account() {
        assert_eq!(since(Some(3), true, 2), (0, String::new()));
    }

    #[test]
    fn a_run_that_was_skipped_is_counted_and_doubted_where_a_verdict_rests_on_it() {
        let (runs, doubts) = since(Some(5), true, 2);
        assert_eq!(runs, 2);
        assert!(doubts.contains("skipped 2 runs of exec"), "{doubts}");
        assert_eq!(since(Some(5), false, 2), (2, String::new()));
    }

    #[test]
    fn a_count_that_cannot_be_read_is_doubted_where_a_verdict_rests_on_it() {
        let (_, doubts) = since(None, true, 2);
        assert!(
            doubts.contains("runs of exec meanwhile cannot be read"),
            "{doubts}"
        );
        assert_eq!(since(None, false, 2), (0, String::new()));
    }

    #[test]
    fn a_bracket_without_room_is_doubted() {
        let (_, doubts) = since(Some(3), true, 6);
        assert!(doubts.starts_with("4 OOM kills or writes"), "{doubts}");
    }
}
