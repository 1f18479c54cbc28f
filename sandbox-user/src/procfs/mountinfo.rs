//! /proc/self/mountinfo: what is mounted where. See proc_pid_mountinfo(5).

use std::{ffi::OsString, io, os::unix::ffi::OsStringExt as _, path::PathBuf};

/// One mount, as far as it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountLine {
    /// Its id, as `mnt_id` of fdinfo has it.
    pub id: u64,
    /// What part of the file system is mounted.
    pub root: PathBuf,
    /// Where.
    pub at: PathBuf,
    /// The file system's type.
    pub filesystem: String,
    /// The file system's own options (`nsdelegate` …), those of the mount apart.
    pub options: Vec<String>,
}

/// This process's mounts, in the order in which they were made.
///
/// # Errors
/// Where /proc cannot be read.
pub fn mounts() -> io::Result<Vec<MountLine>> {
    super::bytes("/proc/self/mountinfo").map(|text| parse_mounts(&text))
}

/// The text of mountinfo; what is not as documented is left out.
pub fn parse_mounts(text: &[u8]) -> Vec<MountLine> {
    text.split(|byte| *byte == b'\n')
        .filter_map(parse)
        .collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(line: &[u8]) -> Option<MountLine> {
    let path = |field| PathBuf::from(OsString::from_vec(unescape(field)));
    let mut fields = line.split(|&byte| byte == b' ');
    let id = str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let root = path(fields.nth(2)?);
    let at = path(fields.next()?);
    // Optional fields end with a lone hyphen.
    fields.find(|field| *field == b"-")?;
    let filesystem = String::from_utf8_lossy(fields.next()?).into_owned();
    let options = String::from_utf8_lossy(fields.nth(1)?);
    Some(MountLine {
        id,
        root,
        at,
        filesystem,
        options: options.split(',').map(str::to_owned).collect(),
    })
}

/// Undoes the kernel's `\040` for space, tab, newline and backslash (fs/proc_namespace.c, mangle).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| after.get(..3)).flatten();
        let code =
            octal.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) => {
                plain.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn optional_fields_and_escapes_are_read() {
        let text = "\
24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 master:2 - cgroup2 cgroup2 rw,nsdelegate
31 24 0:26 /a /mnt/with\\040space\\134x rw - cgroup2 none rw
";
        let lines = parse_mounts(text.as_bytes());
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1].filesystem, "cgroup2");
        assert_eq!(lines[1].options, ["rw", "nsdelegate"]);
        assert_eq!((lines[2].id, lines[2].root.as_path()), (31, "/a".as_ref()));
        assert_eq!(lines[2].at, PathBuf::from("/mnt/with space\\x"));
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unescape(br"/mnt/\04"), br"/mnt/\04");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse_mounts(&bytes);
        }
    }
}
