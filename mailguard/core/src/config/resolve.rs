//! From what a file said to what it means: a complete [`Config`], or every error at once. Pure.
//!
//! One function a table, in the order of the contract file. What isn't built yet is read in `unbuilt`.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::content;
use super::error::{ConfigError, Problem};
use super::model::*;
use super::named::NamedFiles;
use super::rbl;
use super::routing;
use super::section::Section;
use super::syntax;
use super::unbuilt;
use super::value::Value;
use crate::language::Language;
use crate::mail::{Domain, Host, LocalPart, Mailbox};
use crate::names::{self, MAX_ADDRESSES, MAX_NAMES};

/// Zones; each takes a slot in the kernel's socket map and a loopback port.
pub const MAX_ZONES: usize = 16;
/// Interfaces of one zone.
pub const MAX_INTERFACES: usize = 64;
/// Sources, and likewise destinations, that bypass: the size of the kernel's tries.
pub const MAX_BYPASSES: usize = 16_384;
/// Networks of one zone's `allow_clients`, and of all together: the size of the kernel's tries.
pub const MAX_ALLOWED: usize = 16_384;
/// Longest ban, seconds: a year. Who is to stay out for good belongs on the blacklist.
pub const MAX_BAN_SECONDS: u64 = 365 * 86_400;
/// Values of one access list: the size of the kernel's tries.
pub const MAX_LIST_VALUES: usize = 65_536;
/// Incoming domains.
pub const MAX_INCOMING_DOMAINS: usize = 65_536;
/// Servers of one incoming domain.
pub const MAX_SERVERS: usize = 16;
/// Name servers: what a resolver asks in turn.
pub const MAX_NAME_SERVERS: usize = 8;

/// `state_dir` unless the file says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/mailguard";
/// `runtime_dir` unless the file says otherwise.
pub const DEFAULT_RUNTIME_DIR: &str = "/run/mailguard";
/// `kernel.pin_dir` unless the file says otherwise.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/mailguard";

/// The lists that may hold `@/path/to/file`: those of addresses, networks, domains and clients.
pub const LISTS_FROM_FILES: [&[&str]; 15] = [
    &["zone", "allow_clients"],
    &["bypass", "from_subnets"],
    &["bypass", "from_ips"],
    &["bypass", "from_macs"],
    &["bypass", "to_subnets"],
    &["bypass", "to_ips"],
    &["bypass", "to_names"],
    &["access", "whitelist_senders"],
    &["access", "blacklist_senders"],
    &["access", "whitelist_recipients"],
    &["access", "blacklist_recipients"],
    &["access", "whitelist_clients"],
    &["access", "blacklist_clients"],
    &["spam", "greylist", "whitelist_recipients"],
    &["spam", "greylist", "whitelist_clients"],
];

const KB: u64 = 1 << 10;
const MB: u64 = 1 << 20;
const GB: u64 = 1 << 30;
const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// Gives the tree of a file its meaning.
pub fn resolve(root: &Value, files: NamedFiles) -> Result<Config, Vec<ConfigError>> {
    let (config, report) = Section::root(root, |root| config(root, files));
    let inactive = report.finish()?;
    match config {
        Some(config) => Ok(Config { inactive, ..config }),
        // Reading gave up without an error only if this module forgot to record one.
        None => Err(vec![ConfigError {
            key: String::new(),
            place: root.place,
            problem: Problem::Missing { accepted: "a complete configuration".to_owned() },
        }]),
    }
}

/// The whole of it; none when something required is absent.
fn config(root: &mut Section<'_>, from: NamedFiles) -> Option<Config> {
    let hostname = root.require("hostname", &syntax::HOST_NAME);
    let enabled = root.flag("enabled", true);
    let state_dir = path(root, "state_dir", DEFAULT_STATE_DIR);
    let runtime_dir = path(root, "runtime_dir", DEFAULT_RUNTIME_DIR);
    let language = root.choice(
        "language",
        "en",
        &[
            ("en", Language::English),
            ("de", Language::German),
            ("it", Language::Italian),
            ("ja", Language::Japanese),
        ],
    );
    let postmaster = root.text_or_empty("postmaster", &syntax::MAILBOX);
    let user = root.text("user", &syntax::USER).unwrap_or_else(|| "mailguard".to_owned());
    let min_free_disk = root.size("min_free_disk", 512 * MB, 0..=16_384 * GB);
    let zones = zones(root);
    let kernel = root.table("kernel", kernel);
    let bypass = root.table("bypass", bypass);
    let virus = root.table("virus", |section| content::virus(section, from.rules.clone()));
    let files = root.table("files", content::files);
    let greylist = root.table("spam", |section| {
        unbuilt::spam(section);
        section.table("greylist", greylist)
    });
    let quarantine = root.table("quarantine", |section| {
        unbuilt::quarantine(section);
        Quarantine {
            retention: days(section, "retention_days", 15),
            max_size: section.size("max_size", 10 * GB, MB..=1_048_576 * GB),
        }
    });
    let access = root.table("access", access);
    let rbl = root.table("rbl", rbl::rbl);
    let incoming_domains = incoming_domains(root);
    guarded_servers(root, &bypass, &incoming_domains);
    let delivery = root.table("delivery", |section| delivery(section, hostname.as_ref()));
    let domain_routes = routing::domain_routes(root, &from);
    let mail_routes = routing::mail_routes(root);
    let smarthost = root.table("smarthost", |section| routing::smarthost(section, &from));
    let imap_auth = root.table("imap_auth", |section| imap_auth(section, &from));
    let server = root.table("server", |section| server(section, &zones, &from));
    let spam_prevention = root.table("spam_prevention", |section| SpamPrevention {
        reject_non_fqdn_recipient: section.flag("reject_non_fqdn_recipient", false),
        reject_non_fqdn_sender: section.flag("reject_non_fqdn_sender", false),
        reject_non_fqdn_helo: section.flag("reject_non_fqdn_helo", false),
        reject_unknown_recipient_domain: section.flag("reject_unknown_recipient_domain", false),
        reject_unknown_sender_domain: section.flag("reject_unknown_sender_domain", false),
    });
    let dns = root.table("dns", dns);
    let trace = root.table("trace", |section| Trace {
        retention: days(section, "retention_days", 30),
        max_size: section.size("max_size", GB, MB..=1_024 * GB),
    });
    let log = root.table("log", log);
    unbuilt::root(root);
    Some(Config {
        enabled,
        hostname: hostname?,
        state_dir,
        runtime_dir,
        language,
        postmaster: postmaster.or_else(|| first_postmaster(&incoming_domains)),
        user,
        min_free_disk,
        zones,
        kernel,
        bypass,
        virus,
        files,
        greylist,
        quarantine,
        access,
        rbl,
        incoming_domains,
        delivery: delivery?,
        smarthost,
        domain_routes,
        mail_routes,
        imap_auth,
        server,
        spam_prevention,
        dns,
        trace,
        log,
        inactive: Vec::new(),
    })
}

fn path(section: &mut Section<'_>, key: &'static str, default: &str) -> PathBuf {
    section.text(key, &syntax::PATH).unwrap_or_else(|| PathBuf::from(default))
}

fn days(section: &mut Section<'_>, key: &'static str, default: u32) -> Duration {
    Duration::from_secs(u64::from(section.count(key, default, 1..=3_650)) * DAY)
}

/// postmaster@ the first domain that we take mail for.
fn first_postmaster(incoming: &[IncomingDomain]) -> Option<Mailbox> {
    let first = incoming.iter().find(|incoming| !incoming.subdomains)?;
    let local_part = LocalPart::parse("postmaster").ok()?;
    Some(Mailbox { local_part, host: Host::Domain(first.domain.clone()) })
}

fn zones(root: &mut Section<'_>) -> Vec<Zone> {
    let mut names = HashMap::new();
    let mut owners = HashMap::new();
    let zones = root.tables("zone", MAX_ZONES, |section| {
        let zone = zone(section);
        if let Some(Zone { name, interfaces, .. }) = &zone {
            unique(section, &mut names, "name", format!("the zone name {name:?}"));
            for interface in interfaces {
                unique(section, &mut owners, "interfaces", format!("the interface {interface:?}"));
            }
        }
        zone
    });
    let zones: Vec<Zone> = zones.into_iter().flatten().collect();
    let allowed: usize = zones.iter().filter_map(|zone| zone.allow_clients.as_ref()).map(Vec::len).sum();
    if allowed > MAX_ALLOWED {
        let what =
            format!("allow_clients of all zones: {allowed} values, at most {MAX_ALLOWED} are accepted");
        root.conflict("zone", what, "join neighbouring addresses into networks");
    }
    root.expect_key("zone", "at least one [[zone]] with name, kind, interfaces and mode");
    zones
}

/// Records an error if `what` stood in an earlier table.
pub(super) fn unique(
    section: &mut Section<'_>,
    seen: &mut HashMap<String, String>,
    key: &'static str,
    what: String,
) {
    let here = section.path_of(key);
    if let Some(first) = seen.insert(what.clone(), here) {
        let place = section.ask(key).map_or(section.place(), |value| value.place);
        section.error(key, place, Problem::Duplicate { what, first });
    }
}

fn zone(section: &mut Section<'_>) -> Option<Zone> {
    let name = section.require("name", &syntax::ZONE_NAME);
    section.expect_key("kind", "\"red\", \"green\", \"orange\" or \"blue\"");
    // An unreadable kind counts as red: no further error comes of it but one that red would have, too.
    let kind = section.choice(
        "kind",
        "red",
        &[
            ("red", ZoneKind::Red),
            ("green", ZoneKind::Green),
            ("orange", ZoneKind::Orange),
            ("blue", ZoneKind::Blue),
        ],
    );
    section.expect_key("mode", "\"transparent\", \"active\" or \"inactive\"");
    let mode = section.choice(
        "mode",
        "inactive",
        &[
            ("transparent", ZoneMode::Transparent),
            ("active", ZoneMode::Active),
            ("inactive", ZoneMode::Inactive),
        ],
    );
    section.expect_key("interfaces", "a list of network interfaces");
    let allow_clients = section.list("allow_clients", &syntax::CLIENT_NETWORK, MAX_ALLOWED);
    if allow_clients.is_some() && mode == ZoneMode::Inactive {
        let what = "mode = \"inactive\" lets every client of the zone through to wherever the firewall does";
        section.note_inactive("allow_clients", what.to_owned());
    }
    let interfaces = section.list("interfaces", &syntax::INTERFACE, MAX_INTERFACES);
    if interfaces.as_ref().is_some_and(Vec::is_empty) {
        section.conflict("interfaces", "a zone has at least one interface", "name one, or remove the zone");
    }
    if section.says("kind", "red") && mode == ZoneMode::Transparent {
        let remedy =
            "write mode = \"active\" or \"inactive\"; mail to inner servers is taken by [[incoming_domain]]";
        section.conflict(
            "mode",
            "a red zone can't be transparent: it would carry anybody's mail anywhere",
            remedy,
        );
    }
    Some(Zone { name: name?, kind, interfaces: interfaces?, mode, allow_clients })
}

fn kernel(section: &mut Section<'_>) -> Kernel {
    // Each zone takes the next port.
    const LAST_PROXY_PORT: u32 = u16::MAX as u32 - MAX_ZONES as u32 + 1;
    Kernel {
        on_proxy_down: section.choice(
            "on_proxy_down",
            "block",
            &[("block", OnProxyDown::Block), ("bypass", OnProxyDown::Bypass)],
        ),
        xdp: section.choice(
            "xdp",
            "auto",
            &[
                ("auto", XdpMode::Auto),
                ("native", XdpMode::Native),
                ("generic", XdpMode::Generic),
                ("off", XdpMode::Off),
            ],
        ),
        blacklist_action: section.choice(
            "blacklist_action",
            "drop",
            &[
                ("drop", BlacklistAction::Drop),
                ("reset", BlacklistAction::Reset),
                ("reject", BlacklistAction::Reject),
            ],
        ),
        pin_dir: path(section, "pin_dir", DEFAULT_PIN_DIR),
        proxy_port: section.count("proxy_port", 10_025, 1_024..=LAST_PROXY_PORT) as u16,
        ban_after_abuse: section.seconds("ban_after_abuse", 3_600, 0..=MAX_BAN_SECONDS),
    }
}

fn bypass(section: &mut Section<'_>) -> Bypass {
    /// While its addresses change, a name has the old ones and the new ones.
    const EACH: usize = 2 * MAX_ADDRESSES;
    let bypass = Bypass {
        from_subnets: section.list("from_subnets", &syntax::NETWORK, MAX_BYPASSES).unwrap_or_default(),
        from_ips: section.list("from_ips", &syntax::ADDRESS, MAX_BYPASSES).unwrap_or_default(),
        from_macs: section.list("from_macs", &syntax::MAC, MAX_BYPASSES).unwrap_or_default(),
        to_subnets: section.list("to_subnets", &syntax::NETWORK, MAX_BYPASSES).unwrap_or_default(),
        to_ips: section.list("to_ips", &syntax::ADDRESS, MAX_BYPASSES).unwrap_or_default(),
        to_names: section.list("to_names", &syntax::HOST_NAME, MAX_NAMES).unwrap_or_default(),
    };
    let sources = bypass.from_subnets.len() + bypass.from_ips.len();
    let named = EACH * bypass.to_names.len();
    let destinations = bypass.to_subnets.len() + bypass.to_ips.len() + named;
    let of_names = if named > 0 { format!(", {EACH} for each name") } else { String::new() };
    for (key, count, more) in [("from_subnets", sources, ""), ("to_subnets", destinations, &of_names)] {
        if count > MAX_BYPASSES {
            let what =
                format!("{count} subnets and addresses together{more}, at most {MAX_BYPASSES} are accepted");
            section.conflict(key, what, "join neighbouring ones into larger subnets");
        }
    }
    bypass
}

fn access(section: &mut Section<'_>) -> Access {
    let mut patterns = |key| section.list(key, &syntax::PATTERN, MAX_LIST_VALUES).unwrap_or_default();
    let whitelist_senders = patterns("whitelist_senders");
    let blacklist_senders = patterns("blacklist_senders");
    let whitelist_recipients = patterns("whitelist_recipients");
    let blacklist_recipients = patterns("blacklist_recipients");
    let mut clients = |key| by_kind(section.list(key, &syntax::CLIENT, MAX_LIST_VALUES).unwrap_or_default());
    let (whitelist_clients, whitelist_client_names) = clients("whitelist_clients");
    let (blacklist_clients, blacklist_client_names) = clients("blacklist_clients");
    Access {
        whitelist_senders,
        blacklist_senders,
        whitelist_recipients,
        blacklist_recipients,
        whitelist_clients,
        blacklist_clients,
        whitelist_client_names,
        blacklist_client_names,
    }
}

fn by_kind(patterns: Vec<ClientPattern>) -> (Vec<IpNet>, Vec<Domain>) {
    let (mut networks, mut names) = (Vec::new(), Vec::new());
    for pattern in patterns {
        match pattern {
            ClientPattern::Network(network) => networks.push(network),
            ClientPattern::Name(name) => names.push(name),
        }
    }
    (networks, names)
}

fn greylist(section: &mut Section<'_>) -> Greylist {
    let mut clients = |key| section.list(key, &syntax::CLIENT_NETWORK, MAX_LIST_VALUES).unwrap_or_default();
    let whitelist_clients = clients("whitelist_clients");
    Greylist {
        enabled: section.flag("enabled", false),
        delay: section.seconds("delay", 5 * MINUTE, 30..=HOUR),
        retry_window: section.seconds("retry_window", 2 * DAY, 2 * HOUR..=30 * DAY),
        remember: section.seconds("remember", 35 * DAY, DAY..=365 * DAY),
        whitelist_recipients: section
            .list("whitelist_recipients", &syntax::PATTERN, MAX_LIST_VALUES)
            .unwrap_or_default(),
        whitelist_clients,
    }
}

fn imap_auth(section: &mut Section<'_>, from: &NamedFiles) -> Option<ImapAuth> {
    let enabled = section.flag("enabled", false);
    let server = section.text("server", &syntax::SMARTHOST);
    let tls = section.choice(
        "tls",
        "starttls",
        &[("off", ImapTls::Off), ("starttls", ImapTls::StartTls), ("implicit", ImapTls::Implicit)],
    );
    let usual_port = if tls == ImapTls::Implicit { 993 } else { 143 };
    let port = section.count("port", usual_port, 1..=65_535) as u16;
    let ca = section.text_or_empty("ca_file", &syntax::PATH).and_then(|path| from.text(&path));
    let daemons = section.count("daemons", 5, 1..=500) as usize;
    let server = server.unwrap_or(SmarthostAddress::Ip(Ipv4Addr::LOCALHOST.into()));
    enabled.then_some(ImapAuth { server, port, tls, ca, daemons })
}

/// Certificate and key go together.
fn tls_identity(section: &mut Section<'_>, from: &NamedFiles) -> Option<TlsIdentity> {
    let certificates = section.text_or_empty("tls_certificate", &syntax::PATH);
    let key = section.text_or_empty("tls_key", &syntax::PATH);
    match (&certificates, &key) {
        (Some(_), None) if !section.has_text("tls_key") => {
            section.conflict("tls_certificate", "there is no tls_key", "add tls_key = \"/PATH\"");
        }
        (None, Some(_)) if !section.has_text("tls_certificate") => {
            section.conflict("tls_key", "there is no tls_certificate", "add tls_certificate = \"/PATH\"");
        }
        _ => {}
    }
    Some(TlsIdentity { certificates: from.text(&certificates?)?, key: from.text(&key?)? })
}

fn incoming_domains(root: &mut Section<'_>) -> Vec<IncomingDomain> {
    let mut seen = HashMap::new();
    let domains = root.tables("incoming_domain", MAX_INCOMING_DOMAINS, |section| {
        let domain = section.require("domain", &syntax::INCOMING);
        let servers = section.one_or_several("server", &syntax::MAIL_SERVER, MAX_SERVERS);
        section.expect_key("server", syntax::MAIL_SERVER.accepted);
        let balance = section.flag("balance", false);
        if let Some((domain, subdomains)) = &domain {
            let dot = if *subdomains { "." } else { "" };
            unique(section, &mut seen, "domain", format!("the domain \"{dot}{}\"", domain.ascii()));
        }
        let ((domain, subdomains), servers) = domain.zip(servers)?;
        Some(IncomingDomain { domain, subdomains, servers, balance })
    });
    domains.into_iter().flatten().collect()
}

/// What bypasses by a name is never a server of an incoming domain; each of those that have names is asked
/// for, too.
fn guarded_servers(root: &mut Section<'_>, bypass: &Bypass, incoming: &[IncomingDomain]) {
    let named = names::guarded(incoming).len();
    if !bypass.to_names.is_empty() && named > MAX_NAMES {
        let what = format!(
            "{named} host names of servers beside bypass.to_names: at most {MAX_NAMES} are looked up"
        );
        root.conflict(
            "incoming_domain",
            what,
            "write the addresses of some servers, or remove bypass.to_names",
        );
    }
}

fn delivery(section: &mut Section<'_>, hostname: Option<&Domain>) -> Option<Delivery> {
    let default = section.choice(
        "default",
        "mx",
        &[("mx", DefaultRoute::Mx), ("original", DefaultRoute::OriginalDestination)],
    );
    let helo_name = if section.says("helo_name", "address") {
        section.ask("helo_name");
        Some(HeloName::AddressLiteral)
    } else {
        section.text_or_empty("helo_name", &syntax::HELO_NAME).or(hostname.cloned()).map(HeloName::Name)
    };
    let retry_min = section.seconds("retry_min", 5 * MINUTE, 1..=DAY);
    let retry_max = section.seconds("retry_max", HOUR, 1..=7 * DAY);
    let max_queue_time = section.seconds("max_queue_time", 5 * DAY, 1..=60 * DAY);
    let delay_warning = section.seconds("delay_warning", 4 * HOUR, 0..=60 * DAY);
    let always_bcc = section.text_or_empty("always_bcc", &syntax::MAILBOX);
    let levels = [("off", Tls::Off), ("opportunistic", Tls::Opportunistic), ("required", Tls::Required)];
    let tls = section.choice("tls", "opportunistic", &levels);
    if retry_min > retry_max {
        section.conflict("retry_min", "retry_min is longer than retry_max", "write a shorter one");
    }
    let helo_name = helo_name?;
    Some(Delivery {
        default,
        helo_name,
        always_bcc,
        tls,
        retry_min,
        retry_max,
        max_queue_time,
        delay_warning,
    })
}

fn server(section: &mut Section<'_>, zones: &[Zone], from: &NamedFiles) -> Server {
    unbuilt::server(section);
    Server {
        require_helo: section.flag("require_helo", true),
        reject_invalid_hostname: section.flag("reject_invalid_hostname", false),
        hard_error_limit: section.count("hard_error_limit", 20, 1..=1_000),
        max_message_size: section.size("max_message_size", 30 * MB, 64 * KB..=2 * GB),
        max_recipients: section.count("max_recipients", 1_000, 100..=10_000) as usize,
        dsn_zones: dsn_zones(section, zones),
        command_timeout: section.seconds("command_timeout", 5 * MINUTE, 1..=HOUR),
        data_timeout: section.seconds("data_timeout", 10 * MINUTE, 1..=HOUR),
        greet_delay: section.seconds("greet_delay", 0, 0..=MINUTE),
        max_sessions: section.count("max_sessions", 10_000, 1..=100_000) as usize,
        max_sessions_per_client: section.count("max_sessions_per_client", 50, 1..=100_000) as usize,
        tls: tls_identity(section, from),
        verify_recipients: section.flag("verify_recipients", false),
    }
}

/// Every zone that isn't red, unless zones are named.
fn dsn_zones(section: &mut Section<'_>, zones: &[Zone]) -> Vec<String> {
    let Some(named) = section.list("dsn_zones", &syntax::ZONE_NAME, MAX_ZONES) else {
        return zones
            .iter()
            .filter(|zone| zone.kind != ZoneKind::Red)
            .map(|zone| zone.name.clone())
            .collect();
    };
    if let Some(unknown) = named.iter().find(|name| !zones.iter().any(|zone| zone.name == **name)) {
        let what = format!("there is no zone {unknown:?}");
        section.conflict("dsn_zones", what, "write the name of a [[zone]]");
    }
    named
}

fn dns(section: &mut Section<'_>) -> Dns {
    Dns {
        servers: section.list("servers", &syntax::NAME_SERVER, MAX_NAME_SERVERS).unwrap_or_default(),
        timeout: section.seconds("timeout", 5, 1..=MINUTE),
    }
}

fn log(section: &mut Section<'_>) -> Log {
    let level = section.choice(
        "level",
        "info",
        &[
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ],
    );
    let format = if section.says("format", "journald") {
        section.refuse("format", "\"text\" or \"json\"");
        LogFormat::Text
    } else {
        section.choice("format", "text", &[("text", LogFormat::Text), ("json", LogFormat::Json)])
    };
    Log { level, format, mail: section.flag("mail", true) }
}
