//! What the object is made of, as one hash.
//!
//! Only what can change its bytes: the sources, the crates they are built from, the compiler, the
//! flags. Not the whole lock file, or every update of an unrelated crate would ask for a rebuild.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use toml::{Table, Value};

use super::{ARGUMENTS, PROFILE, TARGET, toolchain};
use crate::workspace;

/// The hash over all of it, in hexadecimal.
pub(crate) fn hash(root: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut add = |name: &str, contents: &[u8]| {
        // With its length, so that no two lists of parts look alike.
        hasher.update(format!("{name}\n{}\n", contents.len()));
        hasher.update(contents);
    };
    let mut files = vec![
        PathBuf::from("rust-toolchain.toml"),
        PathBuf::from("sandbox-ebpf/Cargo.toml"),
    ];
    collect(root, Path::new("sandbox-ebpf/src"), &mut files)?;
    files.sort();
    for file in files {
        let contents = fs::read(root.join(&file))
            .with_context(|| format!("could not read {}", file.display()))?;
        add(&file.to_string_lossy(), &contents);
    }
    let manifest = table(&root.join("Cargo.toml"))?;
    let package = table(&root.join("sandbox-ebpf/Cargo.toml"))?;
    let lock = table(&root.join("Cargo.lock"))?;
    add("crates", crates(&package, &lock)?.join("\n").as_bytes());
    add("profile", profile(&manifest, PROFILE)?.as_bytes());
    add("flags", rust_flags(root)?.join("\n").as_bytes());
    add("arguments", ARGUMENTS.join("\n").as_bytes());
    add("linker", toolchain::LINKER_VERSION.as_bytes());
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// The compiler flags that `.cargo/config.toml` gives for the programs' target.
pub(crate) fn rust_flags(root: &Path) -> Result<Vec<String>> {
    let path = root.join(".cargo/config.toml");
    let config = table(&path)?;
    let target = config.get("target").and_then(|targets| targets.get(TARGET));
    let Some(flags) = target.and_then(|target| target.get("rustflags")) else {
        return Ok(Vec::new());
    };
    let words = flags.as_array().and_then(|words| {
        words
            .iter()
            .map(|word| word.as_str().map(str::to_owned))
            .collect()
    });
    words.with_context(|| {
        format!(
            "{}: target.{TARGET}.rustflags is not a list of strings",
            path.display()
        )
    })
}

fn table(path: &Path) -> Result<Table> {
    workspace::read(path)?
        .parse()
        .with_context(|| format!("{} is not TOML", path.display()))
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let shown = || format!("could not list {}", folder.display());
    for entry in fs::read_dir(root.join(folder)).with_context(shown)? {
        let entry = entry.with_context(shown)?;
        let path = folder.join(entry.file_name());
        if entry.path().is_dir() {
            collect(root, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// `name version checksum` of each crate that the programs are built from: those that the feature
/// `programs` or every build takes in, and what they take in themselves.
fn crates(package: &Table, lock: &Table) -> Result<Vec<String>> {
    let dependencies = package
        .get("dependencies")
        .and_then(Value::as_table)
        .context("no dependencies")?;
    let optional = |name: &str| {
        dependencies
            .get(name)
            .and_then(|value| value.get("optional"))
            .and_then(Value::as_bool)
            .unwrap_or(false)
    };
    let feature = package
        .get("features")
        .and_then(|features| features.get("programs"))
        .and_then(Value::as_array);
    let feature = feature.context("sandbox-ebpf has no feature `programs`")?;
    let enabled: BTreeSet<&str> = feature
        .iter()
        .filter_map(|item| item.as_str()?.strip_prefix("dep:"))
        .collect();
    let names = dependencies.keys().map(String::as_str);
    let mut pending: Vec<String> = names
        .filter(|name| !optional(name) || enabled.contains(name))
        .map(str::to_owned)
        .collect();

    let packages = lock
        .get("package")
        .and_then(Value::as_array)
        .context("Cargo.lock lists no packages")?;
    let mut found = BTreeMap::new();
    while let Some(wanted) = pending.pop() {
        // `name`, or `name version` where the lock file holds several.
        let mut words = wanted.split(' ');
        let (name, version) = (words.next(), words.next());
        let matches = |package: &&Value| {
            let field = |key: &str| package.get(key).and_then(Value::as_str);
            field("name") == name && version.is_none_or(|version| field("version") == Some(version))
        };
        let Some(package) = packages.iter().find(matches) else {
            bail!("Cargo.lock does not list {wanted}, which the eBPF programs are built from");
        };
        let text = |key: &str| package.get(key).and_then(Value::as_str).unwrap_or_default();
        let entry = format!("{} {} {}", text("name"), text("version"), text("checksum"));
        if found.insert(wanted, entry).is_none() {
            let further = package.get("dependencies").and_then(Value::as_array);
            pending.extend(
                further
                    .into_iter()
                    .flatten()
                    .filter_map(|name| name.as_str().map(str::to_owned)),
            );
        }
    }
    let entries: BTreeSet<String> = found.into_values().collect();
    Ok(entries.into_iter().collect())
}

/// The settings of a profile and of those it inherits from.
fn profile(manifest: &Table, name: &str) -> Result<String> {
    let settings = manifest
        .get("profile")
        .and_then(|profiles| profiles.get(name))
        .and_then(Value::as_table);
    let Some(settings) = settings else {
        return Ok(String::new());
    };
    let mut text = format!("[{name}]\n{settings}");
    if let Some(parent) = settings.get("inherits").and_then(Value::as_str) {
        text.push_str(&profile(manifest, parent)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGE: &str = r#"
        [features]
        programs = ["dep:kernel-side"]
        user = ["dep:user-side"]
        [dependencies]
        shared = "1"
        kernel-side = { version = "1", optional = true }
        user-side = { version = "1", optional = true }
    "#;
    const LOCK: &str = r#"
        [[package]]
        name = "shared"
        version = "1.0.0"
        checksum = "s"
        [[package]]
        name = "kernel-side"
        version = "1.0.0"
        checksum = "k"
        dependencies = ["macros 2.0.0", "shared"]
        [[package]]
        name = "macros"
        version = "1.0.0"
        checksum = "m1"
        [[package]]
        name = "macros"
        version = "2.0.0"
        checksum = "m2"
        [[package]]
        name = "user-side"
        version = "1.0.0"
        checksum = "u"
    "#;

    fn parsed(text: &str) -> Table {
        text.parse().expect("the test's own TOML")
    }

    #[test]
    fn only_crates_that_the_programs_are_built_from_count() {
        let found = crates(&parsed(PACKAGE), &parsed(LOCK)).expect("all are in the lock file");
        assert_eq!(
            found,
            ["kernel-side 1.0.0 k", "macros 2.0.0 m2", "shared 1.0.0 s"]
        );
    }

    #[test]
    fn a_crate_that_the_lock_file_lacks_is_an_error() {
        let lock = parsed(&LOCK.replace("\"shared\"", "\"shred\""));
        let error = crates(&parsed(PACKAGE), &lock)
            .expect_err("shared is missing")
            .to_string();
        assert!(
            error.contains("Cargo.lock does not list shared")
                || error.contains("does not list shred"),
            "{error}"
        );
    }

    #[test]
    fn a_profile_counts_with_what_it_inherits() {
        let manifest = parsed(
            "[profile.release]\nstrip = true\n[profile.ebpf]\ninherits = \"release\"\ndebug = 0\n",
        );
        let text = profile(&manifest, "ebpf").expect("both are there");
        assert!(
            text.contains("debug = 0") && text.contains("strip = true"),
            "{text}"
        );
    }
}
