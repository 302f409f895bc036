//! A configuration and messages for the tests of spool, queue and quarantine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mailguard_core::config::Config;
use mailguard_core::config::model::*;
use mailguard_core::disposition::Disposition;
use mailguard_core::language::Language;
use mailguard_core::mail::{
    BodyType, Domain, Envelope, ForwardPath, Mailbox, QueueId, Recipient, ReversePath, UnixTime,
};
use mailguard_core::origin::{ClientOrigin, Origin};

use super::{Body, NewMessage};

/// A configuration with a green zone (DSNs) and a red one (none), delivering by MX.
pub(crate) fn config(state_dir: &Path) -> Config {
    let zone = |name: &str, kind| Zone {
        name: name.to_owned(),
        kind,
        interfaces: vec![name.to_owned()],
        mode: ZoneMode::Active,
        allow_clients: None,
    };
    Config {
        imap_auth: None,
        rbl: None,
        greylist: Greylist {
            enabled: false,
            delay: Duration::from_secs(300),
            retry_window: Duration::from_secs(2 * 86_400),
            remember: Duration::from_secs(35 * 86_400),
            whitelist_recipients: Vec::new(),
            whitelist_clients: Vec::new(),
        },
        enabled: true,
        hostname: domain("mailguard.test"),
        state_dir: state_dir.to_owned(),
        runtime_dir: state_dir.to_owned(),
        postmaster: None,
        user: "mailguard".to_owned(),
        min_free_disk: 0,
        zones: vec![zone("green", ZoneKind::Green), zone("red", ZoneKind::Red)],
        kernel: Kernel {
            on_proxy_down: OnProxyDown::Block,
            xdp: XdpMode::Off,
            blacklist_action: BlacklistAction::Drop,
            pin_dir: state_dir.to_owned(),
            proxy_port: 10025,
            ban_after_abuse: Duration::from_secs(3_600),
        },
        bypass: Bypass::default(),
        virus: Virus {
            signatures: false,
            rules: Vec::new(),
            handling: Handling::Quarantine,
            on_scanner_failure: ScannerFailure::Defer,
        },
        language: Language::English,
        files: Files {
            enabled: false,
            handling: Handling::Quarantine,
            extensions: Vec::new(),
            max_depth: 8,
            max_entries: 100,
            max_unpacked: 1 << 20,
        },
        quarantine: Quarantine { retention: Duration::from_secs(15 * 86_400), max_size: 1 << 30 },
        access: Access::default(),
        incoming_domains: Vec::new(),
        delivery: Delivery {
            default: DefaultRoute::Mx,
            helo_name: HeloName::Name(domain("mailguard.test")),
            retry_min: Duration::from_secs(300),
            retry_max: Duration::from_secs(3600),
            max_queue_time: Duration::from_secs(5 * 86_400),
            always_bcc: None,
            tls: Tls::Off,
            delay_warning: Duration::from_secs(4 * 3600),
        },
        smarthost: None,
        domain_routes: Vec::new(),
        mail_routes: Vec::new(),
        server: Server {
            require_helo: true,
            reject_invalid_hostname: false,
            hard_error_limit: 20,
            max_message_size: 30 << 20,
            max_recipients: 1000,
            dsn_zones: vec!["green".to_owned()],
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(600),
            greet_delay: Duration::ZERO,
            max_sessions: 100,
            max_sessions_per_client: 50,
            tls: None,
            verify_recipients: false,
        },
        spam_prevention: SpamPrevention::default(),
        dns: Dns { servers: Vec::new(), timeout: Duration::from_secs(5) },
        trace: Trace { retention: Duration::from_secs(30 * 86_400), max_size: 1 << 30 },
        log: Log { level: LogLevel::Info, format: LogFormat::Text, mail: true },
        inactive: Vec::new(),
    }
}

/// A configuration as the daemon shares it.
pub(crate) fn shared(config: Config) -> Arc<ArcSwap<Config>> {
    Arc::new(ArcSwap::from_pointee(config))
}

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

pub(crate) fn mailbox(address: &str) -> Mailbox {
    Mailbox::parse(address).unwrap()
}

/// A client in the zone of this name.
pub(crate) fn client(zone: &str) -> Origin {
    Origin::Client(ClientOrigin {
        zone: zone.to_owned(),
        kind: if zone == "red" { ZoneKind::Red } else { ZoneKind::Green },
        client: "192.0.2.1".parse().unwrap(),
        destination: "192.0.2.2:25".parse().unwrap(),
        destination_is_ours: true,
        helo: "client.test".to_owned(),
        user: None,
    })
}

/// A message from sender@green.test in the green zone, delivered to each of `recipients`.
pub(crate) fn message(id: QueueId, recipients: &[&str], body: Body) -> NewMessage {
    let recipients: Vec<_> =
        recipients.iter().map(|r| Recipient::new(ForwardPath::Mailbox(mailbox(r)))).collect();
    NewMessage {
        id,
        origin: client("green"),
        dispositions: vec![Disposition::Deliver; recipients.len()],
        envelope: Envelope {
            reverse_path: ReversePath::Mailbox(mailbox("sender@green.test")),
            recipients,
            body: BodyType::SevenBit,
            smtputf8: false,
            dsn_return: None,
            envelope_id: None,
        },
        body,
        received_at: UnixTime(1_000_000),
    }
}
