//! Rules for the README and other documents: what they point at is there.

use std::path::Path;

use super::{Breach, File};

/// All breaches in `file`, where it is a document.
pub(super) fn check(file: &File, root: &Path) -> Vec<Breach> {
    if !file.path.ends_with(".md") {
        return Vec::new();
    }
    let here = root.join(&file.path);
    let folder = here.parent().unwrap_or(root);
    let mut breaches = Vec::new();
    for (number, line) in file.lines() {
        for path in links(line).into_iter().chain(code_spans(line)) {
            if !folder.join(path).exists() && !root.join(path).exists() {
                breaches.push(file.breaks(
                    number,
                    "document-link",
                    format!("{path} does not exist"),
                ));
            }
        }
    }
    breaches
}

/// The targets of `[text](target)` that are files of ours.
fn links(line: &str) -> Vec<&str> {
    let targets = line
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ']).next());
    let targets = targets.map(|target| target.split('#').next().unwrap_or_default());
    targets
        .filter(|target| !target.is_empty() && !target.contains(':'))
        .collect()
}

/// What stands between backticks and is the path of a file of ours: it begins with a folder of the
/// repository and has no blanks, patterns or placeholders.
fn code_spans(line: &str) -> Vec<&str> {
    let folders = [
        "sandbox-ebpf/",
        "sandbox-user/",
        "xtask/",
        "tests/",
        ".ci/",
        ".cargo/",
    ];
    let spans = line.split('`').skip(1).step_by(2);
    let plain = |span: &&str| {
        span.chars()
            .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
    };
    spans
        .filter(|span| folders.iter().any(|folder| span.starts_with(folder)))
        .filter(plain)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let root = crate::workspace::root();
        let file = File {
            path: "README.md".to_owned(),
            text: text.to_owned(),
        };
        check(&file, &root)
            .into_iter()
            .map(|breach| breach.line)
            .collect()
    }

    #[test]
    fn a_file_that_does_not_exist_is_found_in_links_and_code_spans() {
        let text = "[tasks](xtask/src/main.rs)\n[none](xtask/src/none.rs)\n`xtask/src/main.rs`\n`xtask/src/none.rs`\n";
        assert_eq!(lines(text), [2, 4]);
    }

    #[test]
    fn addresses_commands_and_patterns_are_not_files() {
        let text =
            "[site](https://github.com/x)\n`xtask/src/*.rs` `cargo xtask test` [above](#note)\n";
        assert_eq!(lines(text), [] as [usize; 0]);
    }
}
