//! Opens the listeners, as root: transparent sockets and marks need it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use mailguard_common::layout::{MAX_ZONES, SMTP_PORT, SOCKET_MARK};
use mailguard_core::config::Config;
use mailguard_core::config::model::{Zone, ZoneMode};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait for [`super::Listener::accept`], at most; the system may allow fewer (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// The two families of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// How a listener gets its connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// From the kernel programs: those to port 25 of any address.
    Transparent,
    /// From the stack: those to port 25 of an address of ours that come in by this interface.
    Active {
        /// The interface's name.
        interface: String,
        /// Its index: one that was deleted and made again has another, and needs another listener.
        index: u32,
    },
}

/// An open listener of a zone.
#[derive(Debug)]
pub struct ZoneListener {
    /// Index of the zone in `config.zones`.
    pub zone: usize,
    /// Family of its addresses.
    pub family: Family,
    /// How it gets its connections.
    pub role: Role,
    /// The listening socket, closed on exec.
    pub socket: OwnedFd,
}

/// A listener that can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A call on the socket failed.
    #[error("zone {zone}: cannot listen on {address}{}: {error}", .interface.as_ref().map(|i| format!(" of interface {i}")).unwrap_or_default())]
    Socket {
        /// The zone's name.
        zone: String,
        /// The address.
        address: SocketAddr,
        /// The interface, for an active zone.
        interface: Option<String>,
        /// The reason.
        #[source]
        error: io::Error,
    },
    /// The zone's loopback port doesn't exist.
    #[error("zone {0}: kernel.proxy_port leaves no port for it")]
    Port(String),
    /// More zones than the kernel maps hold.
    #[error("{0} zones are configured, {MAX_ZONES} are possible")]
    Zones(usize),
}

impl ListenError {
    /// Whether another socket has the address.
    pub fn is_in_use(&self) -> bool {
        matches!(self, ListenError::Socket { error, .. } if error.kind() == io::ErrorKind::AddrInUse)
    }
}

/// Opens every zone's listeners, IPv6 ones where the system has IPv6, and those of active zones where the interface is
/// there.
pub fn open_listeners(config: &Config) -> Result<Vec<ZoneListener>, ListenError> {
    if config.zones.len() > MAX_ZONES as usize {
        return Err(ListenError::Zones(config.zones.len()));
    }
    let mut listeners = Vec::new();
    for (index, zone) in config.zones.iter().enumerate() {
        for &family in families() {
            match zone.mode {
                ZoneMode::Inactive => {}
                ZoneMode::Transparent => {
                    listeners.push(transparent(index, zone, config.kernel.proxy_port, family)?);
                }
                ZoneMode::Active => {
                    for interface in &zone.interfaces {
                        if let Some(device) = interface_index(interface) {
                            listeners.push(active(index, zone, interface, device, family)?);
                        }
                    }
                }
            }
        }
    }
    Ok(listeners)
}

/// Opens the listeners of interfaces of active zones that have come, or come anew, and closes those of interfaces that
/// have gone. True when anything changed. A listener that can't be opened is an error, and the others are as they were.
pub fn follow_interfaces(config: &Config, listeners: &mut Vec<ZoneListener>) -> Result<bool, ListenError> {
    let mut come = Vec::new();
    for (number, zone) in config.zones.iter().enumerate().filter(|(_, zone)| zone.mode == ZoneMode::Active) {
        for (interface, family) in
            zone.interfaces.iter().flat_map(|i| families().iter().map(move |f| (i, *f)))
        {
            let Some(index) = interface_index(interface) else { continue };
            let role = Role::Active { interface: interface.clone(), index };
            let serves = |listener: &ZoneListener| {
                listener.zone == number && listener.family == family && listener.role == role
            };
            if !listeners.iter().any(serves) {
                come.push(active(number, zone, interface, index, family)?);
            }
        }
    }
    let before = listeners.len();
    listeners.retain(|listener| match &listener.role {
        Role::Transparent => true,
        Role::Active { interface, index } => interface_index(interface) == Some(*index),
    });
    let changed = before != listeners.len() || !come.is_empty();
    listeners.extend(come);
    Ok(changed)
}

fn families() -> &'static [Family] {
    if has_ipv6() { &[Family::V4, Family::V6] } else { &[Family::V4] }
}

/// The index of the interface of this name, if there is one now.
fn interface_index(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

/// Whether IPv6 is in use here: built in, and not switched off, which leaves no interface with an address.
pub fn has_ipv6() -> bool {
    std::fs::read("/proc/thread-self/net/if_inet6").is_ok_and(|addresses| !addresses.is_empty())
}

fn transparent(
    index: usize,
    zone: &Zone,
    first_port: u16,
    family: Family,
) -> Result<ZoneListener, ListenError> {
    let port = u16::try_from(index).ok().and_then(|index| first_port.checked_add(index));
    let port = port.ok_or_else(|| ListenError::Port(zone.name.clone()))?;
    let address: SocketAddr = match family {
        Family::V4 => (Ipv4Addr::LOCALHOST, port).into(),
        Family::V6 => (Ipv6Addr::LOCALHOST, port).into(),
    };
    let open = || {
        let socket = tcp_socket(family)?;
        // Its sessions answer from addresses that aren't ours. The kernel keeps one flag for both families.
        socket.set_ip_transparent_v4(true)?;
        // The sessions inherit it: the kernel programs know ours by it.
        socket.set_mark(SOCKET_MARK)?;
        listen(socket, address)
    };
    match open() {
        Ok(socket) => Ok(ZoneListener { zone: index, family, role: Role::Transparent, socket }),
        Err(error) => Err(ListenError::Socket { zone: zone.name.clone(), address, interface: None, error }),
    }
}

fn active(
    number: usize,
    zone: &Zone,
    interface: &str,
    index: u32,
    family: Family,
) -> Result<ZoneListener, ListenError> {
    let address: SocketAddr = match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED, SMTP_PORT).into(),
        Family::V6 => (Ipv6Addr::UNSPECIFIED, SMTP_PORT).into(),
    };
    let open = || {
        let socket = tcp_socket(family)?;
        // By the interface, not by its addresses: they may change.
        socket.bind_device(Some(interface.as_bytes()))?;
        listen(socket, address)
    };
    match open() {
        Ok(socket) => {
            let role = Role::Active { interface: interface.to_owned(), index };
            Ok(ZoneListener { zone: number, family, role, socket })
        }
        Err(error) => {
            let interface = Some(interface.to_owned());
            Err(ListenError::Socket { zone: zone.name.clone(), address, interface, error })
        }
    }
}

fn tcp_socket(family: Family) -> io::Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the closed sessions of the last run.
    socket.set_reuse_address(true)?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn listen(socket: Socket, address: SocketAddr) -> io::Result<OwnedFd> {
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
