//! Rules for Rust sources.

use super::{Breach, File};

/// A file with more lines than this holds more than one noun.
const MOST_LINES: usize = 500;

/// Files that may be longer, each with its reason.
const LONGER: &[(&str, &str)] = &[(
    "sandbox-user/src/attribution/tests.rs",
    "one table of all outcomes, to be read as a whole",
)];

/// Where tests may sleep: where a real condition is looked at again, and where sleeping is the act.
const SLEEPERS: &[&str] = &[
    "tests/src/wait.rs",
    "tests/src/bin/victim/",
    "tests/src/bin/soak/stage.rs",
];

/// All breaches in `file`.
pub(super) fn check(file: &File) -> Vec<Breach> {
    [length, module_doc, unsafe_code, sleeps]
        .iter()
        .flat_map(|rule| rule(file))
        .collect()
}

fn length(file: &File) -> Vec<Breach> {
    let lines = file.text.lines().count();
    let exempt = LONGER.iter().any(|(path, _)| *path == file.path);
    let why = format!(
        "{lines} lines, more than {MOST_LINES}: split it, so that a file is about one noun"
    );
    (lines > MOST_LINES && !exempt)
        .then(|| file.breaks(MOST_LINES + 1, "file-length", why))
        .into_iter()
        .collect()
}

fn module_doc(file: &File) -> Vec<Breach> {
    // What a file of tests is there for, its name says.
    let begins = file.text.starts_with("//!") || file.path.ends_with("/tests.rs");
    (!begins)
        .then(|| {
            file.breaks(
                1,
                "module-doc",
                "begin with `//!` and say why this module is there",
            )
        })
        .into_iter()
        .collect()
}

fn unsafe_code(file: &File) -> Vec<Breach> {
    let mut folders = file.path.split('/');
    let fenced = file.path.starts_with("sandbox-ebpf/")
        || file.path.starts_with("sandbox-user/src/sys")
        || folders.any(|part| part == "sys.rs" || part == "sys");
    if fenced {
        return Vec::new();
    }
    let is_pod =
        |line: &str| line.trim_start().starts_with("unsafe impl") && line.contains("Pod for ");
    let broken = file
        .lines()
        .filter(|(_, line)| has_word(&code(line), "unsafe") && !is_pod(line));
    let why =
        "unsafe code belongs into a `sys` module (or a `Pod` impl), where somebody looks for it";
    broken
        .map(|(number, _)| file.breaks(number, "unsafe-fence", why))
        .collect()
}

fn sleeps(file: &File) -> Vec<Breach> {
    if SLEEPERS
        .iter()
        .any(|sleeper| file.path.starts_with(sleeper))
    {
        return Vec::new();
    }
    let all_tests = file.path.starts_with("tests/") || file.path.ends_with("/tests.rs");
    let is_no_test = |(_, line): &(usize, &str)| !all_tests && !line.contains("#[cfg(test)]");
    let tests = file.lines().skip_while(is_no_test);
    let broken = tests.filter(|(_, line)| code(line).contains("thread::sleep"));
    let why = "wait for the condition itself, not for a time that was long enough once";
    broken
        .map(|(number, _)| file.breaks(number, "no-sleep", why))
        .collect()
}

/// A line without its comment and without what its string literals say.
fn code(line: &str) -> String {
    let mut code = String::new();
    let mut inside = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if inside => drop(characters.next()),
            '"' => inside = !inside,
            '/' if !inside && characters.peek() == Some(&'/') => break,
            other if !inside => code.push(other),
            _ => {}
        }
    }
    code
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .any(|found| found == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        let file = File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        check(&file)
            .into_iter()
            .map(|breach| (breach.line, breach.rule))
            .collect()
    }

    #[test]
    fn a_file_of_more_than_500_lines_is_too_long() {
        let lines = |count: usize| "//! Why.\n".repeat(count);
        assert_eq!(rules("a/src/lib.rs", &lines(500)), []);
        assert_eq!(rules("a/src/lib.rs", &lines(501)), [(501, "file-length")]);
    }

    #[test]
    fn a_module_without_a_doc_is_found() {
        assert_eq!(rules("a/src/lib.rs", "use std::fs;\n"), [(1, "module-doc")]);
    }

    #[test]
    fn unsafe_code_is_found_outside_of_its_fence() {
        let text = "//! Why.\nunsafe { go() }\n";
        assert_eq!(
            rules("sandbox-user/src/leaf.rs", text),
            [(2, "unsafe-fence")]
        );
        for fenced in [
            "sandbox-user/src/sys/clone.rs",
            "sandbox-ebpf/src/oom.rs",
            "tests/src/bin/victim/sys.rs",
        ] {
            assert_eq!(rules(fenced, text), []);
        }
        assert_eq!(
            rules(
                "sandbox-user/src/leaf.rs",
                "//! Why.\nunsafe impl aya::Pod for Leaf {}\n"
            ),
            []
        );
    }

    #[test]
    fn a_word_in_a_comment_a_string_or_a_longer_name_is_not_unsafe_code() {
        let text = "//! Why.\n// unsafe\n#![deny(unsafe_code)]\nlet word = \"an \\\" unsafe\";\n";
        assert_eq!(rules("sandbox-user/src/leaf.rs", text), []);
    }

    #[test]
    fn a_sleep_is_found_outside_of_the_helper_that_waits() {
        let text = "//! Why.\nstd::thread::sleep(pause);\n";
        assert_eq!(rules("tests/tests/outcomes.rs", text), [(2, "no-sleep")]);
        assert_eq!(rules("tests/src/wait.rs", text), []);
        let unit = "//! Why.\nthread::sleep(between_looks);\n#[cfg(test)]\nthread::sleep(pause);\n";
        assert_eq!(rules("sandbox-user/src/leaf.rs", unit), [(4, "no-sleep")]);
    }
}
