//! The zones' interfaces as the kernel has them: index, kind, whether there is a driver of hardware behind.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use mailguard_common::layout::{
    INTERFACE_CHECKS, INTERFACE_SERVES, INTERFACE_STEERS, MAX_INTERFACES, MAX_ZONES,
};
use mailguard_core::config::Config;
use mailguard_core::config::model::ZoneMode;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};

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
    /// Whether its frames begin with an Ethernet header.
    pub(super) ethernet: bool,
    /// Whether it isn't one of the kernel's virtual kinds.
    pub(super) hardware: bool,
    /// Whether a VLAN interface stands on it. A driver that takes tags off would show XDP the VLAN's frames untagged.
    pub(super) carries_vlans: bool,
}

/// What the zones name, and what of it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ZoneInterfaces {
    /// Those that exist.
    pub(super) present: Vec<ZoneInterface>,
    /// Names of those that don't, each with its zone's name.
    pub(super) absent: Vec<(String, String)>,
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

/// The interfaces of all zones that aren't inactive, of the `devices` that there are. `listeners` says where their
/// listeners stand.
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
            let Some(device) = devices.iter().find(|device| device.name == *name) else {
                interfaces.absent.push((name.clone(), zone.name.clone()));
                continue;
            };
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
        Ok(links.into_iter().filter_map(|link| device(link, &parents)).collect())
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

fn device(link: LinkMessage, parents_of_vlans: &BTreeSet<u32>) -> Option<Device> {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })?;
    let virtual_kind = link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().any(|info| matches!(info, LinkInfo::Kind(_))),
        _ => false,
    });
    let layer = link.header.link_layer_type;
    Some(Device {
        index: link.header.index,
        name,
        ethernet: matches!(layer, LinkLayerType::Ether | LinkLayerType::Loopback),
        hardware: layer == LinkLayerType::Ether && !virtual_kind,
        carries_vlans: parents_of_vlans.contains(&link.header.index),
    })
}
