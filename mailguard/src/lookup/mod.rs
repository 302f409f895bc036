//! Facts from outside: each lookup says found, absent, or that nobody knows right now.

pub mod dns;
#[cfg(test)]
pub(crate) mod dns_server;
