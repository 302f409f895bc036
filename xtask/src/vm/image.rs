//! What the virtual machine finds: a file system in memory with the programs, the libraries that they need,
//! the kernel's modules and the script that runs it all.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;
use crate::process::{output_of, run};

/// The first process of the virtual machine.
const INIT: &str = include_str!("init.sh");

/// A file system that is being put together.
pub(super) struct Image {
    root: PathBuf,
    libraries: BTreeSet<PathBuf>,
}

impl Image {
    /// One with busybox and the script only, in the folder `root`, which is emptied.
    pub(super) fn new(root: &Path) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(root)?;
        }
        for folder in ["bin", "dev", "etc", "modules", "proc", "run", "sys", "tmp", "usr/bin"] {
            fs::create_dir_all(root.join(folder))?;
        }
        let image = Self { root: root.to_owned(), libraries: BTreeSet::new() };
        // Debian's busybox is linked statically: it needs nothing.
        fs::copy(find("busybox")?, root.join("bin/busybox"))?;
        image.write("init", INIT)?;
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
        Ok(image)
    }

    /// Adds a program by the name that it is called by, without what only a debugger reads, and its
    /// libraries.
    pub(super) fn add_program(&mut self, program: &Path, name: &str) -> Result<()> {
        let target = self.root.join("usr/bin").join(name);
        run(Command::new("strip").arg("--strip-debug").arg("-o").arg(&target).arg(program))?;
        let listing = output_of(Command::new("ldd").arg(program));
        let listing = listing.with_context(|| format!("ldd {} failed", program.display()))?;
        for library in libraries(&listing)? {
            if self.libraries.insert(library.to_owned()) {
                let target = self.root.join(library.strip_prefix("/")?);
                fs::create_dir_all(target.parent().unwrap_or(&self.root))?;
                fs::copy(library, target)?;
            }
        }
        Ok(())
    }

    /// Adds a file.
    pub(super) fn add_file(&self, file: &Path, name: &str) -> Result<()> {
        fs::copy(file, self.root.join(name)).with_context(|| file.display().to_string())?;
        Ok(())
    }

    /// Adds the modules, numbered in the order of loading.
    pub(super) fn add_kernel_modules(&self, kernel: &Kernel) -> Result<()> {
        for (number, module) in kernel.modules()?.iter().enumerate() {
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            let target = format!("modules/{number:03}-{}", name.trim_end_matches(".xz"));
            match name.ends_with(".xz") {
                true => unpack(module, &self.root.join(target))?,
                false => self.add_file(module, &target)?,
            }
        }
        Ok(())
    }

    /// Says what is run: a name and a command a line.
    pub(super) fn add_parts(&self, parts: &[(&str, String)]) -> Result<()> {
        let mut text = String::new();
        for (name, command) in parts {
            writeln!(text, "{name} {command}")?;
        }
        self.write("parts", &text)
    }

    /// Packs everything into an archive that the kernel unpacks.
    pub(super) fn pack(&self, archive: &Path) -> Result<PathBuf> {
        let mut find =
            Command::new("find").arg(".").current_dir(&self.root).stdout(Stdio::piped()).spawn()?;
        let names = find.stdout.take().context("find has an output")?;
        let mut cpio = Command::new("cpio");
        cpio.args(["--quiet", "-o", "-H", "newc", "-R", "0:0"]).current_dir(&self.root);
        run(cpio.stdin(names).stdout(File::create(archive)?))?;
        if !find.wait()?.success() {
            bail!("find failed in {}", self.root.display());
        }
        Ok(archive.to_owned())
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.root.join(name), text)?)
    }
}

/// Where the program `name` is on this machine.
pub(super) fn find(name: &str) -> Result<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    // Those for administrators are not on everybody's path.
    let folders = std::env::split_paths(&paths).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("there is no program {name}: cargo xtask setup"))
}

/// The files in the output of ldd: `libc.so.6 => /lib/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn libraries(listing: &str) -> Result<Vec<&Path>> {
    if let Some(missing) = listing.lines().find(|line| line.contains("not found")) {
        bail!("a library is missing: {}", missing.trim());
    }
    let files = listing.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(files.map(Path::new).collect())
}

fn unpack(packed: &Path, target: &Path) -> Result<()> {
    run(Command::new("xz").args(["--decompress", "--stdout"]).arg(packed).stdout(File::create(target)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_says() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let files = libraries(listing).unwrap();
        assert_eq!(files, [Path::new("/lib/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
        assert!(libraries("\tlibnope.so => not found\n").is_err());
    }
}
