//! Debian's kernel, fetched but not installed, and what of its modules the tests need.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{output_of, repository, run};

/// The package that depends on the current kernel of Debian 12.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// What the kernel's own package begins with: the series that is to be tried.
const SERIES: &str = "linux-image-6.1.";

/// Modules that the tests use, or that a firewall has beside mailguard. What these need themselves is found
/// out.
const MODULES: &[&str] = &[
    "8021q",
    "bridge",
    "cls_bpf",
    "dummy",
    "nf_tables",
    "nft_ct",
    "nft_reject_inet",
    "nft_tproxy",
    "sch_ingress",
    "tcp_diag",
    "tun",
    "veth",
];

/// A kernel that was fetched.
pub(super) struct Kernel {
    /// What is booted.
    pub(super) image: PathBuf,
    /// The folder of its modules.
    modules: PathBuf,
}

/// Fetches and unpacks the kernel, unless an earlier run did.
pub(super) fn fetch() -> Result<Kernel> {
    let folder = repository().join("target/vm");
    fs::create_dir_all(&folder)?;
    let unpacked = folder.join("kernel");
    if !unpacked.exists() {
        let package = download(&folder)?;
        // Under another name until it is whole.
        let partial = folder.join("kernel.partial");
        run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&partial))?;
        run(Command::new("depmod").arg("-b").arg(&partial).arg(release(&partial)?))?;
        fs::rename(partial, &unpacked)?;
    }
    let release = release(&unpacked)?;
    println!("vm: kernel {release}");
    Ok(Kernel {
        image: unpacked.join(format!("boot/vmlinuz-{release}")),
        modules: unpacked.join("lib/modules").join(release),
    })
}

fn download(folder: &Path) -> Result<PathBuf> {
    println!("vm: fetching Debian's kernel");
    run(Command::new("apt-get").args(["-qq", "update"])).context("cannot refresh the list of packages")?;
    let depends = output_of(Command::new("apt-cache").args(["depends", META_PACKAGE]))
        .with_context(|| format!("there is no package {META_PACKAGE}: Debian's is needed"))?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.with_context(|| format!("{META_PACKAGE} depends on no kernel"))?;
    if !package.starts_with(SERIES) {
        bail!(
            "this Debian's kernel is {package}; {SERIES}* of Debian 12 (bookworm) is expected among apt's sources"
        );
    }
    // As root: apt's own user may not write here, and would only be replaced with a warning.
    let mut apt = Command::new("apt-get");
    run(apt.args(["-qq", "-o", "APT::Sandbox::User=root", "download", package]).current_dir(folder))?;
    let downloaded = fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(package) && name.ends_with(".deb")
    });
    downloaded.with_context(|| format!("apt-get left no {package} in {}", folder.display()))
}

/// The release as `uname` will say it: the name of the only folder of modules.
fn release(unpacked: &Path) -> Result<String> {
    let folder = unpacked.join("lib/modules");
    let entry = fs::read_dir(&folder).with_context(|| folder.display().to_string())?.next();
    let entry = entry.with_context(|| format!("{} is empty", folder.display()))??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}

impl Kernel {
    /// The files of the needed modules, each after those that it needs.
    pub(super) fn modules(&self) -> Result<Vec<PathBuf>> {
        let listing = self.modules.join("modules.dep");
        let listing = fs::read_to_string(&listing).with_context(|| listing.display().to_string())?;
        let paths = load_order(&listing, MODULES)?;
        Ok(paths.into_iter().map(|path| self.modules.join(path)).collect())
    }
}

/// Paths of `wanted` and of all that they need, in the order of loading. `listing` is a modules.dep: a line a
/// module, `path: path path …`, what it needs from right to left.
fn load_order<'a>(listing: &'a str, wanted: &[&str]) -> Result<Vec<&'a str>> {
    let mut lines = HashMap::new();
    for line in listing.lines() {
        let (path, needs) = line.split_once(':').with_context(|| format!("modules.dep: {line}"))?;
        lines.insert(module_name(path), (path, needs));
    }
    let mut order: Vec<&str> = Vec::new();
    for module in wanted {
        let (path, needs) =
            lines.get(module).with_context(|| format!("this kernel has no module {module}"))?;
        for path in needs.split_whitespace().rev().chain([*path]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    Ok(order)
}

/// `kernel/net/bridge/bridge.ko.xz` is the file of `bridge`.
fn module_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "kernel/net/bridge/bridge.ko.xz: kernel/net/stp.ko.xz kernel/net/llc.ko.xz\n\
                           kernel/net/stp.ko.xz: kernel/net/llc.ko.xz\n\
                           kernel/net/llc.ko.xz:\n\
                           kernel/drivers/net/veth.ko.xz:\n";

    #[test]
    fn modules_come_after_what_they_need_and_once() {
        let order = load_order(LISTING, &["veth", "bridge", "stp"]).unwrap();
        let names: Vec<&str> = order.into_iter().map(module_name).collect();
        assert_eq!(names, ["veth", "llc", "stp", "bridge"]);
    }

    #[test]
    fn a_module_that_isnt_there_is_named() {
        let error = load_order(LISTING, &["veth", "tun"]).unwrap_err();
        assert_eq!(error.to_string(), "this kernel has no module tun");
    }
}
