//! Words of the command line as JSON can hold them.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

/// `word` as text. What is UTF-8 stands as it is; in any other word each byte that is none stands
/// as `\xHH` and a backslash as `\\`, so that such a word can be turned back into its bytes.
///
/// Only a word of plain UTF-8 that itself looks like such an escape could be mistaken for one: JSON
/// has no bytes, and readers want `command` to be a list of strings.
pub fn lossless(word: &OsStr) -> String {
    let bytes = word.as_bytes();
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let mut text = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_that_are_not_utf8_are_escaped() {
        assert_eq!(lossless(OsStr::new("C:\\x41 ü")), "C:\\x41 ü");
        let latin1 = OsStr::from_bytes(b"Gr\xf6\xdfe\\n.csv");
        assert_eq!(lossless(latin1), "Gr\\xf6\\xdfe\\\\n.csv");
    }
}
