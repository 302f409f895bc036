//! What a message consists of, before and after any protocol: addresses, envelope, identifiers, dates.

pub mod address;
pub mod date;
pub mod domain;
pub mod envelope;
pub mod header;
pub mod ids;
pub mod shown;

pub use address::{AddressError, AddressLiteral, ForwardPath, Host, LocalPart, Mailbox, ReversePath};
pub use date::{UnixTime, rfc3339};
pub use domain::{Domain, DomainError};
pub use envelope::{BodyType, DsnReturn, Envelope, Notify, Recipient, RecipientIndex};
pub use ids::QueueId;
pub use shown::{is_obeyed, is_unseen, shown};
