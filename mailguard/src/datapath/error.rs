//! What can go wrong with the kernel side.

use std::io;
use std::path::PathBuf;

use aya::maps::MapError;
use aya::pin::PinError;
use aya::programs::ProgramError;
use aya::programs::links::LinkError;

/// Why a program can't be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel refuses it.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Its link is of another kind than expected.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Its link can't be pinned.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// A file can't be used.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An error of the kernel side.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The binary was built without the kernel part.
    #[error("built without its eBPF object: run cargo xtask build")]
    NotBuilt,
    /// The object doesn't load.
    #[error("cannot load the eBPF object: {0}")]
    Load(#[from] aya::EbpfError),
    /// The object lacks something that this version expects.
    #[error("the eBPF object doesn't belong to this version: it has no usable {0}; run cargo xtask build")]
    WrongObject(String),
    /// Somebody else than root may have put pins there.
    #[error(
        "{0}: belongs to, or can be written by, others than root: remove it, or name another kernel.pin_dir"
    )]
    ForeignPins(PathBuf),
    /// A program isn't accepted, or can't be attached.
    #[error("program {program}{}: {error}", .interface.as_ref().map(|i| format!(" on {i}")).unwrap_or_default())]
    Program {
        /// Its name.
        program: &'static str,
        /// The interface.
        interface: Option<String>,
        /// The reason.
        #[source]
        error: Box<AttachError>,
    },
    /// A map can't be read or written.
    #[error("map {map}: {error}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The reason.
        #[source]
        error: MapError,
    },
    /// More entries than a map holds.
    #[error("{list}: {entries} entries, the kernel holds {limit}")]
    TooMany {
        /// The list.
        list: &'static str,
        /// Entries of the configuration.
        entries: usize,
        /// What is possible.
        limit: usize,
    },
    /// The pins' folder isn't where pins can be.
    #[error(
        "kernel.pin_dir {} is not on a BPF file system; mount one there, or use a folder under /sys/fs/bpf",
        .0.display()
    )]
    NotBpffs(PathBuf),
    /// The pins would go with the process.
    #[error(
        "kernel.pin_dir {}: no BPF file system there that outlives this mount namespace (ip netns exec, a container or a \
         unit's sandbox made it): what is pinned would go with the last process in it and leave port 25 open. Enter the \
         network namespace alone (nsenter --net=/run/netns/NAME mailguard run), give the container or unit the machine's \
         /sys/fs/bpf, mounted there already, or name a folder on a BPF file system that the whole machine sees",
        .0.display()
    )]
    PrivateBpffs(PathBuf),
    /// It can't be told whether they would.
    #[error(
        "kernel.pin_dir {}: cannot tell whether its BPF file system outlives this process, /proc/1 can't be looked at \
         ({error}): mount /proc, and allow CAP_SYS_PTRACE",
        .pin_dir.display()
    )]
    UnknownBpffs {
        /// The folder.
        pin_dir: PathBuf,
        /// The reason.
        #[source]
        error: io::Error,
    },
    /// A pin can't be made, read or removed.
    #[error("{}: {error}", .path.display())]
    Pin {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        error: io::Error,
    },
    /// Somebody else's firewall.
    #[error(
        "{0}: is in use by another network namespace: name another one, or run mailguard unload in that \
         namespace first, to remove what is pinned there"
    )]
    OtherNamespace(PathBuf),
    /// The network namespace has no number.
    #[error("cannot tell the network namespace: {0}")]
    Namespace(#[source] io::Error),
    /// More interfaces than the map holds.
    #[error("{0} interfaces are configured, {limit} are possible", limit = mailguard_common::maps::MAX_INTERFACES)]
    Interfaces(usize),
    /// Routing can't be read or set.
    #[error("cannot {what}: {error}")]
    Netlink {
        /// What was tried.
        what: String,
        /// The reason.
        #[source]
        error: rtnetlink::Error,
    },
    /// The thread that talks to the kernel's routing can't be started.
    #[error("cannot talk to the kernel's routing: {0}")]
    NetlinkSocket(#[source] io::Error),
    /// The kernel's sockets can't be listed.
    #[error("cannot list the closed sessions (sock_diag; is there a module tcp_diag?): {0}")]
    SockDiag(#[source] io::Error),
    /// The thread that reads the kernel's events can't be started.
    #[error("cannot read the kernel's events: {0}")]
    EventThread(#[source] io::Error),
}

impl DatapathError {
    /// Whether more is wanted than the kernel side holds: nothing was tried.
    pub fn is_too_much(&self) -> bool {
        matches!(self, Self::TooMany { .. } | Self::Interfaces(_))
    }

    /// An error of `map`, for `map_err`.
    pub(super) fn map(map: &'static str) -> impl Fn(MapError) -> Self {
        move |error| Self::Map { map, error }
    }

    /// An error of `program`, for `map_err`.
    pub(super) fn program<E: Into<AttachError>>(
        program: &'static str,
        interface: Option<&str>,
    ) -> impl FnOnce(E) -> Self {
        let interface = interface.map(str::to_owned);
        move |error| Self::Program { program, interface, error: Box::new(error.into()) }
    }

    /// An error at `path`, for `map_err`.
    pub(super) fn pin(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Pin { path, error }
    }

    /// An error of netlink, for `map_err`.
    pub(super) fn netlink(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let what = what.into();
        move |error| Self::Netlink { what, error }
    }
}
