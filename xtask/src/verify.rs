//! `cargo xtask verify`: does this kernel take every program, and how much work has its verifier with each?
//!
//! The verifier follows every way through a program and gives up past a million instructions, and kernels
//! differ widely in how many ways they see. What grows is noticed here, long before a kernel refuses it.
//! `cargo xtask vm` asks an older kernel the same.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use aya::programs::{Program, ProgramInfo};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};

use crate::build;

/// Instructions that any kernel's verifier may follow in one program: a tenth of what the kernel allows
/// (`BPF_COMPLEXITY_LIMIT_INSNS`, 1,000,000), for kernels that nobody here has tried may see many times more
/// ways than those that were. 6.1 and 6.18 follow some 15,000 in the largest; a single call of memset in the
/// wrong place made 140,000 of it on 6.1.
const MAX_VERIFIED: u32 = 100_000;

/// Programs that do nothing begin with this: `cargo xtask bench packet` compares with them.
const EMPTY: &str = "mg_empty_";

/// The XDP program, and its twin for kernels without `xdp.frags`.
const EARLY: &str = "mg_early";
const EARLY_LINEAR: &str = "mg_early_linear";
/// The first kernel with `xdp.frags`.
const FRAGS_SINCE: KernelVersion = KernelVersion::new(5, 18, 0);
/// The first kernel that says how many instructions it verified.
const COUNTED_SINCE: KernelVersion = KernelVersion::new(5, 16, 0);

/// Options of `verify`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Load this object, instead of building one
    #[arg(long)]
    object: Option<PathBuf>,
}

/// Loads every program of the object; an error names all that this kernel refuses, or that cost it too much.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let path = match &arguments.object {
        Some(path) => path.clone(),
        None => build::ebpf()?,
    };
    let kernel = KernelVersion::current().context("the kernel's version")?;
    let object = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let mut ebpf = EbpfLoader::new()
        .load(&object)
        .with_context(|| format!("{}: the maps (this needs root)", path.display()))?;
    let names = names(&ebpf, kernel)?;
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    println!("verify: kernel {release}, at most {MAX_VERIFIED} instructions a program");
    println!("{:<16} {:<12} {:>10} {:>12}", "program", "type", "verified", "octets");
    let mut faults = Vec::new();
    for name in names {
        match load(&mut ebpf, &name) {
            Ok(info) => faults.extend(judge(&name, &info, kernel)),
            Err(error) => faults.push(format!("{name}: this kernel doesn't take it: {error:?}")),
        }
    }
    match faults.is_empty() {
        true => Ok(()),
        false => bail!("{}", faults.join("\n")),
    }
}

/// Verifies the object that was just built: a step of `cargo xtask ci`.
pub(crate) fn built() -> Result<()> {
    run(&Arguments { object: None })
}

/// The programs that this kernel has to take.
fn names(ebpf: &Ebpf, kernel: KernelVersion) -> Result<Vec<String>> {
    let mut names: Vec<String> =
        ebpf.programs().map(|(name, _)| name.to_owned()).filter(|name| !name.starts_with(EMPTY)).collect();
    names.sort();
    if kernel < FRAGS_SINCE {
        if !names.iter().any(|name| name == EARLY_LINEAR) {
            bail!("this kernel has no xdp.frags (since 5.18), and the object no {EARLY_LINEAR} for it");
        }
        println!("verify: {EARLY} is left out, {EARLY_LINEAR} takes its place: no xdp.frags before 5.18");
        names.retain(|name| name != EARLY);
    }
    Ok(names)
}

fn load(ebpf: &mut Ebpf, name: &str) -> Result<ProgramInfo> {
    let program = ebpf.program_mut(name).context("it was there a moment ago")?;
    match program {
        Program::SchedClassifier(program) => program.load()?,
        Program::Xdp(program) => program.load()?,
        Program::SkLookup(program) => program.load()?,
        other => bail!("no program of mailguard is of type {:?}", other.prog_type()),
    }
    Ok(program.info()?)
}

/// Prints what the kernel says of the program; a fault if it is too much.
fn judge(name: &str, info: &ProgramInfo, kernel: KernelVersion) -> Option<String> {
    let octets = info.size_translated().unwrap_or(0);
    let line = |verified: &str| println!("{name:<16} {:<12} {verified:>10} {octets:>12}", kind(info));
    let Some(verified) = info.verified_instruction_count() else {
        line("unknown");
        let expected = kernel < COUNTED_SINCE;
        return (!expected)
            .then(|| format!("{name}: the kernel doesn't say how many instructions it verified"));
    };
    line(&verified.to_string());
    excess(name, verified)
}

fn excess(name: &str, verified: u32) -> Option<String> {
    (verified > MAX_VERIFIED).then(|| {
        format!(
            "{name}: the verifier followed {verified} instructions, {MAX_VERIFIED} are the limit here and 1000000 \
             the kernel's: fewer branches while a socket is held, no call in a loop, or a function that isn't inlined"
        )
    })
}

fn kind(info: &ProgramInfo) -> String {
    let kind = format!("{:?}", info.program_type());
    kind.trim_start_matches("BPF_PROG_TYPE_").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_limit_is_a_fault() {
        assert_eq!(excess("mg_steer", MAX_VERIFIED), None);
        let fault = excess("mg_steer", MAX_VERIFIED + 1).unwrap();
        assert!(
            fault.starts_with("mg_steer: the verifier followed 100001 instructions, 100000 are"),
            "{fault}"
        );
    }
}
