//! Names that an analysis chose (comm, argv, file names) made safe to print.
//!
//! A process may call itself `\x1b[2J`, or hide what follows behind a right-to-left override. The
//! notes and the findings hold such names through [`escape_untrusted`] only.

use std::fmt::Write as _;

/// `text` with every control, bidirectional and invisible character written as an escape.
///
/// A backslash is doubled, so that nobody can forge an escape. The result is one line. Escape once:
/// `completion_notes` have been through here and are printed as they are.
pub fn escape_untrusted(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            hidden if !is_printable(hidden) => {
                let number = u32::from(hidden);
                // Writing to a String cannot fail.
                let _ = if number <= 0xff {
                    write!(escaped, "\\x{number:02x}")
                } else {
                    write!(escaped, "\\u{{{number:x}}}")
                };
            }
            plain => escaped.push(plain),
        }
    }
    escaped
}

/// Whether a terminal shows this character where it stands, and as itself.
pub fn is_printable(character: char) -> bool {
    !(character.is_control() || is_bidirectional(character) || is_invisible(character))
}

/// The marks of UAX #9: they reorder what stands around them.
fn is_bidirectional(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
    )
}

/// Separators and format characters that show nothing, or break the line.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{34f}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200d}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{2060}'..='\u{2065}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether a terminal would do more with a character than show it: told apart from the code's own
    /// list, so that one is checked by the other.
    pub(crate) fn is_dangerous(character: char) -> bool {
        character.is_control()
            || "\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}"
                .contains(character)
    }

    #[test]
    fn plain_names_stay_as_they_are() {
        for name in ["python3", "kworker/u4:2", "Größe 3.csv", "分析", "a'b\"c"] {
            assert_eq!(escape_untrusted(name), name);
        }
    }

    #[test]
    fn control_and_bidirectional_characters_are_written_out() {
        for (name, shown) in [
            ("\x1b[2J", "\\x1b[2J"),
            ("a\nb\r\tc\0", "a\\nb\\r\\tc\\x00"),
            ("\u{7f}\u{9b}", "\\x7f\\x9b"),
            ("\u{202e}gpj.exe", "\\u{202e}gpj.exe"),
            ("\u{2028}x\u{feff}", "\\u{2028}x\\u{feff}"),
            ("\\x1b", "\\\\x1b"),
        ] {
            assert_eq!(escape_untrusted(name), shown);
        }
    }

    proptest! {
        #[test]
        fn nothing_unprintable_comes_through(text in any::<String>()) {
            prop_assert!(escape_untrusted(&text).chars().all(is_printable));
        }

        #[test]
        fn two_names_never_look_the_same(a in "[\\\\nx0-9a\n\x1b]{0,6}", b in "[\\\\nx0-9a\n\x1b]{0,6}") {
            prop_assert_eq!(a == b, escape_untrusted(&a) == escape_untrusted(&b));
        }
    }
}
