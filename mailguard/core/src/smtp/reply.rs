//! Replies: one code, an enhanced status code where the rules want one, one or more lines (RFC 5321 §4.2, RFC
//! 2034).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::enhanced_status::{Detail, EnhancedStatus};

/// Longest reply line in octets, CRLF included (RFC 5321 §4.5.3.1.5).
pub const MAX_REPLY_LINE_OCTETS: usize = 512;

/// Three digits, the first of them 2 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplyCode(u16);

/// What the first digit of a reply says (RFC 5321 §4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// 2yz: done.
    Completed,
    /// 3yz: go on.
    Intermediate,
    /// 4yz: not now.
    Transient,
    /// 5yz: not ever.
    Permanent,
}

impl ReplyCode {
    /// 214
    pub const HELP: Self = Self(214);
    /// 220
    pub const READY: Self = Self(220);
    /// 221
    pub const CLOSING: Self = Self(221);
    /// 235
    pub const AUTHENTICATED: Self = Self(235);
    /// 250
    pub const OK: Self = Self(250);
    /// 252
    pub const CANNOT_VERIFY: Self = Self(252);
    /// 334
    pub const GO_ON: Self = Self(334);
    /// 354
    pub const START_MAIL_INPUT: Self = Self(354);
    /// 421
    pub const NOT_AVAILABLE: Self = Self(421);
    /// 450
    pub const MAILBOX_UNAVAILABLE_NOW: Self = Self(450);
    /// 451
    pub const LOCAL_ERROR: Self = Self(451);
    /// 452
    pub const INSUFFICIENT_STORAGE: Self = Self(452);
    /// 454
    pub const AUTHENTICATION_UNAVAILABLE: Self = Self(454);
    /// 500
    pub const SYNTAX_ERROR: Self = Self(500);
    /// 501
    pub const PARAMETER_SYNTAX_ERROR: Self = Self(501);
    /// 502
    pub const NOT_IMPLEMENTED: Self = Self(502);
    /// 503
    pub const BAD_SEQUENCE: Self = Self(503);
    /// 504
    pub const PARAMETER_NOT_IMPLEMENTED: Self = Self(504);
    /// 534 (RFC 4954 §6)
    pub const MECHANISM_TOO_WEAK: Self = Self(534);
    /// 535
    pub const AUTHENTICATION_FAILED: Self = Self(535);
    /// 538
    pub const ENCRYPTION_REQUIRED: Self = Self(538);
    /// 550
    pub const MAILBOX_UNAVAILABLE: Self = Self(550);
    /// 551
    pub const USER_NOT_LOCAL: Self = Self(551);
    /// 552
    pub const EXCEEDED_STORAGE: Self = Self(552);
    /// 553
    pub const MAILBOX_NAME_NOT_ALLOWED: Self = Self(553);
    /// 554
    pub const TRANSACTION_FAILED: Self = Self(554);
    /// 555
    pub const PARAMETER_NOT_RECOGNISED: Self = Self(555);
    /// 556 (RFC 7504 §3)
    pub const DOMAIN_TAKES_NO_MAIL: Self = Self(556);

    /// A code from its number, if the number can be one.
    pub const fn new(code: u16) -> Option<Self> {
        if code >= 200 && code <= 599 { Some(Self(code)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// What the first digit says.
    pub const fn severity(self) -> Severity {
        match self.0 / 100 {
            2 => Severity::Completed,
            3 => Severity::Intermediate,
            4 => Severity::Transient,
            _ => Severity::Permanent,
        }
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}

/// A reply, ours or a peer's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The three digits.
    #[serde(rename = "code")]
    pub code: ReplyCode,
    /// The enhanced status code that every line repeats.
    #[serde(rename = "status")]
    pub status: Option<EnhancedStatus>,
    /// The text lines without codes; at least one.
    #[serde(rename = "lines")]
    pub lines: Vec<String>,
}

impl Reply {
    /// A reply of one line with an enhanced status code, whose class is the reply code's.
    pub fn new(code: ReplyCode, detail: Detail, text: impl Into<String>) -> Self {
        Self { code, status: Some(EnhancedStatus::of(code.severity(), detail)), lines: vec![text.into()] }
    }

    /// A reply without an enhanced status code: banner, EHLO, 3yz (RFC 2034 §3).
    pub fn bare(code: ReplyCode, lines: Vec<String>) -> Self {
        Self { code, status: None, lines }
    }

    /// The octets for the wire. Control characters in the text become '?', overlong lines are cut: whatever
    /// text got in, the client reads one well-formed reply.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let last = self.lines.len().saturating_sub(1);
        for (index, line) in self.lines.iter().enumerate() {
            let start = out.len();
            out.extend_from_slice(self.code.to_string().as_bytes());
            out.push(if index == last { b' ' } else { b'-' });
            if let Some(status) = self.status {
                out.extend_from_slice(status.to_string().as_bytes());
                out.push(b' ');
            }
            for c in line.chars() {
                let c = if c.is_control() { '?' } else { c };
                if out.len() - start + c.len_utf8() > MAX_REPLY_LINE_OCTETS - 2 {
                    break;
                }
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// One line for logs and traces: `550 5.1.1 no such user / try another`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        for (index, line) in self.lines.iter().enumerate() {
            write!(f, "{}{line}", if index == 0 { " " } else { " / " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reply: Reply, expect: &str) {
        let mut out = Vec::new();
        reply.encode(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn replies_on_the_wire() {
        let denied = Detail::NOT_AUTHORIZED;
        check(Reply::new(ReplyCode::TRANSACTION_FAILED, denied, "no"), "554 5.7.1 no\r\n");
        check(Reply::new(ReplyCode::LOCAL_ERROR, denied, "not yet"), "451 4.7.1 not yet\r\n");
        check(Reply::bare(ReplyCode::OK, vec!["a".into(), "B".into()]), "250-a\r\n250 B\r\n");
        check(Reply::new(ReplyCode::TRANSACTION_FAILED, denied, "a\r\n250 b"), "554 5.7.1 a??250 b\r\n");
    }

    #[test]
    fn each_line_repeats_the_enhanced_status_code() {
        let mut reply = Reply::new(ReplyCode::OK, Detail::UNDEFINED, "a");
        reply.lines.push("b".to_owned());
        check(reply, "250-2.0.0 a\r\n250 2.0.0 b\r\n");
    }

    #[test]
    fn overlong_reply_lines_are_cut_at_a_character() {
        let mut out = Vec::new();
        Reply::bare(ReplyCode::OK, vec!["é".repeat(400)]).encode(&mut out);
        assert!(out.len() <= MAX_REPLY_LINE_OCTETS);
        assert!(String::from_utf8(out).is_ok());
    }
}
