//! For tests of this crate and of those that use it, behind the feature `testing`: no program that is
//! installed has it.
//!
//! What it is given stands in a test, so what is wrong with it ends the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod configuration;
pub mod transcript;

pub use configuration::{TestConfig, config, login};
