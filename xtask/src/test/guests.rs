//! The tests of one pass, in as many guests as that takes.
//!
//! One guest runs them all, each test in a process of its own. A test that hangs or crashes leaves
//! a guest that no other test should meet: the rest then run in a fresh one.

use std::collections::VecDeque;
use std::path::Path;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::plan::{Pass, Test};
use super::report::{Failure, Row, indented};
use crate::vm::{self, Assets, Guest, Payload, Stream, Task};
use crate::{command, package, workspace};

/// The test binaries and what they test.
#[derive(Debug)]
pub(crate) struct Binaries {
    /// All tests in them.
    pub(crate) list: Vec<Test>,
    /// By the name of their target.
    tests: Vec<(String, PathBuf)>,
    /// `sandbox` and `victim`.
    programs: Vec<(String, PathBuf)>,
    /// The Debian package, where it is wanted.
    package: Option<PathBuf>,
}

impl Binaries {
    /// Builds them and asks each for its list.
    pub(crate) fn build() -> Result<Self> {
        eprintln!("building sandbox and the guest tests");
        let programs = vm::guest_binaries()?;
        let mut cargo = workspace::cargo();
        let built =
            vm::executables(cargo.args(["test", "--no-run", "--package", "sandbox-tests"]))?;
        let mut binaries = Self {
            list: Vec::new(),
            tests: Vec::new(),
            programs,
            package: None,
        };
        for executable in built
            .into_iter()
            .filter(|executable| executable.kind == "test")
        {
            let listed = command::text(
                std::process::Command::new(&executable.path).args(["--list", "--format", "terse"]),
            )?;
            let names = listed
                .lines()
                .filter_map(|line| line.strip_suffix(": test"));
            binaries.list.extend(names.map(|name| Test {
                target: executable.name.clone(),
                name: name.to_owned(),
            }));
            binaries.tests.push((executable.name, executable.path));
        }
        Ok(binaries)
    }

    /// Makes the Debian package too.
    pub(crate) fn add_package(&mut self) -> Result<()> {
        self.package = Some(package::build(vm::PROFILE)?);
        Ok(())
    }

    fn payload(&self, folder: &Path, tests: &[&Test], test_limit: u64) -> Result<Payload> {
        let mut payload = Payload::with_programs(folder.join("payload"), &self.programs)?;
        for (name, path) in &self.tests {
            payload.file(&format!("tests/{name}"), path)?;
        }
        if let Some(package) = &self.package {
            payload.file("files/sandbox.deb", package)?;
        }
        let lines = tests.iter().enumerate();
        let plan: String = lines
            .map(|(index, test)| {
                let limit = test.limit(test_limit);
                format!("{index}\t{limit}\t{}\t{}\n", test.target, test.name)
            })
            .collect();
        payload.text("tests/plan", &plan, 0o644)?;
        Ok(payload)
    }
}

/// Runs a pass.
pub(crate) fn run(
    pass: &Pass,
    binaries: &Binaries,
    assets: &Assets,
    test_limit: u64,
) -> Result<Row> {
    let start = Instant::now();
    let label = pass.label();
    let mut row = Row {
        label: label.clone(),
        passed: 0,
        failed: Vec::new(),
        time: start.elapsed(),
        retries: Some(0),
    };
    let mut pending: VecDeque<&Test> = pass.tests.iter().collect();
    let mut generation = 1;
    while !pending.is_empty() {
        let tests: Vec<&Test> = pending.iter().copied().collect();
        let limit = tests.iter().map(|test| test.limit(test_limit) + 10).sum();
        let limit = Duration::from_secs(limit);
        let guest = Guest {
            series: pass.series,
            machine: pass.machine(),
            label: format!("test-{}-{}-{generation}", pass.series, pass.mode),
            limit,
        };
        println!(
            "boot    {label:<14} guest {generation}, for {} tests",
            tests.len()
        );
        let mut reader = Reader::default();
        let payload = |folder: &Path| binaries.payload(folder, &tests, test_limit);
        let task = Task::Command("exec /payload/guest/run-tests");
        let mut broken = None;
        let report = guest.run(assets, payload, &task, &mut |stream, bytes| match stream {
            Stream::Stdout => {
                let read = reader.feed(bytes, |index, result| {
                    pending.retain(|test| !std::ptr::eq(*test, tests[index]));
                    settle(&mut row, tests[index], result);
                });
                broken = broken.take().or(read.err());
            }
            Stream::Stderr => eprint!("{label}: {}", String::from_utf8_lossy(bytes)),
        })?;
        row.retries = row.retries.map(|retries| retries + report.retries);
        if let Some(error) = broken {
            return Err(error.context(format!(
                "the guest {label} reported what cannot be understood"
            )));
        }
        // Status 3: a test ended in a way that spoils the guest, and was reported.
        if !matches!(report.ending.status(), Some(0 | 3)) || reader.begun.is_some() {
            let mut why = format!(
                "{}\n(the whole console: {})",
                report.ending,
                report.console.display()
            );
            // Blame the test that was running; without one, nothing here can be run at all,
            // which is told once.
            let blamed = reader
                .begun
                .map_or(tests.clone(), |index| vec![tests[index]]);
            for test in blamed {
                pending.retain(|pending| !std::ptr::eq(*pending, test));
                let output = std::mem::replace(&mut why, "for the same reason".to_owned());
                settle(
                    &mut row,
                    test,
                    TestResult {
                        passed: false,
                        time: Duration::ZERO,
                        output,
                    },
                );
            }
        }
        if tests.len() == pending.len() {
            bail!(
                "the guest {label} ended well without running any of its {} tests",
                tests.len()
            );
        }
        generation += 1;
    }
    row.time = start.elapsed();
    Ok(row)
}

fn settle(row: &mut Row, test: &Test, result: TestResult) {
    let name = test.full_name();
    let time = result.time.as_secs_f64();
    if result.passed {
        row.passed += 1;
        println!("ok      {:<14} {name} ({time:.1} s)", row.label);
    } else {
        let output = result.output;
        let shown = indented(&output);
        println!("FAILED  {:<14} {name} ({time:.1} s)\n{shown}", row.label);
        row.failed.push(Failure { name, output });
    }
}

/// How a test ended.
#[derive(Debug, PartialEq, Eq)]
struct TestResult {
    passed: bool,
    time: Duration,
    output: String,
}

/// Understands what `run-tests` prints, as it comes.
#[derive(Debug, Default)]
struct Reader {
    buffer: Vec<u8>,
    /// The test that has begun and not ended.
    begun: Option<usize>,
}

impl Reader {
    fn feed(&mut self, bytes: &[u8], mut settled: impl FnMut(usize, TestResult)) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            let mut words = line.split(' ');
            let what = words.next().unwrap_or_default();
            let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
            match (what, &numbers[..]) {
                ("begin", [index]) => {
                    self.begun =
                        Some(usize::try_from(*index).context("the index of a test is too large")?);
                    self.buffer.drain(..=end);
                }
                ("end", [index, status, milliseconds, size]) => {
                    let whole = end
                        + 1
                        + usize::try_from(*size).context("the size of an output is too large")?;
                    if self.buffer.len() < whole {
                        return Ok(());
                    }
                    if self.begun.map(|begun| begun as u64) != Some(*index) {
                        bail!("the end of test {index}, which had not begun");
                    }
                    let output = String::from_utf8_lossy(&self.buffer[end + 1..whole]).into_owned();
                    let result = judge(*status, Duration::from_millis(*milliseconds), output);
                    self.buffer.drain(..whole);
                    if let Some(index) = self.begun.take() {
                        settled(index, result);
                    }
                }
                _ => bail!("the line {line:?}"),
            }
        }
        Ok(())
    }
}

/// A pass takes a status of 0 *and* libtest's word that the test ran.
fn judge(status: u64, time: Duration, mut output: String) -> TestResult {
    let ran = output.contains("test result: ok. 1 passed; 0 failed");
    let passed = status == 0 && ran;
    match status {
        0 if !ran => output.push_str("\nThe test binary ended well, yet did not run the test.\n"),
        124 | 137 => output.push_str(&format!(
            "\nThe test did not end within {} s and was killed.\n",
            time.as_secs()
        )),
        129..=255 => output.push_str(&format!(
            "\nThe test's process died of signal {}.\n",
            status - 128
        )),
        _ => {}
    }
    TestResult {
        passed,
        time,
        output,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "test result: ok. 1 passed; 0 failed; 0 ignored\n";

    fn read(chunks: &[&str]) -> (Vec<(usize, bool)>, Option<usize>) {
        let mut reader = Reader::default();
        let mut settled = Vec::new();
        for chunk in chunks {
            reader
                .feed(chunk.as_bytes(), |index, result| {
                    settled.push((index, result.passed))
                })
                .expect("the protocol is kept to");
        }
        (settled, reader.begun)
    }

    #[test]
    fn results_are_read_however_they_are_cut_into_chunks() {
        let text = format!(
            "begin 0\nend 0 0 12 {}\n{OK}begin 1\nend 1 101 5 3\nno\n",
            OK.len()
        );
        let expected = vec![(0, true), (1, false)];
        assert_eq!(read(&[&text]), (expected.clone(), None));
        let bytes: Vec<String> = text.chars().map(String::from).collect();
        let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
        assert_eq!(read(&bytes), (expected, None));
    }

    #[test]
    fn the_test_that_a_guest_died_in_is_known() {
        assert_eq!(
            read(&["begin 0\nend 0 101 5 0\nbegin 1\n"]),
            (vec![(0, false)], Some(1))
        );
    }

    #[test]
    fn a_status_of_0_without_a_test_run_is_no_pass() {
        let result = judge(
            0,
            Duration::ZERO,
            "test result: ok. 0 passed; 0 failed\n".to_owned(),
        );
        assert!(!result.passed);
    }

    #[test]
    fn output_that_is_not_the_protocol_is_an_error() {
        assert!(Reader::default().feed(b"hello\n", |_, _| ()).is_err());
    }
}
