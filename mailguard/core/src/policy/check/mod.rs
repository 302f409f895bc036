//! The checks that more than one stage asks, or that must ask others: each a file.
//!
//! One that must ask is a constant of the type `AskingCheck`: what it needs, and what it thinks once that is
//! known.

pub mod access;
pub mod domain;
pub mod greylist;
pub mod rbl;
pub(in crate::policy) mod relay;
pub mod verification;
