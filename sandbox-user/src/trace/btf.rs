//! A walk over a BTF blob, for the offsets of struct members.
//!
//! aya parses BTF to load programs, but does not expose struct members. What is read here is the
//! format of Documentation/bpf/btf.rst: a header, a section of types in order of their ids, and a
//! section of NUL-terminated strings. Any bytes are answered with an error, never a panic.

use std::{collections::HashMap, path::Path};

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;
const KIND_MAX: u32 = KIND_ENUM64;

/// How deep anonymous members and qualifiers may nest; the kernel's own go to about five.
const DEPTH: u32 = 32;

/// Why a BTF blob could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file could not be read.
    #[error("{path} cannot be read: {source}; a kernel with CONFIG_DEBUG_INFO_BTF=y has it")]
    Unreadable {
        /// Its path.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are not BTF, or are cut short.
    #[error("the kernel's BTF is malformed at byte {at}: {what}")]
    Malformed {
        /// Where.
        at: usize,
        /// What was wrong.
        what: &'static str,
    },
    /// This kernel has no such struct, member or enumerator.
    #[error("the kernel's BTF has no {name}")]
    Absent {
        /// What was looked for.
        name: String,
    },
}

/// A parsed blob: where each type lies, and the structs and enums by name.
pub(super) struct BtfBlob {
    bytes: Vec<u8>,
    /// Position of each type; type id 1 is the first.
    types: Vec<usize>,
    strings: usize,
    named: HashMap<Vec<u8>, u32>,
}

struct Type {
    at: usize,
    kind: u32,
    entries: usize,
    bitfields: bool,
    name: u32,
    target: u32,
}

impl BtfBlob {
    /// Reads and indexes the running kernel's BTF, or another file of that format.
    ///
    /// # Errors
    /// Where the file cannot be read or is malformed.
    pub(super) fn read(path: &Path) -> Result<Self, BtfError> {
        let bytes = std::fs::read(path).map_err(|source| BtfError::Unreadable {
            path: path.display().to_string(),
            source,
        })?;
        Self::parse(bytes)
    }

    /// Indexes a blob.
    ///
    /// # Errors
    /// Where it is malformed.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let malformed = |at, what| BtfError::Malformed { at, what };
        if read_u16(&bytes, 0) != Some(MAGIC) {
            return Err(malformed(0, "no BTF magic"));
        }
        let header = |at| {
            read_u32(&bytes, at)
                .map(|value| value as usize)
                .ok_or(malformed(at, "header cut short"))
        };
        let header_len = header(4)?;
        let start = header_len.saturating_add(header(8)?);
        let end = start.saturating_add(header(12)?);
        let strings = header_len.saturating_add(header(16)?);
        let mut blob = Self {
            types: Vec::with_capacity(end.min(bytes.len()).saturating_sub(start) / 20),
            bytes,
            strings,
            named: HashMap::new(),
        };
        let mut at = start;
        while at < end {
            let found = blob
                .type_at(at)
                .ok_or(malformed(at, "type cut short or of an unknown kind"))?;
            blob.types.push(at);
            let id =
                u32::try_from(blob.types.len()).map_err(|_| malformed(at, "too many types"))?;
            if matches!(
                found.kind,
                KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_ENUM64
            ) && let Some(name) = blob.string(found.name)
                && !name.is_empty()
            {
                let name = name.to_vec();
                // Of several definitions of one name the first is vmlinux's own.
                blob.named.entry(name).or_insert(id);
            }
            at += blob.size_of(&found);
        }
        Ok(blob)
    }

    /// Offset in bytes of a member of a struct, looked for in its anonymous members too.
    ///
    /// # Errors
    /// Where this kernel has no such struct or member, or it is a bitfield.
    pub(super) fn member_offset(&self, structure: &str, member: &str) -> Result<u32, BtfError> {
        let absent = || BtfError::Absent {
            name: format!("{structure}.{member}"),
        };
        let id = self.named.get(structure.as_bytes()).ok_or_else(absent)?;
        let bits = self
            .member_bits(*id, member.as_bytes(), DEPTH)
            .ok_or_else(absent)?;
        if bits % 8 == 0 {
            Ok(bits / 8)
        } else {
            Err(absent())
        }
    }

    /// Bytes of a struct.
    ///
    /// # Errors
    /// Where this kernel has no such struct.
    pub(super) fn struct_size(&self, structure: &str) -> Result<u32, BtfError> {
        let id = self.named.get(structure.as_bytes());
        match id.and_then(|id| self.type_by_id(*id)) {
            // "size" and the type that others refer to share one field (struct btf_type).
            Some(found) if found.kind == KIND_STRUCT => Ok(found.target),
            Some(_) | None => Err(BtfError::Absent {
                name: format!("struct {structure}"),
            }),
        }
    }

    /// The value of an enumerator.
    ///
    /// # Errors
    /// Where this kernel has no such enum or enumerator.
    pub(super) fn enumerator(&self, enumeration: &str, name: &str) -> Result<u32, BtfError> {
        let absent = || BtfError::Absent {
            name: format!("{enumeration}.{name}"),
        };
        let id = self.named.get(enumeration.as_bytes()).ok_or_else(absent)?;
        let found = self.type_by_id(*id).ok_or_else(absent)?;
        let size = if found.kind == KIND_ENUM { 8 } else { 12 };
        (0..found.entries)
            .map(|index| found.at + 12 + index * size)
            .find(|entry| {
                read_u32(&self.bytes, *entry).and_then(|offset| self.string(offset))
                    == Some(name.as_bytes())
            })
            .and_then(|entry| read_u32(&self.bytes, entry + 4))
            .ok_or_else(absent)
    }

    fn member_bits(&self, id: u32, name: &[u8], depth: u32) -> Option<u32> {
        let depth = depth.checked_sub(1)?;
        let found = self.type_by_id(id)?;
        match found.kind {
            KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_TYPE_TAG => {
                self.member_bits(found.target, name, depth)
            }
            KIND_STRUCT | KIND_UNION => (0..found.entries).find_map(|index| {
                let entry = found.at + 12 + index * 12;
                let member = self.string(read_u32(&self.bytes, entry)?)?;
                let offset = read_u32(&self.bytes, entry + 8)?;
                let bits = if found.bitfields {
                    offset & 0x00ff_ffff
                } else {
                    offset
                };
                if member == name {
                    Some(bits)
                } else if member.is_empty() {
                    let inner = read_u32(&self.bytes, entry + 4)?;
                    bits.checked_add(self.member_bits(inner, name, depth)?)
                } else {
                    None
                }
            }),
            _ => None,
        }
    }

    fn type_by_id(&self, id: u32) -> Option<Type> {
        let index = usize::try_from(id.checked_sub(1)?).ok()?;
        self.type_at(*self.types.get(index)?)
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = read_u32(&self.bytes, at + 4)?;
        let kind = info >> 24 & 0x1f;
        let found = Type {
            at,
            kind,
            entries: (info & 0xffff) as usize,
            bitfields: info >> 31 == 1,
            name: read_u32(&self.bytes, at)?,
            target: read_u32(&self.bytes, at + 8)?,
        };
        (1..=KIND_MAX).contains(&kind).then_some(found)
    }

    fn size_of(&self, found: &Type) -> usize {
        12 + match found.kind {
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => found.entries * 12,
            KIND_ENUM | KIND_FUNC_PROTO => found.entries * 8,
            _ => 0,
        }
    }

    fn string(&self, offset: u32) -> Option<&[u8]> {
        let rest = self
            .bytes
            .get(self.strings.checked_add(usize::try_from(offset).ok()?)?..)?;
        rest.split(|byte| *byte == 0).next()
    }
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(
        bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
    ))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A blob with `struct outer { int a; union { int b; }; }` and `enum e { zero, seven = 7 }`.
    fn small() -> Vec<u8> {
        let strings = b"\0int\0outer\0a\0b\0e\0zero\0seven\0";
        let at = |name: &[u8]| {
            let mut wanted = name.to_vec();
            wanted.push(0);
            u32::try_from(
                strings
                    .windows(wanted.len())
                    .position(|window| window == wanted)
                    .expect("a known string"),
            )
            .expect("a small blob")
        };
        let info = |kind: u32, entries: u32| kind << 24 | entries;
        let types: Vec<u32> = [
            vec![at(b"int"), info(KIND_INT, 0), 4, 32],
            vec![0, info(KIND_UNION, 1), 4, at(b"b"), 1, 0],
            vec![
                at(b"outer"),
                info(KIND_STRUCT, 2),
                8,
                at(b"a"),
                1,
                0,
                0,
                2,
                32,
            ],
            vec![
                at(b"e"),
                info(KIND_ENUM, 2),
                4,
                at(b"zero"),
                0,
                at(b"seven"),
                7,
            ],
        ]
        .concat();
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut blob = Vec::from(MAGIC.to_le_bytes());
        blob.extend([1, 0]);
        let types_len = u32::try_from(types.len()).expect("a small blob");
        let strings_len = u32::try_from(strings.len()).expect("a small blob");
        for word in [24, 0, types_len, types_len, strings_len] {
            blob.extend(u32::to_le_bytes(word));
        }
        blob.extend(types);
        blob.extend(strings);
        blob
    }

    #[test]
    fn a_member_is_found_at_its_offset_and_within_an_anonymous_union() {
        let blob = BtfBlob::parse(small()).expect("well-formed");
        assert_eq!(blob.member_offset("outer", "a").expect("there"), 0);
        assert_eq!(blob.member_offset("outer", "b").expect("there"), 4);
    }

    #[test]
    fn a_struct_has_its_size_and_an_enum_is_none() {
        let blob = BtfBlob::parse(small()).expect("well-formed");
        assert_eq!(blob.struct_size("outer").expect("there"), 8);
        assert!(blob.struct_size("e").is_err() && blob.struct_size("none").is_err());
    }

    #[test]
    fn an_enumerator_has_its_value() {
        let blob = BtfBlob::parse(small()).expect("well-formed");
        assert_eq!(blob.enumerator("e", "seven").expect("there"), 7);
    }

    #[test]
    fn what_the_kernel_lacks_is_named() {
        let blob = BtfBlob::parse(small()).expect("well-formed");
        let error = blob.member_offset("outer", "c").expect_err("not there");
        assert_eq!(error.to_string(), "the kernel's BTF has no outer.c");
        assert!(blob.member_offset("inner", "a").is_err());
        assert!(blob.enumerator("e", "eight").is_err());
    }

    #[test]
    fn a_blob_cut_short_anywhere_is_an_error_or_lacks_names_but_never_panics() {
        let whole = small();
        for len in 0..whole.len() {
            if let Ok(blob) = BtfBlob::parse(whole[..len].to_vec()) {
                let _ = blob.member_offset("outer", "b");
                let _ = blob.enumerator("e", "seven");
            }
        }
    }

    #[test]
    fn flipping_any_byte_never_panics() {
        let whole = small();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                if let Ok(blob) = BtfBlob::parse(bytes) {
                    let _ = blob.member_offset("outer", "b");
                    let _ = blob.enumerator("e", "seven");
                }
            }
        }
    }
}
