//! What `mailguard status` shows of the kernel side: the datapath process makes it, and it stays these types
//! on its way through the other process and the sockets to whoever prints it.
//!
//! As JSON it is what `--json` prints, so a field that is there stays there, and its values keep their names.
//! Who reads it may be of another version than who made it, as after an upgrade until the daemon is started
//! anew: a word that it doesn't know is shown as it came, and what it misses is empty.

use std::fmt;

use mailguard_common::maps::Reason;
use mailguard_core::config::model::OnProxyDown;
use mailguard_core::rule_key::RuleKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value whose name is what is written of it.
pub trait Named: Copy + 'static {
    /// All of them.
    const NAMED: &'static [Self];

    /// Its name.
    fn word(self) -> &'static str;
}

/// The name of a value, which may be one that another version has and this one doesn't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word<T> {
    /// One of ours.
    Known(T),
    /// Another's, as it came.
    Other(String),
}

impl<T: Named> Word<T> {
    /// As it is written.
    pub fn name(&self) -> &str {
        match self {
            Self::Known(value) => value.word(),
            Self::Other(name) => name,
        }
    }
}

impl<T> Default for Word<T> {
    /// Nothing was said.
    fn default() -> Self {
        Self::Other(String::new())
    }
}

impl<T> From<T> for Word<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl<T: PartialEq> PartialEq<T> for Word<T> {
    fn eq(&self, value: &T) -> bool {
        matches!(self, Self::Known(known) if known == value)
    }
}

impl<T: Named> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de, T: Named> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = T::NAMED.iter().find(|value| value.word() == name);
        Ok(known.map_or(Self::Other(name), |value| Self::Known(*value)))
    }
}

/// The kernel side at a glance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatapathStatus {
    /// Whether the last heartbeat is fresh.
    pub proxy_alive: bool,
    /// What becomes of new connections while it isn't.
    pub on_proxy_down: Word<OnProxyDown>,
    /// What others removed and was put back.
    pub mended: Vec<MendCount>,
    /// Each interface of a zone that isn't inactive.
    pub interfaces: Vec<InterfaceStatus>,
    /// How full the rule maps are.
    pub maps: Vec<MapUse>,
    /// Packets by what was done with them, and why.
    pub reasons: Vec<ReasonCount>,
    /// Packets by the rule that decided; rules that never did are left out.
    pub rules: Vec<RuleCount>,
}

/// What is attached to an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its zone's name.
    pub zone: String,
    /// Whether new connections to port 25 are intercepted; else they are only checked against the blacklist.
    pub intercepts: bool,
    /// Whether it has left its zone and serves only the sessions that came in by it before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// Where its XDP program is.
    pub xdp: Word<XdpAttachment>,
    /// Where its TC program is; off while there is a problem.
    pub tc: Word<TcAttachment>,
    /// Why nothing is attached, or nothing comes in; tried again every few seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Where the XDP program of an interface is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpAttachment {
    /// In the driver.
    Native,
    /// In the stack, before TC.
    Generic,
    /// Nowhere.
    Off,
}

/// Where the TC program of an interface is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcAttachment {
    /// In a TCX link.
    Tcx,
    /// In a filter of the clsact qdisc.
    Clsact,
    /// Nowhere.
    Off,
}

impl Named for XdpAttachment {
    const NAMED: &'static [Self] = &[Self::Native, Self::Generic, Self::Off];

    fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        }
    }
}

impl Named for TcAttachment {
    const NAMED: &'static [Self] = &[Self::Tcx, Self::Clsact, Self::Off];

    fn word(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Off => "off",
        }
    }
}

impl Named for OnProxyDown {
    const NAMED: &'static [Self] = &[Self::Block, Self::Bypass];

    fn word(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Bypass => "bypass",
        }
    }
}

impl Named for Reason {
    const NAMED: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        self.name()
    }
}

impl fmt::Display for XdpAttachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How often a part of the kernel side was put back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MendCount {
    /// Which part.
    pub what: String,
    /// Times since the start.
    pub times: u64,
    /// Seconds since the last of them.
    pub last_seconds_ago: u64,
}

/// How full a rule map is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MapUse {
    /// The map's name.
    pub name: String,
    /// Entries in it.
    pub entries: usize,
    /// Entries that it can hold.
    pub limit: usize,
}

/// How often something was done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReasonCount {
    /// What, and why.
    pub reason: Word<Reason>,
    /// Packets.
    pub packets: u64,
    /// Octets of their frames.
    pub octets: u64,
    /// Packets a second over the last ten seconds, one decimal.
    pub per_second: f64,
}

/// How often a rule decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCount {
    /// Which rule.
    #[serde(flatten)]
    pub key: RuleKey,
    /// Packets.
    #[serde(default)]
    pub packets: u64,
    /// Seconds since the last of them.
    #[serde(default)]
    pub last_hit_seconds_ago: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `status --json` printed of the kernel side before it had a type on the way.
    const PRINTED: &str = r#"{
        "proxy_alive": true,
        "on_proxy_down": "bypass",
        "mended": [{ "what": "the IPv4 rule for lan0", "times": 2, "last_seconds_ago": 7 }],
        "interfaces": [
            { "name": "lan0", "zone": "lan", "intercepts": true, "xdp": "native", "tc": "tcx" },
            { "name": "wan0", "zone": "wan", "intercepts": false, "leaving": true, "xdp": "generic", "tc": "clsact" },
            { "name": "dmz0", "zone": "dmz", "intercepts": false, "xdp": "off", "tc": "off", "problem": "gone" }
        ],
        "maps": [{ "name": "BANS", "entries": 3, "limit": 65536 }],
        "reasons": [{ "reason": "blacklist-dropped-xdp", "packets": 12, "octets": 720, "per_second": 0.5 }],
        "rules": [
            { "list": "bypass from-mac", "value": "02:00:5e:10:00:01", "packets": 5, "last_hit_seconds_ago": 0 }
        ]
    }"#;

    #[test]
    fn the_status_of_the_kernel_side_is_the_same_json_as_ever_and_loses_nothing_on_the_way() {
        let printed: serde_json::Value = serde_json::from_str(PRINTED).unwrap();
        let status: DatapathStatus = serde_json::from_str(PRINTED).unwrap();
        assert_eq!(serde_json::to_value(&status).unwrap(), printed);
        assert_eq!(status.on_proxy_down, OnProxyDown::Bypass);
        let attached: Vec<_> =
            status.interfaces.iter().map(|of| (of.xdp.clone(), of.tc.clone(), of.leaving)).collect();
        let expect = [
            (XdpAttachment::Native.into(), TcAttachment::Tcx.into(), false),
            (XdpAttachment::Generic.into(), TcAttachment::Clsact.into(), true),
            (XdpAttachment::Off.into(), TcAttachment::Off.into(), false),
        ];
        assert_eq!(attached, expect);
        assert_eq!(status.reasons[0].reason, Reason::BlacklistDroppedEarly);
        assert_eq!(status.rules[0].key, RuleKey::bypass_from_mac([2, 0, 0x5e, 0x10, 0, 1]));
    }

    #[test]
    fn every_reason_finds_its_way_back_from_its_name() {
        for reason in Reason::ALL {
            let count = ReasonCount { reason: reason.into(), packets: 1, octets: 60, per_second: 0.0 };
            let line = serde_json::to_string(&count).unwrap();
            assert_eq!(serde_json::from_str::<ReasonCount>(&line).unwrap(), count, "{line}");
        }
    }

    #[test]
    fn what_another_version_says_of_the_kernel_side_is_kept_as_it_came() {
        let said = r#"{
            "of_another_version": 7,
            "on_proxy_down": "ask",
            "interfaces": [{ "name": "lan0", "zone": "lan", "intercepts": true, "xdp": "offloaded", "tc": "netkit" }],
            "reasons": [{ "reason": "eaten", "packets": 1, "octets": 60, "per_second": 0.0, "more": [] }],
            "rules": [{ "list": "whitelist", "value": "192.0.2.7", "packets": 5, "more": {} }]
        }"#;
        let status: DatapathStatus = serde_json::from_str(said).unwrap();
        let expect = serde_json::json!({
            "proxy_alive": false,
            "on_proxy_down": "ask",
            "mended": [],
            "interfaces": [{ "name": "lan0", "zone": "lan", "intercepts": true, "xdp": "offloaded", "tc": "netkit" }],
            "maps": [],
            "reasons": [{ "reason": "eaten", "packets": 1, "octets": 60, "per_second": 0.0 }],
            "rules": [{ "list": "whitelist", "value": "192.0.2.7", "packets": 5, "last_hit_seconds_ago": 0 }],
        });
        assert_eq!(serde_json::to_value(&status).unwrap(), expect);
    }
}
