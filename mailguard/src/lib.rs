//! mailguard's daemon and command line; the modules stand in the order of a message's way.

pub mod config;
pub mod lookup;
pub mod queue;
pub mod scan;
pub mod spool;
pub mod store;
pub mod trace;
