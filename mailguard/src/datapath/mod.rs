//! The kernel side's keeper: loads, attaches and pins the programs, fills the maps, sets the routes, in the
//! privileged process. The only module that knows aya and netlink.
//!
//! Everything that it sets up outlives it: maps and links are pinned, so that a crash leaves drops in force
//! and `on_proxy_down` decides about new connections. [`Datapath::start`] takes over what it finds;
//! [`unload`] removes everything. What the rules are is `core::rules`', what they mean
//! `mailguard_common::decide`'s.

mod attach;
mod bpffs;
mod closed;
mod counters;
mod drift;
mod error;
mod events;
mod interfaces;
mod kernel_settings;
mod known;
mod leaving;
mod links;
mod local;
mod object;
mod own_addresses;
mod pins;
mod probe;
mod rates;
mod routes;
mod rule_maps;
mod status;
mod tcx;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use aya::Ebpf;
use aya::maps::{MapData, MapError, SockMap};
use mailguard_common::maps::{
    FAIL_BLOCK, FAIL_BYPASS, INTERFACE_STEERS, Interface, listener_index, map, zone_number,
};
use mailguard_core::config::Config;
use mailguard_core::config::model::{OnProxyDown, XdpMode};
use mailguard_core::rules::{self, Rules};
use nix::time::{ClockId, clock_gettime};

pub use attach::{EARLY, Hook, STEER};
pub use bpffs::{BPFFS, is_bpffs, refuse_private};
pub use drift::Occasion;
pub use error::{AttachError, DatapathError};
pub use kernel_settings::Pulse;
pub use links::watch_kernel;
pub use local::{Delivery, deliveries};
pub use own_addresses::keep_own_addresses;
pub use pins::{holds_programs, netns_cookie};
pub use probe::{probe, programs_at};
pub use routes::{PRIORITY, TABLE};
pub use rule_maps::BanStatus;
pub use status::{
    DatapathStatus, InterfaceStatus, MapUse, MendCount, ReasonCount, RuleCount, TcAttachment, Word,
    XdpAttachment,
};
pub use upkeep::KERNEL_PROBLEM;

use crate::intercept::{Family, Listeners, Role, ZoneListener};
use closed::{Forgotten, Which};
use counters::Counters;
use drift::Mends;
use events::EventLog;
use interfaces::{ZoneInterface, ZoneInterfaces};
use kernel_settings::KernelSettings;
use known::KnownInterfaces;
use leaving::Leaving;
use pins::Pins;
use rates::Rates;
use rule_maps::RuleMaps;

/// The kernel side in operation.
pub struct Datapath {
    settings: KernelSettings,
    rules: RuleMaps,
    /// Addresses that bypass by a name, besides those that the configuration lists.
    named: BTreeSet<IpAddr>,
    /// What is done to banned clients.
    ban_action: u32,
    counters: Counters,
    rates: Rates,
    /// The programs, for interfaces that come later.
    programs: Ebpf,
    pins: Pins,
    hook: Hook,
    xdp: XdpMode,
    known: KnownInterfaces,
    sockets: SockMap<MapData>,
    /// Which listener is where in `sockets`, by its number.
    places: BTreeMap<u32, u64>,
    zones: ZoneInterfaces,
    leaving: Leaving,
    interfaces: Vec<InterfaceStatus>,
    /// Whether what `zones` says is in force; else it is done anew at the next heartbeat.
    in_force: bool,
    /// Whether something couldn't be attached to one of them; tried again at each look.
    troubled: bool,
    /// What others removed of all this.
    mends: Mends,
    /// Why the kernel doesn't forget closed sessions.
    kept: Option<String>,
    _events: EventLog,
}

/// What [`Datapath::apply`] changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Entries that were added, or got another action.
    pub added: usize,
    /// Entries that were removed.
    pub removed: usize,
}

/// What [`unload`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Unloaded {
    /// Programs that were attached.
    pub programs: usize,
    /// Pinned maps.
    pub maps: usize,
    /// Policy rules and routes.
    pub routes: usize,
    /// Closed sessions that the kernel still remembered.
    pub sessions: usize,
    /// Why it remembers some of them all the same.
    pub sessions_kept: Option<String>,
}

impl Datapath {
    /// Puts the kernel side of `config` into force in this network namespace: adopts what an earlier run
    /// pinned, or builds it. `listeners` are those of `config`; the caller keeps them open. From here on the
    /// caller owes a [`Datapath::heartbeat`] each second.
    pub fn start(config: &Config, listeners: &Listeners) -> Result<Self, DatapathError> {
        Self::start_on(config, listeners, Hook::of_this_kernel(), BTreeSet::new())
    }

    /// [`Datapath::start`] with the TC hook given, and with `named` as by [`Datapath::set_named`].
    pub fn start_on(
        config: &Config,
        listeners: &Listeners,
        hook: Hook,
        named: BTreeSet<IpAddr>,
    ) -> Result<Self, DatapathError> {
        let mut pins = Pins::open(&config.kernel.pin_dir)?;
        pins::refuse_attached_elsewhere(&config.kernel.pin_dir)?;
        let mut programs = pins.load_object()?;
        pins.note_maps()?;
        attach::load(&mut programs)?;
        let mut rules = RuleMaps::new(&mut programs)?;
        let settings = KernelSettings::open(object::take_map(&mut programs, map::CONFIG)?)?;
        pins.remove_leftovers(settings.get().netns_cookie)?;
        let (fail_mode, netns_cookie) = (fail_mode(config), pins::netns_cookie()?);
        let ban_action = rule_maps::ban_action(config);
        rules.remove_ended(now_ns())?;
        rules.set_ban_action(ban_action)?;
        settings
            .change(|settings| (settings.fail_mode, settings.netns_cookie) = (fail_mode, netns_cookie))?;
        rules.replace(&compiled(config, &named), &settings)?;
        let sockets = object::take_map(&mut programs, map::LISTENERS)?;
        let known = KnownInterfaces::new(&mut programs)?;
        let counters = Counters::new(&mut programs)?;
        attach::attach_reconnect(&mut programs, &pins)?;

        // In force before the first program is attached: no packet meets one that lets everything pass.
        settings.change(|settings| settings.armed = 1)?;
        let rates = Rates::default();
        let _events = EventLog::start(&mut programs)?;
        let mut datapath = Self {
            settings,
            rules,
            named,
            ban_action,
            counters,
            rates,
            programs,
            pins,
            hook,
            xdp: config.kernel.xdp,
            known,
            sockets,
            places: BTreeMap::new(),
            zones: ZoneInterfaces::default(),
            leaving: Leaving::default(),
            interfaces: Vec::new(),
            in_force: false,
            troubled: false,
            mends: Mends::default(),
            kept: None,
            _events,
        };
        let zones = datapath.zones_now(config, listeners)?;
        // In this order: no interface ever points at another zone's listener.
        datapath.know(&zones)?;
        datapath.add_listeners(listeners)?;
        datapath.heartbeat()?;
        datapath.attach_to(zones)?;
        datapath.remove_old_zones()?;
        datapath.pins.remove_other_maps()?;
        // An adopted link may have been overtaken.
        datapath.verify(Occasion::Look);
        Ok(datapath)
    }

    /// Looks which of the zones' interfaces are there now, attaches to those that have come and forgets those
    /// that have gone. `config` and `listeners` are those that were started with, or applied last. True when
    /// anything changed.
    pub fn follow_interfaces(
        &mut self,
        config: &Config,
        listeners: &Listeners,
    ) -> Result<bool, DatapathError> {
        let zones = self.zones_now(config, listeners)?;
        self.add_listeners(listeners)?;
        let changed = zones != self.zones || !self.in_force;
        if changed {
            self.attach_to(zones)?;
        }
        self.remove_listeners(listeners)?;
        Ok(changed)
    }

    /// Says when the oldest session began that is open `now`. Interfaces that steer no longer are left alone
    /// when none is open any more that may have come in by them; true if that changed anything.
    pub fn note_oldest_session(
        &mut self,
        oldest: Option<Instant>,
        now: Instant,
        config: &Config,
        listeners: &Listeners,
    ) -> Result<bool, DatapathError> {
        if self.leaving.note_oldest_session(oldest, now) {
            // Until it has been done.
            self.in_force = false;
        }
        if self.in_force { Ok(false) } else { self.follow_interfaces(config, listeners) }
    }

    /// Puts new listeners in their places.
    fn add_listeners(&mut self, listeners: &Listeners) -> Result<(), DatapathError> {
        for (index, listener) in places(listeners) {
            if self.places.get(&index) != Some(&listener.id) {
                let set = self.sockets.set(index, &listener.socket, 0);
                set.map_err(DatapathError::map(map::LISTENERS))?;
                self.places.insert(index, listener.id);
            }
        }
        Ok(())
    }

    /// Removes those that no zone has any more.
    fn remove_listeners(&mut self, listeners: &Listeners) -> Result<(), DatapathError> {
        let kept: BTreeSet<u32> = places(listeners).map(|(index, _)| index).collect();
        while let Some(index) = self.places.keys().copied().find(|index| !kept.contains(index)) {
            self.places.remove(&index);
            let cleared = self.sockets.clear_index(&index);
            // The kernel has done it when the last copy of the socket was closed.
            if !cleared.as_ref().is_err_and(is_empty_place) {
                cleared.map_err(DatapathError::map(map::LISTENERS))?;
            }
        }
        Ok(())
    }

    /// Tells the programs what each interface is.
    fn know(&mut self, zones: &ZoneInterfaces) -> Result<(), DatapathError> {
        self.known.retain(&zones.present.iter().map(|interface| interface.device.index).collect())?;
        for interface in &zones.present {
            self.known.set(interface.device.index, interface.entry())?;
        }
        Ok(())
    }

    /// The zones' interfaces, and those whose sessions are still served.
    fn zones_now(&self, config: &Config, listeners: &Listeners) -> Result<ZoneInterfaces, DatapathError> {
        let devices = interfaces::devices()?;
        let mut zones = interfaces::of_zones(config, listeners, &devices)?;
        let left: Vec<_> = self.zones.left_in(&zones).cloned().collect();
        for interface in left {
            let index = interface.device.index;
            let device = devices.iter().find(|device| device.index == index);
            if let Some(device) = device
                && (interface.has(INTERFACE_STEERS) || self.leaving.contains(index))
            {
                zones.keep_serving(ZoneInterface { device: device.clone(), ..interface });
            }
        }
        Ok(zones)
    }

    /// First what a packet needs, then the programs, then what is left over.
    fn attach_to(&mut self, zones: ZoneInterfaces) -> Result<(), DatapathError> {
        self.in_force = false;
        let serving = upkeep::serving(&zones);
        routes::add(&serving)?;
        self.know(&zones)?;
        let (xdp, hook) = (self.xdp, self.hook);
        self.interfaces = attach::attach(&mut self.programs, &self.pins, &zones.present, xdp, hook)?;
        routes::remove_except(&serving)?;
        self.troubled = self.interfaces.iter().any(|interface| interface.problem.is_some());
        for (interface, status) in zones.present.iter().zip(&mut self.interfaces) {
            status.problem = status.problem.take().or_else(|| interface.device.port_problem());
        }
        self.interfaces.extend(zones.absent.iter().map(|absent| InterfaceStatus {
            name: absent.name.clone(),
            zone: absent.zone.clone(),
            intercepts: false,
            leaving: false,
            xdp: XdpAttachment::Off.into(),
            tc: TcAttachment::Off.into(),
            problem: Some(absent.why.clone()),
        }));
        self.leaving.replace(zones.leaving(), Instant::now());
        self.zones = zones;
        self.in_force = true;
        Ok(())
    }

    /// Applies a changed configuration and its listeners: only the rules that differ are touched, additions
    /// before removals, so that no session breaks and nothing is unprotected in between. Interfaces that
    /// steer no longer go on serving their sessions.
    pub fn apply(&mut self, config: &Config, listeners: &Listeners) -> Result<Applied, DatapathError> {
        let mut applied = self.add_rules(&compiled(config, &self.named))?;
        self.ban_action = rule_maps::ban_action(config);
        self.rules.set_ban_action(self.ban_action)?;
        self.settings.change(|settings| settings.fail_mode = fail_mode(config))?;
        self.in_force &= self.xdp == config.kernel.xdp;
        self.xdp = config.kernel.xdp;
        self.follow_interfaces(config, listeners)?;
        applied.removed += self.remove_old_zones()?;
        self.verify(Occasion::Look);
        Ok(applied)
    }

    /// Lets connections to these addresses pass, too, and no longer to those that were set before. `config`
    /// is the one that is in force.
    pub fn set_named(&mut self, named: BTreeSet<IpAddr>, config: &Config) -> Result<(), DatapathError> {
        if named != self.named {
            self.apply_rules(&compiled(config, &named))?;
            self.named = named;
        }
        Ok(())
    }

    /// Applies these rules; interfaces stay in their zones.
    pub fn apply_rules(&mut self, rules: &Rules) -> Result<Applied, DatapathError> {
        let mut applied = self.add_rules(rules)?;
        applied.removed += self.remove_old_zones()?;
        Ok(applied)
    }

    fn add_rules(&mut self, rules: &Rules) -> Result<Applied, DatapathError> {
        let (added, removed) = self.rules.replace(rules, &self.settings)?;
        Ok(Applied { added, removed })
    }

    /// No interface is in its zone of before any more.
    fn remove_old_zones(&mut self) -> Result<usize, DatapathError> {
        self.rules.remove_old_zones(&self.settings)
    }

    /// Tells the kernel that the proxy lives; due each second. Three seconds without, and `on_proxy_down` is
    /// in force.
    pub fn heartbeat(&mut self) -> Result<(), DatapathError> {
        self.pulse().beat()?;
        self.note_rates()
    }

    /// What tells it from another thread.
    pub fn pulse(&self) -> Pulse {
        Pulse(self.settings.clone())
    }

    /// Notes how many packets there were so far; due each second.
    pub fn note_rates(&mut self) -> Result<(), DatapathError> {
        self.rates.note(Instant::now(), self.counters.packets()?);
        Ok(())
    }

    /// Puts `on_proxy_down` into force at once, until the next heartbeat.
    pub fn proxy_down(&mut self) -> Result<(), DatapathError> {
        self.settings.change(|settings| settings.heartbeat_ns = 0)
    }

    /// What is attached where.
    pub fn interfaces(&self) -> &[InterfaceStatus] {
        &self.interfaces
    }

    /// The rules that decided about any packet, and how often.
    pub fn rule_counts(&self) -> Result<Vec<RuleCount>, DatapathError> {
        self.rules.counts()
    }

    /// What is attached where, how full the maps are, what was counted.
    pub fn status(&self) -> Result<DatapathStatus, DatapathError> {
        let settings = self.settings.get();
        Ok(DatapathStatus {
            proxy_alive: settings.proxy_alive(now_ns()),
            on_proxy_down: Word::Known(match settings.fail_mode {
                FAIL_BYPASS => OnProxyDown::Bypass,
                _ => OnProxyDown::Block,
            }),
            mended: self.mends.counts(Instant::now()),
            interfaces: self.interfaces.clone(),
            maps: self.rules.usage(),
            reasons: self.counters.reasons(&self.rates)?,
            rules: self.rules.counts()?,
        })
    }
}

/// Removes everything that a [`Datapath`] with this `pin_dir` set up in this network namespace. The caller
/// sees to it that none runs here, with whatever `pin_dir`.
pub fn unload(pin_dir: &Path) -> Result<Unloaded, DatapathError> {
    bpffs::refuse_private(pin_dir)?;
    pins::refuse_attached_elsewhere(pin_dir)?;
    let programs = pins::remove_links(pin_dir)? + attach::remove_filters()?;
    let routes = routes::remove()?;
    let maps = pins::remove_maps(pin_dir)?;
    // Last: nothing makes new ones any more.
    let Forgotten { sessions, kept } = closed::forget(Which::Orphaned);
    Ok(Unloaded { programs, maps, routes, sessions, sessions_kept: kept })
}

/// Removes what is pinned in the `pin_dir` of an earlier run in this network namespace, where another one is
/// in use now.
pub fn remove_old_pins(pin_dir: &Path) -> Result<(), DatapathError> {
    pins::refuse_attached_elsewhere(pin_dir)?;
    pins::remove_links(pin_dir)?;
    pins::remove_maps(pin_dir)?;
    Ok(())
}

/// The rules of `config`, and those of the addresses that names stand for.
fn compiled(config: &Config, named: &BTreeSet<IpAddr>) -> Rules {
    let mut rules = rules::compile(config);
    rules.bypass_to_each(named);
    rules
}

fn fail_mode(config: &Config) -> u32 {
    match config.kernel.on_proxy_down {
        OnProxyDown::Block => FAIL_BLOCK,
        OnProxyDown::Bypass => FAIL_BYPASS,
    }
}

/// CLOCK_MONOTONIC, as the programs read it.
fn now_ns() -> u64 {
    // It fails only for clocks that don't exist; 0 then says what is true: nobody can tell that the proxy
    // lives.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs())
}

/// Whether there is no socket where one was to be removed.
fn is_empty_place(error: &MapError) -> bool {
    let MapError::SyscallError(error) = error else { return false };
    matches!(error.io_error.raw_os_error(), Some(nix::libc::EINVAL | nix::libc::ENOENT))
}

/// The transparent listeners, each with its place in the map.
fn places(listeners: &Listeners) -> impl Iterator<Item = (u32, &ZoneListener)> {
    listeners.iter().filter_map(|listener| match listener.purpose.role {
        Role::Transparent { slot } => {
            Some((listener_index(slot, listener.purpose.family == Family::V6), listener))
        }
        Role::Active { .. } => None,
    })
}

impl ZoneInterface {
    fn entry(&self) -> Interface {
        Interface {
            zone: zone_number(&self.zone),
            slot: self.slot,
            duties: self.duties,
            ethernet: self.device.ethernet.into(),
            padding: 0,
        }
    }
}
