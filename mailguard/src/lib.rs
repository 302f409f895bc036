//! mailguard's daemon and command line; the modules stand in the order of a message's way.

// What a peer sends ends no process.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod config;
pub mod datapath;
pub mod names;
pub mod intercept;
pub mod session;
pub mod tls;
pub mod auth;
pub mod greylist;
pub mod bans;
pub mod verification;
pub mod lookup;
pub mod scan;
pub mod store;
pub mod spool;
pub mod queue;
pub mod routing;
pub mod delivery;
pub mod quarantine;
pub mod trace;
pub mod mail_log;
pub mod admin;
pub mod control;
pub mod doctor;
mod inheritance;
pub mod cli;
pub mod process;
