//! The checks that more than one stage asks, or that must ask others: each a file.

pub mod access;
pub mod domain;
pub mod greylist;
pub mod rbl;
pub(in crate::policy) mod relay;
pub mod verification;
