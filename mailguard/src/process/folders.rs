//! The folders of the two processes, made by root before the mail process starts, and whose each is.
//!
//! `runtime_dir` is root's, so that nobody can put something in the place of the datapath process's socket;
//! `mail` in it is the mail user's, for that process's socket. `state_dir` is the mail user's. A folder is
//! opened once and judged, given away and changed by its descriptor: what its name leads to a moment later
//! doesn't matter.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use mailguard_core::config::Config;
use nix::libc::{O_DIRECTORY, O_NOFOLLOW};

use super::spawn::MailUser;
use crate::control;

/// What `runtime_dir` may hold; anything else is somebody's who uses that folder for another purpose.
const IN_RUNTIME_DIR: [&str; 3] = ["control.sock", ".control", "mail"];
/// Bits of a folder's mode that let others than its owner write.
const OTHERS_WRITE: u32 = 0o022;
/// The bit that keeps them from taking what isn't theirs.
const STICKY: u32 = 0o1000;

/// Why a folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// In use by somebody else.
    #[error(
        "{} holds files and isn't {user}'s: name a folder of mailguard's own, or give this one to {user}", path.display()
    )]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Who should own it.
        user: String,
    },
    /// Holds what isn't mailguard's.
    #[error("{} holds \"{name}\", which isn't mailguard's: name a folder of mailguard's own", path.display())]
    Shared {
        /// Which.
        path: PathBuf,
        /// What is in it.
        name: String,
    },
    /// Somebody else could put another folder in its place.
    #[error(
        "{} is in {}, where the user number {owner} can put something else in its place: name a folder that only root can \
         move, or give {} to root (chown root, chmod go-w)", path.display(), above.display(), above.display()
    )]
    Movable {
        /// Which.
        path: PathBuf,
        /// The folder on the way that isn't root's alone.
        above: PathBuf,
        /// Whose that is.
        owner: u32,
    },
    /// Can't be made, opened or given away.
    #[error("{}: {source}{}", path.display(), if is_sandboxed(source) { SANDBOX } else { "" })]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is said of a file system that can't be written.
const SANDBOX: &str = " (under systemd the unit may write where ReadWritePaths= says only: add the folder in a drop-in, systemctl edit \
                       mailguard; ProtectHome=yes hides /home)";

fn is_sandboxed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ReadOnlyFilesystem
}

impl FolderError {
    /// Whether it won't be otherwise the next time, unless somebody changes something.
    pub(super) fn wants_somebody(&self) -> bool {
        use io::ErrorKind::{NotADirectory, PermissionDenied, ReadOnlyFilesystem};
        match self {
            FolderError::Io { source, .. } => {
                matches!(source.kind(), NotADirectory | PermissionDenied | ReadOnlyFilesystem)
            }
            _ => true,
        }
    }
}

/// Makes the folders.
pub(super) fn prepare(config: &Config, user: &MailUser) -> Result<(), FolderError> {
    let Config { state_dir, runtime_dir, user: name, .. } = config;
    let runtime = Folder::open(runtime_dir)?;
    runtime.refuse_strangers(name, &[0, user.uid()])?;
    runtime.refuse_shared()?;
    runtime.belongs_to(0, 0, 0o755)?;
    for (path, mode) in [(state_dir.as_path(), 0o700), (&control::mail_folder(runtime_dir), 0o755)] {
        let folder = Folder::open(path)?;
        // One of root's, where nothing is yet, was made for us.
        let owners: &[u32] = if folder.is_empty()? { &[0, user.uid()] } else { &[user.uid()] };
        folder.refuse_strangers(name, owners)?;
        folder.belongs_to(user.uid(), user.gid(), mode)?;
    }
    Ok(())
}

/// An open folder.
struct Folder {
    path: PathBuf,
    file: File,
    facts: Metadata,
}

impl Folder {
    /// Opens it, made where there is none. Refused where somebody else than root could put another one in its
    /// place.
    fn open(path: &Path) -> Result<Self, FolderError> {
        let fail = |source| FolderError::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(fail)?;
        refuse_movable(path)?;
        // A link of root's leads where root wants; no other is left on the way now.
        let real = path.canonicalize().map_err(fail)?;
        let open = OpenOptions::new().read(true).custom_flags(O_DIRECTORY | O_NOFOLLOW).open(&real);
        let file = open.map_err(fail)?;
        let facts = file.metadata().map_err(fail)?;
        Ok(Self { path: path.to_owned(), file, facts })
    }

    fn fail(&self) -> impl Fn(io::Error) -> FolderError {
        |source| FolderError::Io { path: self.path.clone(), source }
    }

    fn is_empty(&self) -> Result<bool, FolderError> {
        Ok(fs::read_dir(&self.path).map_err(self.fail())?.next().is_none())
    }

    fn refuse_strangers(&self, user: &str, owners: &[u32]) -> Result<(), FolderError> {
        if owners.contains(&self.facts.uid()) {
            return Ok(());
        }
        Err(FolderError::Foreign { path: self.path.clone(), user: user.to_owned() })
    }

    fn refuse_shared(&self) -> Result<(), FolderError> {
        for entry in fs::read_dir(&self.path).map_err(self.fail())? {
            let name = entry.map_err(self.fail())?.file_name().to_string_lossy().into_owned();
            if !IN_RUNTIME_DIR.contains(&name.as_str()) {
                return Err(FolderError::Shared { path: self.path.clone(), name });
            }
        }
        Ok(())
    }

    fn belongs_to(&self, user: u32, group: u32, mode: u32) -> Result<(), FolderError> {
        // In this order: whom it belonged to has nothing to say any more when its mode is set.
        fchown(&self.file, Some(user), Some(group)).map_err(self.fail())?;
        self.file.set_permissions(fs::Permissions::from_mode(mode)).map_err(self.fail())
    }
}

/// Refuses a path of which somebody else than root can exchange a part: a folder above it, or above what a
/// link in it leads to, that isn't root's alone, or a link that isn't root's.
fn refuse_movable(path: &Path) -> Result<(), FolderError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| FolderError::Io { path, source }
    };
    let movable = |above: &Path, owner| {
        Err(FolderError::Movable { path: path.to_owned(), above: above.to_owned(), owner })
    };
    let real = path.canonicalize().map_err(fail(path))?;
    for way in [path, &real] {
        for part in way.ancestors().filter(|part| !part.as_os_str().is_empty()) {
            let link = fs::symlink_metadata(part).map_err(fail(part))?;
            // In a sticky folder everybody may make a link.
            if link.is_symlink() && link.uid() != 0 {
                return movable(part, link.uid());
            }
            let facts = fs::metadata(part).map_err(fail(part))?;
            let others_move = facts.mode() & OTHERS_WRITE != 0 && facts.mode() & STICKY == 0;
            if part != way && (facts.uid() != 0 || others_move) {
                return movable(part, facts.uid());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use tempfile::TempDir;

    use super::*;

    /// A folder of root's, a configuration with both folders in it, and a mail user.
    struct Scene {
        root: TempDir,
        config: Config,
        user: MailUser,
    }

    impl Scene {
        fn new() -> Self {
            assert!(nix::unistd::geteuid().is_root(), "these tests need root");
            let root = TempDir::new().unwrap();
            fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
            let mut config = crate::spool::fixture::config(&root.path().join("state"));
            config.runtime_dir = root.path().join("run");
            let user = MailUser::find("nobody").unwrap();
            Self { root, config, user }
        }

        fn prepare(&self) -> Result<(), FolderError> {
            prepare(&self.config, &self.user)
        }

        fn owner_and_mode(&self, name: &str) -> (u32, u32) {
            let facts = fs::metadata(self.root.path().join(name)).unwrap();
            (facts.uid(), facts.mode() & 0o7777)
        }
    }

    #[test]
    fn each_process_gets_what_it_needs_and_no_more() {
        let scene = Scene::new();
        scene.prepare().unwrap();
        let mail = scene.user.uid();
        for (name, expect) in [("run", (0, 0o755)), ("run/mail", (mail, 0o755)), ("state", (mail, 0o700))] {
            assert_eq!(scene.owner_and_mode(name), expect, "{name}");
        }
        fs::write(scene.root.path().join("state/spool"), "").unwrap();
        scene.prepare().unwrap();
    }

    #[test]
    fn the_folder_of_an_earlier_version_becomes_roots() {
        let scene = Scene::new();
        let run = scene.root.path().join("run");
        fs::create_dir(&run).unwrap();
        drop(std::os::unix::net::UnixListener::bind(run.join("control.sock")).unwrap());
        chown(&run, Some(scene.user.uid()), Some(scene.user.gid())).unwrap();
        scene.prepare().unwrap();
        assert_eq!(scene.owner_and_mode("run"), (0, 0o755));
    }

    #[test]
    fn folders_of_others_are_left_alone() {
        let scene = Scene::new();
        let (state, run) = (scene.root.path().join("state"), scene.root.path().join("run"));
        fs::create_dir(&state).unwrap();
        fs::write(state.join("precious"), "").unwrap();
        assert!(matches!(scene.prepare(), Err(FolderError::Foreign { .. })), "root's files");
        chown(&state, Some(1), None).unwrap();
        fs::remove_file(state.join("precious")).unwrap();
        assert!(matches!(scene.prepare(), Err(FolderError::Foreign { .. })), "a stranger's");
        assert_eq!(scene.owner_and_mode("state"), (1, 0o755), "untouched");
        fs::write(run.join("precious"), "").unwrap();
        assert!(matches!(scene.prepare(), Err(FolderError::Shared { .. })));
    }

    #[test]
    fn nothing_is_given_away_through_a_link_or_in_a_folder_of_others() {
        let scene = Scene::new();
        let victim = scene.root.path().join("victim");
        fs::create_dir(&victim).unwrap();
        let state = scene.root.path().join("state");
        symlink(&victim, &state).unwrap();
        std::os::unix::fs::lchown(&state, Some(scene.user.uid()), None).unwrap();
        assert!(matches!(scene.prepare(), Err(FolderError::Movable { .. })), "a link of the mail user's");
        assert_eq!(scene.owner_and_mode("victim"), (0, 0o755), "untouched");
        std::os::unix::fs::lchown(&state, Some(0), None).unwrap();
        scene.prepare().unwrap();
        assert_eq!(scene.owner_and_mode("victim").0, scene.user.uid(), "a link of root's is root's wish");

        for (owner, mode) in [(scene.user.uid(), 0o755), (0, 0o777)] {
            let mut scene = Scene::new();
            let above = scene.root.path().join("above");
            fs::create_dir(&above).unwrap();
            fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
            chown(&above, Some(owner), None).unwrap();
            scene.config.state_dir = above.join("state");
            let error = scene.prepare().unwrap_err();
            assert!(error.to_string().contains("in its place"), "{error}");
        }
    }
}
