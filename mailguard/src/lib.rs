//! mailguard's daemon and command line; the modules stand in the order of a message's way.

pub mod config;
pub mod control;
pub mod datapath;
pub mod intercept;
pub mod lookup;
pub mod quarantine;
pub mod queue;
pub mod scan;
pub mod session;
pub mod spool;
pub mod store;
