//! The zones' interfaces as the kernel has them: index, kind, whether there is a driver of hardware behind.

use futures::TryStreamExt;
use mailguard_common::layout::MAX_INTERFACES;
use mailguard_core::config::Config;
use mailguard_core::config::model::ZoneMode;
use netlink_packet_route::link::{LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};

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
pub(super) fn of_zones(config: &Config) -> Result<Vec<ZoneInterface>, DatapathError> {
    let devices = devices()?;
    let mut interfaces = Vec::new();
    for (index, zone) in config.zones.iter().enumerate() {
        if zone.mode == ZoneMode::Inactive {
            continue;
        }
        for name in &zone.interfaces {
            let device = devices.iter().find(|device| device.name == *name);
            let device = device.ok_or_else(|| DatapathError::NoInterface {
                zone: zone.name.clone(),
                interface: name.clone(),
            })?;
            interfaces.push(ZoneInterface {
                device: device.clone(),
                zone: index,
                zone_name: zone.name.clone(),
                steer: steers(zone.mode),
            });
        }
    }
    if interfaces.len() > MAX_INTERFACES as usize {
        return Err(DatapathError::Interfaces(interfaces.len()));
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
        Ok(links.into_iter().filter_map(device).collect())
    })
}

fn device(link: LinkMessage) -> Option<Device> {
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
    })
}
