//! The zones' interfaces as the kernel has them: index, kind, whether there is a driver of hardware behind.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use mailguard_common::layout::MAX_INTERFACES;
use mailguard_core::config::Config;
use mailguard_core::config::model::ZoneMode;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};

use super::{DatapathError, routes, steers};

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
}

/// An interface of a zone that isn't inactive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ZoneInterface {
    /// The device.
    pub(super) device: Device,
    /// Index of the zone.
    pub(super) zone: usize,
    /// The zone's name.
    pub(super) zone_name: String,
    /// Whether new connections are given to the proxy.
    pub(super) steer: bool,
}

/// The interfaces of all zones that aren't inactive.
pub(super) fn of_zones(config: &Config) -> Result<ZoneInterfaces, DatapathError> {
    let devices = devices()?;
    let mut interfaces = ZoneInterfaces::default();
    for (index, zone) in config.zones.iter().enumerate() {
        if zone.mode == ZoneMode::Inactive {
            continue;
        }
        for name in &zone.interfaces {
            let Some(device) = devices.iter().find(|device| device.name == *name) else {
                interfaces.absent.push((name.clone(), zone.name.clone()));
                continue;
            };
            interfaces.present.push(ZoneInterface {
                device: device.clone(),
                zone: index,
                zone_name: zone.name.clone(),
                steer: steers(zone.mode),
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
