//! `cargo xtask package`: the Debian package, made by cargo-deb from the dist build and from what is
//! generated here: the configuration that is installed, manual pages, completions, the licences of all that
//! is linked in.
//!
//! What goes where stands in `mailguard/Cargo.toml`; unit, user and scripts lie in `package/`.

mod copyright;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{repository, run as run_process};
use crate::{build, setup};

/// Options of `package`.
#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// The package's version, if it isn't the program's with revision 1
    #[arg(long)]
    deb_version: Option<String>,
}

/// Makes the package, and one with the debug symbols beside it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run(setup::Purpose::Package)?;
    program()?;
    for package in packed(arguments.deb_version.as_deref())? {
        println!("package: {}", package.display());
    }
    Ok(())
}

/// Two packages for a test, the second one an upgrade of the first.
pub(crate) fn pair() -> Result<[PathBuf; 2]> {
    setup::run(setup::Purpose::Package)?;
    program()?;
    let package = |version: &str| -> Result<PathBuf> {
        packed(Some(version))?.into_iter().next().context("cargo deb made no package")
    };
    Ok([package("0.0.1-1")?, package("0.0.2-1")?])
}

/// Builds the program, and generates what is packed with it.
fn program() -> Result<()> {
    build::dist()?;
    // Where cargo-deb looks for what it packs from the build's own folder.
    let folder = repository().join("target/dist/package");
    // What an earlier version generated isn't packed.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(folder.join("etc"))?;
    fs::write(folder.join("etc/mailguard.toml"), switched_off(&example()?)?)?;
    fs::write(folder.join("copyright"), copyright::text()?)?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(repository()).args(["run", "--quiet", "--package", "mailguard", "--example", "manual"]);
    run_process(cargo.arg("--").arg(&folder))?;
    // As Debian policy 12.1 has them.
    run_process(Command::new("gzip").args(["--recursive", "--best", "--no-name"]).arg(folder.join("man")))
}

fn example() -> Result<String> {
    let path = repository().join("mailguard/mailguard.toml");
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The example with `enabled = false`: a firewall intercepts nothing by zones that nobody has looked at.
fn switched_off(example: &str) -> Result<String> {
    const ON: &str = "\nenabled = true\n";
    const OFF: &str =
        "\nenabled = false                        # true once zones and domains below are yours\n";
    let tables = example.find("\n[").unwrap_or(example.len());
    if !example[..tables].contains(ON) {
        bail!("the example configuration doesn't hold {ON:?} before its tables");
    }
    Ok(example.replacen(ON, OFF, 1))
}

/// Packs what [`program`] made: the package, and the one with the debug symbols.
fn packed(version: Option<&str>) -> Result<Vec<PathBuf>> {
    let folder = repository().join("target/package");
    fs::create_dir_all(&folder)?;
    let changes = repository().join("target/dist/package/changelog");
    fs::write(&changes, changelog(version.unwrap_or(concat!(env!("CARGO_PKG_VERSION"), "-1"))))?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(repository()).args(["deb", "--quiet", "--package", "mailguard", "--profile", "dist"]);
    cargo.args(["--no-build", "--dbgsym", "--output"]).arg(format!("{}/", folder.display()));
    if let Some(version) = version {
        cargo.args(["--deb-version", version]);
    }
    run_process(&mut cargo)?;
    made(&folder, version)
}

/// What the packaging system wants to know of changes (Debian policy 4.4); the administrator's view of them
/// is NEWS.md.
fn changelog(version: &str) -> String {
    format!(
        "mailguard ({version}) unstable; urgency=medium\n\n  * What changed for an administrator: \
         /usr/share/doc/mailguard/NEWS.md\n\n -- The mailguard developers <mailguard@localhost>  \
         Thu, 01 Jan 1970 00:00:00 +0000\n"
    )
}

/// The packages in `folder`, of this version if one is named; the one with the program first.
fn made(folder: &Path, version: Option<&str>) -> Result<Vec<PathBuf>> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_package = path.extension().is_some_and(|extension| extension == "deb" || extension == "ddeb");
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if is_package && version.is_none_or(|version| name.contains(&format!("_{version}_"))) {
            packages.push(path);
        }
    }
    packages.sort_by_key(|path| path.to_string_lossy().contains("dbgsym"));
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_is_the_example_switched_off() {
        let example = example().unwrap();
        let installed = switched_off(&example).unwrap();
        let differing: Vec<(&str, &str)> =
            example.lines().zip(installed.lines()).filter(|(one, other)| one != other).collect();
        assert_eq!(differing.len(), 1);
        assert!(differing[0].1.starts_with("enabled = false "), "{differing:?}");
        assert!(switched_off("enabled = 1\n").is_err());
    }
}
