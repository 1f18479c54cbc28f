//! Text from elsewhere, made fit for a terminal and an error line.
//!
//! A metadata file or an argument may hold control or bidirectional characters that would move the
//! cursor or turn a line around; they are shown escaped, and what is long is cut.

use std::fmt::{self, Display, Write};

/// Longest text that [`Quoted`] shows, in characters.
const SHOWN_CHARS: usize = 80;

/// Shows a text with what is unprintable escaped (`\u{1b}`), cut after 80 characters.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, character) in self.0.chars().enumerate() {
            if index == SHOWN_CHARS {
                return f.write_str("…");
            }
            write_escaped(f, character)?;
        }
        Ok(())
    }
}

/// Shows a text with what is unprintable escaped, however long it is: for paths.
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a>(pub &'a str);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|character| write_escaped(f, character))
    }
}

/// Whether a character may do more to a terminal than stand there: control characters, line and
/// paragraph separators, bidirectional marks and overrides, and the byte-order mark.
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

fn write_escaped(f: &mut fmt::Formatter<'_>, character: char) -> fmt::Result {
    if is_unprintable(character) {
        write!(f, "{}", character.escape_unicode())
    } else {
        f.write_char(character)
    }
}
