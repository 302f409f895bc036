//! The settings that the programs read, written by two: by whoever changes what is in force, and by the
//! [`Pulse`], which says that the proxy lives however busy the other one is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, MapData};
use mailguard_common::maps::{Settings, map};

use super::{DatapathError, now_ns};

/// The settings and their map; clones are the same ones.
#[derive(Clone)]
pub(super) struct KernelSettings(Arc<Mutex<Inner>>);

struct Inner {
    settings: Settings,
    map: Array<MapData, Settings>,
}

impl KernelSettings {
    /// What the map holds.
    pub(super) fn open(map: Array<MapData, Settings>) -> Result<Self, DatapathError> {
        let settings = map.get(&0, 0).map_err(DatapathError::map(map::CONFIG))?;
        Ok(Self(Arc::new(Mutex::new(Inner { settings, map }))))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in force.
    pub(super) fn get(&self) -> Settings {
        self.inner().settings
    }

    /// Changes them here and in the kernel, in one step. Not for long work: the pulse waits for it.
    pub(super) fn change(&self, change: impl FnOnce(&mut Settings)) -> Result<(), DatapathError> {
        let mut inner = self.inner();
        change(&mut inner.settings);
        let settings = inner.settings;
        inner.map.set(0, settings, 0).map_err(DatapathError::map(map::CONFIG))
    }
}

/// Tells the kernel that the proxy lives.
#[derive(Clone)]
pub struct Pulse(pub(super) KernelSettings);

impl Pulse {
    /// Due each second. Three seconds without, and `on_proxy_down` is in force.
    pub fn beat(&self) -> Result<(), DatapathError> {
        self.0.change(|settings| settings.heartbeat_ns = now_ns())
    }
}
