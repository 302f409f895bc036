//! What of the configuration a session's protocol depends on.

use std::time::Duration;

use crate::config::Config;
use crate::config::model::ZoneKind;
use crate::language::Language;
use crate::mail::Domain;
use crate::smtp::command::Strictness;

/// The whole of a message may take this many times the data timeout, however steadily it trickles in.
const DATA_TIMEOUTS_A_MESSAGE: u32 = 6;

/// Settings of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Our host name, in the banner and the reply to EHLO.
    pub hostname: Domain,
    /// The language in which refusals are explained.
    pub language: Language,
    /// Largest message, octets, line ends included, dots unstuffed.
    pub max_message_octets: u64,
    /// Most recipients of a transaction.
    pub max_recipients: usize,
    /// Errors that a client may make between two stored messages.
    pub hard_error_limit: u32,
    /// Longest wait for a whole command.
    pub command_timeout: Duration,
    /// Longest pause within data.
    pub data_timeout: Duration,
    /// What becomes of data with a bare CR or LF, or with NUL.
    pub unclean_data: UncleanData,
    /// How closely the client must keep to the syntax and wait for replies.
    pub strictness: Strictness,
    /// Whether STARTTLS is offered.
    pub offers_tls: bool,
    /// When AUTH is offered.
    pub auth: AuthOffer,
}

/// When AUTH is offered (S7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthOffer {
    /// Never.
    Never,
    /// Once the session is encrypted.
    Encrypted,
    /// At any time.
    Always,
}

/// What is done with data that servers read differently, the means of SMTP smuggling: a bare CR or LF, or NUL
/// (S2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UncleanData {
    /// The message is refused.
    Refuse,
    /// Each CR and LF becomes CRLF, each NUL is left out.
    Repair,
}

impl Settings {
    /// The settings for clients of a zone of this kind, whose original destination is an address of ours or
    /// another one.
    pub fn new(config: &Config, kind: ZoneKind, destination_is_local: bool) -> Self {
        let auth = match (&config.imap_auth, kind) {
            // A client whose connection was intercepted would send us the password for its original
            // destination.
            (Some(_), _) if !destination_is_local => AuthOffer::Never,
            (Some(_), ZoneKind::Red) => AuthOffer::Encrypted,
            (Some(_), _) => AuthOffer::Always,
            (None, _) => AuthOffer::Never,
        };
        Self {
            hostname: config.hostname.clone(),
            language: config.language,
            max_message_octets: config.server.max_message_size,
            max_recipients: config.server.max_recipients,
            hard_error_limit: config.server.hard_error_limit,
            command_timeout: config.server.command_timeout,
            data_timeout: config.server.data_timeout,
            unclean_data: match kind {
                ZoneKind::Red => UncleanData::Refuse,
                ZoneKind::Green | ZoneKind::Orange | ZoneKind::Blue => UncleanData::Repair,
            },
            strictness: match kind {
                ZoneKind::Red => Strictness::Strict,
                ZoneKind::Green | ZoneKind::Orange | ZoneKind::Blue => Strictness::Lenient,
            },
            offers_tls: true,
            auth,
        }
    }

    /// The longest that one message may take to arrive.
    pub(super) fn longest_reception(&self) -> Duration {
        self.data_timeout.saturating_mul(DATA_TIMEOUTS_A_MESSAGE)
    }
}
