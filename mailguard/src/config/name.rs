//! The path of a configuration file as the name of one file: what is kept of it elsewhere is found by that.

use std::io;
use std::path::{Path, absolute};

/// Longest name of a file, octets (NAME_MAX): what has a longer path isn't kept elsewhere.
const MAX_NAME_OCTETS: usize = 255;

/// The path as one name: absolute, and no two paths have the same.
pub fn as_name(config: &Path) -> io::Result<String> {
    let path = absolute(config)?;
    let path = path.to_str().ok_or_else(|| io::Error::other(format!("{} is no UTF-8", path.display())))?;
    let name = path.replace('%', "%25").replace('/', "%2F");
    if name.len() > MAX_NAME_OCTETS {
        return Err(io::Error::other(format!("{path} is too long for a name of {MAX_NAME_OCTETS} octets")));
    }
    Ok(name)
}
