//! The SMTP envelope: what MAIL and RCPT said (RFC 5321 §2.3.1; RFC 3461 for the notification parameters).

use serde::{Deserialize, Serialize};

use super::address::{ForwardPath, ReversePath};

/// Who sent a message and who shall get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// MAIL FROM.
    pub reverse_path: ReversePath,
    /// RCPT TO, in the order given; never empty once data begin.
    pub recipients: Vec<Recipient>,
    /// BODY= (RFC 6152).
    pub body: BodyType,
    /// SMTPUTF8 was given (RFC 6531).
    pub smtputf8: bool,
    /// RET= (RFC 3461 §4.3).
    pub dsn_return: Option<DsnReturn>,
    /// ENVID=, as it stands on the wire in xtext (RFC 3461 §4.4).
    pub envelope_id: Option<String>,
}

/// One RCPT TO.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// The address.
    pub forward_path: ForwardPath,
    /// NOTIFY=; absent means on failure, and on delay as we choose (RFC 3461 §4.1).
    pub notify: Option<Notify>,
    /// ORCPT=, as it stands on the wire: `addr-type;xtext` (RFC 3461 §4.2).
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
    SevenBit,
    /// 8BITMIME.
    EightBitMime,
}

/// How much of the message a failure report returns (RFC 3461 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DsnReturn {
    /// The whole message.
    Full,
    /// Its header only.
    Headers,
}

/// For which events a recipient's sender wants a report; all false is NEVER (RFC 3461 §4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// SUCCESS
    pub success: bool,
    /// FAILURE
    pub failure: bool,
    /// DELAY
    pub delay: bool,
}

impl Notify {
    /// NOTIFY=NEVER.
    pub const NEVER: Notify = Notify { success: false, failure: false, delay: false };
}
