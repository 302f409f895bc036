//! Crates that are pure by what they can't reach: no dependency of theirs, however far away, has a runtime, a
//! socket, a database or the kernel.

use std::collections::{BTreeMap, BTreeSet};

/// Crates whose code computes.
const PURE: [&str; 2] = ["mailguard-core", "mailguard-scan"];

/// What they may not be built upon.
const KEPT_OUT: [&str; 6] = ["aya", "mio", "nix", "redb", "socket2", "tokio"];

/// What is wrong by Cargo.lock, which has dependencies of tests, too: not even they reach further.
pub(super) fn faults(lock: &str) -> Vec<String> {
    let dependencies = dependencies(lock);
    let mut faults = Vec::new();
    for pure in PURE {
        if !dependencies.contains_key(pure) {
            faults.push(format!("Cargo.lock: no crate is called {pure}"));
        }
        for reached in reached(&dependencies, pure).intersection(&BTreeSet::from(KEPT_OUT)) {
            faults.push(format!("{pure} is built upon {reached}: it computes, and leaves that to others"));
        }
    }
    faults
}

/// Each crate's direct dependencies, by name; of several versions all of them.
fn dependencies(lock: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let Some(name) = package.split("name = \"").nth(1).and_then(|rest| rest.split('"').next()) else {
            continue;
        };
        let listed = package.split("dependencies = [").nth(1).and_then(|rest| rest.split(']').next());
        // "name", or "name version" where there are several.
        let quoted = listed.unwrap_or_default().split('"').skip(1).step_by(2);
        all.entry(name).or_default().extend(quoted.filter_map(|entry| entry.split(' ').next()));
    }
    all
}

/// Everything that `from` is built upon.
fn reached<'a>(dependencies: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(name) = open.pop() {
        let next = dependencies.get(name).into_iter().flatten();
        open.extend(next.filter(|name| reached.insert(**name)));
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_found_however_far_away() {
        let lock = |of_thiserror: &str| {
            format!(
                "version = 4\n\n[[package]]\nname = \"mailguard-core\"\nversion = \"0.1.0\"\ndependencies = [\n \"serde 1.0.0\",\n]\n\n\
                 [[package]]\nname = \"mailguard-scan\"\nversion = \"0.1.0\"\ndependencies = [\n \"mailguard-core\",\n \"thiserror\",\n]\n\n\
                 [[package]]\nname = \"thiserror\"\nversion = \"2.0.0\"\ndependencies = [\n \"{of_thiserror}\",\n]\n"
            )
        };
        assert_eq!(faults(&lock("syn")), Vec::<String>::new());
        let expect = ["mailguard-scan is built upon tokio: it computes, and leaves that to others"];
        assert_eq!(faults(&lock("tokio 1.54.0")), expect);
        let missing = lock("syn").replace("mailguard-core", "mailguard-kernel");
        assert_eq!(faults(&missing), ["Cargo.lock: no crate is called mailguard-core"]);
    }
}
