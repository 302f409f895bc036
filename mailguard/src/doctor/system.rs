//! The machine: kernel, capabilities, BPF file system, the programs themselves, the mail user and the
//! folders.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mailguard_core::config::Config;
use nix::unistd::{AccessFlags, User, access};

use super::{Finding, shell};
use crate::datapath::{self, BPFFS};

/// The oldest kernel that is supported.
const OLDEST_KERNEL: (u32, u32) = (5, 15);

/// Capabilities by number (linux/capability.h), and what they are needed for.
const CAPABILITIES: &[(u32, &str, &str)] = &[
    (0, "CAP_CHOWN", "to give state_dir and runtime_dir to the mail user"),
    (6, "CAP_SETGID", "to start the mail process as another user"),
    (7, "CAP_SETUID", "to start the mail process as another user"),
    (10, "CAP_NET_BIND_SERVICE", "to listen on port 25"),
    (12, "CAP_NET_ADMIN", "to attach programs, set routes and open transparent sockets"),
];
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// What is known of the machine.
pub(super) struct System {
    /// `6.1.0-25-amd64`
    pub(super) kernel: String,
    /// The effective capabilities, a bit each.
    pub(super) capabilities: u64,
    /// Whether the kernel has BPF file systems.
    pub(super) has_bpffs: bool,
    /// Whether `kernel.pin_dir` is on one.
    pub(super) on_bpffs: bool,
    /// Why what is pinned there would go with the process, or why that can't be told.
    pub(super) private_bpffs: Option<String>,
    /// The TC hook that the programs were loaded and attached at for a trial, or why they can't be.
    pub(super) probe: Result<&'static str, String>,
    /// The mail user's number.
    pub(super) user: Option<u32>,
    pub(super) folders: Vec<Folder>,
}

/// A folder that the daemon makes or takes over.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) state: FolderState,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum FolderState {
    /// Doesn't exist and can be made.
    Possible,
    /// Exists; its owner, and whether anything is in it.
    Exists { owner: u32, empty: bool },
    /// Can't be made or written.
    Impossible(String),
}

/// Reads it; the programs are loaded and attached for a trial, in a network namespace that goes away again.
pub(super) fn read(config: &Config) -> System {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let status = text("/proc/self/status");
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let user = User::from_name(&config.user).ok().flatten();
    System {
        kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
        capabilities: capabilities.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0),
        has_bpffs: text("/proc/filesystems").split_whitespace().any(|name| name == "bpf"),
        on_bpffs: datapath::is_bpffs(&config.kernel.pin_dir),
        private_bpffs: datapath::refuse_private(&config.kernel.pin_dir).err().map(|error| error.to_string()),
        probe: datapath::probe(config.kernel.xdp).map_err(|error| error.to_string()),
        user: user.map(|user| user.uid.as_raw()),
        folders: [&config.state_dir, &config.runtime_dir].map(|path| folder(path)).into(),
    }
}

fn folder(path: &Path) -> Folder {
    let state = match fs::metadata(path) {
        Ok(facts) if !facts.is_dir() => FolderState::Impossible("it isn't a folder".to_owned()),
        Ok(facts) => {
            let empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
            FolderState::Exists { owner: facts.uid(), empty }
        }
        Err(_) => {
            let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
            match access(existing, AccessFlags::W_OK) {
                Ok(()) if existing.is_dir() => FolderState::Possible,
                Ok(()) => FolderState::Impossible(format!("{} isn't a folder", existing.display())),
                Err(error) => FolderState::Impossible(format!("{}: {}", existing.display(), error.desc())),
            }
        }
    };
    Folder { path: path.to_owned(), state }
}

/// What that means.
pub(super) fn judge(config: &Config, system: &System) -> Vec<Finding> {
    let mut findings = vec![kernel(&system.kernel)];
    findings.extend(capabilities(system.capabilities));
    findings.push(pins(config, system));
    findings.push(match &system.probe {
        Ok(hook) => Finding::ok(
            "programs",
            format!("this kernel takes the programs, and they can be attached (TC: {hook})"),
        ),
        Err(error) => Finding::error(
            "programs",
            format!("the programs can't be loaded or attached: {}", shortened(error)),
            "Nothing can be intercepted. See the capabilities and the kernel above; in a container, bpf() and \
             the right to make a network namespace must be allowed to it.",
        ),
    });
    findings.push(user(config, system.user));
    findings.extend(system.folders.iter().map(|folder| judge_folder(config, folder, system.user)));
    findings
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let (oldest_major, oldest_minor) = OLDEST_KERNEL;
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST_KERNEL => {
            Finding::ok("kernel", format!("Linux {release}"))
        }
        _ => Finding::error(
            "kernel",
            format!("Linux {release}"),
            format!(
                "mailguard is made for Linux {oldest_major}.{oldest_minor} and later: install a newer kernel."
            ),
        ),
    }
}

fn capabilities(effective: u64) -> Vec<Finding> {
    let has = |number: u32| effective & (1 << number) != 0;
    let mut missing: Vec<String> = CAPABILITIES
        .iter()
        .filter(|(number, ..)| !has(*number))
        .map(|(_, name, what)| format!("{name} ({what})"))
        .collect();
    let loads = has(CAP_SYS_ADMIN) || has(CAP_BPF) && has(CAP_PERFMON);
    if !loads {
        missing.push("CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN (to load programs)".to_owned());
    }
    if missing.is_empty() {
        return vec![Finding::ok("capabilities", "all that are needed are there")];
    }
    let why = "Root lacks them where a container or a service unit took them away: allow them there \
               (--cap-add, AmbientCapabilities= and CapabilityBoundingSet=).";
    missing
        .into_iter()
        .map(|what| Finding::error("capabilities", format!("{what} is missing"), why))
        .collect()
}

fn pins(config: &Config, system: &System) -> Finding {
    let folder = &config.kernel.pin_dir;
    let shown = folder.display();
    if let Some(reason) = &system.private_bpffs {
        let why = "The daemon doesn't start so. If it was doctor that was started so, start doctor as the daemon is.";
        return Finding::error("pin-dir", reason, why);
    }
    if system.on_bpffs {
        return Finding::ok("pin-dir", format!("{shown} is on a BPF file system"));
    }
    if !system.has_bpffs {
        let why = "Maps and links can't outlive the daemon: this kernel was built without BPF. Install one with it.";
        return Finding::error("pin-dir", "the kernel has no BPF file system", why);
    }
    if folder.starts_with(BPFFS) && system.capabilities & (1 << CAP_SYS_ADMIN) != 0 {
        return Finding::ok("pin-dir", format!("{BPFFS} isn't mounted yet: mailguard does it at its start"));
    }
    let mount = if folder.starts_with(BPFFS) { Path::new(BPFFS) } else { folder.as_path() };
    let mount = shell(&mount.to_string_lossy());
    let why = "Maps and links must outlive the daemon, which they do on a BPF file system only.";
    Finding::error("pin-dir", format!("kernel.pin_dir {shown} is not on a BPF file system"), why)
        .command(format!("mkdir -p {mount} && mount -t bpf bpf {mount}"))
}

fn user(config: &Config, number: Option<u32>) -> Finding {
    let name = &config.user;
    match number {
        Some(0) => Finding::error(
            "user",
            format!("user = \"{name}\" is root"),
            "Mail is handled by an unprivileged user: name another, such as \"mailguard\".",
        ),
        Some(_) => Finding::ok("user", format!("the mail user {name} exists")),
        None => Finding::error(
            "user",
            format!("there is no user \"{name}\""),
            "The daemon doesn't start without the user that handles mail.",
        )
        .command(format!("useradd --system --no-create-home {}", shell(name))),
    }
}

fn judge_folder(config: &Config, folder: &Folder, user: Option<u32>) -> Finding {
    let (path, name) = (folder.path.display(), &config.user);
    match &folder.state {
        FolderState::Possible => Finding::ok("folders", format!("{path} will be made")),
        // The daemon makes `runtime_dir` root's; it was the mail user's in earlier versions.
        FolderState::Exists { owner: 0, .. } if folder.path == config.runtime_dir => {
            Finding::ok("folders", format!("{path} can be used"))
        }
        FolderState::Exists { owner, empty } if *empty || user.is_none_or(|user| user == *owner) => {
            Finding::ok("folders", format!("{path} can be used"))
        }
        FolderState::Exists { owner, .. } => Finding::error(
            "folders",
            format!("{path} holds files, and belongs to the user number {owner}, not to {name}"),
            "The daemon doesn't start: it takes no folder of somebody else's. If it is meant for mailguard, \
             give it away; else name another in the configuration.",
        )
        .command(format!("chown -R {} {}", shell(name), shell(&folder.path.to_string_lossy()))),
        FolderState::Impossible(reason) => Finding::error(
            "folders",
            format!("{path} can't be used: {reason}"),
            "The daemon doesn't start without it: name another folder, or make this one usable.",
        ),
    }
}

/// The end of a long text: the verifier says there what it didn't like.
fn shortened(text: &str) -> String {
    const MAX_CHARACTERS: usize = 600;
    let count = text.chars().count();
    if count <= MAX_CHARACTERS {
        return text.to_owned();
    }
    let begin: String = text.chars().take(MAX_CHARACTERS / 3).collect();
    let end: String = text.chars().skip(count - MAX_CHARACTERS * 2 / 3).collect();
    format!("{begin} … {end}")
}
