//! The two databases and how they are written: `spool.redb` (queue and quarantine, durable) and `facts.redb`
//! (the rest, relaxed), each with one writer thread. The only room that knows redb.
//!
//! Everything that outlives the process goes through here: named reads and changes of rows as values. In the
//! folders `spool` and `facts` a table is a file, and `table` says what that is; `opening` and `schema` make
//! a file one of ours, `writer` commits. What the rows mean is left to `spool`, `queue`, `quarantine`,
//! `trace` and whoever else keeps something.

pub mod body;
mod error;
pub mod facts;
mod files;
#[cfg(test)]
pub(crate) mod golden;
#[cfg(test)]
pub(crate) mod lossy;
mod opening;
mod reopening;
mod schema;
pub mod spool;
pub mod stock;
mod table;
mod writer;

pub use error::{OpenError, ReadError, StoreError, UnreadableRow, WriteError};

/// The databases' files in `state_dir`.
pub const DATABASES: [&str; 2] = [spool::FILE_NAME, facts::FILE_NAME];

/// The folder of body files beside them.
pub const BODIES: &str = spool::BODIES_NAME;

/// How the file of a database begins.
pub const MAGIC: &[u8; 4] = b"redb";
