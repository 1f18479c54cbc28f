//! What the fuzzer starts from for the decoder: one whole event of every kind.
//!
//! They are made by asking the decoder how many bytes it wants, so that a kind or a field that is
//! new needs nothing here but `cargo run -p sandbox-fuzz --example seeds`.

use sandbox::trace::{DecodeError, decode_event};

/// More than any event has.
const MOST_BYTES: usize = 4096;
/// Bytes of an event's head.
const HEAD_BYTES: usize = 32;

/// One whole event of each kind, from the first on, with the name of its file.
///
/// # Panics
/// Where the decoder takes no bytes at all for an event of a kind that it knows.
pub fn decoder_seeds() -> Vec<(String, Vec<u8>)> {
    (1..)
        .map_while(|kind| Some((format!("kind-{kind:02}"), whole_event(kind)?)))
        .collect()
}

/// The least that is an event of this kind; `None` where there is no such kind.
fn whole_event(kind: u32) -> Option<Vec<u8>> {
    let mut bytes = head(kind).to_vec();
    loop {
        match decode_event(&bytes) {
            Ok(_) => return Some(bytes),
            Err(DecodeError::UnknownKind(_)) => return None,
            Err(error @ DecodeError::Short { .. }) => {
                assert!(bytes.len() < MOST_BYTES, "{error}");
                // Small numbers, and names of one letter, wherever those stand.
                let is_low_byte = bytes.len().is_multiple_of(8);
                bytes.push(if is_low_byte { b'a' } else { 0 });
            }
        }
    }
}

/// The first event of leaf 100.
fn head(kind: u32) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    (head[0], head[8], head[16]) = (1, 1, 100);
    head[24..28].copy_from_slice(&kind.to_le_bytes());
    head
}
