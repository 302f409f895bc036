//! Which program a packet meets first at an interface's TCX hook: bpf(2), BPF_PROG_QUERY.
//!
//! Asked here and not by aya, which also opens each program by its number: that takes CAP_SYS_ADMIN, the
//! query CAP_NET_ADMIN.

use std::io;

use nix::errno::Errno;
use nix::libc::{SYS_bpf, c_long, syscall};

/// BPF_PROG_QUERY of `enum bpf_cmd` (linux/bpf.h).
const BPF_PROG_QUERY: c_long = 16;
/// BPF_TCX_INGRESS of `enum bpf_attach_type`.
const BPF_TCX_INGRESS: u32 = 46;

/// The part of `union bpf_attr` that BPF_PROG_QUERY uses.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The number of the first program at the ingress of the interface with this index; nothing if there is none,
/// or no such interface any more.
pub(super) fn first_program(ifindex: u32) -> io::Result<Option<u32>> {
    let mut first = 0u32;
    let mut query = Query {
        target_ifindex: ifindex,
        attach_type: BPF_TCX_INGRESS,
        prog_ids: &raw mut first as u64,
        count: 1,
        ..Query::default()
    };
    // SAFETY: the kernel reads and writes `query`, which has the size that it is told, and writes at most
    // `count` numbers where `prog_ids` points.
    let result = unsafe { syscall(SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<Query>()) };
    match Errno::result(result) {
        // No room is left for those behind the first one.
        Ok(_) | Err(Errno::ENOSPC) => Ok((query.count > 0).then_some(first)),
        Err(Errno::ENODEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
