//! What the programs know of each interface.

use std::collections::BTreeSet;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData};
use mailguard_common::maps::{Interface, NEAR_INTERFACES, map};

use super::DatapathError;
use super::object::take_map;

/// The open maps, and which interfaces are in them.
pub(super) struct KnownInterfaces {
    near: Array<MapData, Interface>,
    far: HashMap<MapData, u32, Interface>,
    indexes: BTreeSet<u32>,
}

impl KnownInterfaces {
    /// Opens the maps of the loaded object and reads what they hold.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let near: Array<MapData, Interface> = take_map(ebpf, map::IFACES_NEAR)?;
        let far: HashMap<MapData, u32, Interface> = take_map(ebpf, map::IFACES_FAR)?;
        let mut indexes = BTreeSet::new();
        for index in 0..NEAR_INTERFACES {
            let interface = near.get(&index, 0).map_err(DatapathError::map(map::IFACES_NEAR))?;
            if interface.duties != 0 {
                indexes.insert(index);
            }
        }
        for index in far.keys() {
            indexes.insert(index.map_err(DatapathError::map(map::IFACES_FAR))?);
        }
        Ok(Self { near, far, indexes })
    }

    /// From now on this is what the interface is.
    pub(super) fn set(&mut self, index: u32, interface: Interface) -> Result<(), DatapathError> {
        if index < NEAR_INTERFACES {
            self.near.set(index, interface, 0).map_err(DatapathError::map(map::IFACES_NEAR))?;
        } else {
            self.far.insert(index, interface, 0).map_err(DatapathError::map(map::IFACES_FAR))?;
        }
        self.indexes.insert(index);
        Ok(())
    }

    /// Forgets all others.
    pub(super) fn retain(&mut self, kept: &BTreeSet<u32>) -> Result<(), DatapathError> {
        let stale: Vec<u32> = self.indexes.difference(kept).copied().collect();
        for index in stale {
            if index < NEAR_INTERFACES {
                let nobodys = Interface::default();
                self.near.set(index, nobodys, 0).map_err(DatapathError::map(map::IFACES_NEAR))?;
            } else {
                self.far.remove(&index).map_err(DatapathError::map(map::IFACES_FAR))?;
            }
            self.indexes.remove(&index);
        }
        Ok(())
    }
}
