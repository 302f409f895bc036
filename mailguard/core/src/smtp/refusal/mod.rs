//! Why we don't take something, and the one place where that becomes a reply.

mod texts;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::enhanced_status::{Detail, EnhancedStatus};
use super::reply::{Reply, ReplyCode};
use crate::language::{ENGLISH, Wording};

/// A reason not to take a command, a recipient or a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The client stands on `access.blacklist_clients`.
    #[serde(rename = "client-listed")]
    ClientListed,
    /// The reverse-path stands on `access.blacklist_senders`.
    #[serde(rename = "sender-listed")]
    SenderListed,
    /// The forward-path stands on `access.blacklist_recipients`.
    #[serde(rename = "recipient-listed")]
    RecipientListed,
    /// A client of a red zone may send to incoming domains only.
    #[serde(rename = "relay-denied")]
    RelayDenied,
    /// MAIL before HELO or EHLO.
    #[serde(rename = "helo-required")]
    HeloRequired,
    /// What the client called itself is no host name and no address literal.
    #[serde(rename = "helo-invalid")]
    HeloInvalid,
    /// What the client called itself is no fully qualified name.
    #[serde(rename = "helo-not-qualified")]
    HeloNotQualified,
    /// Something is wrong with the reverse-path's domain.
    #[serde(rename = "sender-domain")]
    SenderDomain(DomainFault),
    /// Something is wrong with the forward-path's domain.
    #[serde(rename = "recipient-domain")]
    RecipientDomain(DomainFault),
    /// Its server refuses the recipient for good.
    #[serde(rename = "recipient-unknown")]
    RecipientUnknown,
    /// Recipient verification failed, transiently: its server didn't say whether it takes the recipient.
    #[serde(rename = "recipient-unverified")]
    RecipientUnverified,
    /// Client or sender stands on this DNS block list.
    #[serde(rename = "block-listed")]
    BlockListed(String),
    /// Not seen before: to be tried again in so many seconds.
    #[serde(rename = "greylisted")]
    Greylisted(u64),
    /// The message is, or says it is, larger than this many octets.
    #[serde(rename = "too-large")]
    TooLarge(u64),
    /// The header is larger than this many octets.
    #[serde(rename = "header-too-large")]
    HeaderTooLarge(usize),
    /// One transaction holds more recipients than this.
    #[serde(rename = "too-many-recipients")]
    TooManyRecipients(usize),
    /// More Received fields than a path without a loop has.
    #[serde(rename = "mail-loop")]
    MailLoop,
    /// A bare CR or LF in the data of a red zone's client.
    #[serde(rename = "bare-line-end")]
    BareLineEnd,
    /// A NUL in the data of a red zone's client.
    #[serde(rename = "nul")]
    Nul,
    /// The disk is full, or too full to promise anything.
    #[serde(rename = "storage-full")]
    StorageFull,
    /// The store failed; nothing was taken.
    #[serde(rename = "storage-failed")]
    StorageFailed,
    /// The quarantine reached `quarantine.max_size`.
    #[serde(rename = "quarantine-full")]
    QuarantineFull,
    /// A content check could not be made, and the configuration says to wait.
    #[serde(rename = "scanner-failed")]
    ScannerFailed,
    /// The message could not be taken apart within the limits of memory right now.
    #[serde(rename = "busy")]
    Busy,
    /// RCPT or data without a MAIL that was taken.
    #[serde(rename = "no-transaction")]
    NoTransaction,
}

/// What can be wrong with a domain that mail comes from or goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DomainFault {
    /// It is no fully qualified name.
    #[serde(rename = "not-qualified")]
    NotQualified,
    /// It has neither a mail exchanger nor an address.
    #[serde(rename = "unknown")]
    Unknown,
    /// It says that it takes no mail (RFC 7505).
    #[serde(rename = "null-mx")]
    NullMx,
    /// The DNS can't be asked now.
    #[serde(rename = "unavailable")]
    Unavailable,
}

impl DomainFault {
    /// The code and detail of a domain whose name is `bad`; of one with a null MX as RFC 7505 §4.2 has it.
    const fn codes(self, bad: Detail, null_mx: (ReplyCode, Detail)) -> (ReplyCode, Detail) {
        match self {
            DomainFault::NotQualified => (ReplyCode::PARAMETER_NOT_IMPLEMENTED, Detail::SYNTAX_ERROR),
            DomainFault::Unknown => (ReplyCode::MAILBOX_UNAVAILABLE, bad),
            DomainFault::NullMx => null_mx,
            DomainFault::Unavailable => (ReplyCode::MAILBOX_UNAVAILABLE_NOW, bad),
        }
    }
}

impl Refusal {
    /// The reply code and enhanced status code (RFC 5321 §4.2.3, RFC 3463).
    pub const fn codes(&self) -> (ReplyCode, EnhancedStatus) {
        let (code, detail) = self.code_and_detail();
        (code, EnhancedStatus::of(code.severity(), detail))
    }

    const fn code_and_detail(&self) -> (ReplyCode, Detail) {
        match self {
            Refusal::ClientListed
            | Refusal::SenderListed
            | Refusal::RecipientListed
            | Refusal::RelayDenied
            | Refusal::BlockListed(_) => (ReplyCode::TRANSACTION_FAILED, Detail::NOT_AUTHORIZED),
            Refusal::HeloRequired | Refusal::NoTransaction => {
                (ReplyCode::BAD_SEQUENCE, Detail::INVALID_COMMAND)
            }
            Refusal::HeloInvalid => (ReplyCode::PARAMETER_SYNTAX_ERROR, Detail::SYNTAX_ERROR),
            Refusal::HeloNotQualified => (ReplyCode::PARAMETER_NOT_IMPLEMENTED, Detail::SYNTAX_ERROR),
            Refusal::SenderDomain(fault) => fault
                .codes(Detail::BAD_SENDER_SYSTEM, (ReplyCode::MAILBOX_UNAVAILABLE, Detail::SENDER_NULL_MX)),
            Refusal::RecipientDomain(fault) => fault.codes(
                Detail::BAD_DESTINATION_SYSTEM,
                (ReplyCode::DOMAIN_TAKES_NO_MAIL, Detail::DESTINATION_NULL_MX),
            ),
            Refusal::RecipientUnknown => (ReplyCode::MAILBOX_UNAVAILABLE, Detail::BAD_DESTINATION_MAILBOX),
            Refusal::RecipientUnverified => {
                (ReplyCode::MAILBOX_UNAVAILABLE_NOW, Detail::BAD_DESTINATION_MAILBOX)
            }
            Refusal::Greylisted(_) => (ReplyCode::LOCAL_ERROR, Detail::NOT_AUTHORIZED),
            Refusal::TooLarge(_) | Refusal::HeaderTooLarge(_) => {
                (ReplyCode::EXCEEDED_STORAGE, Detail::MESSAGE_TOO_BIG)
            }
            Refusal::TooManyRecipients(_) => (ReplyCode::INSUFFICIENT_STORAGE, Detail::TOO_MANY_RECIPIENTS),
            Refusal::MailLoop => (ReplyCode::TRANSACTION_FAILED, Detail::ROUTING_LOOP),
            Refusal::BareLineEnd | Refusal::Nul => (ReplyCode::TRANSACTION_FAILED, Detail::OTHER_MEDIA),
            Refusal::StorageFull | Refusal::QuarantineFull => {
                (ReplyCode::INSUFFICIENT_STORAGE, Detail::SYSTEM_FULL)
            }
            Refusal::StorageFailed => (ReplyCode::INSUFFICIENT_STORAGE, Detail::OTHER_MAIL_SYSTEM),
            Refusal::ScannerFailed | Refusal::Busy => (ReplyCode::LOCAL_ERROR, Detail::OTHER_MAIL_SYSTEM),
        }
    }

    /// Whether it is the fault of client or sender, whoever the recipient is.
    pub const fn is_about_sender(&self) -> bool {
        matches!(
            self,
            Refusal::ClientListed
                | Refusal::SenderListed
                | Refusal::HeloRequired
                | Refusal::HeloInvalid
                | Refusal::HeloNotQualified
                | Refusal::SenderDomain(_)
                | Refusal::BlockListed(_)
        )
    }

    /// The reply to the client. `reference` finds the trace: what the administrator is asked for.
    pub fn reply(&self, reference: impl fmt::Display, wording: Wording) -> Reply {
        let (code, detail) = self.code_and_detail();
        Reply::new(code, detail, format!("{} (ref {reference})", self.text(wording)))
    }

    /// What the client is told.
    pub fn text(&self, wording: Wording) -> String {
        let text = texts::texts(self).of(wording);
        match self.detail() {
            Some(detail) => text.replace("{}", &detail),
            None => text.into_owned(),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Refusal::BlockListed(list) => Some(list.clone()),
            Refusal::Greylisted(seconds) => Some(seconds.to_string()),
            Refusal::TooLarge(limit) => Some(limit.to_string()),
            Refusal::HeaderTooLarge(limit) | Refusal::TooManyRecipients(limit) => Some(limit.to_string()),
            _ => None,
        }
    }
}

/// For the administrator, in English.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(ENGLISH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    /// One of each.
    fn all() -> Vec<Refusal> {
        let faults =
            [DomainFault::NotQualified, DomainFault::Unknown, DomainFault::NullMx, DomainFault::Unavailable];
        let mut all = vec![
            Refusal::ClientListed,
            Refusal::SenderListed,
            Refusal::RecipientListed,
            Refusal::RelayDenied,
            Refusal::HeloRequired,
            Refusal::HeloInvalid,
            Refusal::HeloNotQualified,
            Refusal::RecipientUnknown,
            Refusal::RecipientUnverified,
            Refusal::BlockListed("zen.rbl.example".to_owned()),
            Refusal::Greylisted(300),
            Refusal::TooLarge(300),
            Refusal::HeaderTooLarge(300),
            Refusal::TooManyRecipients(300),
            Refusal::MailLoop,
            Refusal::BareLineEnd,
            Refusal::Nul,
            Refusal::StorageFull,
            Refusal::StorageFailed,
            Refusal::QuarantineFull,
            Refusal::ScannerFailed,
            Refusal::Busy,
            Refusal::NoTransaction,
        ];
        all.extend(faults.map(Refusal::SenderDomain));
        all.extend(faults.map(Refusal::RecipientDomain));
        all
    }

    #[test]
    fn every_refusal_is_said_in_every_language_and_fits_a_line() {
        let all = all();
        let mut seen = std::collections::HashSet::new();
        for language in [Language::English, Language::German, Language::Italian, Language::Japanese] {
            for utf8 in [false, true] {
                let wording = Wording { language, utf8 };
                for refusal in &all {
                    let text = refusal.text(wording);
                    assert!(utf8 || text.is_ascii(), "{text}");
                    // Japanese in ASCII is English; nothing else is said in another language's words.
                    assert_eq!(
                        text == refusal.to_string(),
                        language == Language::English || (language == Language::Japanese && !utf8),
                        "{text}"
                    );
                    assert!(!text.contains(['{', '}']), "{text}");
                    let detailed = refusal.detail().is_none_or(|detail| text.contains(&detail));
                    assert!(detailed, "{text}");
                    if utf8 {
                        assert!(seen.insert(text.clone()), "said of two: {text}");
                    }
                    let mut octets = Vec::new();
                    refusal.reply("1PAV3QX7K2M", wording).encode(&mut octets);
                    assert!(octets.ends_with(b" (ref 1PAV3QX7K2M)\r\n"), "{text}");
                }
            }
        }
    }
}
