//! SMTP without sockets: commands and replies as values, and the two ends of a session as state machines.

pub mod client;
pub mod enhanced_status;
pub mod refusal;
pub mod reply;

pub use enhanced_status::EnhancedStatus;
pub use refusal::Refusal;
pub use reply::{Reply, ReplyCode, Severity};
