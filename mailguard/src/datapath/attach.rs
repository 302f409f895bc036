//! Attaching the programs, and swapping them under a running system.
//!
//! A pinned link of an earlier run gets the new program without a gap. A link that is severed, because its interface
//! went away, is replaced. Where the kernel has no TCX (before 6.6) the program hangs at the clsact qdisc by a fixed
//! priority and handle.

use std::fs::File;
use std::path::Path;

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, LinkOrder, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcHandle, qdisc_add_clsact,
    qdisc_detach_program,
};
use aya::programs::xdp::XdpLink;
use aya::programs::{Program, ProgramError, SchedClassifier, SkLookup, Xdp};
use aya::util::KernelVersion;
use mailguard_core::config::model::XdpMode;

use super::error::AttachError;
use super::interfaces::{Device, ZoneInterface, devices};
use super::pins::Pins;
use super::{DatapathError, InterfaceStatus};

const STEER: &str = "mg_steer";
const EARLY: &str = "mg_early";
const RECONNECT: &str = "mg_reconnect";

/// Pin of the socket look-up program's link, and of its successor's while both are attached.
const RECONNECT_PIN: &str = "reconnect";
const RECONNECT_SUCCESSOR: &str = "reconnect-successor";

/// Priority and handle of our filter at a clsact qdisc.
const FILTER_PRIORITY: u16 = 1;
const FILTER_HANDLE: TcHandle = TcHandle::new(0, 25);

/// The first kernel with TCX.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);

/// Where TC programs hang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// A pinned TCX link, first in the chain.
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}

impl Hook {
    /// What this kernel has.
    pub fn of_this_kernel() -> Self {
        let version = KernelVersion::current();
        if version.is_ok_and(|version| version >= TCX_SINCE) { Self::Tcx } else { Self::Clsact }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// Hands the programs to the kernel's verifier. They refer to the maps by descriptors: this comes before any map is
/// taken out of the object. XDP's only where an interface gets it: kernels before 5.18 don't take it.
pub(super) fn load(ebpf: &mut Ebpf, interfaces: &[ZoneInterface], xdp: XdpMode) -> Result<(), DatapathError> {
    program::<SchedClassifier>(ebpf, STEER)?.load().map_err(DatapathError::program(STEER, None))?;
    if interfaces.iter().any(|interface| xdp_mode(&interface.device, xdp).is_some()) {
        program::<Xdp>(ebpf, EARLY)?.load().map_err(DatapathError::program(EARLY, None))?;
    }
    program::<SkLookup>(ebpf, RECONNECT)?.load().map_err(DatapathError::program(RECONNECT, None))
}

/// Attaches everything, then removes the links that are no longer wanted.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interfaces: &[ZoneInterface],
    xdp: XdpMode,
    hook: Hook,
) -> Result<Vec<InterfaceStatus>, DatapathError> {
    let mut wanted = vec![RECONNECT_PIN.to_owned()];
    attach_reconnect(program(ebpf, RECONNECT)?, pins)?;

    let mut attached = Vec::new();
    for interface in interfaces {
        let device = &interface.device;
        let steer: &mut SchedClassifier = program(ebpf, STEER)?;
        let done = match hook {
            Hook::Tcx => {
                let pin = format!("tc-{}", device.index);
                let done = attach_tcx(steer, device, &pins.link(&pin));
                wanted.push(pin);
                done
            }
            Hook::Clsact => attach_clsact(steer, device),
        };
        done.map_err(DatapathError::program(STEER, Some(&device.name)))?;
        let mode = xdp_mode(device, xdp);
        let mode = attach_xdp(program(ebpf, EARLY)?, device, mode, xdp == XdpMode::Auto, pins, &mut wanted)?;
        attached.push(InterfaceStatus {
            name: device.name.clone(),
            zone: interface.zone_name.clone(),
            intercepts: interface.steer,
            xdp: mode,
            tc: hook.name(),
        });
    }
    for pin in pins.links()?.into_iter().filter(|pin| !wanted.contains(pin)) {
        remove_pin(&pins.link(&pin))?;
    }
    Ok(attached)
}

/// Removes our filters from the clsact qdiscs of all interfaces, and says how many there were. The qdisc stays: it
/// may be another's.
pub(super) fn remove_filters() -> Result<usize, DatapathError> {
    let mut count = 0;
    for device in devices()? {
        // An error says that there is none by that name.
        count += usize::from(qdisc_detach_program(&device.name, TcAttachType::Ingress, STEER).is_ok());
    }
    Ok(count)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, DatapathError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name);
    let program = program.ok_or_else(|| DatapathError::WrongObject(format!("program {name}")))?;
    program.try_into().map_err(DatapathError::program(name, None))
}

fn remove_pin(path: &Path) -> Result<(), DatapathError> {
    std::fs::remove_file(path).map_err(DatapathError::pin(path))
}

/// The link that an earlier run pinned at `pin`.
fn pinned(pin: &Path) -> Option<FdLink> {
    if !pin.exists() {
        return None;
    }
    PinnedLink::from_pin(pin).ok().map(FdLink::from)
}

/// Pins a new link, in place of whatever is left at `pin`.
fn pin_link(link: Result<FdLink, LinkError>, pin: &Path) -> Result<(), AttachError> {
    if pin.exists() {
        std::fs::remove_file(pin)?;
    }
    link?.pin(pin)?;
    Ok(())
}

fn attach_tcx(steer: &mut SchedClassifier, device: &Device, pin: &Path) -> Result<(), AttachError> {
    if let Some(link) = pinned(pin) {
        let link: SchedClassifierLink = link.try_into()?;
        // An error says that the link is severed.
        if steer.attach_to_link(link).is_ok() {
            return Ok(());
        }
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = steer.attach_with_options(&device.name, TcAttachType::Ingress, order)?;
    pin_link(steer.take_link(id)?.try_into(), pin)
}

fn attach_clsact(steer: &mut SchedClassifier, device: &Device) -> Result<(), AttachError> {
    // An error says that the qdisc is there, or the next call tells a better one.
    let _ = qdisc_add_clsact(&device.name);
    let present = SchedClassifierLink::attached(
        &device.name,
        TcAttachType::Ingress,
        FILTER_PRIORITY,
        FILTER_HANDLE,
        None,
    )?;
    let id = match steer.attach_to_link(present) {
        Ok(id) => id,
        Err(_) => {
            let options = NlOptions { priority: FILTER_PRIORITY, handle: FILTER_HANDLE, classid: None };
            let options = TcAttachOptions::Netlink(options);
            steer.attach_with_options(&device.name, TcAttachType::Ingress, options)?
        }
    };
    // Dropping the link would remove the filter; it is to stay when we are gone.
    std::mem::forget(steer.take_link(id)?);
    Ok(())
}

/// The mode that `device` is to have, if any.
fn xdp_mode(device: &Device, configured: XdpMode) -> Option<aya::programs::XdpMode> {
    match configured {
        _ if !device.ethernet => None,
        XdpMode::Auto if !device.hardware => None,
        XdpMode::Auto | XdpMode::Native => Some(aya::programs::XdpMode::Driver),
        XdpMode::Generic => Some(aya::programs::XdpMode::Skb),
        XdpMode::Off => None,
    }
}

/// Attaches in `mode`; where that is optional, a driver that can't do it is left without. Returns what it is now.
fn attach_xdp(
    early: &mut Xdp,
    device: &Device,
    mode: Option<aya::programs::XdpMode>,
    optional: bool,
    pins: &Pins,
    wanted: &mut Vec<String>,
) -> Result<&'static str, DatapathError> {
    let name = match mode {
        None => return Ok("off"),
        Some(aya::programs::XdpMode::Skb) => "generic",
        Some(_) => "native",
    };
    let pin = format!("xdp-{name}-{}", device.index);
    let path = pins.link(&pin);
    let mut attach = || -> Result<(), AttachError> {
        if let Some(link) = pinned(&path) {
            let link: XdpLink = link.try_into()?;
            if early.attach_to_link(link).is_ok() {
                return Ok(());
            }
        }
        // A link of the other mode, of an earlier run, would be in the way.
        for other in pins_of_other_modes(&pin, device) {
            let _ = std::fs::remove_file(pins.link(&other));
        }
        let id = early.attach_to_if_index(device.index, mode.unwrap_or_default())?;
        pin_link(early.take_link(id)?.try_into(), &path)
    };
    match attach() {
        Ok(()) => {
            wanted.push(pin);
            Ok(name)
        }
        Err(_) if optional => Ok("off"),
        Err(error) => Err(DatapathError::program(EARLY, Some(&device.name))(error)),
    }
}

fn pins_of_other_modes(pin: &str, device: &Device) -> Vec<String> {
    let pins = ["native", "generic"].map(|mode| format!("xdp-{mode}-{}", device.index));
    pins.into_iter().filter(|other| other != pin).collect()
}

/// One program for the namespace. Links of this kind can't be swapped: the new one is attached before the old one
/// goes.
fn attach_reconnect(reconnect: &mut SkLookup, pins: &Pins) -> Result<(), DatapathError> {
    let (path, successor) = (pins.link(RECONNECT_PIN), pins.link(RECONNECT_SUCCESSOR));
    let mut attach = || -> Result<(), AttachError> {
        let id = reconnect.attach(File::open("/proc/thread-self/ns/net")?)?;
        let link: FdLink = reconnect.take_link(id)?.into();
        pin_link(Ok(link), &successor)?;
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
        std::fs::rename(&successor, &path)?;
        Ok(())
    };
    attach().map_err(DatapathError::program(RECONNECT, None))
}
