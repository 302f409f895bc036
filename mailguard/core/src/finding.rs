//! What one check thinks of a message: every check returns one, every one goes to the trace.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::points::Points;
use crate::smtp::refusal::Refusal;

/// The checks, each named once; the name is what traces, logs and counters show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Check {
    /// Limits of reception: sessions, errors, times, sizes.
    #[serde(rename = "limits")]
    Limits,
    /// Who the client has shown to be.
    #[serde(rename = "authentication")]
    Authentication,
    /// Client address against `access.*_clients`.
    #[serde(rename = "client-access")]
    ClientAccess,
    /// Reverse-path against `access.*_senders`.
    #[serde(rename = "sender-access")]
    SenderAccess,
    /// Forward-path against `access.*_recipients`.
    #[serde(rename = "recipient-access")]
    RecipientAccess,
    /// Whether this client may send to this domain.
    #[serde(rename = "relay-control")]
    RelayControl,
    /// Presence and syntax of HELO.
    #[serde(rename = "helo")]
    Helo,
    /// Whether the reverse-path's domain is a whole name, and known.
    #[serde(rename = "sender-domain")]
    SenderDomain,
    /// Whether the forward-path's domain is a whole name, and known.
    #[serde(rename = "recipient-domain")]
    RecipientDomain,
    /// Whether the server of the forward-path's domain takes mail for it.
    #[serde(rename = "recipient-verification")]
    RecipientVerification,
    /// DNS block lists (`[rbl]`).
    #[serde(rename = "rbl")]
    Rbl,
    /// Greylisting (`[spam.greylist]`).
    #[serde(rename = "greylist")]
    Greylist,
    /// Size, declared or real.
    #[serde(rename = "message-size")]
    MessageSize,
    /// Mail loops by count of Received fields.
    #[serde(rename = "loop")]
    Loop,
    /// Names and types of attachments.
    #[serde(rename = "files")]
    Files,
    /// YARA rules.
    #[serde(rename = "signatures")]
    Signatures,
}

impl Check {
    /// The name in traces and counters.
    pub const fn name(self) -> &'static str {
        match self {
            Check::Limits => "limits",
            Check::Authentication => "authentication",
            Check::ClientAccess => "client-access",
            Check::SenderAccess => "sender-access",
            Check::RecipientAccess => "recipient-access",
            Check::RelayControl => "relay-control",
            Check::Helo => "helo",
            Check::SenderDomain => "sender-domain",
            Check::RecipientDomain => "recipient-domain",
            Check::RecipientVerification => "recipient-verification",
            Check::Rbl => "rbl",
            Check::Greylist => "greylist",
            Check::MessageSize => "message-size",
            Check::Loop => "loop",
            Check::Files => "files",
            Check::Signatures => "signatures",
        }
    }

    /// What kind of check it is.
    pub const fn family(self) -> Family {
        match self {
            Check::Limits
            | Check::Authentication
            | Check::ClientAccess
            | Check::SenderAccess
            | Check::RecipientAccess
            | Check::RelayControl
            | Check::Helo
            | Check::SenderDomain
            | Check::RecipientDomain
            | Check::RecipientVerification
            | Check::Rbl
            | Check::Greylist
            | Check::MessageSize
            | Check::Loop => Family::Policy,
            Check::Files => Family::Files,
            Check::Signatures => Family::Virus,
        }
    }
}

/// Kinds of checks: what one that fails counts as, and which part of the configuration says what becomes of
/// its finds, is its family's ([`crate::disposition`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Client, envelope and header; the limits of reception.
    Policy,
    /// `[files]`
    Files,
    /// `[virus]`
    Virus,
    /// `[spam]`: engines that add to one score.
    Spam,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One check's opinion, with the reason an administrator reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Who says it.
    #[serde(rename = "check")]
    pub check: Check,
    /// What.
    #[serde(rename = "outcome")]
    pub opinion: Opinion,
    /// Why, in one line, English.
    #[serde(rename = "reason")]
    pub reason: String,
}

impl Finding {
    /// A finding of `check`.
    pub fn new(check: Check, opinion: Opinion, reason: impl Into<String>) -> Self {
        Self { check, opinion, reason: reason.into() }
    }

    /// The refusal or deferral that this finding asks for.
    pub fn objection(&self) -> Option<&Refusal> {
        match &self.opinion {
            Opinion::Refuse(refusal) | Opinion::Defer(refusal) => Some(refusal),
            Opinion::Allow
            | Opinion::Pass
            | Opinion::Score(_)
            | Opinion::Found(_)
            | Opinion::Unavailable(_) => None,
        }
    }
}

/// The possible opinions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Opinion {
    /// Whitelisted: the policy checks after this one are not asked.
    #[serde(rename = "allow")]
    Allow,
    /// Nothing to say against it.
    #[serde(rename = "pass")]
    Pass,
    /// Adds to the message's score.
    #[serde(rename = "score")]
    Score(Points),
    /// A permanent refusal (5yz).
    #[serde(rename = "refuse")]
    Refuse(Refusal),
    /// A transient refusal (4yz).
    #[serde(rename = "defer")]
    Defer(Refusal),
    /// The content holds something that the configuration handles.
    #[serde(rename = "found")]
    Found(Threat),
    /// The check could not be made. Never read as Pass or as Found.
    #[serde(rename = "unavailable")]
    Unavailable(String),
}

/// What a content check can find, in the order of precedence: virus before file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Threat {
    /// A virus, with the name of the signature.
    #[serde(rename = "virus")]
    Virus(String),
    /// A blocked file, with its name.
    #[serde(rename = "file")]
    File(String),
}

impl fmt::Display for Threat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Threat::Virus(name) => write!(f, "virus {name}"),
            Threat::File(name) => write!(f, "blocked file {name}"),
        }
    }
}

/// `pass`, `score: 4.50`, `refuse: relay denied`, `found: virus EICAR`.
impl fmt::Display for Opinion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Opinion::Allow => f.write_str("allow"),
            Opinion::Pass => f.write_str("pass"),
            Opinion::Score(points) => write!(f, "score: {points}"),
            Opinion::Refuse(refusal) => write!(f, "refuse: {refusal}"),
            Opinion::Defer(refusal) => write!(f, "defer: {refusal}"),
            Opinion::Found(threat) => write!(f, "found: {threat}"),
            Opinion::Unavailable(cause) => write!(f, "unavailable: {cause}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opinions_as_a_trace_shows_them() {
        let score = |hundredths| Opinion::Score(Points::from_hundredths(hundredths));
        for (opinion, expect) in [
            (Opinion::Allow, "allow"),
            (Opinion::Pass, "pass"),
            (score(450), "score: 4.50"),
            (score(-150), "score: -1.50"),
            (Opinion::Defer(Refusal::Busy), "defer: Busy, try later"),
            (Opinion::Found(Threat::Virus("EICAR".to_owned())), "found: virus EICAR"),
            (Opinion::Unavailable("timeout".to_owned()), "unavailable: timeout"),
        ] {
            assert_eq!(opinion.to_string(), expect);
        }
    }
}
