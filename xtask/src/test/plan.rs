//! Which test runs in which guest.
//!
//! Decided here, by the name of the test's target, and never by the test itself: a test that skips
//! at run time looks like one that passed.

use crate::vm::{Machine, Mode, Series};

/// The kernel of the systemd pass, where none is asked for.
const SYSTEMD_KERNEL: Series = Series::V6_12;
/// That of the locked-down pass.
const LOCKED_DOWN_KERNEL: Series = Series::V6_12;
/// The kernel of the targets in which no kernel has a say.
const USER_SPACE_KERNEL: Series = Series::V6_12;
/// Those: what becomes of arguments, files, the store and metrics is the same on all.
const USER_SPACE: [&str; 5] = ["baggage", "links", "metrics", "store", "stored_events"];
/// The targets that install the Debian package.
const PACKAGE: [&str; 2] = ["systemd_neighbour", "systemd_package"];
/// The target with hundreds of runs in one test, and how many times as long as others it may take.
const LONG: (&str, u64) = ("many", 6);

/// A test in a test binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Test {
    /// The target that holds it: a file in `tests/tests/`.
    pub(crate) target: String,
    /// Its name there.
    pub(crate) name: String,
}

impl Test {
    /// The name that people see and filter by.
    pub(crate) fn full_name(&self) -> String {
        format!("{}::{}", self.target, self.name)
    }

    /// The seconds that it may take, where others may take `usual`.
    pub(crate) fn limit(&self, usual: u64) -> u64 {
        let (target, times) = LONG;
        if self.target == target {
            usual * times
        } else {
            usual
        }
    }
}

/// One guest and the tests that it is to run.
#[derive(Debug)]
pub(crate) struct Pass {
    /// Its kernel.
    pub(crate) series: Series,
    /// Its PID 1.
    pub(crate) mode: Mode,
    /// Its tests.
    pub(crate) tests: Vec<Test>,
    /// Targets that another kernel's guest has.
    elsewhere: &'static [&'static str],
}

impl Pass {
    fn new(series: Series, mode: Mode) -> Self {
        Self {
            series,
            mode,
            tests: Vec::new(),
            elsewhere: &[],
        }
    }

    /// One of several, of which one is enough for what no kernel has a say in.
    fn of_several(series: Series, mode: Mode) -> Self {
        let elsewhere: &[&str] = match series == USER_SPACE_KERNEL {
            true => &[],
            false => &USER_SPACE,
        };
        Self {
            elsewhere,
            ..Self::new(series, mode)
        }
    }

    /// The name that people see.
    pub(crate) fn label(&self) -> String {
        format!("{} {}", self.series, self.mode)
    }

    /// Whether some of its tests install the Debian package.
    pub(crate) fn wants_the_package(&self) -> bool {
        let mut targets = self.tests.iter().map(|test| test.target.as_str());
        targets.any(|target| PACKAGE.contains(&target))
    }

    /// The machine it runs on.
    pub(crate) fn machine(&self) -> Machine {
        Machine::new(self.mode)
    }

    /// Takes the tests that are meant for this guest and match `filter`.
    pub(crate) fn choose(&mut self, all: &[Test], filter: Option<&str>) {
        let wanted = |test: &&Test| {
            is_meant_for(&test.target, self.mode)
                && !self.elsewhere.contains(&test.target.as_str())
                && filter.is_none_or(|filter| test.full_name().contains(filter))
        };
        self.tests = all.iter().filter(wanted).cloned().collect();
    }
}

/// The guests to run: every kernel bare and fully preemptible, one with systemd and one locked down,
/// or what was asked for.
pub(crate) fn passes(kernels: &[Series], mode: Option<Mode>) -> Vec<Pass> {
    let (every, new): (_, fn(Series, Mode) -> Pass) = if kernels.is_empty() {
        (&Series::ALL[..], Pass::of_several)
    } else {
        (kernels, Pass::new)
    };
    match mode {
        None => [Mode::Bare, Mode::Preempt, Mode::Systemd, Mode::LockedDown]
            .into_iter()
            .flat_map(|mode| {
                let usual = every.iter().filter(move |kernel| is_usual(**kernel, mode));
                usual.map(move |kernel| new(*kernel, mode))
            })
            .collect(),
        Some(mode) => every
            .iter()
            .filter(|kernel| !kernels.is_empty() || is_usual(**kernel, mode))
            .map(|kernel| new(*kernel, mode))
            .collect(),
    }
}

/// Whether this kernel boots in this mode where nothing else is asked for.
fn is_usual(kernel: Series, mode: Mode) -> bool {
    match mode {
        Mode::Bare | Mode::Preempt => true,
        Mode::Systemd => kernel == SYSTEMD_KERNEL,
        Mode::LockedDown => kernel == LOCKED_DOWN_KERNEL,
    }
}

/// `systemd*` targets need a systemd guest and `lockdown*` ones a kernel that is locked down; `guest*`
/// ones, which test the guest itself, run in those with systemd and in bare ones; `detail*` ones, on what
/// is lost under a storm of events, run in fully preemptible kernels too, and `preempt*` ones only there;
/// all others run bare.
fn is_meant_for(target: &str, mode: Mode) -> bool {
    match mode {
        Mode::Systemd => target.starts_with("systemd") || target.starts_with("guest"),
        Mode::LockedDown => target.starts_with("lockdown"),
        Mode::Preempt => target.starts_with("detail") || target.starts_with("preempt"),
        Mode::Bare => !["systemd", "lockdown", "preempt"]
            .iter()
            .any(|other| target.starts_with(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(kernels: &[Series], mode: Option<Mode>) -> Vec<String> {
        passes(kernels, mode).iter().map(Pass::label).collect()
    }

    #[test]
    fn every_kernel_runs_bare_one_runs_systemd_and_one_is_locked_down() {
        assert_eq!(
            labels(&[], None),
            [
                "6.1 bare",
                "6.12 bare",
                "6.18 bare",
                "7 bare",
                "6.1 preempt",
                "6.12 preempt",
                "6.18 preempt",
                "7 preempt",
                "6.12 systemd",
                "6.12 locked-down"
            ]
        );
    }

    #[test]
    fn what_is_asked_for_is_all_that_runs() {
        assert_eq!(labels(&[Series::V7], None), ["7 bare", "7 preempt"]);
        assert_eq!(labels(&[Series::V7], Some(Mode::Systemd)), ["7 systemd"]);
        assert_eq!(labels(&[], Some(Mode::Systemd)), ["6.12 systemd"]);
    }

    #[test]
    fn what_no_kernel_has_a_say_in_runs_on_one_unless_others_are_asked_for() {
        let store = Test {
            target: "store".to_owned(),
            name: "works".to_owned(),
        };
        let with = |kernels: &[Series]| {
            let mut passes = passes(kernels, Some(Mode::Bare));
            for pass in &mut passes {
                pass.choose(std::slice::from_ref(&store), None);
            }
            passes.retain(|pass| !pass.tests.is_empty());
            passes.iter().map(Pass::label).collect::<Vec<_>>()
        };
        assert_eq!(with(&[]), ["6.12 bare"]);
        assert_eq!(with(&[Series::V7]), ["7 bare"]);
    }

    #[test]
    fn targets_go_to_the_guests_that_their_names_say() {
        let all: Vec<Test> = [
            "bare_host",
            "detail",
            "guest",
            "lockdown",
            "preempt",
            "systemd",
        ]
        .iter()
        .map(|target| Test {
            target: (*target).to_owned(),
            name: "works".to_owned(),
        })
        .collect();
        let chosen = |mode, filter| {
            let mut pass = Pass::new(Series::V6_1, mode);
            pass.choose(&all, filter);
            pass.tests
                .into_iter()
                .map(|test| test.target)
                .collect::<Vec<_>>()
        };
        assert_eq!(chosen(Mode::Bare, None), ["bare_host", "detail", "guest"]);
        assert_eq!(chosen(Mode::Preempt, None), ["detail", "preempt"]);
        assert_eq!(chosen(Mode::Systemd, None), ["guest", "systemd"]);
        assert_eq!(chosen(Mode::LockedDown, None), ["lockdown"]);
        assert_eq!(chosen(Mode::Bare, Some("detail::w")), ["detail"]);
    }
}
