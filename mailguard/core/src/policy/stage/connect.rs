//! The connection: what its address says of the client, before it has said a word.

use std::net::IpAddr;

use crate::config::model::Access;
use crate::finding::Finding;
use crate::policy::check::access;

/// Judges the client's address.
pub fn judge(lists: &Access, client: IpAddr) -> Vec<Finding> {
    vec![access::client(lists, client)]
}
