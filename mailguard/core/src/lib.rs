//! mailguard's logic without its surroundings: bytes, facts and time go in, actions and decisions come out.
//!
//! Nothing here opens a socket or a file, reads a clock or draws a random number, and no dependency of this
//! crate could.

// What a peer sends ends no process.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod bcc;
pub mod config;
pub mod credentials;
pub mod destination;
pub mod disposition;
pub mod dsn;
pub mod file_sets;
pub mod finding;
pub mod imap;
pub mod language;
pub mod local_routes;
pub mod log_value;
pub mod lookup;
pub mod mail;
pub mod mime;
pub mod mx;
pub mod named_hop;
pub mod names;
pub mod origin;
pub mod outcome;
pub mod policy;
pub mod rbl;
pub mod reach;
pub mod route;
pub mod rules;
pub mod schedule;
pub mod smtp;
pub mod subscriber;
