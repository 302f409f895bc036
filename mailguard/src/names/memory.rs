//! What the DNS said, kept over a restart: one without a name server loses no rule, and none lets a
//! connection be intercepted that was let pass a second before.
//!
//! Root's file in root's folder, outside of `state_dir` and `runtime_dir`: what stands in it opens the
//! firewall, and the mail user owns those. It is of one network namespace and of one run of the machine.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mailguard_core::names::Remembered;
use serde::{Deserialize, Serialize};

/// Where the files are.
const FOLDER: &str = "/run/mailguard-names";
/// Longest file, octets: all names with as many addresses as are looked at, twice over.
const MAX_FILE_OCTETS: u64 = 4 << 20;

/// The file of this network namespace.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    folder: PathBuf,
    file: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    /// Of which run of the machine the times are.
    #[serde(rename = "boot")]
    boot: String,
    #[serde(rename = "answers")]
    answers: Vec<Remembered>,
}

impl Memory {
    /// That of the namespace with this number.
    pub(super) fn of(namespace: u64) -> Self {
        Self::within(Path::new(FOLDER), namespace)
    }

    fn within(folder: &Path, namespace: u64) -> Self {
        Self { folder: folder.to_owned(), file: folder.join(format!("{namespace}.json")) }
    }

    /// What is remembered; nothing if there is no file.
    pub(super) fn read(&self) -> io::Result<Vec<Remembered>> {
        let file = match File::options().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        for facts in [fs::symlink_metadata(&self.folder)?, file.metadata()?] {
            if facts.uid() != nix::unistd::geteuid().as_raw() || facts.mode() & 0o022 != 0 {
                return Err(io::Error::other("somebody else may write it"));
            }
        }
        let mut text = Vec::new();
        file.take(MAX_FILE_OCTETS).read_to_end(&mut text)?;
        let stored: Stored = serde_json::from_slice(&text)?;
        Ok(if stored.boot == boot()? { stored.answers } else { Vec::new() })
    }

    /// Replaces what is remembered.
    pub(super) fn write(&self, answers: Vec<Remembered>) -> io::Result<()> {
        if answers.is_empty() {
            return self.forget();
        }
        DirBuilder::new().mode(0o700).recursive(true).create(&self.folder)?;
        let beside = self.file.with_extension("new");
        // What an earlier run left unfinished.
        let _ = fs::remove_file(&beside);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&serde_json::to_vec(&Stored { boot: boot()?, answers })?)?;
        fs::rename(&beside, &self.file)
    }

    /// Removes the file, and the folder with the last one.
    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // It isn't empty where another namespace has its own.
        let _ = fs::remove_dir(&self.folder);
        Ok(())
    }
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use mailguard_core::names::{Family, Question};

    use super::*;

    #[test]
    fn each_file_of_answers_is_read_and_written_as_it_stands() {
        crate::store::golden::NAMES.check::<Stored>(&[]);
    }

    fn answers() -> Vec<Remembered> {
        let question = Question { name: "a.test".to_owned(), family: Family::V4 };
        vec![Remembered { question, addresses: vec!["192.0.2.1".parse().unwrap()], until: 5 }]
    }

    #[test]
    fn answers_come_back_from_a_file_that_nobody_else_could_write() {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = dir.path().join("names");
        let memory = Memory::within(&folder, 7);
        assert_eq!(memory.read().unwrap(), []);
        memory.write(answers()).unwrap();
        assert_eq!(memory.read().unwrap(), answers());
        assert_eq!(Memory::within(&folder, 8).read().unwrap(), []);

        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        for path in [&memory.file, &memory.folder] {
            let before = fs::metadata(path).unwrap().mode();
            mode(path, before | 0o020);
            assert!(memory.read().is_err(), "{}", path.display());
            mode(path, before);
        }
        let text = fs::read_to_string(&memory.file).unwrap();
        fs::write(&memory.file, text.replace("\"boot\":\"", "\"boot\":\"another")).unwrap();
        assert_eq!(memory.read().unwrap(), [], "times of another run of the machine mean nothing");
        fs::rename(&memory.file, dir.path().join("moved")).unwrap();
        symlink(dir.path().join("moved"), &memory.file).unwrap();
        assert!(memory.read().is_err());

        memory.write(answers()).unwrap();
        memory.write(Vec::new()).unwrap();
        assert!(!folder.exists());
        memory.forget().unwrap();
    }
}
