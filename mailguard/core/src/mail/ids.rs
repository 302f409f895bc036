//! Identifiers that people type and read.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Crockford's alphabet: no I, L, O or U, so that a spoken or copied id survives.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Names a message from its commit to the end of its trace. Grows with time: microseconds since 1970, made
/// unique by whoever mints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueId(pub u64);

/// A text that is no queue id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a queue id: 1 to 13 characters of 0-9 and A-Z without I, L, O and U")]
pub struct QueueIdError(String);

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'0'; 13];
        let mut rest = self.0;
        let mut first = text.len() - 1;
        for (index, place) in text.iter_mut().enumerate().rev() {
            *place = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
            first = index;
            if rest == 0 {
                break;
            }
        }
        f.write_str(std::str::from_utf8(&text[first..]).unwrap_or_default())
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueueId({self})")
    }
}

impl FromStr for QueueId {
    type Err = QueueIdError;

    fn from_str(text: &str) -> Result<Self, QueueIdError> {
        let refuse = || QueueIdError(text.to_owned());
        if text.is_empty() || text.len() > 13 {
            return Err(refuse());
        }
        let mut value: u64 = 0;
        for byte in text.bytes() {
            let digit = ALPHABET.iter().position(|&c| c == byte.to_ascii_uppercase()).ok_or_else(refuse)?;
            value = value.checked_mul(32).and_then(|v| v.checked_add(digit as u64)).ok_or_else(refuse)?;
        }
        Ok(Self(value))
    }
}

impl TryFrom<String> for QueueId {
    type Error = QueueIdError;
    fn try_from(text: String) -> Result<Self, QueueIdError> {
        text.parse()
    }
}
impl From<QueueId> for String {
    fn from(id: QueueId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for value in [0, 31, 32, 1_900_000_000_000_000, u64::MAX] {
            let id = QueueId(value);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id.to_string().to_lowercase().parse(), Ok(id));
        }
    }

    #[test]
    fn foreign_texts() {
        for text in ["", "I", "0 1", "ZZZZZZZZZZZZZ", "00000000000000"] {
            assert!(text.parse::<QueueId>().is_err(), "{text}");
        }
    }
}
