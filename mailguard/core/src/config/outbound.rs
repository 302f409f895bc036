//! How mail leaves us, as the configuration says it: smarthosts, routes by domain, copies.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::model::SmarthostAddress;
use crate::mail::{Domain, Mailbox};

/// How a connection to a next hop is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tls {
    /// Not at all.
    Off,
    /// From STARTTLS on where the server offers it, whoever it is; in the clear otherwise (RFC 7435).
    Opportunistic,
    /// From STARTTLS on, or nothing is sent; the server's certificate is verified.
    Required,
    /// From the start (RFC 8314 §3); the server's certificate is verified.
    Implicit,
}

/// As the configuration writes it.
impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tls::Off => "off",
            Tls::Opportunistic => "opportunistic",
            Tls::Required => "required",
            Tls::Implicit => "implicit",
        })
    }
}

/// A way to say who we are (SASL).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 2195
    CramMd5,
    /// RFC 2831
    DigestMd5,
    /// RFC 4616
    Plain,
    /// draft-murchison-sasl-login-00
    Login,
}

impl Mechanism {
    /// Every one, the strongest first.
    pub const ALL: [Mechanism; 4] =
        [Mechanism::DigestMd5, Mechanism::CramMd5, Mechanism::Plain, Mechanism::Login];

    /// As AUTH names it (RFC 4954 §4).
    pub const fn name(self) -> &'static str {
        match self {
            Mechanism::CramMd5 => "CRAM-MD5",
            Mechanism::DigestMd5 => "DIGEST-MD5",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
        }
    }

    /// Whether whoever listens learns the password.
    pub const fn tells_password(self) -> bool {
        matches!(self, Mechanism::Plain | Mechanism::Login)
    }
}

/// Who we are to a smarthost.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Login {
    /// `username`
    pub user: String,
    /// `password`, or the first line of `password_file`.
    pub password: String,
    /// `methods`
    pub methods: Vec<Mechanism>,
}

/// Without the password.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, methods, .. } = self;
        f.debug_struct("Login").field("user", user).field("methods", methods).finish_non_exhaustive()
    }
}

/// `[smarthost]` or `[domain_route.smarthost]`, enabled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Smarthost {
    /// `address`: a name or an address.
    pub host: SmarthostAddress,
    /// `port`
    pub port: u16,
    /// `tls`
    pub tls: Tls,
    /// The text of `ca_file`: PEM.
    pub ca: Option<String>,
    /// `username` and what belongs to it.
    pub login: Option<Login>,
}

/// Whose domain or address decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The reverse-path's.
    Sender,
    /// The forward-path's.
    Recipient,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Sender => "sender",
            Direction::Recipient => "recipient",
        })
    }
}

/// Where a connection comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OutgoingAddress {
    /// This address of ours.
    Address(IpAddr),
    /// Whatever address this interface gives it.
    Interface(String),
}

impl fmt::Display for OutgoingAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutgoingAddress::Address(address) => address.fmt(f),
            OutgoingAddress::Interface(name) => f.write_str(name),
        }
    }
}

/// `[[domain_route]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainRoute {
    /// `direction`
    pub direction: Direction,
    /// `domain`, and its subdomains.
    pub domain: Domain,
    /// `outgoing_address`
    pub outgoing: Option<OutgoingAddress>,
    /// `smarthost`
    pub smarthost: RouteSmarthost,
}

/// The smarthost of a domain route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteSmarthost {
    /// That of everybody, if there is one: nothing is said here.
    General,
    /// None: `enabled = false`.
    Without,
    /// One of its own.
    Own(Arc<Smarthost>),
}

/// `[[mail_route]]`: a copy for somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailRoute {
    /// `direction`
    pub direction: Direction,
    /// `address`
    pub address: Mailbox,
    /// `bcc`
    pub bcc: Mailbox,
}

/// A server of an incoming domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MailServer {
    /// Connected to as it stands.
    #[serde(rename = "address")]
    Address(SocketAddr),
    /// Looked up, A and AAAA, not MX; this port.
    #[serde(rename = "host")]
    Host(Domain, u16),
}

impl fmt::Display for MailServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MailServer::Address(address) => address.fmt(f),
            MailServer::Host(name, port) => write!(f, "{name}:{port}"),
        }
    }
}
