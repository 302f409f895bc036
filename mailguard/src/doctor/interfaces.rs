//! The zones' interfaces: there, up, and the ones that the packets really come in by. Pure; reads
//! `ip -j -d link`.

use std::collections::HashMap;

use mailguard_core::config::Config;
use mailguard_core::config::model::{XdpMode, Zone, ZoneMode};
use serde::Deserialize;

use super::tool::{Said, Unread};
use super::{File, Finding};
use crate::datapath::{EARLY, STEER};

/// An interface as `ip` prints it. What it leaves out stays empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Link {
    ifname: String,
    /// Its other names.
    altnames: Vec<String>,
    flags: Vec<String>,
    master: Option<String>,
    /// The interface below.
    link: Option<String>,
    link_type: String,
    linkinfo: Info,
    xdp: Option<XdpState>,
}

/// What is attached for XDP.
#[derive(Debug, Deserialize)]
struct XdpState {
    prog: Option<XdpProgram>,
}

#[derive(Debug, Deserialize)]
struct XdpProgram {
    id: u32,
    #[serde(default)]
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Info {
    info_kind: String,
    info_slave_kind: String,
    info_data: Data,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    /// The interface that a tunnel's packets go by.
    link: Option<String>,
}

impl Link {
    fn is_named(&self, name: &str) -> bool {
        self.ifname == name || self.altnames.iter().any(|other| other == name)
    }

    /// Whether it takes packets out of what comes in by `below`. The ends of a cable name each other, too.
    fn lies_on(&self, below: &Link) -> bool {
        let lower = self.link.iter().chain(&self.linkinfo.info_data.link);
        self.linkinfo.info_kind != "veth" && lower.into_iter().any(|name| *name == below.ifname)
    }
}

/// The names of the interfaces that there are, as the kernel uses them; none if that couldn't be read.
pub(super) fn names(links: &Said) -> Vec<String> {
    parse(links).into_iter().map(|link| link.ifname).collect()
}

/// The configuration with each interface by the name that the kernel uses: an administrator may have written
/// another one of its names (`altname`).
pub(super) fn by_real_names(mut config: Config, links: &Said) -> Config {
    let links = parse(links);
    for name in config.zones.iter_mut().flat_map(|zone| &mut zone.interfaces) {
        if let Some(link) = links.iter().find(|link| link.altnames.contains(name)) {
            name.clone_from(&link.ifname);
        }
    }
    config
}

fn parse(links: &Said) -> Vec<Link> {
    links.as_ref().ok().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// A finding about what couldn't be read.
pub(super) fn unread(check: &str, unread: &Unread) -> Finding {
    let finding = Finding::warning(check, format!("not checked: {unread}"), "Nothing can be said about it.");
    match unread {
        Unread::Missing { package, .. } => finding.command(format!("apt-get install {package}")),
        Unread::Failed { .. } => finding,
    }
}

/// Judges each interface of a zone that isn't inactive. `programs`: those at the TCX hooks.
pub(super) fn judge(
    config: &Config,
    file: &File<'_>,
    links: &Said,
    programs: &HashMap<String, Vec<String>>,
) -> Vec<Finding> {
    let text = match links {
        Ok(text) => text,
        Err(reason) => return vec![unread("interfaces", reason)],
    };
    let links: Vec<Link> = match serde_json::from_str(text) {
        Ok(links) => links,
        Err(error) => {
            let (command, reason) = ("ip -j -d link show".to_owned(), error.to_string());
            return vec![unread("interfaces", &Unread::Failed { command, reason })];
        }
    };
    let judge = Judge { config, file, links: &links };
    let mut findings = Vec::new();
    for zone in config.zones.iter().filter(|zone| zone.mode != ZoneMode::Inactive) {
        for name in &zone.interfaces {
            let before = findings.len();
            judge.interface(zone, name, &mut findings);
            if findings.len() == before {
                findings.push(judge.fine(zone, name));
            }
            findings.extend(programs.get(name).and_then(|programs| others(name, programs)));
        }
    }
    findings
}

struct Judge<'a> {
    config: &'a Config,
    file: &'a File<'a>,
    links: &'a [Link],
}

impl Judge<'_> {
    fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.is_named(name))
    }

    fn interface(&self, zone: &Zone, name: &str, findings: &mut Vec<Finding>) {
        let zone_name = &zone.name;
        let Some(link) = self.link(name) else {
            let known: Vec<&str> = self.links.iter().map(|link| link.ifname.as_str()).collect();
            findings.push(
                Finding::warning(
                    "interface-missing",
                    format!("zone {zone_name}: there is no interface {name}; there are {}", known.join(", ")),
                    "Nothing is intercepted on it until it comes: see that it is named as the kernel names it.",
                )
                .command("ip -br link"),
            );
            return;
        };
        if !link.flags.iter().any(|flag| flag == "UP") {
            findings.push(
                Finding::error(
                    "interface-down",
                    format!("zone {zone_name}: {name} is down"),
                    "No packet comes in by it.",
                )
                .command(format!("ip link set {name} up")),
            );
        }
        findings.extend(self.member(zone, link));
        findings.extend(self.bridge(zone, link));
        findings.extend(self.overlays(zone, name, link));
        findings.extend(self.xdp(link));
    }

    /// There is room for one XDP program at an interface.
    fn xdp(&self, link: &Link) -> Option<Finding> {
        let XdpProgram { id, name } = link.xdp.as_ref()?.prog.as_ref()?;
        if name.starts_with(EARLY) {
            return None;
        }
        let what = format!("{}: the XDP program {name} (id {id}) is attached", link.ifname);
        let why = "What it takes we never see, and ours has no room beside it";
        Some(match self.config.kernel.xdp {
            XdpMode::Native | XdpMode::Generic => {
                let why =
                    format!("{why}: the daemon doesn't start unless kernel.xdp is \"auto\" or \"off\".");
                Finding::error("other-programs", what, why)
            }
            XdpMode::Auto | XdpMode::Off => {
                Finding::warning("other-programs", what, format!("{why}; TC does the same work as ours."))
            }
        })
    }

    /// A port of something bigger.
    fn member(&self, zone: &Zone, link: &Link) -> Option<Finding> {
        let master = link.master.as_deref()?;
        let (name, zone_name) = (&link.ifname, &zone.name);
        let kind = link.linkinfo.info_slave_kind.as_str();
        if kind == "vrf" {
            return Some(Finding::warning(
                "interface-vrf",
                format!("zone {zone_name}: {name} is in the VRF {master}"),
                format!(
                    "Our rule comes before the VRF's and delivers what is intercepted, but delivery and bypassed \
                     mail use the tables outside of it. It hasn't been tried: test it, or take {name} out of {master}."
                ),
            )
            .command(format!("ip link set {name} nomaster")));
        }
        let what = match kind {
            "bridge" => "port of the bridge",
            "bond" => "slave of the bond",
            "team" => "port of the team",
            _ => "part of",
        };
        let finding = Finding::error(
            "interface-member",
            format!("zone {zone_name}: {name} is a {what} {master}"),
            format!(
                "Packets are routed as {master}'s: the routing rule for {name} never sees them. Name {master} in \
                 the zone in place of {name}, then `mailguard reload`."
            ),
        );
        let named = self.config.zones.iter().any(|zone| zone.interfaces.iter().any(|other| other == master));
        // It may stand there by another name.
        let name = zone.interfaces.iter().find(|other| link.is_named(other)).unwrap_or(name);
        match self.file.replace(name, &format!("\"{master}\"")) {
            Some(command) if !named => Some(finding.command(command)),
            _ => Some(finding),
        }
    }

    /// What stays within a bridge isn't routed.
    fn bridge(&self, zone: &Zone, link: &Link) -> Option<Finding> {
        let (name, zone_name) = (&link.ifname, &zone.name);
        let ports: Vec<&str> = self
            .links
            .iter()
            .filter(|port| port.master.as_deref() == Some(name))
            .map(|port| port.ifname.as_str())
            .collect();
        (link.linkinfo.info_kind == "bridge" && ports.len() > 1 && zone.mode == ZoneMode::Transparent).then(|| {
            Finding::warning(
                "interface-bridge",
                format!("zone {zone_name}: {name} is a bridge with the ports {}", ports.join(", ")),
                "Mail from one of its ports to another passes by unseen: only what goes through the bridge's own \
                 address is routed, and intercepted. If clients and mail servers are on different ports, make \
                 two networks of them with the firewall between; br_netfilter doesn't help.",
            )
        })
    }

    /// Packets for what lies on an interface come in by that, and not by the interface.
    fn overlays(&self, zone: &Zone, name: &str, below: &Link) -> Vec<Finding> {
        let named = |child: &Link| {
            let mut names = self.config.zones.iter().flat_map(|zone| &zone.interfaces);
            names.any(|name| child.is_named(name))
        };
        let children = self.links.iter().filter(|child| child.lies_on(below) && !named(child));
        let finding = |child: &Link| {
            let (child, kind, zone) = (&child.ifname, child.linkinfo.info_kind.as_str(), &zone.name);
            let (check, what, frames) = match kind {
                "vlan" => ("interface-vlan", "the VLAN".to_owned(), "Tagged frames"),
                "" => ("interface-overlay", "an interface".to_owned(), "The packets inside"),
                kind => {
                    ("interface-overlay", format!("an interface of the kind {kind},"), "The packets inside")
                }
            };
            let finding = Finding::warning(
                check,
                format!("zone {zone}: {name} carries {what} {child}, which no zone names"),
                format!(
                    "{frames} are {child}'s and aren't intercepted on {name}. Name {child} in the zone that it \
                     belongs to (an inactive one if it is to be left alone), then `mailguard reload`."
                ),
            );
            match self.file.replace(name, &format!("\"{name}\", \"{child}\"")) {
                Some(command) => finding.command(command),
                None => finding,
            }
        };
        children.map(finding).collect()
    }

    fn fine(&self, zone: &Zone, name: &str) -> Finding {
        let xdp = self.link(name).map_or("off", |link| match self.config.kernel.xdp {
            _ if link.link_type != "ether" => "off",
            XdpMode::Auto if link.linkinfo.info_kind.is_empty() => "native if its driver can",
            XdpMode::Auto | XdpMode::Off => "off",
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
        });
        Finding::ok("interface", format!("zone {}: {name} is there and up (XDP: {xdp})", zone.name))
    }
}

/// Programs that see the packets before ours.
fn others(name: &str, programs: &[String]) -> Option<Finding> {
    let before: Vec<&str> =
        programs.iter().map(String::as_str).take_while(|program| *program != STEER).collect();
    if before.is_empty() {
        return None;
    }
    let what = format!("{name}: the programs {} are attached to TC", before.join(", "));
    if !programs.iter().any(|program| program == STEER) {
        return Some(Finding::ok("other-programs", format!("{what}; ours will come before them")));
    }
    let why = "What they take for themselves we never see. Restart the daemon: it puts itself first.";
    Some(
        Finding::warning("other-programs", format!("{what} before ours"), why)
            .command(format!("bpftool net show dev {name}")),
    )
}
