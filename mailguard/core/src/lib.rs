//! mailguard's logic without its surroundings: bytes, facts and time go in, actions and decisions come out.
//!
//! Nothing here opens a socket or a file, reads a clock or draws a random number, and no dependency of this
//! crate could. So everything is tested as a table, in seconds (`cargo test -p mailguard-core`), and
//! everything that can fail in the world is the business of the crate `mailguard`, whose rooms drive these
//! modules:
//!
//! | for | modules |
//! |---|---|
//! | SMTP | [`smtp`]: commands, replies, refusals; [`smtp::server`] and [`smtp::client`] are the two state machines |
//! | mail | [`mail`]: addresses, envelope, header, ids; [`mime`]: the one walk over a message's parts |
//! | what is taken from whom | [`policy`], a file a stage of the session; [`rbl`], [`imap`], [`lookup`], [`subscriber`] |
//! | what becomes of a message | [`finding`], [`points`]: what checks say; [`disposition`]: the decision |
//! | where mail goes, and when | [`route`], [`mx`], [`reach`], [`destination`], [`named_hop`], [`bcc`]; [`schedule`]; [`attempt`], [`outcome`] |
//! | who is told | [`dsn`], [`language`], [`log_value`] |
//! | the kernel's rules | [`rules`], [`names`], [`local_routes`] |
//! | the configuration | [`config`]: complete, or every error at once; [`file_sets`] |
//!
//! A stranger's octets become values, and what is wrong with them a reply:
//!
//! ```
//! use mailguard_core::smtp::Command;
//!
//! let line = b"rcpt to:<@relay.example:alice@example.com>";
//! let Ok(Command::Rcpt(rcpt)) = Command::parse(line) else { panic!() };
//! assert_eq!(rcpt.recipient.forward_path.to_string(), "<alice@example.com>");
//!
//! let error = Command::parse(b"MAIL FROM:<alice@example.com> SIZE=large").unwrap_err();
//! assert!(error.reply().to_string().starts_with("501 5.5.4"));
//! ```

// What a peer sends ends no process.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod attempt;
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
pub mod points;
pub mod policy;
pub mod rbl;
pub mod reach;
pub mod route;
pub mod rule_key;
pub mod rules;
pub mod schedule;
pub mod smtp;
pub mod subscriber;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
