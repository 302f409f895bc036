//! Where the daemon of a configuration file is found by those who may not read that file: it holds passwords,
//! and is root's alone.
//!
//! A link in a folder that everybody sees and only root can write, named by the file's path, leads to
//! `runtime_dir`. What they may ask there is up to the sockets' modes. One that a killed daemon left leads to
//! a socket on which nobody answers.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::config::as_name;

/// Where the links are.
const FOLDER: &str = "/run/mailguard-sockets";
/// A link that is there as long as this lives.
#[derive(Debug)]
pub struct Signpost {
    path: PathBuf,
    runtime_dir: PathBuf,
}

impl Signpost {
    /// Has the configuration file lead to this `runtime_dir`.
    pub fn put(config: &Path, runtime_dir: &Path) -> io::Result<Self> {
        Self::put_in(Path::new(FOLDER), config, runtime_dir)
    }

    fn put_in(folder: &Path, config: &Path, runtime_dir: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if !fs::symlink_metadata(folder).is_ok_and(|facts| facts.is_dir() && is_roots(&facts)) {
            let what = format!("{} isn't a folder of root's alone: remove it", folder.display());
            return Err(io::Error::other(what));
        }
        // Whatever the umask: everybody follows the signs.
        fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        remove_dangling(folder);
        let path = folder.join(as_name(config)?);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(runtime_dir, &path)?;
        Ok(Self { path, runtime_dir: runtime_dir.to_owned() })
    }
}

impl Drop for Signpost {
    fn drop(&mut self) {
        // Not another daemon's, in another network namespace, of the same file.
        if fs::read_link(&self.path).is_ok_and(|to| to == self.runtime_dir) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The `runtime_dir` of the daemon that runs by this configuration file, as that daemon said.
pub fn signposted(config: &Path) -> Option<PathBuf> {
    signposted_in(Path::new(FOLDER), config)
}

fn signposted_in(folder: &Path, config: &Path) -> Option<PathBuf> {
    let link = folder.join(as_name(config).ok()?);
    let trusted =
        is_roots(&fs::symlink_metadata(folder).ok()?) && fs::symlink_metadata(&link).ok()?.uid() == 0;
    if trusted { fs::read_link(link).ok() } else { None }
}

/// Whether nobody but root can put something there.
fn is_roots(folder: &Metadata) -> bool {
    folder.uid() == 0 && folder.mode() & 0o022 == 0
}

/// Removes links to folders that are gone.
fn remove_dangling(folder: &Path) {
    let paths = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in paths.filter(|path| path.is_symlink() && !path.exists()) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::lchown;

    use nix::sys::stat::{Mode, umask};

    use super::*;

    #[test]
    fn the_way_to_a_daemon_is_shown_while_it_runs_and_by_root_only() {
        let place = tempfile::tempdir().unwrap();
        let (folder, run, gone) =
            (place.path().join("posts"), place.path().join("run"), place.path().join("gone"));
        fs::create_dir(&run).unwrap();
        fs::create_dir(&gone).unwrap();
        let config = Path::new("/etc/mail%2Fguard/m.toml");
        assert_eq!(signposted_in(&folder, config), None);
        umask(Mode::from_bits_truncate(0o077));
        let post = Signpost::put_in(&folder, config, &run).unwrap();
        let killed = Signpost::put_in(&folder, Path::new("other.toml"), &gone).unwrap();
        std::mem::forget(killed);
        assert_eq!(signposted_in(&folder, config), Some(run.clone()));
        assert_eq!(signposted_in(&folder, Path::new("/etc/mail/guard/m.toml")), None, "another file");
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o755);
        // The next start of the same file, in the place of a killed one.
        fs::remove_dir(&gone).unwrap();
        std::mem::forget(post);
        let post = Signpost::put_in(&folder, config, &run).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "one that leads nowhere is removed");
        lchown(&post.path, Some(1), None).unwrap();
        assert_eq!(signposted_in(&folder, config), None, "a link of somebody else's");
        lchown(&post.path, Some(0), None).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(signposted_in(&folder, config), None, "a folder that everybody writes");
        assert!(Signpost::put_in(&folder, config, &run).is_err());
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        drop(post);
        assert_eq!((signposted_in(&folder, config), fs::read_dir(&folder).unwrap().count()), (None, 0));
        assert!(Signpost::put_in(&folder, Path::new(&"x/".repeat(200)), &run).is_err());
    }
}
