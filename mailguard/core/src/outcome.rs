//! What an attempt at delivery came to, for one recipient.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::route::NoRoute;
use crate::smtp::{EnhancedStatus, Reply, ReplyCode};

/// The result of one attempt for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The next hop took responsibility.
    #[serde(rename = "delivered")]
    Delivered(Report),
    /// As `Delivered`, by a server that can't be told that the sender wants to hear of it (RFC 3461 §5.2.2).
    #[serde(rename = "relayed")]
    Relayed(Report),
    /// Try again later.
    #[serde(rename = "deferred")]
    Deferred(Report),
    /// Never.
    #[serde(rename = "failed")]
    Failed(Report),
}

/// What is known of the result: the material of a trace line and of a DSN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The status code, the remote one or our own.
    #[serde(rename = "status")]
    pub status: EnhancedStatus,
    /// Name and address of the server that it is about: `mx.example[192.0.2.1]:25`. On disk none is an empty
    /// text.
    #[serde(rename = "remote", with = "empty_is_none")]
    pub remote: Option<String>,
    /// Its reply, where there was one.
    #[serde(rename = "reply")]
    pub reply: Option<Reply>,
    /// One line for people: "host unreachable: connection refused".
    #[serde(rename = "text")]
    pub text: String,
    /// How the session stood.
    #[serde(rename = "transfer", default)]
    pub transfer: Transfer,
}

/// How a session with a server stood, and what was done to the message for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Transfer {
    /// How it was encrypted; none: not at all.
    #[serde(rename = "tls")]
    pub tls: Option<TlsUsed>,
    /// By which mechanism we said who we are.
    #[serde(rename = "authenticated")]
    pub authenticated: Option<String>,
    /// The content was converted to 7 bits (RFC 6152 §3).
    #[serde(rename = "converted")]
    pub converted: bool,
}

/// How a session was encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsUsed {
    /// `TLSv1.3`
    #[serde(rename = "version")]
    pub version: String,
    /// `TLS13_AES_256_GCM_SHA384`
    #[serde(rename = "cipher")]
    pub cipher: String,
    /// The server's certificate was verified.
    #[serde(rename = "verified")]
    pub verified: bool,
}

/// `TLSv1.3 TLS13_AES_256_GCM_SHA384, verified; AUTH CRAM-MD5`; empty where there is nothing to say.
impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = self.tls.as_ref().map(|tls| {
            let verified = if tls.verified { "verified" } else { "not verified" };
            format!("{} {}, {verified}", tls.version, tls.cipher)
        });
        let login = self.authenticated.as_ref().map(|mechanism| format!("AUTH {mechanism}"));
        let converted = self.converted.then(|| "converted to 7 bits".to_owned());
        let parts: Vec<_> = tls.into_iter().chain(login).chain(converted).collect();
        f.write_str(&parts.join("; "))
    }
}

/// An optional text as rows have it: none is the empty one.
mod empty_is_none {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text.as_deref().unwrap_or_default())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
        Ok(Some(String::deserialize(from)?).filter(|text| !text.is_empty()))
    }
}

impl Report {
    /// A report about no server in particular: none was asked, or it is our own fault.
    pub fn ours(status: EnhancedStatus, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { status, remote: None, reply: None, text, transfer: Transfer::default() }
    }

    /// A report about a server, without a reply of its.
    pub fn about(status: EnhancedStatus, remote: impl Into<String>, text: impl Into<String>) -> Self {
        Self { remote: Some(remote.into()), ..Self::ours(status, text) }
    }

    /// The server, for a sentence.
    pub fn server(&self) -> &str {
        self.remote.as_deref().unwrap_or("the server")
    }
}

/// What mail without a way comes to.
impl From<NoRoute> for Outcome {
    fn from(NoRoute { status, reason }: NoRoute) -> Self {
        let report = Report::ours(status, reason);
        if status.is_transient() { Outcome::Deferred(report) } else { Outcome::Failed(report) }
    }
}

impl Outcome {
    /// The report, whatever the result.
    pub fn report(&self) -> &Report {
        match self {
            Outcome::Delivered(report)
            | Outcome::Relayed(report)
            | Outcome::Deferred(report)
            | Outcome::Failed(report) => report,
        }
    }

    /// As [`Outcome::report`], to be completed.
    pub fn report_mut(&mut self) -> &mut Report {
        match self {
            Outcome::Delivered(report)
            | Outcome::Relayed(report)
            | Outcome::Deferred(report)
            | Outcome::Failed(report) => report,
        }
    }

    /// As [`Outcome::report`].
    pub fn into_report(self) -> Report {
        match self {
            Outcome::Delivered(report)
            | Outcome::Relayed(report)
            | Outcome::Deferred(report)
            | Outcome::Failed(report) => report,
        }
    }

    /// Whether this says that the next hop itself doesn't work now: nobody answered, or it takes no mail at
    /// all (RFC 5321 §3.8).
    pub fn blames_next_hop(&self) -> bool {
        match self {
            // A mail system status without a reply is our own (RFC 3463 §3.4): a body that can't be read.
            Outcome::Deferred(report) => match &report.reply {
                None => !report.status.is_about_mail_system(),
                Some(reply) => reply.code == ReplyCode::NOT_AVAILABLE,
            },
            Outcome::Delivered(_) | Outcome::Relayed(_) | Outcome::Failed(_) => false,
        }
    }
}
