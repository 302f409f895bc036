//! The stages of a session at which something is judged, each a file. What it judges by,
//! [`check`](super::check) has.

pub mod connect;
pub mod end_of_data;
pub(super) mod helo;
pub mod mail;
pub mod rcpt;
