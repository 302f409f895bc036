//! The BPF file system under the pins: it must be one that outlives us.
//!
//! Pins are there to hold when the process is gone. On a BPF file system that only our own mount namespace
//! has (`ip netns exec`, a container, a unit's sandbox) they go with it, and port 25 stands open whatever
//! `on_proxy_down` says. So what the machine's first process sees is taken, and nothing else.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{major, minor};
use nix::sys::statfs::statfs;

use super::DatapathError;

/// Where Linux has its BPF file system.
pub const BPFFS: &str = "/sys/fs/bpf";
/// Its magic number (linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// The inode of the machine's own PID namespace (PROC_PID_INIT_INO, linux/proc_ns.h); every container's is
/// another.
const MACHINES_PID_NAMESPACE: u64 = 0xefff_fffc;

/// Sees that `folder` is on a BPF file system that outlives us, mounting one at its usual place if need be.
pub(super) fn ensure(folder: &Path) -> Result<(), DatapathError> {
    if !is_bpffs(folder) {
        mount_usual(folder)?;
    }
    refuse_private(folder)?;
    if !in_machines_pid_namespace() {
        tracing::warn!(
            pin_dir = %folder.display(),
            "whether this container's BPF file system outlives it can't be told from within: give it the machine's \
             (-v {BPFFS}:{BPFFS}), or port 25 is open when the container ends"
        );
    }
    Ok(())
}

/// Refuses a `folder` whose file system only this mount namespace has, or would have if it were mounted now.
pub fn refuse_private(folder: &Path) -> Result<(), DatapathError> {
    let fail = |error| DatapathError::UnknownBpffs { pin_dir: folder.to_owned(), error };
    // Not by the namespaces' own files: looking at those of the first process needs CAP_SYS_PTRACE.
    let mountinfo = |process| fs::read_to_string(format!("/proc/{process}/mountinfo")).map_err(fail);
    let shared = match device(folder) {
        Some(device) => lists(&mountinfo("1")?, &device),
        None => of_one_namespace(&mountinfo("thread-self")?, &mountinfo("1")?),
    };
    if shared { Ok(()) } else { Err(DatapathError::PrivateBpffs(folder.to_owned())) }
}

/// Whether `folder`, or what exists of the way to it, is on a BPF file system.
pub fn is_bpffs(folder: &Path) -> bool {
    let file_system = existing(folder).and_then(|path| statfs(path).ok());
    file_system.is_some_and(|facts| facts.filesystem_type().0 == BPF_FS_MAGIC)
}

fn existing(folder: &Path) -> Option<&Path> {
    folder.ancestors().find(|path| path.exists())
}

/// The BPF file system that `folder` is on, as mountinfo writes its device.
fn device(folder: &Path) -> Option<String> {
    if !is_bpffs(folder) {
        return None;
    }
    let device = fs::metadata(existing(folder)?).ok()?.dev();
    Some(format!("{}:{}", major(device), minor(device)))
}

/// Whether mountinfo (proc_pid_mountinfo(5)) has a mount of this device, anywhere.
fn lists(mountinfo: &str, device: &str) -> bool {
    mountinfo.lines().any(|line| line.split(' ').nth(2) == Some(device))
}

/// Whether two mountinfos are of one mount namespace: what is mounted has a number of its own in each.
fn of_one_namespace(ours: &str, theirs: &str) -> bool {
    let number = |line: &str| line.split(' ').next().and_then(|number| number.parse::<u64>().ok());
    let theirs: Vec<u64> = theirs.lines().filter_map(number).collect();
    ours.lines().filter_map(number).any(|number| theirs.contains(&number))
}

fn in_machines_pid_namespace() -> bool {
    fs::metadata("/proc/thread-self/ns/pid").is_ok_and(|facts| facts.ino() == MACHINES_PID_NAMESPACE)
}

fn mount_usual(folder: &Path) -> Result<(), DatapathError> {
    if !folder.starts_with(BPFFS) {
        return Err(DatapathError::NotBpffs(folder.to_owned()));
    }
    refuse_private(folder)?;
    if !in_machines_pid_namespace() {
        return Err(DatapathError::PrivateBpffs(folder.to_owned()));
    }
    // Two that start at one time must not mount one over the other: it would hide the pins.
    let directory = File::open(BPFFS).map_err(DatapathError::pin(BPFFS))?;
    let lock = Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, error)| error.into());
    let _lock = lock.map_err(DatapathError::pin(BPFFS))?;
    if is_bpffs(folder) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=700"))
        .map_err(|error| DatapathError::pin(BPFFS)(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_known_by_its_device_wherever_it_is_mounted() {
        let mountinfo = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
                         47 23 0:39 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700\n\
                         48 23 0:40 /a /mnt/with\\040space rw - tmpfs 0:41 rw\n";
        assert!(lists(mountinfo, "0:39"));
        assert!(lists(mountinfo, "0:40"), "a folder of it, somewhere else");
        assert!(!lists(mountinfo, "0:3"), "whole numbers");
        assert!(!lists(mountinfo, "0:41"), "that is a name");
        assert!(!lists("", "0:39"));
    }

    #[test]
    fn mount_namespaces_are_told_apart_by_the_numbers_of_what_is_mounted() {
        let first = "22 1 254:1 / / rw - ext4 /dev/root rw\n47 22 0:39 / /sys/fs/bpf rw - bpf bpf rw\n";
        assert!(of_one_namespace("47 22 0:39 / / rw - bpf bpf rw\n", first), "in a chroot");
        assert!(!of_one_namespace("122 1 254:1 / / rw - ext4 /dev/root rw\n", first), "a copy");
        assert!(!of_one_namespace("", first));
    }
}
