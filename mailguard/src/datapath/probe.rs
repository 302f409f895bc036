//! Trials for `mailguard doctor`: would the programs run here, and who else is at an interface? Nothing is
//! left.

use std::thread;

use aya::EbpfLoader;
use aya::programs::links::LinkOrder;
use aya::programs::tc::{NlOptions, TcAttachOptions, TcAttachType, qdisc_add_clsact};
use aya::programs::{Program, SchedClassifier};
use mailguard_core::config::model::XdpMode;
use nix::sched::{CloneFlags, unshare};

use super::attach::early_program;
use super::{AttachError, DatapathError, Hook, STEER, object};

/// Loads the programs, without a pin, and attaches the one for TC to the loopback interface of a network
/// namespace that ends with this call. Says at which hook. With `XdpMode::Off` the XDP program isn't tried.
pub fn probe(xdp: XdpMode) -> Result<&'static str, DatapathError> {
    // A thread of its own: it can't come back out of the namespace.
    let trial = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| failed(AttachError::Io(error.into())))?;
        load_and_attach(xdp)
    };
    match thread::scope(|scope| scope.spawn(trial).join()) {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// The names of the programs at the interface's TCX hook, in their order; empty where the kernel has no TCX.
pub fn programs_at(interface: &str) -> Result<Vec<String>, DatapathError> {
    if Hook::of_this_kernel() != Hook::Tcx {
        return Ok(Vec::new());
    }
    let queried = SchedClassifier::query_tcx(interface, TcAttachType::Ingress);
    let (_, programs) = queried.map_err(DatapathError::program(STEER, Some(interface)))?;
    let name = |program: &aya::programs::ProgramInfo| program.name_as_str().unwrap_or("?").to_owned();
    Ok(programs.iter().map(name).collect())
}

fn failed(error: AttachError) -> DatapathError {
    DatapathError::program(STEER, None)(error)
}

fn load_and_attach(xdp: XdpMode) -> Result<&'static str, DatapathError> {
    let mut ebpf = EbpfLoader::new().load(object::bytes()?)?;
    for (name, program) in ebpf.programs_mut() {
        match program {
            Program::SchedClassifier(program) => program.load(),
            Program::SkLookup(program) => program.load(),
            Program::Xdp(program) if xdp != XdpMode::Off && name == early_program() => program.load(),
            _ => Ok(()),
        }
        .map_err(|error| failed(error.into()))?;
    }
    let steer =
        ebpf.program_mut(STEER).ok_or_else(|| DatapathError::WrongObject(format!("program {STEER}")))?;
    let steer: &mut SchedClassifier =
        steer.try_into().map_err(|error: aya::programs::ProgramError| failed(error.into()))?;
    let (options, hook) = match Hook::of_this_kernel() {
        Hook::Tcx => (TcAttachOptions::TcxOrder(LinkOrder::first()), "tcx"),
        Hook::Clsact => {
            qdisc_add_clsact("lo").map_err(|error| failed(AttachError::Io(std::io::Error::other(error))))?;
            (TcAttachOptions::Netlink(NlOptions::default()), "clsact")
        }
    };
    let attached = steer.attach_with_options("lo", TcAttachType::Ingress, options);
    attached.map_err(|error| failed(error.into()))?;
    Ok(hook)
}
