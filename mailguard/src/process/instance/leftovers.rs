//! Removes the locks' files of instances that were killed, where nobody can miss them.
//!
//! A `runtime_dir`'s file has nothing to say to the next one. A namespace's says where programs are pinned:
//! it stays as long as these are attached there, which ends with the namespace.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Lock, Record};
use crate::datapath;

/// Files that one start looks at: the next one goes on.
const MAX_FILES: usize = 1_024;

/// Removes what is left in the folder of locks. What can't be removed stays: it is taken over by whoever
/// needs it.
pub(super) fn sweep(folder: &Path) {
    sweep_unless(folder, datapath::holds_programs);
}

fn sweep_unless(folder: &Path, holds_programs: impl Fn(&Path) -> bool) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_FILES);
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| is_leftover(path, &holds_programs)).for_each(|path| remove(folder, &path));
}

/// Whether the file's holder is dead and nobody misses what it says. One that its holder has only begun to
/// write is no leftover.
fn is_leftover(path: &PathBuf, holds_programs: impl Fn(&Path) -> bool) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let text = fs::read_to_string(path).unwrap_or_default();
    let Ok(record) = serde_json::from_str::<Record>(&text) else { return false };
    let is_namespaces = name.starts_with("net-");
    let is_missed = is_namespaces && record.pin_dir.as_deref().is_some_and(holds_programs);
    (is_namespaces || name.starts_with("runtime-")) && !is_missed && !record.holder_lives()
}

/// Removes the file under its lock, and not one that somebody has taken over meanwhile.
fn remove(folder: &Path, path: &Path) {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
    let Ok(Ok(mut lock)) = Lock::take(folder, name) else { return };
    if lock.read().is_ok_and(|record| record.is_some_and(|record| !record.holder_lives())) {
        let _ = fs::remove_file(&lock.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::DirBuilderExt;
    use std::process::Command;

    use super::*;

    /// A process that has ended.
    fn dead() -> u32 {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn what_killed_instances_left_is_removed_where_nobody_can_miss_it() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("lock");
        fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
        let (dead, ours) = (dead(), std::process::id());
        let pins = |name: &str| Some(PathBuf::from(name));
        let leave = |name: &str, pid: u32, pin_dir: Option<PathBuf>| {
            let record = Record { pid, netns_cookie: 7, pin_dir };
            fs::write(folder.join(name), serde_json::to_string(&record).unwrap()).unwrap();
        };
        leave("runtime-1-1", dead, None);
        leave("runtime-1-2", ours, None);
        leave("net-101", dead, pins("/attached"));
        leave("net-102", dead, pins("/detached"));
        leave("net-103", ours, pins("/detached"));
        leave("net-104", dead, None);
        leave("other-1", dead, None);
        fs::write(folder.join("net-105"), "").unwrap();
        // Taken over by somebody who has written nothing yet.
        leave("runtime-1-3", dead, None);
        let taken = Lock::take(&folder, "runtime-1-3").unwrap().unwrap();
        let left = || {
            sweep_unless(&folder, |pin_dir| pin_dir == Path::new("/attached"));
            let entries = fs::read_dir(&folder).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(left(), ["net-101", "net-103", "net-105", "other-1", "runtime-1-2", "runtime-1-3"]);
        drop(taken);
        assert_eq!(left(), ["net-101", "net-103", "net-105", "other-1", "runtime-1-2"]);
    }
}
