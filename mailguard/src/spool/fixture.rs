//! A configuration and messages for the tests of spool, queue and quarantine.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mailguard_core::config::Config;
use mailguard_core::config::model::ZoneKind;
use mailguard_core::disposition::Disposition;
use mailguard_core::mail::{
    BodyType, Envelope, ForwardPath, Mailbox, QueueId, Recipient, ReversePath, UnixTime,
};
use mailguard_core::origin::{ClientOrigin, Origin};
use mailguard_core::testing::TestConfig;

use super::{Body, NewMessage};

/// A configuration with a green zone (DSNs) and a red one (none), delivering by MX, without checks of
/// content.
pub(crate) fn config(state_dir: &Path) -> Config {
    config_with(state_dir, "")
}

/// As [`config`], and this besides.
pub(crate) fn config_with(state_dir: &Path, text: &str) -> Config {
    let places =
        format!("state_dir = {state_dir:?}\nruntime_dir = {state_dir:?}\nkernel.pin_dir = {state_dir:?}");
    TestConfig::default().with(CONFIG).with(&places).with(text).resolve()
}

const CONFIG: &str = r#"
    hostname = "mailguard.test"
    min_free_disk = "0KB"
    virus.enabled = false
    files = { enabled = false, limits = { max_entries = 100, max_unpacked = "1MB" } }
    delivery.tls = "off"
    server.max_sessions = 100
"#;

/// A configuration as the daemon shares it.
pub(crate) fn shared(config: Config) -> Arc<ArcSwap<Config>> {
    Arc::new(ArcSwap::from_pointee(config))
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
        destination_is_local: true,
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
