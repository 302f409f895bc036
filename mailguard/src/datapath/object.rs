//! The embedded kernel part, and typed access to what is in it.

use aya::Ebpf;
use aya::maps::{Map, MapError};

use super::DatapathError;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mailguard.bpf.o"));

/// The object that `cargo xtask build` made.
pub(super) fn bytes() -> Result<&'static [u8], DatapathError> {
    if OBJECT.is_empty() { Err(DatapathError::NotBuilt) } else { Ok(OBJECT) }
}

/// Takes the map `name` out of the loaded object.
pub(super) fn take_map<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, DatapathError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or_else(|| DatapathError::WrongObject(format!("map {name}")))?;
    map.try_into().map_err(DatapathError::map(name))
}
