//! SMTP without sockets: commands and replies as values, and the two ends of a session as state machines.

pub mod client;
pub mod command;
pub mod data;
pub mod enhanced_status;
pub mod extension;
pub mod line;
pub mod refusal;
pub mod reply;
pub mod sasl;
pub mod server;
#[cfg(test)]
mod tests;
pub(crate) mod xtext;

pub use command::{AuthCommand, Command, CommandError, HeloName, MailCommand, RcptCommand, Strictness};
pub use enhanced_status::{Detail, EnhancedStatus};
pub use refusal::{DomainFault, Refusal};
pub use reply::{Reply, ReplyCode, Severity};
