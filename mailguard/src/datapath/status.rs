//! What `mailguard status` shows of the kernel side: the datapath process makes it, and it stays these types on its way
//! through the other process and the sockets to whoever prints it.
//!
//! As JSON it is what `--json` prints, so a field that is there stays there, and its values keep their names.

use std::fmt;

use mailguard_common::maps::Reason;
use mailguard_core::config::model::OnProxyDown;
use mailguard_core::rule_key::RuleKey;
use serde::{Deserialize, Serialize};

/// The kernel side at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatapathStatus {
    /// Whether the last heartbeat is fresh.
    pub proxy_alive: bool,
    /// What becomes of new connections while it isn't.
    pub on_proxy_down: OnProxyDown,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its zone's name.
    pub zone: String,
    /// Whether new connections to port 25 are intercepted; else they are only checked against the blacklist.
    pub intercepts: bool,
    /// Whether it has left its zone and serves only the sessions that came in by it before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// Where its XDP program is.
    pub xdp: XdpAttachment,
    /// Where its TC program is; off while there is a problem.
    pub tc: TcAttachment,
    /// Why nothing is attached, or nothing comes in; tried again every few seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Where the XDP program of an interface is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpAttachment {
    /// In the driver.
    Native,
    /// In the stack, before TC.
    Generic,
    /// Nowhere.
    Off,
}

/// Where the TC program of an interface is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TcAttachment {
    /// In a TCX link.
    Tcx,
    /// In a filter of the clsact qdisc.
    Clsact,
    /// Nowhere.
    Off,
}

impl fmt::Display for XdpAttachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        })
    }
}

impl fmt::Display for TcAttachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Off => "off",
        })
    }
}

/// How often a part of the kernel side was put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MendCount {
    /// Which part.
    pub what: String,
    /// Times since the start.
    pub times: u64,
    /// Seconds since the last of them.
    pub last_seconds_ago: u64,
}

/// How full a rule map is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapUse {
    /// The map's name.
    pub name: String,
    /// Entries in it.
    pub entries: usize,
    /// Entries that it can hold.
    pub limit: usize,
}

/// How often something was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// What, and why.
    #[serde(with = "by_name")]
    pub reason: Reason,
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
    pub packets: u64,
    /// Seconds since the last of them.
    pub last_hit_seconds_ago: u64,
}

/// A [`Reason`] by its name: its crate is the kernel programs', too, and knows no serde.
mod by_name {
    use mailguard_common::maps::Reason;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(reason.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Reason, D::Error> {
        let name = String::deserialize(deserializer)?;
        let found = Reason::ALL.into_iter().find(|reason| reason.name() == name);
        found.ok_or_else(|| D::Error::custom(format!("nothing is counted as \"{name}\"")))
    }
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
        let attached: Vec<_> = status.interfaces.iter().map(|of| (of.xdp, of.tc, of.leaving)).collect();
        let expect = [
            (XdpAttachment::Native, TcAttachment::Tcx, false),
            (XdpAttachment::Generic, TcAttachment::Clsact, true),
            (XdpAttachment::Off, TcAttachment::Off, false),
        ];
        assert_eq!(attached, expect);
        assert_eq!(status.reasons[0].reason, Reason::BlacklistDroppedEarly);
        assert_eq!(status.rules[0].key, RuleKey::bypass_from_mac([2, 0, 0x5e, 0x10, 0, 1]));
    }

    #[test]
    fn every_reason_finds_its_way_back_from_its_name() {
        for reason in Reason::ALL {
            let count = ReasonCount { reason, packets: 1, octets: 60, per_second: 0.0 };
            let line = serde_json::to_string(&count).unwrap();
            assert_eq!(serde_json::from_str::<ReasonCount>(&line).unwrap(), count, "{line}");
        }
        let unknown = r#"{ "reason": "eaten", "packets": 1, "octets": 60, "per_second": 0.0 }"#;
        assert!(serde_json::from_str::<ReasonCount>(unknown).unwrap_err().to_string().contains("\"eaten\""));
    }
}
