//! Which server gets a recipient's mail next: a pure decision of configuration and origin.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::config::model::{DefaultRoute, SmarthostAddress};
use crate::mail::{Domain, ForwardPath, Host, Mailbox};
use crate::origin::Origin;
use crate::smtp::EnhancedStatus;

/// The standard SMTP port.
pub const SMTP_PORT: u16 = 25;

/// Where to connect, before any name is looked up. Messages for equal next hops share connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NextHop {
    /// This address and port.
    Address(SocketAddr),
    /// The addresses of this name (A, AAAA), this port.
    Host(Domain, u16),
    /// The mail exchangers of this domain (RFC 5321 §5.1).
    Mx(Domain),
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NextHop::Address(address) => address.fmt(f),
            NextHop::Host(name, port) => write!(f, "{name}:{port}"),
            NextHop::Mx(domain) => write!(f, "mx:{domain}"),
        }
    }
}

/// A next hop and the rule that chose it, in one line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub next_hop: NextHop,
    /// Why.
    pub reason: String,
}

/// Mail that has no way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoute {
    /// For the report.
    pub status: EnhancedStatus,
    /// Transient: a change of configuration mends it.
    pub transient: bool,
    /// What to change, in one line.
    pub reason: String,
}

/// Chooses: the incoming domain's server, else the smarthost, else `delivery.default`.
pub fn route(config: &Config, recipient: &ForwardPath, origin: &Origin) -> Result<Route, NoRoute> {
    let mailbox = match recipient {
        ForwardPath::Mailbox(mailbox) => mailbox,
        ForwardPath::Postmaster => config.postmaster.as_ref().ok_or_else(|| NoRoute {
            status: EnhancedStatus::new(4, 3, 5),
            transient: true,
            reason: "mail for <postmaster> has no address: set `postmaster` or an [[incoming_domain]]"
                .to_owned(),
        })?,
    };
    if let Some(incoming) = mailbox.domain().and_then(|domain| config.incoming_domain(domain)) {
        let reason = format!("incoming domain {}", incoming.domain);
        return Ok(Route { next_hop: NextHop::Address(incoming.server), reason });
    }
    if let Some(smarthost) = &config.smarthost {
        let next_hop = match &smarthost.host {
            SmarthostAddress::Name(name) => NextHop::Host(name.clone(), smarthost.port),
            SmarthostAddress::Ip(address) => NextHop::Address(SocketAddr::new(*address, smarthost.port)),
        };
        return Ok(Route { next_hop, reason: "smarthost".to_owned() });
    }
    Ok(default_route(config.delivery.default, mailbox, origin))
}

fn default_route(default: DefaultRoute, mailbox: &Mailbox, origin: &Origin) -> Route {
    if let (DefaultRoute::OriginalDestination, Origin::Client(client)) = (default, origin)
        && !client.destination_is_ours
    {
        let reason = "the original destination".to_owned();
        return Route { next_hop: NextHop::Address(client.destination), reason };
    }
    match &mailbox.host {
        Host::Domain(domain) => {
            Route { next_hop: NextHop::Mx(domain.clone()), reason: format!("mail exchangers of {domain}") }
        }
        Host::Literal(literal) => {
            Route { next_hop: literal_hop(literal.0), reason: "address literal".to_owned() }
        }
    }
}

fn literal_hop(address: IpAddr) -> NextHop {
    NextHop::Address(SocketAddr::new(address, SMTP_PORT))
}
