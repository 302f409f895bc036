//! Enhanced mail system status codes (RFC 3463), `class.subject.detail`.
//!
//! What is said is a [`Detail`], by its name in the IANA registry; the class follows from whether it is a
//! success, a transient or a permanent failure. In a reply of ours the reply code says that
//! ([`super::Reply::new`]), so that the two never differ.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::reply::Severity;

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

/// What a status code says beside its class: subject and detail (RFC 3463 §3). The names are those of the
/// IANA registry of enhanced status codes (RFC 5248).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detail {
    subject: u16,
    detail: u16,
}

impl Detail {
    /// X.0.0: nothing more is known.
    pub const UNDEFINED: Self = Self::of(0, 0);
    /// X.1.0: something about an address.
    pub const OTHER_ADDRESS: Self = Self::of(1, 0);
    /// X.1.1: there is no such mailbox.
    pub const BAD_DESTINATION_MAILBOX: Self = Self::of(1, 1);
    /// X.1.2: there is no such domain, or it can't be mailed to.
    pub const BAD_DESTINATION_SYSTEM: Self = Self::of(1, 2);
    /// X.1.3: the forward-path is no address.
    pub const BAD_DESTINATION_SYNTAX: Self = Self::of(1, 3);
    /// X.1.5: the recipient is fine.
    pub const DESTINATION_VALID: Self = Self::of(1, 5);
    /// X.1.7: the reverse-path is no address.
    pub const BAD_SENDER_SYNTAX: Self = Self::of(1, 7);
    /// X.1.8: there is no such domain as the reverse-path's.
    pub const BAD_SENDER_SYSTEM: Self = Self::of(1, 8);
    /// X.1.10: the recipient's domain has a null MX (RFC 7505 §4.2).
    pub const DESTINATION_NULL_MX: Self = Self::of(1, 10);
    /// X.3.0: something about a mail system.
    pub const OTHER_MAIL_SYSTEM: Self = Self::of(3, 0);
    /// X.3.1: the mail system is full.
    pub const SYSTEM_FULL: Self = Self::of(3, 1);
    /// X.3.2: the system takes no messages now.
    pub const NOT_ACCEPTING_MESSAGES: Self = Self::of(3, 2);
    /// X.3.4: the message is too big for the system.
    pub const MESSAGE_TOO_BIG: Self = Self::of(3, 4);
    /// X.3.5: the system isn't configured rightly.
    pub const INCORRECTLY_CONFIGURED: Self = Self::of(3, 5);
    /// X.4.0: something about the network or the routing.
    pub const OTHER_NETWORK: Self = Self::of(4, 0);
    /// X.4.1: no answer from the host.
    pub const NO_ANSWER_FROM_HOST: Self = Self::of(4, 1);
    /// X.4.2: the connection is bad, or broke.
    pub const BAD_CONNECTION: Self = Self::of(4, 2);
    /// X.4.3: the DNS failed.
    pub const DIRECTORY_SERVER_FAILURE: Self = Self::of(4, 3);
    /// X.4.4: there is no way to it.
    pub const UNABLE_TO_ROUTE: Self = Self::of(4, 4);
    /// X.4.5: the mail system is congested.
    pub const SYSTEM_CONGESTION: Self = Self::of(4, 5);
    /// X.4.6: the message runs in a circle.
    pub const ROUTING_LOOP: Self = Self::of(4, 6);
    /// X.4.7: it waited too long.
    pub const DELIVERY_TIME_EXPIRED: Self = Self::of(4, 7);
    /// X.5.0: something about the protocol.
    pub const OTHER_PROTOCOL: Self = Self::of(5, 0);
    /// X.5.1: there is no such command, or not now.
    pub const INVALID_COMMAND: Self = Self::of(5, 1);
    /// X.5.2: the command can't be read.
    pub const SYNTAX_ERROR: Self = Self::of(5, 2);
    /// X.5.3: too many recipients for one transaction.
    pub const TOO_MANY_RECIPIENTS: Self = Self::of(5, 3);
    /// X.5.4: the command's arguments are wrong.
    pub const INVALID_ARGUMENTS: Self = Self::of(5, 4);
    /// X.6.0: something about the content.
    pub const OTHER_MEDIA: Self = Self::of(6, 0);
    /// X.6.3: the content would have to be converted, and can't.
    pub const CONVERSION_REQUIRED: Self = Self::of(6, 3);
    /// X.6.7: addresses or header fields are not in ASCII, which isn't taken here (RFC 6531 §3.5).
    pub const NON_ASCII_ADDRESSES: Self = Self::of(6, 7);
    /// X.7.0: something about security or policy.
    pub const OTHER_SECURITY: Self = Self::of(7, 0);
    /// X.7.1: not allowed.
    pub const NOT_AUTHORIZED: Self = Self::of(7, 1);
    /// X.7.4: a feature of security that is asked for isn't there.
    pub const SECURITY_FEATURES_NOT_SUPPORTED: Self = Self::of(7, 4);
    /// X.7.8: name or password is wrong (RFC 4954 §6).
    pub const CREDENTIALS_INVALID: Self = Self::of(7, 8);
    /// X.7.11: encryption comes first (RFC 4954 §6).
    pub const ENCRYPTION_REQUIRED: Self = Self::of(7, 11);
    /// X.7.27: the reverse-path's domain has a null MX (RFC 7505 §4.2).
    pub const SENDER_NULL_MX: Self = Self::of(7, 27);

    const fn of(subject: u16, detail: u16) -> Self {
        Self { subject, detail }
    }
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

    /// 2.y.z
    pub const fn success(detail: Detail) -> Self {
        Self::of(Severity::Completed, detail)
    }

    /// 4.y.z
    pub const fn transient(detail: Detail) -> Self {
        Self::of(Severity::Transient, detail)
    }

    /// 5.y.z
    pub const fn permanent(detail: Detail) -> Self {
        Self::of(Severity::Permanent, detail)
    }

    /// The code that goes with a reply of this severity.
    pub const fn of(severity: Severity, Detail { subject, detail }: Detail) -> Self {
        Self { class: class(severity), subject, detail }
    }

    /// Whether it goes with a reply of this severity.
    pub const fn is_of(self, severity: Severity) -> bool {
        self.class == class(severity)
    }

    /// Whether it is a transient failure: 4.y.z.
    pub const fn is_transient(self) -> bool {
        self.is_of(Severity::Transient)
    }

    /// Whether it is about a mail system: its storage, its configuration, its readiness (RFC 3463 §3.4).
    pub const fn is_about_mail_system(self) -> bool {
        self.subject == Detail::OTHER_MAIL_SYSTEM.subject
    }
}

/// A 3yz reply has no code of its own (RFC 2034 §3); nothing is wrong so far.
const fn class(severity: Severity) -> u8 {
    match severity {
        Severity::Completed | Severity::Intermediate => 2,
        Severity::Transient => 4,
        Severity::Permanent => 5,
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
    fn the_class_of_an_enhanced_status_code_is_the_severity() {
        for (severity, text) in
            [(Severity::Completed, "2.3.1"), (Severity::Transient, "4.3.1"), (Severity::Permanent, "5.3.1")]
        {
            assert_eq!(EnhancedStatus::of(severity, Detail::SYSTEM_FULL).to_string(), text);
        }
    }

    #[test]
    fn enhanced_status_code_syntax() {
        assert_eq!("5.7.1".parse(), Ok(EnhancedStatus::new(5, 7, 1)));
        for text in ["", "5.7", "5.7.1.1", "3.0.0", "5.7.1000", "5.-7.1", "261.1.1"] {
            assert_eq!(text.parse::<EnhancedStatus>(), Err(EnhancedStatusError), "{text}");
        }
    }
}
