//! mailguard: the daemon and its command line. The modules stand in the order of a message's way.

pub mod config;
