//! TLS: who we are to clients, and whom we believe as a client. Certificates and keys are read with the configuration; here they
//! become what a handshake needs.

mod identity;
mod trust;

pub use identity::{Identity, IdentityError};
pub use trust::{TrustError, verifying};
