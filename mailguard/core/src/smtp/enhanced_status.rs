//! Enhanced mail system status codes (RFC 3463), `class.subject.detail`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnhancedStatus {
    /// 2 success, 4 persistent transient failure, 5 permanent failure.
    #[serde(rename = "class")]
    pub class: u8,
    /// What it is about: 1 addressing, 2 mailbox, 3 mail system, 4 network, 5 protocol, 6 content, 7 policy.
    #[serde(rename = "subject")]
    pub subject: u16,
    /// The precise condition.
    #[serde(rename = "detail")]
    pub detail: u16,
}

/// A text that is no status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an enhanced status code is written class.subject.detail with class 2, 4 or 5")]
pub struct EnhancedStatusError;

impl EnhancedStatus {
    /// The code of these three numbers.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl FromStr for EnhancedStatus {
    type Err = EnhancedStatusError;

    fn from_str(text: &str) -> Result<Self, EnhancedStatusError> {
        let number = |part: Option<&str>| match part {
            Some(digits) if (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse::<u16>().map_err(|_| EnhancedStatusError)
            }
            _ => Err(EnhancedStatusError),
        };
        let mut parts = text.split('.');
        let class = number(parts.next())?;
        let status = Self::new(class as u8, number(parts.next())?, number(parts.next())?);
        if parts.next().is_some() || !matches!(class, 2 | 4 | 5) {
            return Err(EnhancedStatusError);
        }
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax() {
        assert_eq!("5.7.1".parse(), Ok(EnhancedStatus::new(5, 7, 1)));
        for text in ["", "5.7", "5.7.1.1", "3.0.0", "5.7.1000", "5.-7.1", "261.1.1"] {
            assert_eq!(text.parse::<EnhancedStatus>(), Err(EnhancedStatusError), "{text}");
        }
    }
}
