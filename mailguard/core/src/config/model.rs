//! The typed configuration. No field is optional for having a default: defaults are filled in by `resolve`.
//!
//! It holds what is built. Keys of the contract that nothing reads yet are accepted at their default only.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use super::outbound::{
    Direction, DomainRoute, Login, MailRoute, MailServer, Mechanism, OutgoingAddress, RouteSmarthost,
    Smarthost, Tls,
};
use crate::language::Language;
use crate::mail::{Domain, Mailbox};

/// Everything an administrator can say.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `enabled`: false turns everything off and leaves nothing behind.
    pub enabled: bool,
    /// `hostname`: banner, Received fields, HELO unless `delivery.helo_name` differs.
    pub hostname: Domain,
    /// `state_dir`: spool, quarantine, traces.
    pub state_dir: PathBuf,
    /// `runtime_dir`: control socket, pid.
    pub runtime_dir: PathBuf,
    /// `language`: in which refusals are explained.
    pub language: Language,
    /// `postmaster`, or postmaster@ the first incoming domain; absent when there is neither.
    pub postmaster: Option<Mailbox>,
    /// `user`: who handles mail.
    pub user: String,
    /// `min_free_disk`, octets.
    pub min_free_disk: u64,
    /// `[[zone]]`, in the file's order.
    pub zones: Vec<Zone>,
    /// `[kernel]`
    pub kernel: Kernel,
    /// `[bypass]`
    pub bypass: Bypass,
    /// `[virus]`
    pub virus: Virus,
    /// `[files]`
    pub files: Files,
    /// `[spam.greylist]`
    pub greylist: Greylist,
    /// `[quarantine]`
    pub quarantine: Quarantine,
    /// `[access]`
    pub access: Access,
    /// `[rbl]`, absent when not enabled.
    pub rbl: Option<Rbl>,
    /// `[[incoming_domain]]`, in the file's order.
    pub incoming_domains: Vec<IncomingDomain>,
    /// `[delivery]`
    pub delivery: Delivery,
    /// `[smarthost]`, absent when not enabled.
    pub smarthost: Option<Arc<Smarthost>>,
    /// `[[domain_route]]`, in the file's order.
    pub domain_routes: Vec<DomainRoute>,
    /// `[[mail_route]]`, in the file's order.
    pub mail_routes: Vec<MailRoute>,
    /// `[imap_auth]`, absent when not enabled.
    pub imap_auth: Option<ImapAuth>,
    /// `[server]`
    pub server: Server,
    /// `[spam_prevention]`
    pub spam_prevention: SpamPrevention,
    /// `[dns]`
    pub dns: Dns,
    /// `[trace]`
    pub trace: Trace,
    /// `[log]`
    pub log: Log,
    /// Protections that the file asks for, most of them by default, and that this version doesn't have yet:
    /// one line each, as `mailguard status` shows them.
    pub inactive: Vec<Inactive>,
}

/// A configured protection that isn't active.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Inactive {
    /// The key path, `spam.enabled`.
    pub key: String,
    /// What is missing, in one line.
    pub what: String,
}

/// One zone of the firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// `name`, unique.
    pub name: String,
    /// `kind`
    pub kind: ZoneKind,
    /// `interfaces`, at least one; an interface belongs to one zone.
    pub interfaces: Vec<String>,
    /// `mode`
    pub mode: ZoneMode,
    /// `allow_clients`: who may send from the zone; absent: everybody.
    pub allow_clients: Option<Vec<IpNet>>,
}

impl Zone {
    /// Whether a client of the zone may send.
    pub fn allows(&self, client: IpAddr) -> bool {
        let Some(allowed) = &self.allow_clients else { return true };
        allowed.iter().any(|network| network.contains(&client))
    }
}

/// How far a zone's clients are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum ZoneKind {
    /// The uplink: nobody is trusted.
    #[serde(rename = "red")]
    Red,
    /// The local network.
    #[serde(rename = "green")]
    Green,
    /// Servers.
    #[serde(rename = "orange")]
    Orange,
    /// Wireless and guests.
    #[serde(rename = "blue")]
    Blue,
}

/// How a zone's mail reaches us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZoneMode {
    /// Every connection to port 25 is intercepted, whatever its destination.
    Transparent,
    /// Connections to port 25 of the zone's own addresses.
    Active,
    /// Nothing is done.
    Inactive,
}

/// `[kernel]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// `on_proxy_down`
    pub on_proxy_down: OnProxyDown,
    /// `xdp`
    pub xdp: XdpMode,
    /// `blacklist_action`
    pub blacklist_action: BlacklistAction,
    /// `pin_dir`: on a BPF file system.
    pub pin_dir: PathBuf,
    /// `proxy_port`: the zone with index i listens on proxy_port + i.
    pub proxy_port: u16,
    /// `ban_after_abuse`: zero bans nobody.
    pub ban_after_abuse: Duration,
}

/// What becomes of new connections when nobody accepts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnProxyDown {
    /// They are dropped.
    Block,
    /// They go on as if mailguard weren't there.
    Bypass,
}

/// Where the XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, on hardware drivers only.
    Auto,
    /// In the driver, on every interface.
    Native,
    /// In the stack, on every interface.
    Generic,
    /// Nowhere.
    Off,
}

/// How the kernel meets a blacklisted client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlacklistAction {
    /// Its SYN is dropped.
    Drop,
    /// Its SYN is answered with a RST.
    Reset,
    /// It is accepted and answered 554 at RCPT.
    Reject,
}

/// `[bypass]`: connections that pass as if mailguard weren't there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bypass {
    /// `from_subnets`
    pub from_subnets: Vec<IpNet>,
    /// `from_ips`
    pub from_ips: Vec<IpAddr>,
    /// `from_macs`
    pub from_macs: Vec<[u8; 6]>,
    /// `to_subnets`
    pub to_subnets: Vec<IpNet>,
    /// `to_ips`
    pub to_ips: Vec<IpAddr>,
    /// `to_names`
    pub to_names: Vec<Domain>,
}

/// What is done with a message in which something was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handling {
    /// Kept from its recipients.
    Quarantine,
    /// Sent to this address instead.
    Redirect(Mailbox),
    /// Delivered, recorded.
    Pass,
    /// Discarded, recorded.
    Drop,
}

/// What is done when a scanner fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScannerFailure {
    /// The client is told to come again.
    Defer,
    /// The message passes.
    Pass,
}

/// `[virus]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Virus {
    /// `enabled` and `signatures.enabled`
    pub signatures: bool,
    /// `signatures.rules_dir`: compiled YARA sources, path and text, in order of path.
    pub rules: Vec<(PathBuf, String)>,
    /// `handling`
    pub handling: Handling,
    /// `on_scanner_failure`
    pub on_scanner_failure: ScannerFailure,
}

/// `[files]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// `enabled`
    pub enabled: bool,
    /// `handling`
    pub handling: Handling,
    /// `extensions`: lower case, without dot.
    pub extensions: Vec<String>,
    /// `limits.max_depth`: nested messages and archives.
    pub max_depth: usize,
    /// `limits.max_entries`: parts of a message and entries of its archives.
    pub max_entries: usize,
    /// `limits.max_unpacked`, octets: all decoded parts together.
    pub max_unpacked: u64,
}

/// `[quarantine]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// `retention_days`
    pub retention: Duration,
    /// `max_size`, octets.
    pub max_size: u64,
}

/// A sender or recipient on a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressPattern {
    /// One mailbox.
    Mailbox(Mailbox),
    /// A domain and its subdomains.
    Domain(Domain),
}

impl AddressPattern {
    /// Whether the pattern covers `mailbox`.
    pub fn matches(&self, mailbox: &Mailbox) -> bool {
        match self {
            AddressPattern::Mailbox(listed) => listed.same_as(mailbox),
            AddressPattern::Domain(parent) => mailbox.domain().is_some_and(|domain| domain.is_within(parent)),
        }
    }
}

/// A client on a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientPattern {
    /// Its address, or its network.
    Network(IpNet),
    /// Its name, or a domain that the name is in.
    Name(Domain),
}

/// `[access]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// `whitelist_senders`
    pub whitelist_senders: Vec<AddressPattern>,
    /// `blacklist_senders`
    pub blacklist_senders: Vec<AddressPattern>,
    /// `whitelist_recipients`
    pub whitelist_recipients: Vec<AddressPattern>,
    /// `blacklist_recipients`
    pub blacklist_recipients: Vec<AddressPattern>,
    /// `whitelist_clients`: addresses and networks.
    pub whitelist_clients: Vec<IpNet>,
    /// `blacklist_clients`: addresses and networks.
    pub blacklist_clients: Vec<IpNet>,
    /// `whitelist_clients`: host names, and the domains that they are in.
    pub whitelist_client_names: Vec<Domain>,
    /// `blacklist_clients`: host names, and the domains that they are in.
    pub blacklist_client_names: Vec<Domain>,
}

impl Access {
    /// Whether a client's name can matter.
    pub fn asks_for_names(&self) -> bool {
        !(self.whitelist_client_names.is_empty() && self.blacklist_client_names.is_empty())
    }
}

/// `[rbl]`: whom unauthenticated clients of red zones are asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rbl {
    /// `ip_lists`: zones in the DNS, lower case, each once.
    pub ip_lists: Vec<String>,
    /// `domain_lists`
    pub domain_lists: Vec<String>,
    /// `timeout` of one answer.
    pub timeout: Duration,
}

/// `[spam.greylist]`: for unauthenticated clients of red zones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greylist {
    /// `enabled`
    pub enabled: bool,
    /// `delay`
    pub delay: Duration,
    /// `retry_window`
    pub retry_window: Duration,
    /// `remember`
    pub remember: Duration,
    /// `whitelist_recipients`
    pub whitelist_recipients: Vec<AddressPattern>,
    /// `whitelist_clients`
    pub whitelist_clients: Vec<IpNet>,
}

/// `[imap_auth]`, enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImapAuth {
    /// `server`
    pub server: SmarthostAddress,
    /// `port`
    pub port: u16,
    /// `tls`
    pub tls: ImapTls,
    /// The text of `ca_file`: PEM.
    pub ca: Option<String>,
    /// `daemons`: most logins at one time.
    pub daemons: usize,
}

/// How the connection to the IMAP server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImapTls {
    /// Not at all.
    Off,
    /// From STARTTLS on.
    StartTls,
    /// From the start.
    Implicit,
}

/// The certificate and the key of `server.tls_certificate` and `server.tls_key`.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsIdentity {
    /// The certificate and those that lead to its issuer: PEM.
    pub certificates: String,
    /// The private key: PEM.
    pub key: String,
}

/// Without the key.
impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsIdentity").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

/// A domain that we take mail for, from anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingDomain {
    /// `domain`, without the leading dot.
    pub domain: Domain,
    /// Written with a leading dot: its subdomains, not the domain itself.
    pub subdomains: bool,
    /// `server`: one or several, in the order in which they are tried.
    pub servers: Vec<MailServer>,
    /// `balance`: they are taken in turn.
    pub balance: bool,
}

impl IncomingDomain {
    /// Whether mail for `domain` goes here.
    pub fn matches(&self, domain: &Domain) -> bool {
        if self.subdomains {
            *domain != self.domain && domain.is_within(&self.domain)
        } else {
            *domain == self.domain
        }
    }
}

/// `[delivery]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// `default`
    pub default: DefaultRoute,
    /// `helo_name`, or the host name.
    pub helo_name: HeloName,
    /// `always_bcc`
    pub always_bcc: Option<Mailbox>,
    /// `tls`: of connections that go to no smarthost.
    pub tls: Tls,
    /// `retry_min`
    pub retry_min: Duration,
    /// `retry_max`
    pub retry_max: Duration,
    /// `max_queue_time`
    pub max_queue_time: Duration,
    /// `delay_warning`: zero warns nobody.
    pub delay_warning: Duration,
}

/// Where mail goes that neither an incoming domain nor a smarthost takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultRoute {
    /// The domain's mail exchangers.
    Mx,
    /// The original destination.
    OriginalDestination,
}

/// How we greet a next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeloName {
    /// A name.
    Name(Domain),
    /// The literal of the connection's own address.
    AddressLiteral,
}

/// Name or address of a smarthost.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SmarthostAddress {
    /// Looked up: A and AAAA, not MX.
    Name(Domain),
    /// Connected to as it stands.
    Ip(IpAddr),
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `require_helo`
    pub require_helo: bool,
    /// `reject_invalid_hostname`: of HELO's argument.
    pub reject_invalid_hostname: bool,
    /// `hard_error_limit`
    pub hard_error_limit: u32,
    /// `max_message_size`, octets.
    pub max_message_size: u64,
    /// `max_recipients`
    pub max_recipients: usize,
    /// `dsn_zones`: names of zones.
    pub dsn_zones: Vec<String>,
    /// `command_timeout`
    pub command_timeout: Duration,
    /// `data_timeout`
    pub data_timeout: Duration,
    /// `greet_delay`: how long clients of red zones wait for the banner.
    pub greet_delay: Duration,
    /// `max_sessions`
    pub max_sessions: usize,
    /// `max_sessions_per_client`
    pub max_sessions_per_client: usize,
    /// `verify_recipients`
    pub verify_recipients: bool,
    /// `tls_certificate` and `tls_key`; absent: a certificate of our own making.
    pub tls: Option<TlsIdentity>,
}

/// `[spam_prevention]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpamPrevention {
    /// `reject_non_fqdn_recipient`
    pub reject_non_fqdn_recipient: bool,
    /// `reject_non_fqdn_sender`
    pub reject_non_fqdn_sender: bool,
    /// `reject_non_fqdn_helo`
    pub reject_non_fqdn_helo: bool,
    /// `reject_unknown_recipient_domain`
    pub reject_unknown_recipient_domain: bool,
    /// `reject_unknown_sender_domain`
    pub reject_unknown_sender_domain: bool,
}

/// `[dns]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// `servers`; empty: the system's.
    pub servers: Vec<SocketAddr>,
    /// `timeout` of one query.
    pub timeout: Duration,
}

/// `[trace]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// `retention_days`
    pub retention: Duration,
    /// `max_size`, octets.
    pub max_size: u64,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `level`
    pub level: LogLevel,
    /// `format`
    pub format: LogFormat,
    /// `mail`: a line for each session, message and attempt.
    pub mail: bool,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// error
    Error,
    /// warn
    Warn,
    /// info
    Info,
    /// debug
    Debug,
    /// trace
    Trace,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl Config {
    /// The incoming domain that takes mail for `domain`: an exact one first, then the longest parent.
    pub fn incoming_domain(&self, domain: &Domain) -> Option<&IncomingDomain> {
        self.incoming_domains
            .iter()
            .filter(|incoming| incoming.matches(domain))
            .max_by_key(|incoming| (!incoming.subdomains, incoming.domain.ascii().len()))
    }

    /// The domain route for a sender's or a recipient's domain: the longest that holds it.
    pub fn domain_route(&self, direction: Direction, domain: &Domain) -> Option<&DomainRoute> {
        self.domain_routes
            .iter()
            .filter(|route| route.direction == direction && domain.is_within(&route.domain))
            .max_by_key(|route| route.domain.ascii().len())
    }

    /// The zone of this name.
    pub fn zone(&self, name: &str) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.name == name)
    }
}
