//! mailguard's content checks: the octets of a message go in, findings come out.
//!
//! One walk over a message's parts ([`mailguard_core::mime`]) shows each of them to every engine. An engine
//! is a file with a [`PartEngine`] in it, and a line in [`Engines::new`]:
//!
//! | engine | looks for |
//! |---|---|
//! | [`BlockedFiles`] | names and contents that `[files]` blocks |
//! | [`Signatures`] | what YARA rules match |
//!
//! Everything here is computed: no socket, file or clock, and no dependency that has a runtime, a database or
//! the kernel (`cargo xtask tidy` looks). So engines are tested as tables and fuzzed. Threads, waiting and
//! what a panic counts as are the business of `mailguard`'s own `scan`; what becomes of a message is
//! `mailguard_core::disposition`'s.

#![forbid(unsafe_code)]
// What a peer sends ends no process.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod engine;
mod engines;
mod files;
mod signatures;
#[cfg(test)]
mod tests;
mod threats;

pub use engine::{PartEngine, Tally};
pub use engines::{Engines, SCAN_TIMEOUT, WALK_TIMEOUT};
pub use files::BlockedFiles;
pub use signatures::{RuleError, Signatures};
pub use threats::{MAX_THREATS, Threats};
