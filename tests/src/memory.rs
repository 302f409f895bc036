//! How much memory a program and everything that it started hold.

use std::fs;

use anyhow::{Context, Result};
use nix::unistd::Pid;

/// Memory of a tree of processes, KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Resident, each process by itself: what they share counts for each of them.
    pub resident: u64,
    /// Proportional: what they share is shared out among them.
    pub proportional: u64,
}

/// Of `root` and its descendants.
pub fn of_tree(root: Pid) -> Result<Memory> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        parents.extend(parent.map(|parent: i32| (pid, parent)));
    }
    let mut tree = vec![root.as_raw()];
    let mut next = 0;
    while let Some(&parent) = tree.get(next) {
        tree.extend(parents.iter().filter(|(_, its_parent)| *its_parent == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    let mut memory = Memory::default();
    for pid in tree {
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        memory.resident += kib(&text, "Rss:").with_context(|| text.clone())?;
        memory.proportional += kib(&text, "Pss:").with_context(|| text.clone())?;
    }
    Ok(memory)
}

/// What one process holds resident, KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// Now.
    pub now: u64,
    /// At most so far.
    pub peak: u64,
}

/// Of this process alone.
pub fn of_process(pid: Pid) -> Result<Resident> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name| kib(&text, name).with_context(|| text.clone());
    Ok(Resident { now: field("VmRSS:")?, peak: field("VmHWM:")? })
}

fn kib(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_something() {
        let memory = of_tree(nix::unistd::getpid()).unwrap();
        assert!(memory.proportional > 100 && memory.resident >= memory.proportional, "{memory:?}");
        let resident = of_process(nix::unistd::getpid()).unwrap();
        assert!(resident.now > 100 && resident.peak >= resident.now, "{resident:?}");
    }
}
