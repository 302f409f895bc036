//! The configuration: what it means, complete and typed.
//!
//! `model` is what every other module reads: each value present and in range. `resolve` makes it from what a
//! file said, or returns every error at once.

pub mod model;

pub use model::Config;
