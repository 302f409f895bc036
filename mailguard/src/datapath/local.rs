//! Which addresses lead to this host or to many, as the kernel routes them: an interface's own, those of a
//! local route that no interface has, the broadcast addresses of networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use netlink_packet_route::route::RouteType;
use rtnetlink::{Error, Handle, RouteMessageBuilder};

use super::DatapathError;
use super::routes::with_netlink;

/// Where the kernel would deliver what is sent to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// To this host.
    Here,
    /// To every host of a network.
    Everybody,
    /// Elsewhere, or nowhere.
    Elsewhere,
}

/// Where each of these addresses leads, in this network namespace.
pub fn deliveries(addresses: &[IpAddr]) -> Result<Vec<Delivery>, DatapathError> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    with_netlink(async |netlink| {
        let mut deliveries = Vec::with_capacity(addresses.len());
        for address in addresses {
            deliveries.push(delivery(&netlink, *address).await?);
        }
        Ok(deliveries)
    })
}

async fn delivery(netlink: &Handle, address: IpAddr) -> Result<Delivery, DatapathError> {
    let to = match address {
        IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, 32).build(),
        IpAddr::V6(address) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).build()
        }
    };
    let found = netlink.route().get(to).execute().try_next().await;
    match found {
        Ok(Some(route)) => Ok(match route.header.kind {
            RouteType::Local | RouteType::Anycast => Delivery::Here,
            RouteType::Broadcast | RouteType::Multicast => Delivery::Everybody,
            _ => Delivery::Elsewhere,
        }),
        // There is no way to it.
        Ok(None) | Err(Error::NetlinkError(_)) => Ok(Delivery::Elsewhere),
        Err(error) => Err(DatapathError::netlink("find a route")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_is_local() {
        let ask = |text: &str| deliveries(&[text.parse().unwrap()]).unwrap()[0];
        assert_eq!(ask("127.0.0.1"), Delivery::Here);
        // No interface has this one: the network is routed here.
        assert_eq!(ask("127.3.2.1"), Delivery::Here);
        assert_eq!(ask("255.255.255.255"), Delivery::Everybody);
        assert_eq!(ask("203.0.113.77"), Delivery::Elsewhere);
        assert_eq!(ask("2001:db8:9::77"), Delivery::Elsewhere);
        assert_eq!(deliveries(&[]).unwrap(), []);
    }
}
