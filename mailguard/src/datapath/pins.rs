//! The pins: where maps and links stay when the process is gone.
//!
//! `pin_dir/links/` holds one link a program and interface, `pin_dir/abi-N/` the maps of layout N. Pinned
//! maps are compared with what the object expects before they are used: another layout means another folder,
//! filled anew, never a reinterpretation.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData, MapInfo};
use aya::{Ebpf, EbpfLoader};
use aya_obj::Object;
use mailguard_common::maps::{ABI, Settings, map};
use nix::libc;

use super::drift::Part;
use super::{DatapathError, bpffs, object};

/// Folders of maps that are tried for one layout; more than one is there only after a collision.
const MAX_MAP_FOLDERS: u32 = 8;
/// Beginning of the name of a folder of maps.
const MAP_FOLDER: &str = "abi-";

/// The open folder of pins.
pub(super) struct Pins {
    folder: PathBuf,
    maps: PathBuf,
    /// The maps that are pinned there, held open: opening one by its id takes CAP_SYS_ADMIN.
    held: BTreeMap<String, Held>,
}

/// A map that is to stay pinned.
struct Held {
    id: u32,
    map: MapData,
}

/// What the kernel says of a link.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LinkFacts {
    program: u64,
    ifindex: u64,
    netns: u64,
}

impl LinkFacts {
    /// Whether it holds this program at this interface.
    pub(super) fn holds_at(&self, ifindex: u32, program: u32) -> bool {
        (self.program, self.ifindex) == (program.into(), ifindex.into())
    }

    /// Whether it holds this program in our network namespace.
    pub(super) fn holds_in_this_namespace(&self, program: u32) -> bool {
        self.program == u64::from(program) && netns_inode().is_ok_and(|netns| self.netns == netns)
    }
}

impl Pins {
    /// Opens `folder`, on a BPF file system that outlives us.
    pub(super) fn open(folder: &Path) -> Result<Self, DatapathError> {
        bpffs::ensure(folder)?;
        private_folder(folder)?;
        private_folder(&folder.join("links"))?;
        let maps = choose_map_folder(folder)?;
        private_folder(&maps)?;
        Ok(Self { folder: folder.to_owned(), maps, held: BTreeMap::new() })
    }

    /// Creates the object's maps, or takes over the pinned ones.
    pub(super) fn load_object(&self) -> Result<Ebpf, DatapathError> {
        let names = parse_object()?.maps.into_keys().collect::<Vec<_>>();
        let mut loader = EbpfLoader::new();
        for name in &names {
            loader.map_pin_path(name, self.maps.join(name));
        }
        Ok(loader.load(object::bytes()?)?)
    }

    /// Notes which maps are pinned, once they are.
    pub(super) fn note_maps(&mut self) -> Result<(), DatapathError> {
        for name in names(&self.maps)? {
            let path = self.maps.join(&name);
            let map = MapData::from_pin(&path).map_err(|error| unusable(&path, error))?;
            let id = map.info().map_err(|error| unusable(&path, error))?.id();
            self.held.insert(name, Held { id, map });
        }
        Ok(())
    }

    /// The maps whose pins are gone, or are another's.
    pub(super) fn missing(&self) -> Vec<Part> {
        let missing = |(name, held): (&String, &Held)| {
            let pinned = MapInfo::from_pin(self.maps.join(name)).ok();
            pinned.is_none_or(|info| info.id() != held.id).then(|| Part::Pin(name.clone()))
        };
        self.held.iter().filter_map(missing).collect()
    }

    /// Makes the folders anew, if need be, and pins the maps whose pins are missing.
    pub(super) fn restore(&self) -> Result<(), DatapathError> {
        bpffs::ensure(&self.folder)?;
        for folder in [&self.folder, &self.folder.join("links"), &self.maps] {
            private_folder(folder)?;
        }
        for part in self.missing() {
            let Part::Pin(name) = part else { continue };
            let path = self.maps.join(&name);
            if path.exists() {
                fs::remove_file(&path).map_err(DatapathError::pin(&path))?;
            }
            self.held[&name].map.pin(&path).map_err(|error| unusable(&path, error))?;
        }
        Ok(())
    }

    /// Removes the links that a network namespace which is gone has left: `cookie` is what the maps say of
    /// theirs; 0: nothing. [`refuse_attached_elsewhere`] has been asked before.
    pub(super) fn remove_leftovers(&self, cookie: u64) -> Result<(), DatapathError> {
        if cookie == 0 || cookie == netns_cookie()? {
            return Ok(());
        }
        for path in self.links()?.iter().map(|name| self.link(name)).filter(|path| !is_attached(path)) {
            fs::remove_file(&path).map_err(DatapathError::pin(path))?;
        }
        Ok(())
    }

    /// Where the link `name` is pinned.
    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.folder.join("links").join(name)
    }

    /// What the kernel says of the link pinned by this name; nothing if there is none.
    pub(super) fn link_facts(&self, name: &str) -> Option<LinkFacts> {
        link_facts(&self.link(name))
    }

    /// The names of all pinned links.
    pub(super) fn links(&self) -> Result<Vec<String>, DatapathError> {
        names(&self.folder.join("links"))
    }

    /// Removes the folders of maps that no program uses any more.
    pub(super) fn remove_other_maps(&self) -> Result<(), DatapathError> {
        for name in names(&self.folder)? {
            let folder = self.folder.join(&name);
            if name.starts_with(MAP_FOLDER) && folder != self.maps {
                fs::remove_dir_all(&folder).map_err(DatapathError::pin(folder))?;
            }
        }
        Ok(())
    }
}

/// Whether what is pinned in `pin_dir` holds programs anywhere: the namespace of an instance that was killed
/// holds them as long as it is there. A pin that can't be read may.
pub fn holds_programs(pin_dir: &Path) -> bool {
    let folder = pin_dir.join("links");
    let is_held = |path: &Path| link_facts(path).is_none_or(|link| link.ifindex != 0 || link.netns != 0);
    names(&folder).map_or(true, |names| names.iter().any(|name| is_held(&folder.join(name))))
}

/// Refuses to touch pins that hold programs in another network namespace: its links would get our programs,
/// and our interfaces none.
pub(super) fn refuse_attached_elsewhere(pin_dir: &Path) -> Result<(), DatapathError> {
    let folder = pin_dir.join("links");
    let links: Vec<PathBuf> = names(&folder)?.iter().map(|name| folder.join(name)).collect();
    let cookie = pinned_cookie(pin_dir)?;
    let inode = netns_inode().map_err(DatapathError::Namespace)?;
    // Maps of another version may not say it, and then the socket look-up's link does.
    let elsewhere = (cookie != 0 && cookie != netns_cookie()? && links.iter().any(|link| is_attached(link)))
        || links.iter().filter_map(|link| link_facts(link)).any(|link| ![0, inode].contains(&link.netns));
    if elsewhere { Err(DatapathError::OtherNamespace(pin_dir.to_owned())) } else { Ok(()) }
}

/// What the maps pinned in `pin_dir` say of their namespace; 0: nothing.
fn pinned_cookie(pin_dir: &Path) -> Result<u64, DatapathError> {
    for name in names(pin_dir)?.into_iter().filter(|name| name.starts_with(MAP_FOLDER)) {
        let map = MapData::from_pin(pin_dir.join(name).join(map::CONFIG)).map(Map::Array);
        // One of another layout has its say elsewhere, or none.
        let settings = map.ok().and_then(|map| Array::<MapData, Settings>::try_from(map).ok());
        if let Some(settings) = settings.and_then(|map| map.get(&0, 0).ok())
            && settings.netns_cookie != 0
        {
            return Ok(settings.netns_cookie);
        }
    }
    Ok(0)
}

/// The number of this network namespace, which no other one gets until the next boot (SO_NETNS_COOKIE, since
/// 5.14).
pub fn netns_cookie() -> Result<u64, DatapathError> {
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::1]:0"));
    let socket = socket.map_err(DatapathError::Namespace)?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` octets to the integer, and how many to `length`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(DatapathError::Namespace(io::Error::last_os_error())) }
}

/// The inode of this network namespace.
fn netns_inode() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// Whether the link pinned at `path` is attached to anything: its interface, or its namespace, is still
/// there.
fn is_attached(path: &Path) -> bool {
    link_facts(path).is_some_and(|link| link.ifindex != 0 || link.netns != 0)
}

/// What the kernel says of the link pinned at `path`.
fn link_facts(path: &Path) -> Option<LinkFacts> {
    let link = open_pin(path).ok()?;
    let text = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", link.as_raw_fd())).ok()?;
    let mut facts = LinkFacts::default();
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let value = value.trim().parse().unwrap_or(0);
        match name {
            "prog_id" => facts.program = value,
            "ifindex" => facts.ifindex = value,
            "netns_ino" => facts.netns = value,
            _ => {}
        }
    }
    Some(facts)
}

/// A map that can't be used or pinned at `path`.
fn unusable(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> DatapathError {
    DatapathError::pin(path)(io::Error::other(error))
}

/// A descriptor of what is pinned at `path` (BPF_OBJ_GET): aya's own is private, and only it leads to the
/// facts in /proc.
fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    /// The part of the kernel's `bpf_attr` for this command.
    #[repr(C)]
    struct ObjectGet {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    const BPF_OBJ_GET: libc::c_int = 7;
    let name = CString::new(path.as_os_str().as_encoded_bytes())?;
    let attributes = ObjectGet { pathname: name.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the kernel reads the structure and the name, both alive until it returns.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attributes, size_of::<ObjectGet>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Removes all links under `pin_dir`, which detaches their programs, and says how many there were.
pub(super) fn remove_links(pin_dir: &Path) -> Result<usize, DatapathError> {
    remove_folder(&pin_dir.join("links"))
}

/// Removes all maps under `pin_dir`, and the folder, and says how many there were.
pub(super) fn remove_maps(pin_dir: &Path) -> Result<usize, DatapathError> {
    let mut count = 0;
    for name in names(pin_dir)? {
        if name.starts_with(MAP_FOLDER) {
            count += remove_folder(&pin_dir.join(name))?;
        }
    }
    match fs::remove_dir(pin_dir) {
        // Others have something in it, or it is a mount point.
        Err(error)
            if [io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::ResourceBusy].contains(&error.kind()) => {}
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(DatapathError::pin(pin_dir)(error));
        }
        _ => {}
    }
    Ok(count)
}

fn remove_folder(folder: &Path) -> Result<usize, DatapathError> {
    let names = names(folder)?;
    for name in &names {
        let path = folder.join(name);
        fs::remove_file(&path).map_err(DatapathError::pin(path))?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DatapathError::pin(folder)(error)),
        _ => Ok(names.len()),
    }
}

/// The names in `folder`, none if it doesn't exist.
fn names(folder: &Path) -> Result<Vec<String>, DatapathError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(DatapathError::pin(folder))?,
    };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect::<io::Result<_>>().map_err(DatapathError::pin(folder))
}

/// Makes the folder for root alone. Pins in one that others made, or may write to, can't be trusted.
fn private_folder(folder: &Path) -> Result<(), DatapathError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(DatapathError::pin(folder))?;
    let facts = fs::metadata(folder).map_err(DatapathError::pin(folder))?;
    if facts.uid() != 0 || facts.mode() & 0o022 != 0 {
        return Err(DatapathError::ForeignPins(folder.to_owned()));
    }
    Ok(())
}

fn parse_object() -> Result<Object, DatapathError> {
    Object::parse(object::bytes()?).map_err(|error| DatapathError::WrongObject(error.to_string()))
}

/// The folder whose maps fit the object, or one that isn't there yet.
fn choose_map_folder(pin_dir: &Path) -> Result<PathBuf, DatapathError> {
    let object = parse_object()?;
    let folders = (1..=MAX_MAP_FOLDERS).map(|number| match number {
        1 => pin_dir.join(format!("{MAP_FOLDER}{ABI}")),
        number => pin_dir.join(format!("{MAP_FOLDER}{ABI}-{number}")),
    });
    let (existing, missing): (Vec<_>, Vec<_>) = folders.partition(|folder| folder.exists());
    let fitting = existing.into_iter().find(|folder| fits(folder, &object));
    fitting
        .or_else(|| missing.into_iter().next())
        .ok_or_else(|| DatapathError::pin(pin_dir)(io::Error::other("too many folders of unusable maps")))
}

/// Whether every map that is pinned in `folder` is what the object expects by that name. A missing one is
/// made.
fn fits(folder: &Path, object: &Object) -> bool {
    object.maps.iter().all(|(name, map)| {
        let pin = folder.join(name);
        if !pin.exists() {
            return true;
        }
        let Ok(info) = MapInfo::from_pin(&pin) else { return false };
        info.map_type().is_ok_and(|kind| kind as u32 == map.map_type())
            && info.key_size() == map.key_size()
            && info.value_size() == map.value_size()
            && info.max_entries() == map.max_entries()
            && info.map_flags() == map.map_flags()
    })
}
