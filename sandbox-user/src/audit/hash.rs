//! The links of the chain, and where it ends.

use std::{
    fmt::{self, Display},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash([u8; 32]);

/// A text that is no [`Hash`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 hexadecimal digits, in lower case")]
pub struct NoHash;

impl Hash {
    /// What the first entry has for the hash of the one before.
    pub const ZERO: Self = Self([0; 32]);

    /// That of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from(Sha256::new_with_prefix(bytes))
    }
}

impl From<Sha256> for Hash {
    fn from(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }
}

impl Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = NoHash;

    fn from_str(text: &str) -> Result<Self, NoHash> {
        let digit = |digit: &u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(NoHash),
        };
        let digits: Vec<u8> = text
            .bytes()
            .map(|byte| digit(&byte))
            .collect::<Result<_, _>>()?;
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
            .collect();
        match digits.len() {
            64 => bytes.try_into().map(Self).map_err(|_| NoHash),
            _ => Err(NoHash),
        }
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for Hash {
    type Error = NoHash;

    fn try_from(text: String) -> Result<Self, NoHash> {
        text.parse()
    }
}

/// The last entry of a log, by which all before it are known as well. Written `SEQ:HASH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// Its number, from 1.
    pub seq: u64,
    /// The hash of its line, without the newline.
    pub hash: Hash,
}

/// A text that is no [`Head`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHead {
    /// There is no number, or 0.
    #[error("a head is written SEQ:HASH: the number of an entry, from 1, and its hash")]
    Seq,
    /// Its hash is none.
    #[error(transparent)]
    Hash(#[from] NoHash),
}

impl Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = NoHead;

    fn from_str(text: &str) -> Result<Self, NoHead> {
        let (seq, hash) = text.split_once(':').ok_or(NoHead::Seq)?;
        match seq.parse() {
            Ok(seq) if seq > 0 => Ok(Self {
                seq,
                hash: hash.parse()?,
            }),
            Ok(_) | Err(_) => Err(NoHead::Seq),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_written_and_nothing_else_is() {
        let head = Head {
            seq: 12,
            hash: Hash::of(b"abc"),
        };
        // The example of FIPS 180-2.
        let text = "12:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(head.to_string(), text);
        assert_eq!(text.parse(), Ok(head));
        let hash = &text[3..];
        for (wrong, why) in [
            (String::new(), NoHead::Seq),
            (hash.to_owned(), NoHead::Seq),
            (format!("0:{hash}"), NoHead::Seq),
            (format!("-1:{hash}"), NoHead::Seq),
            (format!("1:{}", &hash[1..]), NoHead::Hash(NoHash)),
            (format!("1:{hash}0"), NoHead::Hash(NoHash)),
            (format!("1:{}", hash.to_uppercase()), NoHead::Hash(NoHash)),
            (format!("1:{}é", &hash[2..]), NoHead::Hash(NoHash)),
        ] {
            assert_eq!(wrong.parse::<Head>(), Err(why), "{wrong}");
        }
    }
}
