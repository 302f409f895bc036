//! Keeps the table of this host's addresses that `intercept` asks for each connection, in the mail process:
//! from the routes of the kernel's local table, which say what arrives here. An address that has no route
//! there yet, such as a tentative one of IPv6, can't be connected to.
//!
//! The routes are read anew whenever the kernel announces a change of them, and every few seconds: what it
//! routes no more because an interface went isn't always announced.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use mailguard_core::local_routes::{LocalRoute, LocalRoutes, MAX_LOCAL_ROUTES, TooManyRoutes};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use nix::libc;
use tracing::{info, warn};

use super::DatapathError;
use super::links::{LOCAL_ROUTES, Subscription};
use super::routes::{routes_of, versions, with_strict_netlink};
use crate::intercept::OwnAddresses;

/// Least pause after a look; one that took longer is followed by one as long. Who changes addresses without
/// end has us read them all half of the time at most.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Why nothing is known of this host's addresses.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error(transparent)]
    Netlink(#[from] DatapathError),
    #[error(transparent)]
    TooMany(#[from] TooManyRoutes),
}

/// Has `own` know the addresses of this network namespace, as long as somebody else has it, too: they are
/// known when this returns. Where they can't be, the log says why, and each connection asks the kernel, which
/// is slower.
pub fn keep_own_addresses(own: &OwnAddresses) {
    let subscribed = Subscription::open(LOCAL_ROUTES);
    // Looked at once nothing is missed any more, and before the first connection.
    let kept = subscribed.and_then(|subscription| {
        look(own, true);
        let keeper = Keeper(own.clone());
        subscription.follow("addresses", move |_| {
            let Keeper(own) = &keeper;
            let start = Instant::now();
            look(own, own.are_known());
            thread::sleep(start.elapsed().max(LOOK_PAUSE));
            own.is_shared()
        })
    });
    if let Err(error) = kept {
        own.set(None);
        warn_unknown(&error);
    }
}

/// Whoever keeps the table: when it is gone, however it went, so is the table, and the kernel is asked.
struct Keeper(OwnAddresses);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// Reads the routes. The log has what changes of whether they are known.
fn look(own: &OwnAddresses, were_known: bool) {
    match local_routes() {
        Ok(routes) => {
            own.set(Some(routes));
            if !were_known {
                info!("this host's addresses are known again without asking the kernel for each connection");
            }
        }
        Err(error) => {
            own.set(None);
            if were_known {
                warn_unknown(&error);
            }
        }
    }
}

fn warn_unknown(error: &dyn std::error::Error) {
    warn!(
        %error,
        "whether an original destination is this host itself is asked of the kernel for each connection, which is slower, until this is \
         mended"
    );
}

/// What this network namespace takes for itself.
fn local_routes() -> Result<LocalRoutes, Unknown> {
    let routes = with_strict_netlink(async |netlink| {
        let mut all: Vec<LocalRoute> = Vec::new();
        for version in versions() {
            // One more than is kept says that there are too many.
            let left = MAX_LOCAL_ROUTES + 1 - all.len();
            let routes = routes_of(&netlink, version, u32::from(libc::RT_TABLE_LOCAL)).take(left);
            all.extend(
                routes.try_filter_map(async |route| Ok(local_route(&route))).try_collect::<Vec<_>>().await?,
            );
        }
        Ok(all)
    })?;
    Ok(LocalRoutes::new(routes)?)
}

/// What a route says; nothing where it names a network that we can't read.
fn local_route(route: &RouteMessage) -> Option<LocalRoute> {
    let (mut destination, mut interface) = (None, 0);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => destination = Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => destination = Some(IpAddr::V6(*v6)),
            RouteAttribute::Oif(index) => interface = *index,
            _ => {}
        }
    }
    // That of everything isn't named.
    let destination = destination.unwrap_or(match route.header.address_family {
        netlink_packet_route::AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    });
    let network = IpNet::new(destination, route.header.destination_prefix_length).ok()?;
    // To a broadcast address no connection can be made; to dial one of ours would be as wrong.
    let here = matches!(
        route.header.kind,
        RouteType::Local | RouteType::Anycast | RouteType::Broadcast | RouteType::Multicast
    );
    Some(LocalRoute { network, interface, here })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_table_outlives_whoever_keeps_it() {
        let own = OwnAddresses::default();
        let keeper = Keeper(own.clone());
        look(&own, true);
        assert!(own.are_known());
        let ended = thread::spawn(move || {
            let _keeper = keeper;
            panic!("out of memory, or of threads");
        });
        assert!(ended.join().is_err());
        assert!(!own.are_known(), "what it last knew is no answer any more");
    }
}
