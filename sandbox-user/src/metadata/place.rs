//! Where a metadata file is, and whether the host's configuration lets it be there.
//!
//! The question is asked of the open file and not of its name: between the two, whoever can write to a
//! directory on the way could put another file there.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};

/// The path of an open file, after all links, as the kernel has it now.
///
/// # Errors
/// Where /proc cannot be read.
pub(super) fn of_open(file: &File) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Whether a resolved path is below one of some directories: part by part, so that `/data-other` is not
/// below `/data`. One that is not absolute (`(unreachable)/…` of a file outside of the root directory), or
/// has `..` in it, is nowhere.
pub fn is_allowed(resolved: &Path, directories: &[PathBuf]) -> bool {
    let is_plain = resolved.is_absolute()
        && resolved
            .components()
            .all(|part| part != Component::ParentDir);
    let is_below = |directory: &PathBuf| resolved != directory && resolved.starts_with(directory);
    is_plain && directories.iter().any(is_below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Metadata;

    #[test]
    fn a_file_is_allowed_below_a_directory_and_not_beside_it() {
        let directories = ["/data/meta", "/srv"].map(PathBuf::from);
        for (path, expected) in [
            ("/data/meta/a.json", true),
            ("/data/meta/deep/er/a.json", true),
            ("/srv/a.json", true),
            ("/data/meta", false),
            ("/data/metadata/a.json", false),
            ("/data/meta-other/a.json", false),
            ("/data/a.json", false),
            ("/a.json", false),
            ("/data/meta/../a.json", false),
            ("/data/meta/../meta/a.json", false),
            ("data/meta/a.json", false),
            ("(unreachable)/data/meta/a.json", false),
            ("", false),
        ] {
            assert_eq!(
                is_allowed(Path::new(path), &directories),
                expected,
                "{path}"
            );
        }
    }

    #[test]
    fn no_directories_allow_nothing_and_the_root_directory_everything() {
        assert!(!is_allowed(Path::new("/a.json"), &[]));
        assert!(is_allowed(Path::new("/a.json"), &["/".into()]));
    }

    #[test]
    fn an_open_file_is_where_it_is_and_not_where_its_name_said() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().canonicalize().expect("it is there");
        let at = |name: &str| root.join(name);
        for name in ["allowed", "elsewhere"] {
            fs::create_dir(at(name)).expect("made");
        }
        fs::write(at("elsewhere/a.json"), "{}").expect("written");
        std::os::unix::fs::symlink(at("elsewhere/a.json"), at("allowed/a.json")).expect("linked");
        let file = File::open(at("allowed/a.json")).expect("opened");
        // Too late: it is open.
        fs::remove_file(at("allowed/a.json")).expect("removed");
        fs::write(at("allowed/a.json"), "{}").expect("written");
        let resolved = of_open(&file).expect("known");
        assert_eq!(resolved, at("elsewhere/a.json"));
        assert!(!is_allowed(&resolved, &[at("allowed")]));
    }

    #[test]
    fn a_file_has_to_be_below_one_of_the_hosts_directories_by_whatever_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().canonicalize().expect("it is there");
        let at = |name: &str| root.join(name);
        for name in ["meta", "meta-other"] {
            fs::create_dir(at(name)).expect("made");
            fs::write(at(name).join("a.json"), "{}").expect("written");
        }
        let linked = |target: &str, link: &str| {
            std::os::unix::fs::symlink(at(target), at(link)).expect("linked");
        };
        linked("meta-other/a.json", "meta/out.json");
        linked("meta/a.json", "meta-other/in.json");
        linked("meta-other", "meta/directory");
        let allowed = [at("meta"), at("absent")];
        let read = |name: &str, allowed: &[PathBuf]| {
            let read = Metadata::read(&at(name), Some(allowed));
            read.map_err(|error| {
                error
                    .to_string()
                    .replace(&format!("{}/", root.display()), "")
            })
        };
        for name in [
            "meta/a.json",
            "meta-other/in.json",
            "meta-other/../meta/a.json",
        ] {
            assert!(read(name, &allowed).is_ok(), "{name}");
        }
        let mut said = Vec::new();
        for name in [
            "meta-other/a.json",
            "meta/out.json",
            "meta/../meta-other/a.json",
            "meta/directory/a.json",
        ] {
            said.push(read(name, &allowed).expect_err(name));
        }
        said.push(read("meta/a.json", &[]).expect_err("there is nowhere"));
        insta::assert_snapshot!(said.join("\n"));
    }
}
