//! Where connections come in: a listener for each family, of a transparent zone or of an active zone's
//! interface; and who connected to whom.
//!
//! The privileged process opens the [`Listeners`] and hands them to the mail process, which accepts
//! ([`Listener::accept`]). A transparent listener stands on a loopback port and is given its connections by
//! the kernel programs, whatever address they were sent to; an active one stands on port 25 of one interface.

mod accept;
mod listener;
mod own_addresses;

pub use accept::{Connection, Listener};
pub use listener::{Family, ListenError, Listeners, Purpose, Role, ZoneListener, has_ipv6, wanted};
pub use own_addresses::OwnAddresses;
