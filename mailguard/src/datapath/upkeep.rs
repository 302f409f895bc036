//! Looks whether everything that was set up in the kernel is still there, and puts back what others removed:
//! rules, routes, programs (by their ids, at their places), pins.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::programs::{SchedClassifier, SkLookup, Xdp};
use futures::TryStreamExt;
use mailguard_common::maps::{FAIL_BYPASS, INTERFACE_SERVES};
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcOption};
use tracing::{error, info, warn};

use super::attach::{self, RECONNECT, RECONNECT_PIN, early_program, program};
use super::closed::{self, Forgotten, Which};
use super::drift::{Occasion, Part};
use super::interfaces::{Device, ZoneInterfaces};
use super::pins::Pins;
use super::{
    Datapath, DatapathError, Hook, InterfaceStatus, STEER, TcAttachment, Word, XdpAttachment, now_ns, routes,
    tcx,
};

/// How the lines of [`Datapath::problems`] begin that say what is missing.
pub const KERNEL_PROBLEM: &str = "kernel: ";

/// How often a mend is tried at once: the kernel takes a moment to take down a program whose pin was removed,
/// and until then has no room for it again.
const MEND_TRIES: usize = 3;
/// The pause between these tries.
const MEND_PAUSE: Duration = Duration::from_millis(30);

impl Datapath {
    /// Looks whether everything is in place, and mends what isn't. Says so in the log, and
    /// [`Datapath::status`] has it.
    pub fn verify(&mut self, occasion: Occasion) {
        let left = match self.missing() {
            Ok(missing) if !missing.is_empty() => {
                if !self.mends.may_mend(occasion, Instant::now()) {
                    // Said once, and the next look mends it.
                    self.mends.set_missing(lines(&missing));
                    return;
                }
                self.put_back(missing)
            }
            Ok(nothing) if occasion == Occasion::Look && self.troubled => {
                let again = self.attach_to(self.zones.clone());
                again.unwrap_or_else(|error| error!(%error, "the kernel side can't be set up"));
                Ok(nothing)
            }
            found => found,
        };
        let left = left.map_or_else(
            |error| vec![format!("what is missing can't be put back: {error}")],
            |left| lines(&left),
        );
        if self.mends.set_missing(left) {
            error!("interception is broken: {}; it is tried again", self.mends.missing().join(", "));
        }
    }

    /// Has the kernel forget our closed sessions while new connections pass without us
    /// (`on_proxy_down = "bypass"`): their clients may come again from the same ports when no program is
    /// there to lead them around.
    pub fn forget_closed(&mut self) {
        let settings = self.settings.get();
        if settings.fail_mode != FAIL_BYPASS || settings.proxy_alive(now_ns()) {
            return;
        }
        let Forgotten { sessions, kept } = closed::forget(Which::Closed);
        if sessions > 0 {
            info!(sessions, "closed sessions are forgotten: new connections pass without us");
        }
        // Once, however often it is tried.
        if let Some(reason) = kept.as_ref().filter(|_| kept != self.kept) {
            warn!("{reason}");
        }
        self.kept = kept;
    }

    /// What is the matter, a line each.
    pub fn problems(&self) -> Vec<String> {
        let problem = |interface: &InterfaceStatus| {
            let InterfaceStatus { name, zone, problem, .. } = interface;
            problem.as_ref().map(|problem| format!("{name} (zone {zone}) isn't served: {problem}"))
        };
        let missing = self.mends.missing().iter().map(|what| format!("{KERNEL_PROBLEM}{what}"));
        self.interfaces.iter().filter_map(problem).chain(missing).collect()
    }

    /// Puts these back, and says what is missing all the same.
    fn put_back(&mut self, missing: Vec<Part>) -> Result<Vec<Part>, DatapathError> {
        let mut left = missing.clone();
        let mut failure = None;
        for attempt in 0..MEND_TRIES {
            if attempt > 0 {
                thread::sleep(MEND_PAUSE);
            }
            failure = self.mend(&left).err();
            left = self.missing()?;
            // What couldn't be attached isn't missing, it is troubled.
            if left.is_empty() && !self.troubled {
                break;
            }
        }
        let now = Instant::now();
        for part in missing.into_iter().filter(|part| !left.contains(part)) {
            let text = part.to_string();
            if self.mends.count(part, now) {
                warn!("{text} was missing and has been put back: another program removed it");
            }
        }
        match failure {
            Some(error) if !left.is_empty() => Err(error),
            _ => Ok(left),
        }
    }

    fn mend(&mut self, missing: &[Part]) -> Result<(), DatapathError> {
        // What fails keeps nothing else from being put back.
        let mut done = self.pins.restore();
        if missing.contains(&Part::Reconnect) {
            done = done.and(attach::attach_reconnect(&mut self.programs, &self.pins));
        }
        for interface in &self.zones.present {
            if missing.contains(&Part::First(interface.device.name.clone())) {
                // Attached anew it is the first again. Whoever came before it has had its way with the
                // packets until now: the moment without any program adds little to that.
                done = done.and(attach::detach_steer(&self.pins, &interface.device));
            }
        }
        done.and(self.attach_to(self.zones.clone()))
    }

    /// The parts that should be there and aren't.
    fn missing(&mut self) -> Result<Vec<Part>, DatapathError> {
        let mut missing = routes::missing(&serving(&self.zones))?;
        missing.extend(self.pins.missing());
        let ids = Ids::of(&mut self.programs)?;
        if self.pins.link_facts(RECONNECT_PIN).is_none_or(|link| !link.holds_in_this_namespace(ids.reconnect))
        {
            missing.push(Part::Reconnect);
        }
        let filters = match self.hook {
            Hook::Clsact => filters(&self.zones)?,
            Hook::Tcx => BTreeMap::new(),
        };
        for (interface, status) in self.zones.present.iter().zip(&self.interfaces) {
            let device = &interface.device;
            if status.tc != TcAttachment::Off {
                missing.extend(steer(&self.pins, device, self.hook, ids.steer, &filters)?);
            }
            if let Word::Known(mode @ (XdpAttachment::Native | XdpAttachment::Generic)) = status.xdp {
                let link = self.pins.link_facts(&attach::early_pin(mode, device));
                if !link.is_some_and(|link| link.holds_at(device.index, ids.early)) {
                    missing.push(Part::Early(device.name.clone()));
                }
            }
        }
        Ok(missing)
    }
}

fn lines(missing: &[Part]) -> Vec<String> {
    missing.iter().map(|part| format!("{part} is missing")).collect()
}

/// The names of the interfaces that need a rule.
pub(super) fn serving(zones: &ZoneInterfaces) -> Vec<String> {
    let serving = zones.present.iter().filter(|interface| interface.has(INTERFACE_SERVES));
    serving.map(|interface| interface.device.name.clone()).collect()
}

/// The ids of our programs; 0 for one that isn't loaded.
struct Ids {
    steer: u32,
    early: u32,
    reconnect: u32,
}

impl Ids {
    fn of(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let steer = program::<SchedClassifier>(ebpf, STEER)?.info();
        let steer = steer.map_err(DatapathError::program(STEER, None))?.id();
        let reconnect = program::<SkLookup>(ebpf, RECONNECT)?.info();
        let reconnect = reconnect.map_err(DatapathError::program(RECONNECT, None))?.id();
        // On most machines it isn't loaded.
        let early = program::<Xdp>(ebpf, early_program())?.info().map_or(0, |info| info.id());
        Ok(Self { steer, early, reconnect })
    }
}

/// What is missing of the TC program on `device`.
fn steer(
    pins: &Pins,
    device: &Device,
    hook: Hook,
    id: u32,
    filters: &BTreeMap<u32, Vec<u32>>,
) -> Result<Option<Part>, DatapathError> {
    let name = device.name.clone();
    if hook == Hook::Clsact {
        let ours = filters.get(&device.index).is_some_and(|programs| programs.contains(&id));
        return Ok((!ours).then_some(Part::Steer(name)));
    }
    let pin = pins.link_facts(&attach::steer_pin(device));
    if !pin.is_some_and(|link| link.holds_at(device.index, id)) {
        return Ok(Some(Part::Steer(name)));
    }
    let first = tcx::first_program(device.index).map_err(DatapathError::program(STEER, Some(&name)))?;
    Ok(first.is_some_and(|first| first != id).then_some(Part::First(name)))
}

/// The programs of the filters in the place of ours at the clsact qdiscs, by interface.
fn filters(zones: &ZoneInterfaces) -> Result<BTreeMap<u32, Vec<u32>>, DatapathError> {
    let indexes: Vec<u32> = zones.present.iter().map(|interface| interface.device.index).collect();
    routes::with_netlink(async |netlink| {
        let mut filters = BTreeMap::new();
        for index in indexes {
            let found = netlink.traffic_filter(index as i32).get().ingress().execute();
            // An error says that there is no such qdisc, or no such interface any more.
            let found: Vec<_> = found.try_collect().await.unwrap_or_default();
            let ours = found
                .into_iter()
                .filter(|filter| filter.header.info >> 16 == u32::from(attach::FILTER_PRIORITY));
            filters.insert(index, ours.flat_map(|filter| filter.attributes).filter_map(program_id).collect());
        }
        Ok(filters)
    })
}

fn program_id(attribute: TcAttribute) -> Option<u32> {
    let TcAttribute::Options(options) = attribute else { return None };
    options.into_iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(id),
        _ => None,
    })
}
