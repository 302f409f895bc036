//! Where a message came from: what routing, reports and traces need to know of the session after it ended.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::config::model::ZoneKind;

/// The session that brought a message, or ourselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A client's session.
    #[serde(rename = "Client")]
    Client(ClientOrigin),
    /// A notice of our own: never filtered, never answered with another.
    #[serde(rename = "Own")]
    Internal,
}

/// A client's session, as the transaction began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientOrigin {
    /// The zone's name.
    #[serde(rename = "zone")]
    pub zone: String,
    /// The zone's kind.
    #[serde(rename = "kind")]
    pub kind: ZoneKind,
    /// The client's address.
    #[serde(rename = "client")]
    pub client: IpAddr,
    /// The original destination.
    #[serde(rename = "destination")]
    pub destination: SocketAddr,
    /// Whether `destination` is an address of this host.
    #[serde(rename = "destination_is_ours")]
    pub destination_is_local: bool,
    /// The argument of HELO or EHLO, empty if there was none.
    #[serde(rename = "helo")]
    pub helo: String,
    /// The name by which the client had logged in.
    #[serde(rename = "user", default)]
    pub user: Option<String>,
}
