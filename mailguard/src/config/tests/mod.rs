//! The file from end to end: text in, typed configuration or printed errors out.

mod editing;
mod loading;
mod meaning;
mod printing;
mod routing;

use std::cell::Cell;

use super::*;

thread_local! {
    /// How often this thread has parsed a text.
    pub(super) static PARSES: Cell<usize> = const { Cell::new(0) };
}

/// How often a text is parsed by `what`, and what comes of it.
pub(crate) fn parses_of<T>(what: impl FnOnce() -> T) -> (usize, T) {
    let before = PARSES.get();
    let result = what();
    (PARSES.get() - before, result)
}

/// The least that is a configuration.
pub(crate) const LEAST: &str = "\
hostname = \"gate.example.org\"
[[zone]]
name = \"lan\"
kind = \"green\"
interfaces = [\"eth0\"]
mode = \"transparent\"
";

/// `LEAST` with `more` behind it, parsed.
fn least_and(more: &str) -> Result<Config, Errors> {
    parse_and_validate(&Source::of_text("m.toml", format!("{LEAST}{more}")))
}
