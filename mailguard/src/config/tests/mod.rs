//! The file from end to end: text in, typed configuration or printed errors out.

mod editing;
mod loading;
mod meaning;
mod printing;
mod routing;

use super::*;

/// The least that is a configuration.
pub(super) const LEAST: &str = "\
hostname = \"gate.example.org\"
[[zone]]
name = \"lan\"
kind = \"green\"
interfaces = [\"eth0\"]
mode = \"transparent\"
";

/// `LEAST` with `more` behind it, parsed.
fn least_and(more: &str) -> Result<Config, Errors> {
    parse(&Source::of_text("m.toml", format!("{LEAST}{more}")))
}
