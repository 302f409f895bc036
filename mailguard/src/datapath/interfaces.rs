//! The zones' interfaces as the kernel has them: index, kind, whether there is a driver of hardware behind.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use mailguard_common::maps::{
    INTERFACE_CHECKS, INTERFACE_SERVES, INTERFACE_STEERS, MAX_INTERFACES, MAX_ZONES,
};
use mailguard_core::config::Config;
use mailguard_core::config::model::ZoneMode;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, Prop};

use super::{DatapathError, routes};
use crate::intercept::{self, Listeners};

/// Where nobody listens.
const NO_SLOT: u32 = MAX_ZONES;

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// Its index.
    pub(super) index: u32,
    /// Its name.
    pub(super) name: String,
    /// Its other names (`ip link property add altname`).
    pub(super) other_names: Vec<String>,
    /// What it is a port of: kind and name.
    pub(super) port_of: Option<(String, String)>,
    /// Whether its frames begin with an Ethernet header.
    pub(super) ethernet: bool,
    /// Whether it isn't one of the kernel's virtual kinds.
    pub(super) hardware: bool,
    /// Whether a VLAN interface stands on it. A driver that takes tags off would show XDP the VLAN's frames
    /// untagged.
    pub(super) carries_vlans: bool,
}

impl Device {
    fn is_named(&self, name: &str) -> bool {
        self.name == name || self.other_names.iter().any(|other| other == name)
    }

    /// What is the matter with a port: what comes in by it is routed as its bridge's, bond's or VRF's.
    pub(super) fn port_problem(&self) -> Option<String> {
        let (kind, master) = self.port_of.as_ref()?;
        Some(format!(
            "it is a port of the {kind} {master} now: what comes in by it is {master}'s, and connections to port 25 get \
             stuck; name {master} in the zone in its place, or take it out (ip link set {} nomaster)",
            self.name
        ))
    }
}

/// An interface that isn't served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Absent {
    /// Its name in the configuration.
    pub(super) name: String,
    /// Its zone's.
    pub(super) zone: String,
    /// The reason.
    pub(super) why: String,
}

/// What the zones name, and what of it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ZoneInterfaces {
    /// Those that exist.
    pub(super) present: Vec<ZoneInterface>,
    /// Those that don't.
    pub(super) absent: Vec<Absent>,
    /// Whether IPv6 is in use.
    pub(super) ipv6: bool,
}

/// An interface that the programs are attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ZoneInterface {
    /// The device.
    pub(super) device: Device,
    /// Name of its zone; of the last one, if it has left that.
    pub(super) zone: String,
    /// Where the zone's listeners stand.
    pub(super) slot: u32,
    /// What is done here: the `INTERFACE_` bits.
    pub(super) duties: u32,
}

impl ZoneInterface {
    /// Whether this duty is among its duties.
    pub(super) fn has(&self, duty: u32) -> bool {
        self.duties & duty != 0
    }
}

impl ZoneInterfaces {
    /// Those that serve the sessions of their zone in `self`, and steer no longer in `next`.
    pub(super) fn left_in<'a>(&'a self, next: &Self) -> impl Iterator<Item = &'a ZoneInterface> {
        let steering: BTreeSet<u32> =
            next.present.iter().filter(|i| i.has(INTERFACE_STEERS)).map(|i| i.device.index).collect();
        let serving = self.present.iter().filter(|interface| interface.has(INTERFACE_SERVES));
        serving.filter(move |interface| !steering.contains(&interface.device.index))
    }

    /// Those that only serve the sessions that are open.
    pub(super) fn leaving(&self) -> impl Iterator<Item = u32> {
        let leaving = self.present.iter().filter(|i| i.has(INTERFACE_SERVES) && !i.has(INTERFACE_STEERS));
        leaving.map(|interface| interface.device.index)
    }

    /// Has `left` go on serving its sessions, in its new zone or in none, if there is room for it.
    pub(super) fn keep_serving(&mut self, left: ZoneInterface) {
        let index = left.device.index;
        if let Some(interface) = self.present.iter_mut().find(|kept| kept.device.index == index) {
            interface.duties |= INTERFACE_SERVES;
        } else if self.present.len() < MAX_INTERFACES as usize {
            self.present.push(ZoneInterface { duties: INTERFACE_SERVES, ..left });
        }
    }
}

/// The interfaces of all zones that aren't inactive, of the `devices` that there are. `listeners` says where
/// their listeners stand.
pub(super) fn of_zones(
    config: &Config,
    listeners: &Listeners,
    devices: &[Device],
) -> Result<ZoneInterfaces, DatapathError> {
    let mut interfaces = ZoneInterfaces { ipv6: intercept::has_ipv6(), ..ZoneInterfaces::default() };
    for zone in config.zones.iter().filter(|zone| zone.mode != ZoneMode::Inactive) {
        let duties = match zone.mode {
            ZoneMode::Transparent => INTERFACE_CHECKS | INTERFACE_STEERS | INTERFACE_SERVES,
            _ => INTERFACE_CHECKS,
        };
        for name in &zone.interfaces {
            let absent = |why: String| Absent { name: name.clone(), zone: zone.name.clone(), why };
            let Some(device) = devices.iter().find(|device| device.is_named(name)) else {
                interfaces.absent.push(absent("there is no such interface now".to_owned()));
                continue;
            };
            // The configuration has each name once, but an interface may have several.
            if let Some(other) = interfaces.present.iter().find(|other| other.device.index == device.index) {
                let why = format!("it is {}, which the zone {} has already", device.name, other.zone);
                interfaces.absent.push(absent(why));
                continue;
            }
            interfaces.present.push(ZoneInterface {
                device: device.clone(),
                zone: zone.name.clone(),
                slot: listeners.slot(&zone.name).unwrap_or(NO_SLOT),
                duties,
            });
        }
    }
    let count = interfaces.present.len() + interfaces.absent.len();
    if count > MAX_INTERFACES as usize {
        return Err(DatapathError::Interfaces(count));
    }
    Ok(interfaces)
}

/// All network devices of the namespace.
pub(super) fn devices() -> Result<Vec<Device>, DatapathError> {
    routes::with_netlink(async |netlink| {
        let links: Vec<LinkMessage> = netlink
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(DatapathError::netlink("list the interfaces"))?;
        let parents: BTreeSet<u32> = links.iter().filter_map(parent_of_vlan).collect();
        let names: BTreeMap<u32, String> =
            links.iter().filter_map(|link| Some((link.header.index, name_of(link)?))).collect();
        Ok(links.into_iter().filter_map(|link| device(link, &parents, &names)).collect())
    })
}

/// The index of the device that a VLAN interface stands on.
fn parent_of_vlan(link: &LinkMessage) -> Option<u32> {
    let is_vlan = link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Vlan)),
        _ => false,
    });
    let parent = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(parent) => Some(*parent),
        _ => None,
    });
    parent.filter(|_| is_vlan)
}

fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn other_names(link: &LinkMessage) -> Vec<String> {
    let mut names = Vec::new();
    for attribute in &link.attributes {
        let LinkAttribute::PropList(properties) = attribute else { continue };
        names.extend(properties.iter().filter_map(|property| match property {
            Prop::AltIfName(name) => Some(name.clone()),
            _ => None,
        }));
    }
    names
}

/// Kind and name of what the link is a port of.
fn port_of(link: &LinkMessage, names: &BTreeMap<u32, String>) -> Option<(String, String)> {
    let master = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) if *index != 0 => Some(*index),
        _ => None,
    })?;
    let kind = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::PortKind(kind) => Some(kind.to_string()),
            _ => None,
        }),
        _ => None,
    });
    let kind = kind.unwrap_or_else(|| "device".to_owned());
    Some((kind, names.get(&master).cloned().unwrap_or_else(|| format!("number {master}"))))
}

fn device(
    link: LinkMessage,
    parents_of_vlans: &BTreeSet<u32>,
    names: &BTreeMap<u32, String>,
) -> Option<Device> {
    let name = name_of(&link)?;
    let virtual_kind = link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().any(|info| matches!(info, LinkInfo::Kind(_))),
        _ => false,
    });
    let layer = link.header.link_layer_type;
    Some(Device {
        index: link.header.index,
        name,
        other_names: other_names(&link),
        port_of: port_of(&link, names),
        ethernet: matches!(layer, LinkLayerType::Ether | LinkLayerType::Loopback),
        hardware: layer == LinkLayerType::Ether && !virtual_kind,
        carries_vlans: parents_of_vlans.contains(&link.header.index),
    })
}
