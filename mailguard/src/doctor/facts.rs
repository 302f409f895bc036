//! What the system says of itself, read and not judged. Changes nothing.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use mailguard_core::config::Config;
use mailguard_core::config::model::ZoneMode;
use nix::unistd::User;

use super::daemon::{self, Daemon};
use super::ports::{self, Socket};
use super::system::{self, System};
use super::tool::{Said, Unread, run, run_up_to};
use crate::datapath::{self, TABLE};
use crate::intercept::{Family, has_ipv6};

/// A list of rules with all that is in their sets; a longer one is read without, octets.
const MAX_RULESET_OCTETS: u64 = 32 << 20;

/// Everything that is judged.
pub(super) struct Facts {
    pub(super) daemon: Daemon,
    pub(super) system: System,
    /// `ip -j -d link show`
    pub(super) links: Said,
    /// Interface ▶ the programs at its TCX hook, in their order.
    pub(super) programs: HashMap<String, Vec<String>>,
    /// Name ▶ value of the settings that are looked at.
    pub(super) settings: HashMap<String, String>,
    /// `ip -4 route show default`
    pub(super) default_routes: Said,
    /// The families in use.
    pub(super) routing: Vec<Routing>,
    pub(super) firewall: Firewall,
    /// All listening TCP sockets of the namespace.
    pub(super) sockets: Vec<Socket>,
}

/// Policy routing of one family.
pub(super) struct Routing {
    pub(super) family: Family,
    /// `ip rule show`
    pub(super) rules: Said,
    /// `ip route show table 2525`
    pub(super) routes: Said,
}

/// The firewall's rules, and what they are judged by.
pub(super) struct Firewall {
    /// `nft -j list ruleset`
    pub(super) nft: Said,
    /// It was printed without the elements of sets.
    pub(super) terse: bool,
    /// iptables' tables, by variant and family.
    pub(super) iptables: Vec<(&'static str, Family, Said)>,
    /// `ip -j address show`
    pub(super) addresses: Said,
    /// `ip -j route show`, by family.
    pub(super) routes: Vec<(Family, Said)>,
    /// The mail user's number.
    pub(super) user: Option<u32>,
}

impl Facts {
    /// Reads everything.
    pub(super) fn gather(config: &Config) -> Self {
        let named: Vec<&str> = config
            .zones
            .iter()
            .filter(|zone| zone.mode != ZoneMode::Inactive)
            .flat_map(|zone| zone.interfaces.iter().map(String::as_str))
            .collect();
        let programs = |name: &&str| Some(((*name).to_owned(), datapath::programs_at(name).ok()?));
        Self {
            daemon: daemon::read(config),
            system: system::read(config),
            links: links(),
            programs: named.iter().filter_map(programs).collect(),
            settings: settings(&named),
            default_routes: run("ip", "iproute2", &["-4", "route", "show", "default"]),
            routing: families().iter().map(|&family| routing(family)).collect(),
            firewall: firewall(&config.user),
            sockets: ports::read(),
        }
    }
}

/// `ip -j -d link show`
pub(super) fn links() -> Said {
    run("ip", "iproute2", &["-j", "-d", "link", "show"])
}

fn families() -> &'static [Family] {
    if has_ipv6() { &[Family::V4, Family::V6] } else { &[Family::V4] }
}

fn routing(family: Family) -> Routing {
    let option = if family == Family::V4 { "-4" } else { "-6" };
    let table = TABLE.to_string();
    let routes = match run("ip", "iproute2", &[option, "route", "show", "table", &table]) {
        // No table of this number: nothing in it.
        Err(Unread::Failed { reason, .. }) if reason.contains("does not exist") => Ok(String::new()),
        said => said,
    };
    Routing { family, rules: run("ip", "iproute2", &[option, "rule", "show"]), routes }
}

/// `net.ipv4.…`, those of the interfaces included.
fn settings(interfaces: &[&str]) -> HashMap<String, String> {
    let mut names: Vec<String> = [
        "net/ipv4/ip_forward",
        "net/ipv6/conf/all/forwarding",
        "net/ipv4/tcp_fwmark_accept",
        "net/ipv4/ip_early_demux",
    ]
    .map(str::to_owned)
    .into();
    for interface in interfaces.iter().copied().chain(["all"]).filter(|name| !name.contains('/')) {
        names.extend(["rp_filter", "src_valid_mark"].map(|key| format!("net/ipv4/conf/{interface}/{key}")));
    }
    let read = |name: String| {
        let value = fs::read_to_string(Path::new("/proc/sys").join(&name)).ok()?;
        Some((name, value.trim().to_owned()))
    };
    names.into_iter().filter_map(read).collect()
}

/// iptables' older tables are asked for only where there are any, and its newer ones stand in nft's list.
pub(super) fn firewall(user: &str) -> Firewall {
    let mut iptables = Vec::new();
    for (family, names, legacy, newer) in [
        (Family::V4, "ip_tables_names", "iptables-legacy-save", "iptables-nft-save"),
        (Family::V6, "ip6_tables_names", "ip6tables-legacy-save", "ip6tables-nft-save"),
    ] {
        let names = fs::read_to_string(Path::new("/proc/thread-self/net").join(names));
        if names.is_ok_and(|names| !names.trim().is_empty()) {
            iptables.push(("legacy", family, run(legacy, "iptables", &[])));
        }
        iptables.push(("nft", family, run(newer, "iptables", &[])));
    }
    let (nft, terse) = ruleset();
    let route = |family: &Family| {
        let option = if *family == Family::V4 { "-4" } else { "-6" };
        (*family, run("ip", "iproute2", &["-j", option, "route", "show"]))
    };
    Firewall {
        nft,
        terse,
        iptables,
        addresses: run("ip", "iproute2", &["-j", "address", "show"]),
        routes: families().iter().map(route).collect(),
        user: User::from_name(user).ok().flatten().map(|user| user.uid.as_raw()),
    }
}

/// nft's list, and whether it is terse: the elements of large sets are left out.
fn ruleset() -> (Said, bool) {
    match run_up_to(MAX_RULESET_OCTETS, "nft", "nftables", &["-j", "list", "ruleset"]) {
        Err(Unread::Failed { .. }) => (run("nft", "nftables", &["-j", "-t", "list", "ruleset"]), true),
        said => (said, false),
    }
}
