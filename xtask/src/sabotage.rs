//! `cargo xtask sabotage`: breaks the promises of the code one by one, in a scratch copy, and expects the
//! test that guards each to fail. A patch that no test notices is a hole in the tests.
//!
//! A patch file opens with two lines, `promise: …` and `test: PACKAGE[:FILE] NAME`, then the diff.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::process::{self, read, repository};
use crate::{build, setup};

/// Folder of the patches.
const PATCHES: &str = "tests/sabotage";
/// Patches that [`some`] runs.
const SOME: usize = 20;
/// Seconds before the last commit in which others belong to the same change.
const CHANGE: u64 = 24 * 60 * 60;

struct Patch {
    name: String,
    path: PathBuf,
    /// What it changes.
    files: BTreeSet<String>,
    promise: String,
    package: String,
    file: Option<String>,
    test: String,
}

/// Every patch, or those whose name holds `only`.
pub(crate) fn all(only: Option<&str>) -> Result<()> {
    let mut patches = read_patches()?;
    patches.retain(|patch| only.is_none_or(|name| patch.name.contains(name)));
    if patches.is_empty() {
        bail!("no patch in {PATCHES} matches");
    }
    run(&patches)
}

/// [`SOME`] of the patches, as time allows in each check of a change; that the others apply, at least.
pub(crate) fn some() -> Result<()> {
    let today =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() / (24 * 60 * 60));
    run(&chosen(read_patches()?, &changed_files()?, today as usize))
}

/// Those first that break a file of the change; the places that are left go round by the day, so that each
/// patch gets its turn.
fn chosen(mut patches: Vec<Patch>, changed: &BTreeSet<String>, day: usize) -> Vec<Patch> {
    let turn = (day * SOME) % patches.len().max(1);
    patches.rotate_left(turn);
    patches.sort_by_key(|patch| patch.files.is_disjoint(changed));
    patches.truncate(SOME);
    patches
}

/// Files of the commits of the last day before the last one, and of what isn't committed.
fn changed_files() -> Result<BTreeSet<String>> {
    let last: u64 =
        read("git", &["log", "-1", "--format=%ct"])?.trim().parse().context("git log --format=%ct")?;
    let since = format!("--since=@{}", last.saturating_sub(CHANGE));
    let committed = read("git", &["log", "--name-only", "--format=", &since])?;
    let uncommitted = read("git", &["diff", "--name-only", "HEAD"])?;
    Ok(committed.lines().chain(uncommitted.lines()).map(str::to_owned).collect())
}

/// Applies each patch and prints a table; an error unless each turned its test red, and only then, and unless
/// every patch that there is applies.
fn run(patches: &[Patch]) -> Result<()> {
    setup::everything()?;
    let object = build::ebpf()?;
    let scratch = Scratch::new(object)?;
    scratch.refuse_stale_patches()?;
    // All of them before any patch: each build is one that a patch needs, none one that takes a patch back.
    let mut green = Vec::new();
    for patch in patches {
        green.push(scratch.test(patch)?);
    }
    let mut unnoticed = 0;
    println!("{:<28} {:<52} result", "patch", "test");
    for (patch, green) in patches.iter().zip(green) {
        let judged = if green { judge(&scratch, patch) } else { Ok("RED BEFORE THE PATCH") };
        let verdict = judged.with_context(|| patch.path.display().to_string())?;
        unnoticed += usize::from(verdict != "red, as it must be");
        println!("{:<28} {:<52} {verdict}", patch.name, patch.test);
    }
    println!("{} passed, {unnoticed} failed", patches.len() - unnoticed);
    if unnoticed > 0 {
        bail!("{unnoticed} patches weren't noticed as expected");
    }
    Ok(())
}

fn read_patches() -> Result<Vec<Patch>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(repository().join(PATCHES))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "patch"))
        .collect();
    paths.sort();
    paths.iter().map(|path| read_patch(path)).collect()
}

fn read_patch(path: &Path) -> Result<Patch> {
    let text = fs::read_to_string(path)?;
    let header = |key: &str| {
        let line = text.lines().take(2).find_map(|line| line.strip_prefix(key));
        line.map(str::trim).with_context(|| format!("{}: the first two lines want \"{key}\"", path.display()))
    };
    let (place, test) = header("test:")?.split_once(' ').context("test: PACKAGE[:FILE] NAME")?;
    let (package, file) = place.split_once(':').map_or((place, None), |(p, f)| (p, Some(f.to_owned())));
    Ok(Patch {
        name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        path: path.to_owned(),
        files: text.lines().filter_map(|line| line.strip_prefix("+++ b/")).map(str::to_owned).collect(),
        promise: header("promise:")?.to_owned(),
        package: package.to_owned(),
        file,
        test: test.to_owned(),
    })
}

/// The test, which passes without the patch, must fail, not break, with it.
fn judge(scratch: &Scratch, patch: &Patch) -> Result<&'static str> {
    eprintln!("sabotage {}: {}", patch.name, patch.promise);
    let path = patch.path.to_string_lossy();
    scratch.git(&["apply", "--whitespace=nowarn", &path])?;
    let built = scratch.builds(patch)?;
    let green = built && scratch.test(patch)?;
    scratch.git(&["apply", "--whitespace=nowarn", "-R", &path])?;
    Ok(match (built, green) {
        (false, _) => "DOESN'T BUILD",
        (true, true) => "NOT NOTICED",
        (true, false) => "red, as it must be",
    })
}

/// All files below `folder`.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// A copy of the tracked files, with a build folder that outlives the run so that the next one is quick.
struct Scratch {
    folder: PathBuf,
    target: PathBuf,
    object: PathBuf,
}

impl Scratch {
    fn new(object: PathBuf) -> Result<Self> {
        let folder = repository().join("target/sabotage/tree");
        let target = repository().join("target/sabotage/build");
        fs::create_dir_all(&folder)?;
        let listing = read("git", &["ls-files"])?;
        let tracked: BTreeSet<PathBuf> = listing.lines().map(|file| folder.join(file)).collect();
        for left_over in files_below(&folder)?.iter().filter(|file| !tracked.contains(*file)) {
            fs::remove_file(left_over)?;
        }
        for file in listing.lines() {
            let to = folder.join(file);
            let from = repository().join(file);
            // Only what differs: cargo goes by the time of change. A patch that was taken back left a later
            // one, and with its old one the file would look as if the broken build were made of it.
            if fs::read(&to).ok() != Some(fs::read(&from)?) {
                fs::create_dir_all(to.parent().context("a file has a folder")?)?;
                fs::copy(&from, &to)?;
            }
        }
        Ok(Self { folder, target, object })
    }

    /// A patch that no longer applies breaks nothing, whether or not its turn has come.
    fn refuse_stale_patches(&self) -> Result<()> {
        let stale: Vec<String> = read_patches()?
            .into_iter()
            .filter(|patch| self.git(&["apply", "--check", &patch.path.to_string_lossy()]).is_err())
            .map(|patch| patch.name)
            .collect();
        if !stale.is_empty() {
            bail!("patches that don't apply any more: {}", stale.join(", "));
        }
        Ok(())
    }

    fn git(&self, arguments: &[&str]) -> Result<()> {
        // Outside any repository, so that `apply` takes the paths as they stand.
        let mut git = Command::new("git");
        git.current_dir(&self.folder).env("GIT_CEILING_DIRECTORIES", repository().join("target/sabotage"));
        process::run(git.args(arguments))
    }

    fn cargo(&self, verb: &[&str], patch: &Patch) -> Result<bool> {
        let mut cargo = Command::new("cargo");
        cargo.args(verb).args(["-p", &patch.package]);
        match &patch.file {
            Some(file) => cargo.args(["--test", file]),
            // The one crate without a library.
            None if patch.package == "xtask" => cargo.arg("--bins"),
            None => cargo.arg("--lib"),
        };
        cargo.current_dir(&self.folder).env("CARGO_TARGET_DIR", &self.target);
        // Nobody looks into these builds, and without it they take less time.
        cargo.env("MAILGUARD_EBPF", &self.object).env("CARGO_PROFILE_DEV_DEBUG", "0");
        cargo.env("MAILGUARD_BIN", self.target.join("debug/mailguard"));
        if verb[0] == "nextest" {
            cargo.args(["--no-tests", "fail", "-E", &format!("test(/(^|::){}$/)", patch.test)]);
        }
        let output = cargo.output().context("can't start cargo")?;
        if !output.status.success() && std::env::var_os("MAILGUARD_SHOW").is_some() {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output.status.success())
    }

    fn builds(&self, patch: &Patch) -> Result<bool> {
        if patch.file.is_some() {
            let mut cargo = Command::new("cargo");
            cargo.args(["build", "-p", "mailguard"]).current_dir(&self.folder);
            cargo.env("CARGO_TARGET_DIR", &self.target).env("MAILGUARD_EBPF", &self.object);
            cargo.env("CARGO_PROFILE_DEV_DEBUG", "0");
            if !cargo.output()?.status.success() {
                return Ok(false);
            }
        }
        self.cargo(&["nextest", "run", "--no-run"], patch)
    }

    fn test(&self, patch: &Patch) -> Result<bool> {
        Ok(self.builds(patch)? && self.cargo(&["nextest", "run"], patch)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(name: usize) -> Patch {
        Patch {
            name: format!("{name:02}"),
            path: PathBuf::new(),
            files: [format!("{name:02}.rs")].into(),
            promise: String::new(),
            package: String::new(),
            file: None,
            test: String::new(),
        }
    }

    fn names(changed: &[&str], day: usize) -> BTreeSet<String> {
        let changed = changed.iter().map(|file| (*file).to_owned()).collect();
        chosen((0..50).map(patch).collect(), &changed, day).into_iter().map(|patch| patch.name).collect()
    }

    #[test]
    fn patches_of_the_change_run_and_the_others_in_turn() {
        for day in 0..10 {
            let today = names(&["33.rs", "07.rs"], day);
            assert_eq!(today.len(), SOME);
            assert!(today.contains("33") && today.contains("07"), "day {day}: {today:?}");
        }
        let three_days: BTreeSet<String> = (20_000..20_003).flat_map(|day| names(&[], day)).collect();
        assert_eq!(three_days.len(), 50, "each had its turn");
    }
}
