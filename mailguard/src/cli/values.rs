//! The values that a list command names: typed, or in a file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args as ClapArgs;

use crate::config::{EditList, batch};
use crate::control::MAX_REQUEST_OCTETS;

/// Octets of a file that are read: twice what a request holds, for there may be comments.
const MAX_FILE_OCTETS: u64 = 2 * MAX_REQUEST_OCTETS as u64;

/// What to add or to remove.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub(super) struct Values {
    /// The values.
    #[arg(value_name = "VALUE")]
    values: Vec<String>,
    /// Read them from a file, one a line, with '#' for comments; "-" is standard input.
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
}

impl Values {
    /// The values, for `list`; those of a file are looked at, so that an error names the line.
    pub(super) fn read(self, list: EditList) -> anyhow::Result<Vec<String>> {
        let Some(path) = self.from_file else { return Ok(self.values) };
        let (name, text) = if path == Path::new("-") {
            let name = "standard input".to_owned();
            (name.clone(), text(&name, io::stdin().lock())?)
        } else {
            let name = path.display().to_string();
            let file = File::open(&path).with_context(|| format!("{name}: can't be read"))?;
            (name.clone(), text(&name, file)?)
        };
        Ok(batch(list, &name, &text)?)
    }
}

fn text(name: &str, from: impl Read) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = from.take(MAX_FILE_OCTETS + 1).read_to_string(&mut text);
    read.with_context(|| format!("{name}: can't be read"))?;
    if text.len() as u64 > MAX_FILE_OCTETS {
        bail!("{name}: is longer than {MAX_FILE_OCTETS} octets: use several files");
    }
    Ok(text)
}
