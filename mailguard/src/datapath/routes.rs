//! Policy routing: a packet that a program marked, having given it to a socket of ours, is delivered locally
//! whatever its destination.
//!
//! One rule an interface and family, `iif IF fwmark V/M lookup T`, and one route in T. Bound to the interface
//! the rule survives every setting of rp_filter, src_valid_mark and tcp_fwmark_accept; unbound it wouldn't.

use std::net::{Ipv4Addr, Ipv6Addr};

use futures::{Stream, StreamExt, TryStreamExt};
use mailguard_common::maps::PACKET_MARK;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

use super::DatapathError;
use super::drift::Part;
use crate::intercept::{self, Family};

/// Number of our routing table.
pub const TABLE: u32 = 2525;
/// Priority of our rules: after the local table's 0, before the main table's 32766.
pub const PRIORITY: u32 = 25;

/// Runs `work` with a netlink connection, on a thread and runtime of its own: callers may or may not be
/// within one. The thread is in the caller's network namespace.
pub(super) fn with_netlink<T: Send>(
    work: impl AsyncFnOnce(Handle) -> Result<T, DatapathError> + Send,
) -> Result<T, DatapathError> {
    talk(false, work)
}

/// [`with_netlink`], where a list of routes is only of those that were asked for (NETLINK_GET_STRICT_CHK).
/// Questions with more in their heads than the kernel looks at are refused there.
pub(super) fn with_strict_netlink<T: Send>(
    work: impl AsyncFnOnce(Handle) -> Result<T, DatapathError> + Send,
) -> Result<T, DatapathError> {
    talk(true, work)
}

fn talk<T: Send>(
    strictly: bool,
    work: impl AsyncFnOnce(Handle) -> Result<T, DatapathError> + Send,
) -> Result<T, DatapathError> {
    let talk = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        runtime.map_err(DatapathError::NetlinkSocket)?.block_on(async {
            let opened = match strictly {
                true => rtnetlink::new_connection_with_strict_check(),
                false => rtnetlink::new_connection(),
            };
            let (connection, handle, _) = opened.map_err(DatapathError::NetlinkSocket)?;
            let connection = tokio::spawn(connection);
            let result = work(handle).await;
            connection.abort();
            result
        })
    };
    std::thread::scope(|scope| match scope.spawn(talk).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Installs the routes, and the rules for `devices`, those that aren't there.
pub(super) fn add(devices: &[String]) -> Result<(), DatapathError> {
    with_strict_netlink(async |netlink| {
        for part in missing_parts(&netlink, devices).await? {
            match part {
                Part::Route(family) => install_route(&netlink, version(family)).await?,
                Part::Rule(family, device) => add_rule(&netlink, version(family), &device).await?,
                _ => {}
            }
        }
        Ok(())
    })
}

/// What of it isn't there.
pub(super) fn missing(devices: &[String]) -> Result<Vec<Part>, DatapathError> {
    with_strict_netlink(async |netlink| missing_parts(&netlink, devices).await)
}

/// Routes first: a rule that leads nowhere loses what it catches.
async fn missing_parts(netlink: &Handle, devices: &[String]) -> Result<Vec<Part>, DatapathError> {
    let mut missing = Vec::new();
    if devices.is_empty() {
        return Ok(missing);
    }
    for family in families_in_use() {
        let routes = our_routes(netlink, version(family)).await?;
        if !routes.iter().any(is_local_default) {
            missing.push(Part::Route(family));
        }
        let rules = our_rules(netlink, version(family)).await?;
        let has_rule = |device: &&String| {
            let ours =
                rules.iter().filter(|rule| rule.attributes.contains(&RuleAttribute::Priority(PRIORITY)));
            ours.into_iter().any(|rule| interface_of(rule) == Some(*device))
        };
        let without = devices.iter().filter(|device| !has_rule(device));
        missing.extend(without.map(|device| Part::Rule(family, device.clone())));
    }
    Ok(missing)
}

fn version(family: Family) -> IpVersion {
    match family {
        Family::V4 => IpVersion::V4,
        Family::V6 => IpVersion::V6,
    }
}

/// Removes the rules for all other devices.
pub(super) fn remove_except(devices: &[String]) -> Result<(), DatapathError> {
    let stale = |rule: &RuleMessage| !interface_of(rule).is_some_and(|name| devices.contains(name));
    with_netlink(async |netlink| {
        for family in families_in_use() {
            for rule in our_rules(&netlink, version(family)).await?.into_iter().filter(stale) {
                netlink.rule().del(rule).execute().await.map_err(DatapathError::netlink("remove a rule"))?;
            }
        }
        Ok(())
    })
}

/// Removes all our rules and routes, and says how many there were.
pub(super) fn remove() -> Result<usize, DatapathError> {
    with_strict_netlink(async |netlink| {
        let mut count = 0;
        for version in versions() {
            for rule in our_rules(&netlink, version.clone()).await? {
                netlink.rule().del(rule).execute().await.map_err(DatapathError::netlink("remove a rule"))?;
                count += 1;
            }
            for route in our_routes(&netlink, version).await? {
                netlink
                    .route()
                    .del(route)
                    .execute()
                    .await
                    .map_err(DatapathError::netlink("remove a route"))?;
                count += 1;
            }
        }
        Ok(count)
    })
}

/// The versions of IP that this kernel has, whether they are in use or not.
pub(super) fn versions() -> Vec<IpVersion> {
    let ipv6 = std::path::Path::new("/proc/thread-self/net/if_inet6").exists();
    if ipv6 { vec![IpVersion::V4, IpVersion::V6] } else { vec![IpVersion::V4] }
}

/// The families that can be routed here now.
fn families_in_use() -> Vec<Family> {
    if intercept::has_ipv6() { vec![Family::V4, Family::V6] } else { vec![Family::V4] }
}

fn interface_of(rule: &RuleMessage) -> Option<&String> {
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Iifname(name) => Some(name),
        _ => None,
    })
}

async fn our_rules(netlink: &Handle, version: IpVersion) -> Result<Vec<RuleMessage>, DatapathError> {
    let rules = netlink.rule().get(version).execute();
    let rules: Vec<RuleMessage> =
        rules.try_collect().await.map_err(DatapathError::netlink("list the rules"))?;
    let ours = |rule: &RuleMessage| {
        rule.attributes.contains(&RuleAttribute::Table(TABLE))
            && rule.attributes.contains(&RuleAttribute::FwMark(PACKET_MARK))
    };
    Ok(rules.into_iter().filter(ours).collect())
}

async fn add_rule(netlink: &Handle, version: IpVersion, device: &str) -> Result<(), DatapathError> {
    let mut request = netlink.rule().add();
    let message = request.message_mut();
    message.header.family = match version {
        IpVersion::V4 => AddressFamily::Inet,
        IpVersion::V6 => AddressFamily::Inet6,
    };
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Iifname(device.to_owned()),
        RuleAttribute::FwMark(PACKET_MARK),
        RuleAttribute::FwMask(PACKET_MARK),
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::Table(TABLE),
    ];
    request.execute().await.map_err(DatapathError::netlink(format!("add a rule for {device}")))
}

/// `local default dev lo`
async fn install_route(netlink: &Handle, version: IpVersion) -> Result<(), DatapathError> {
    let what = || DatapathError::netlink("add the local route");
    let loopback = loopback(netlink).await?;
    let route = match version {
        IpVersion::V4 => local_default(RouteMessageBuilder::<Ipv4Addr>::new(), loopback),
        IpVersion::V6 => local_default(RouteMessageBuilder::<Ipv6Addr>::new(), loopback),
    };
    netlink.route().add(route).replace().execute().await.map_err(what())
}

fn local_default<T>(builder: RouteMessageBuilder<T>, loopback: u32) -> RouteMessage {
    builder.table_id(TABLE).kind(RouteType::Local).scope(RouteScope::Host).output_interface(loopback).build()
}

async fn loopback(netlink: &Handle) -> Result<u32, DatapathError> {
    let mut links = netlink.link().get().match_name("lo").execute();
    let link = links.try_next().await.map_err(DatapathError::netlink("find the interface lo"))?;
    Ok(link.map_or(1, |link| link.header.index))
}

fn is_local_default(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Local && route.header.destination_prefix_length == 0
}

async fn our_routes(netlink: &Handle, version: IpVersion) -> Result<Vec<RouteMessage>, DatapathError> {
    routes_of(netlink, version, TABLE).try_collect().await
}

/// The routes of a table, which the kernel picks: in others there may be a million. Asked strictly only.
pub(super) fn routes_of(
    netlink: &Handle,
    version: IpVersion,
    table: u32,
) -> impl Stream<Item = Result<RouteMessage, DatapathError>> {
    let mut filter = RouteMessage::default();
    filter.header.address_family = match version {
        IpVersion::V4 => AddressFamily::Inet,
        IpVersion::V6 => AddressFamily::Inet6,
    };
    // Whatever else the header says would be a filter, too.
    filter.header.protocol = RouteProtocol::Unspec;
    filter.header.kind = RouteType::Unspec;
    filter.header.scope = RouteScope::Universe;
    filter.attributes.push(RouteAttribute::Table(table));
    let routes = netlink.route().get(filter).execute();
    routes.filter_map(async |route| match route {
        // There is no such table before its first route.
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ENOENT => None,
        route => Some(route.map_err(DatapathError::netlink("list the routes"))),
    })
}
