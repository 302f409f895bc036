//! mailguard's daemon and command line; the modules stand in the order of a message's way.

pub mod delivery;
pub mod lookup;
pub mod routing;
pub mod spool;
pub mod store;
