//! The SMTP envelope: what MAIL and RCPT said (RFC 5321 §2.3.1; RFC 3461 for the notification parameters).

use serde::{Deserialize, Serialize};

use super::address::{ForwardPath, ReversePath};

/// Who sent a message and who shall get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// MAIL FROM.
    #[serde(rename = "reverse_path")]
    pub reverse_path: ReversePath,
    /// RCPT TO, in the order given; never empty once data begin.
    #[serde(rename = "recipients")]
    pub recipients: Vec<Recipient>,
    /// BODY= (RFC 6152).
    #[serde(rename = "body")]
    pub body: BodyType,
    /// SMTPUTF8 was given (RFC 6531).
    #[serde(rename = "smtputf8")]
    pub smtputf8: bool,
    /// RET= (RFC 3461 §4.3).
    #[serde(rename = "dsn_return")]
    pub dsn_return: Option<DsnReturn>,
    /// ENVID=, as it stands on the wire in xtext (RFC 3461 §4.4).
    #[serde(rename = "envelope_id")]
    pub envelope_id: Option<String>,
}

/// Names a recipient of a message by its place in the envelope that the session took. The envelope of an
/// attempt, which is for some of them, is numbered otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecipientIndex(usize);

impl RecipientIndex {
    /// The recipient at this place, counted from zero.
    pub const fn new(place: usize) -> Self {
        Self(place)
    }

    /// The place, counted from zero.
    pub const fn get(self) -> usize {
        self.0
    }
}

/// One RCPT TO.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// The address.
    #[serde(rename = "forward_path")]
    pub forward_path: ForwardPath,
    /// NOTIFY=; absent means on failure, and on delay as we choose (RFC 3461 §4.1).
    #[serde(rename = "notify")]
    pub notify: Option<Notify>,
    /// ORCPT=, as it stands on the wire: `addr-type;xtext` (RFC 3461 §4.2).
    #[serde(rename = "original_recipient")]
    pub original_recipient: Option<String>,
}

impl Recipient {
    /// A recipient without notification parameters.
    pub fn new(forward_path: ForwardPath) -> Self {
        Self { forward_path, notify: None, original_recipient: None }
    }
}

/// The declared form of the content (RFC 6152 §2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyType {
    /// 7BIT, also when nothing was said.
    #[default]
    #[serde(rename = "SevenBit")]
    SevenBit,
    /// 8BITMIME.
    #[serde(rename = "EightBitMime")]
    EightBitMime,
}

/// How much of the message a failure report returns (RFC 3461 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DsnReturn {
    /// The whole message.
    #[serde(rename = "Full")]
    Full,
    /// Its header only.
    #[serde(rename = "Headers")]
    Headers,
}

/// For which events a recipient's sender wants a report; all false is NEVER (RFC 3461 §4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// SUCCESS
    #[serde(rename = "success")]
    pub success: bool,
    /// FAILURE
    #[serde(rename = "failure")]
    pub failure: bool,
    /// DELAY
    #[serde(rename = "delay")]
    pub delay: bool,
}

impl Notify {
    /// NOTIFY=NEVER.
    pub const NEVER: Notify = Notify { success: false, failure: false, delay: false };
}
