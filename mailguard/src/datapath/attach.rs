//! Attaching the programs, and swapping them under a running system.
//!
//! A pinned link of an earlier run gets the new program without a gap. A link that is severed, because its
//! interface went away, is replaced. Where the kernel has no TCX (before 6.6) the program hangs at the clsact
//! qdisc by a fixed priority and handle.

use std::fs::File;
use std::path::Path;

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, LinkOrder, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcHandle, qdisc_add_clsact,
    qdisc_detach_program,
};
use aya::programs::{Program, ProgramError, SchedClassifier, SkLookup, Xdp};
use aya::util::KernelVersion;
use mailguard_common::maps::{INTERFACE_CHECKS, INTERFACE_STEERS};
use mailguard_core::config::model::XdpMode;

use super::error::AttachError;
use super::interfaces::{Device, ZoneInterface, devices};
use super::pins::Pins;
use super::{DatapathError, InterfaceStatus, TcAttachment, XdpAttachment};

/// Name of the TC program.
pub const STEER: &str = "mg_steer";
/// Name of the XDP program; that for older kernels begins with it.
pub const EARLY: &str = "mg_early";
const EARLY_LINEAR: &str = "mg_early_linear";
pub(super) const RECONNECT: &str = "mg_reconnect";

/// Pin of the socket look-up program's link, and of its predecessor's while both are attached.
pub(super) const RECONNECT_PIN: &str = "reconnect";
const RECONNECT_PREDECESSOR: &str = "reconnect-predecessor";

/// Priority and handle of our filter at a clsact qdisc.
pub(super) const FILTER_PRIORITY: u16 = 1;
const FILTER_HANDLE: TcHandle = TcHandle::new(0, 25);

/// The first kernel that gives XDP packets of several buffers.
const XDP_FRAGS_SINCE: KernelVersion = KernelVersion::new(5, 18, 0);
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

    fn attachment(self) -> TcAttachment {
        match self {
            Self::Tcx => TcAttachment::Tcx,
            Self::Clsact => TcAttachment::Clsact,
        }
    }
}

/// Hands the programs to the kernel's verifier. They refer to the maps by descriptors: this comes before any
/// map is taken out of the object. XDP's waits until an interface gets it: on most there is none.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<(), DatapathError> {
    program::<SchedClassifier>(ebpf, STEER)?.load().map_err(DatapathError::program(STEER, None))?;
    program::<SkLookup>(ebpf, RECONNECT)?.load().map_err(DatapathError::program(RECONNECT, None))
}

/// The XDP program that this kernel takes.
pub(super) fn early_program() -> &'static str {
    let version = KernelVersion::current();
    if version.is_ok_and(|version| version >= XDP_FRAGS_SINCE) { EARLY } else { EARLY_LINEAR }
}

/// Attaches everything that isn't attached, then removes the links that are no longer wanted. What can't be
/// attached to one interface is said of that one, and the others don't suffer.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interfaces: &[ZoneInterface],
    xdp: XdpMode,
    hook: Hook,
) -> Result<Vec<InterfaceStatus>, DatapathError> {
    let mut wanted = vec![RECONNECT_PIN.to_owned()];
    let mut attached = Vec::new();
    for interface in interfaces {
        let device = &interface.device;
        let mut status = InterfaceStatus {
            name: device.name.clone(),
            zone: interface.zone.clone(),
            intercepts: interface.has(INTERFACE_STEERS),
            leaving: !interface.has(INTERFACE_CHECKS),
            xdp: XdpAttachment::Off.into(),
            tc: TcAttachment::Off.into(),
            problem: None,
        };
        match attach_steer(ebpf, pins, device, hook, &mut wanted) {
            Ok(()) => status.tc = hook.attachment().into(),
            Err(error) => status.problem = Some(error.to_string()),
        }
        // What leaves is checked no longer.
        let xdp = if status.leaving { XdpMode::Off } else { xdp };
        match attach_early(ebpf, pins, device, xdp, &mut wanted) {
            Ok(mode) => status.xdp = mode.into(),
            Err(error) => status.problem = Some(error.to_string()),
        }
        attached.push(status);
    }
    if attached.iter().any(|interface| interface.problem.is_some()) {
        // A program of an earlier run may be there still, and without an answer it would let everything pass.
        wanted.push(RECONNECT_PREDECESSOR.to_owned());
    }
    for pin in pins.links()?.into_iter().filter(|pin| !wanted.contains(pin)) {
        remove_pin(&pins.link(&pin))?;
    }
    if hook == Hook::Clsact {
        remove_filters_except(interfaces)?;
    }
    Ok(attached)
}

/// Attaches the TC program; a pinned link is `wanted`, whatever comes of it.
fn attach_steer(
    ebpf: &mut Ebpf,
    pins: &Pins,
    device: &Device,
    hook: Hook,
    wanted: &mut Vec<String>,
) -> Result<(), DatapathError> {
    let steer: &mut SchedClassifier = program(ebpf, STEER)?;
    let done = match hook {
        Hook::Tcx => {
            let pin = steer_pin(device);
            let path = pins.link(&pin);
            wanted.push(pin);
            attach_tcx(steer, device, &path)
        }
        Hook::Clsact => attach_clsact(steer, device),
    };
    done.map_err(DatapathError::program(STEER, Some(&device.name)))
}

/// Takes the TC program off an interface, to be attached anew.
pub(super) fn detach_steer(pins: &Pins, device: &Device) -> Result<(), DatapathError> {
    let path = pins.link(&steer_pin(device));
    if path.exists() { remove_pin(&path) } else { Ok(()) }
}

/// The pin of the TC program's link.
pub(super) fn steer_pin(device: &Device) -> String {
    format!("tc-{}", device.index)
}

/// The pin of the XDP program's link in this mode.
pub(super) fn early_pin(mode: XdpAttachment, device: &Device) -> String {
    format!("xdp-{mode}-{}", device.index)
}

/// Removes our filters from the clsact qdiscs of all interfaces, and says how many there were. The qdisc
/// stays: it may be another's.
pub(super) fn remove_filters() -> Result<usize, DatapathError> {
    remove_filters_except(&[])
}

fn remove_filters_except(interfaces: &[ZoneInterface]) -> Result<usize, DatapathError> {
    let mut count = 0;
    let wanted = |device: &Device| interfaces.iter().any(|kept| kept.device.index == device.index);
    for device in devices()?.into_iter().filter(|device| !wanted(device)) {
        // An error says that there is none by that name.
        count += usize::from(qdisc_detach_program(&device.name, TcAttachType::Ingress, STEER).is_ok());
    }
    Ok(count)
}

pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, DatapathError>
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

/// The link that an earlier run pinned at `pin`. One of another kind is nothing of ours and is replaced like
/// a severed one.
fn pinned<L: TryFrom<FdLink>>(pin: &Path) -> Option<L> {
    if !pin.exists() {
        return None;
    }
    PinnedLink::from_pin(pin).ok().and_then(|link| FdLink::from(link).try_into().ok())
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
    // An error says that the link is severed.
    if let Some(link) = pinned(pin)
        && let Ok(id) = steer.attach_to_link(link)
    {
        // The pin keeps it.
        drop(steer.take_link(id)?);
        return Ok(());
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
        XdpMode::Auto if !device.hardware || device.carries_vlans => None,
        XdpMode::Auto | XdpMode::Native => Some(aya::programs::XdpMode::Driver),
        XdpMode::Generic => Some(aya::programs::XdpMode::Skb),
        XdpMode::Off => None,
    }
}

/// Attaches the XDP program where it belongs; where that is optional, a driver that can't do it is left
/// without. Returns the mode.
fn attach_early(
    ebpf: &mut Ebpf,
    pins: &Pins,
    device: &Device,
    configured: XdpMode,
    wanted: &mut Vec<String>,
) -> Result<XdpAttachment, DatapathError> {
    let Some(mode) = xdp_mode(device, configured) else { return Ok(XdpAttachment::Off) };
    let attachment = match mode {
        aya::programs::XdpMode::Skb => XdpAttachment::Generic,
        _ => XdpAttachment::Native,
    };
    let pin = early_pin(attachment, device);
    let early: &mut Xdp = program(ebpf, early_program())?;
    match attach_xdp(early, device, mode, pins, &pin) {
        Ok(()) => {
            wanted.push(pin);
            Ok(attachment)
        }
        Err(_) if configured == XdpMode::Auto => Ok(XdpAttachment::Off),
        Err(error) => Err(DatapathError::program(early_program(), Some(&device.name))(error)),
    }
}

fn attach_xdp(
    early: &mut Xdp,
    device: &Device,
    mode: aya::programs::XdpMode,
    pins: &Pins,
    pin: &str,
) -> Result<(), AttachError> {
    if early.fd().is_err() {
        early.load()?;
    }
    let path = pins.link(pin);
    if let Some(link) = pinned(&path)
        && let Ok(id) = early.attach_to_link(link)
    {
        drop(early.take_link(id)?);
        return Ok(());
    }
    // A link of the other mode, of an earlier run, would be in the way.
    for other in pins_of_other_modes(pin, device) {
        let _ = std::fs::remove_file(pins.link(&other));
    }
    let id = early.attach_to_if_index(device.index, mode)?;
    pin_link(early.take_link(id)?.try_into(), &path)
}

fn pins_of_other_modes(pin: &str, device: &Device) -> Vec<String> {
    let pins = [XdpAttachment::Native, XdpAttachment::Generic].map(|mode| early_pin(mode, device));
    pins.into_iter().filter(|other| other != pin).collect()
}

/// One program for the namespace. Links of this kind can't be swapped: the new one is attached beside the old
/// one, which [`attach`] takes off once no interface has a program any more that asks it where it is.
pub(super) fn attach_reconnect(ebpf: &mut Ebpf, pins: &Pins) -> Result<(), DatapathError> {
    let reconnect: &mut SkLookup = program(ebpf, RECONNECT)?;
    let (path, predecessor) = (pins.link(RECONNECT_PIN), pins.link(RECONNECT_PREDECESSOR));
    let mut attach = || -> Result<(), AttachError> {
        let id = reconnect.attach(File::open("/proc/thread-self/ns/net")?)?;
        let link: FdLink = reconnect.take_link(id)?.into();
        // One that a start left which didn't come to its end is the one that is asked.
        if path.exists() && !predecessor.exists() {
            std::fs::rename(&path, &predecessor)?;
        }
        pin_link(Ok(link), &path)
    };
    attach().map_err(DatapathError::program(RECONNECT, None))
}
