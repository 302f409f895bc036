//! mailguard's daemon and command line; the modules stand in the order of a message's way.

pub mod cli;
pub mod config;
pub mod control;
pub mod datapath;
pub mod delivery;
pub mod intercept;
pub mod lookup;
pub mod quarantine;
pub mod queue;
pub mod routing;
pub mod scan;
pub mod session;
pub mod spool;
pub mod store;
pub mod trace;
