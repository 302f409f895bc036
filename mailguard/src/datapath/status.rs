//! What `mailguard status` shows of the kernel side.

use serde::{Deserialize, Serialize};

/// The kernel side at a glance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DatapathStatus {
    /// Whether the last heartbeat is fresh.
    pub proxy_alive: bool,
    /// `block` or `bypass`: what becomes of new connections while it isn't.
    pub on_proxy_down: &'static str,
    /// What is the matter, a line each: shown with that of other parts, before all else.
    #[serde(skip)]
    pub problems: Vec<String>,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    /// `native`, `generic` or `off`.
    pub xdp: &'static str,
    /// `tcx` or `clsact`; `off` while there is a problem.
    pub tc: &'static str,
    /// Why nothing is attached, or nothing comes in; tried again every few seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// How often a part of the kernel side was put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MendCount {
    /// Which part.
    pub what: String,
    /// Times since the start.
    pub times: u64,
    /// Seconds since the last of them.
    pub last_seconds_ago: u64,
}

/// How full a rule map is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MapUse {
    /// The map's name.
    pub name: &'static str,
    /// Entries in it.
    pub entries: usize,
    /// Entries that it can hold.
    pub limit: usize,
}

/// How often something was done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReasonCount {
    /// What, and why.
    pub reason: &'static str,
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
    /// The list that it stands on, as in `mailguard bypass` and `mailguard blacklist`.
    pub list: String,
    /// The entry.
    pub value: String,
    /// Packets.
    pub packets: u64,
    /// Seconds since the last of them.
    pub last_hit_seconds_ago: u64,
}
