//! Where connections come in: one listener a zone and family, and who dialled whom.
//!
//! The privileged process opens the listeners ([`open_listeners`]); the mail process inherits them and accepts
//! ([`Listener::accept`]). A transparent listener stands on a loopback port and is given its connections by the
//! kernel programs, whatever address they were sent to; an active one stands on port 25 of one interface.

mod accept;
mod listener;

pub use accept::{Connection, Listener};
pub use listener::{Family, ListenError, Role, ZoneListener, follow_interfaces, has_ipv6, open_listeners};
