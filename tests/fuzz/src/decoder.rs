//! The decoder of ring entries: any bytes are an event or an error, and which of the two depends on
//! nothing but the bytes that the event has.

use sandbox::trace::{DecodeError, Event, decode_event};

/// Where the kind stands in an event's head.
const KIND_AT: usize = 24;

/// Checks one entry of a ring.
///
/// # Panics
/// Where the decoder panics, or says what is not so.
pub fn decoder(bytes: &[u8]) {
    let decoded = decode_event(bytes);
    match &decoded {
        Ok(event) => accepted(event, bytes),
        Err(DecodeError::Short { len, .. }) => assert_eq!(*len, bytes.len()),
        Err(DecodeError::UnknownKind(kind)) => {
            assert_eq!(kind.to_le_bytes(), bytes[KIND_AT..KIND_AT + 4]);
        }
    }
    // A ring hands out whole blocks of eight bytes: what follows an event must not matter.
    if !matches!(decoded, Err(DecodeError::Short { .. })) {
        let mut longer = bytes.to_vec();
        longer.resize(bytes.len() + 8, 0xa5);
        assert_eq!(decode_event(&longer), decoded);
    }
}

fn accepted(event: &Event, bytes: &[u8]) {
    let head = [event.seq, event.at_ns, event.cgroup_id].map(u64::to_le_bytes);
    assert_eq!(head.concat(), bytes[..KIND_AT]);
}
