//! Who listens where: port 25 of active zones and the loopback ports of transparent ones must be free.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mailguard_common::maps::SMTP_PORT;
use mailguard_core::config::Config;
use mailguard_core::config::model::ZoneMode;

use super::Finding;

/// What a listening socket's line has in its fourth column (TCP_LISTEN of tcp_states.h).
const LISTENS: &str = "0A";
/// How the processes of a daemon are called.
const OURS: &str = "mailguard";

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    /// `master (pid 123)`, if it could be found out.
    pub(super) owner: Option<String>,
}

/// Reads them, and whose they are.
pub(super) fn read() -> Vec<Socket> {
    let sockets: Vec<(IpAddr, u16, u64)> = ["tcp", "tcp6"]
        .into_iter()
        .flat_map(|name| {
            listening(&fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default())
        })
        .collect();
    let owners = owners();
    let socket = |(address, port, inode)| Socket { address, port, owner: owners.get(&inode).cloned() };
    sockets.into_iter().map(socket).collect()
}

/// Address, port and inode of each listening socket in a text like /proc/net/tcp.
pub(super) fn listening(text: &str) -> Vec<(IpAddr, u16, u64)> {
    let socket = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = columns.get(1)?.split_once(':')?;
        if *columns.get(3)? != LISTENS {
            return None;
        }
        let port = u16::from_str_radix(port, 16).ok()?;
        Some((address_of(address)?, port, columns.get(9)?.parse().ok()?))
    };
    text.lines().filter_map(socket).collect()
}

/// Words of 32 bits in the machine's own order, in hexadecimal.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        let digits = hex.get(index * 8..index * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    if hex.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let octets: Vec<u8> = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into())
}

/// Inode ▶ process, of all sockets on the machine.
fn owners() -> HashMap<u64, String> {
    let mut owners = HashMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = process.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|octet| octet.is_ascii_digit()) {
            continue;
        }
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        // Processes end while we read.
        for descriptor in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
            owners.extend(inode.map(|inode| (inode, format!("{} (pid {pid})", name.trim()))));
        }
    }
    owners
}

/// Judges the ports that this configuration needs.
pub(super) fn judge(config: &Config, sockets: &[Socket]) -> Vec<Finding> {
    let foreign = |socket: &&Socket| !socket.owner.as_ref().is_some_and(|owner| owner.starts_with(OURS));
    let foreign: Vec<&Socket> = sockets.iter().filter(foreign).collect();
    let mut findings = smtp(config, &foreign);
    for (index, zone) in
        config.zones.iter().enumerate().filter(|(_, zone)| zone.mode == ZoneMode::Transparent)
    {
        let port = u16::try_from(index).ok().and_then(|index| config.kernel.proxy_port.checked_add(index));
        // The configuration was checked: without a port it wouldn't have loaded.
        let Some(port) = port else { continue };
        let in_the_way = foreign.iter().find(|socket| {
            socket.port == port && (socket.address.is_unspecified() || socket.address.is_loopback())
        });
        findings.push(match in_the_way {
            None => Finding::ok(
                "proxy-port",
                format!("zone {}: the loopback port {port} is free or ours", zone.name),
            ),
            Some(socket) => Finding::warning(
                "proxy-port",
                format!("zone {}: the loopback port {port} is taken: {}", zone.name, described(socket)),
                "The daemon starts all the same, a few seconds later and on another port. Choose another \
                 kernel.proxy_port, with a free port for each zone, or end that program.",
            )
            .command(format!("ss -ltnp 'sport = :{port}'")),
        });
    }
    findings
}

fn smtp(config: &Config, foreign: &[&Socket]) -> Vec<Finding> {
    let others: Vec<String> =
        foreign.iter().filter(|socket| socket.port == SMTP_PORT).map(|socket| described(socket)).collect();
    let mut active = config.zones.iter().filter(|zone| zone.mode == ZoneMode::Active).peekable();
    if others.is_empty() {
        return vec![Finding::ok("port-25", "nobody else listens on port 25")];
    }
    let others = others.join(", ");
    if active.peek().is_none() {
        let what = format!("{others} listens on port 25: no zone is active, so that it doesn't matter");
        return vec![Finding::ok("port-25", what)];
    }
    let finding = |zone: &mailguard_core::config::model::Zone| {
        Finding::error(
            "port-25",
            format!("zone {}: port 25 is taken: {others}", zone.name),
            "The daemon doesn't start: an active zone needs the port on its interfaces, and any other listener \
             that isn't bound to another interface is in the way, one on the loopback address too. End that \
             program, or move it to another port; mailguard delivers to it if [[incoming_domain]] names \
             that as server.",
        )
        .command("ss -ltnp 'sport = :25'")
    };
    active.map(finding).collect()
}

fn described(socket: &Socket) -> String {
    let owner = socket.owner.as_deref().unwrap_or("a process that can't be seen");
    format!("{owner} on {}", std::net::SocketAddr::new(socket.address, socket.port))
}
