//! TLS: who we are to clients, and whom we believe as a client. Certificates and keys are read with the
//! configuration; here they become what a handshake needs.

mod identity;
mod stream;
mod trust;

#[cfg(test)]
pub(crate) use identity::made_for;
pub use identity::{Identity, IdentityError};
pub use stream::Stream;
pub use trust::{TrustError, Trusts, verifying};
