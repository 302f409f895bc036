//! Traces: what happened to each message and why, from its client to its last attempt, for whoever has to
//! explain it.
//!
//! `session` records transactions, refused ones too, `queue` the attempts; the command line and later the
//! REST interface ask. Kept in `facts.redb` as long and as large as `[trace]` says. What the rows hold, and
//! how they are written, is left to `store`.

mod query;
mod recorder;

pub use query::{DEFAULT_LIMIT, MAX_LIMIT, Query, QueryError, ResultFilter, SYNTAX};
pub use recorder::{Recorder, Traces};

pub use crate::store::facts::attempts::AttemptRecord;
pub use crate::store::facts::traces::{Record, RefusedRecipient, TransactionResult};
