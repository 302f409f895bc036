//! Opens the listeners, as root: transparent sockets and marks need it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use mailguard_common::maps::{MAX_ZONES, SMTP_PORT, SOCKET_MARK};
use mailguard_core::config::Config;
use mailguard_core::config::model::{Zone, ZoneMode};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait for [`super::Listener::accept`], at most; the system may allow fewer
/// (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// The two families of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    Transparent {
        /// The zone's place in the kernel maps and among the loopback ports: its own as long as it has
        /// listeners.
        slot: u32,
    },
    /// From the stack: those to port 25 of an address of ours that come in by this interface.
    Active {
        /// The interface's name.
        interface: String,
        /// Its index: one that was deleted and made again has another, and needs another listener.
        index: u32,
    },
}

/// What a listener is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purpose {
    /// Its zone's name: a zone may change its place in the configuration while sessions are open.
    pub zone: String,
    /// Family of its addresses.
    pub family: Family,
    /// How it gets its connections.
    pub role: Role,
}

/// An open listener of a zone. Clones share the socket.
#[derive(Debug, Clone)]
pub struct ZoneListener {
    /// Its number: never another one's in this process.
    pub id: u64,
    /// What it is for.
    pub purpose: Purpose,
    /// The listening socket, closed on exec.
    pub socket: Arc<OwnedFd>,
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

/// The listeners of a configuration, those of active zones where the interface is there.
#[derive(Debug, Clone, Default)]
pub struct Listeners {
    open: Vec<ZoneListener>,
    last_id: u64,
    /// Where the search for a free slot begins: one that has just been left is taken again last, for its port
    /// may be in use a while longer.
    next_slot: u32,
}

impl Listeners {
    /// The listeners that `config` wants now, IPv6 ones where the system has IPv6: those of `self` that still
    /// serve, and new ones. `self` stays as it is; whoever drops it closes what is no longer wanted.
    pub fn adapted(&self, config: &Config) -> Result<Self, ListenError> {
        self.adapt(config, false)
    }

    /// [`Listeners::adapted`], with any other port of the loopback address where a transparent zone's is
    /// taken. The kernel programs need no particular one, and whoever can hold the port, any user of this
    /// machine, mustn't keep us from starting.
    pub fn adapted_elsewhere(&self, config: &Config) -> Result<Self, ListenError> {
        self.adapt(config, true)
    }

    fn adapt(&self, config: &Config, elsewhere: bool) -> Result<Self, ListenError> {
        if config.zones.len() > MAX_ZONES as usize {
            return Err(ListenError::Zones(config.zones.len()));
        }
        let mut next = Self { open: Vec::new(), ..*self };
        for zone in &config.zones {
            match zone.mode {
                ZoneMode::Inactive => {}
                ZoneMode::Transparent => {
                    next.add_transparent(self, zone, config.kernel.proxy_port, elsewhere)?
                }
                ZoneMode::Active => next.add_active(self, zone)?,
            }
        }
        Ok(next)
    }

    /// `refused` won't be used: its numbers and slots are not to be anybody else's.
    pub fn give_up(&mut self, refused: &Self) {
        (self.last_id, self.next_slot) = (refused.last_id, refused.next_slot);
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, ZoneListener> {
        self.open.iter()
    }

    /// The slot of the transparent zone of this name.
    pub fn slot(&self, zone: &str) -> Option<u32> {
        self.open.iter().find(|listener| listener.purpose.zone == zone)?.slot()
    }

    fn add_transparent(
        &mut self,
        old: &Self,
        zone: &Zone,
        first_port: u16,
        elsewhere: bool,
    ) -> Result<(), ListenError> {
        let slot = match old.slot(&zone.name) {
            Some(slot) => slot,
            None => self.free_slot(old, first_port).ok_or_else(|| ListenError::Port(zone.name.clone()))?,
        };
        for &family in families() {
            let purpose = Purpose { zone: zone.name.clone(), family, role: Role::Transparent { slot } };
            match old.open.iter().find(|listener| listener.purpose == purpose) {
                Some(listener) => self.open.push(listener.clone()),
                None => {
                    let port = first_port + slot as u16;
                    let socket = match transparent(&zone.name, port, family) {
                        Err(error) if elsewhere && error.is_in_use() => transparent(&zone.name, 0, family)?,
                        opened => opened?,
                    };
                    self.push(purpose, Arc::new(socket));
                }
            }
        }
        Ok(())
    }

    fn add_active(&mut self, old: &Self, zone: &Zone) -> Result<(), ListenError> {
        for interface in &zone.interfaces {
            let Some(index) = interface_index(interface) else { continue };
            for &family in families() {
                let role = Role::Active { interface: interface.clone(), index };
                let purpose = Purpose { zone: zone.name.clone(), family, role };
                // By its index: that is what it is bound to, whatever its name has become.
                let same_port = |listener: &&ZoneListener| {
                    let theirs = &listener.purpose;
                    let Role::Active { index: bound_to, .. } = theirs.role else { return false };
                    (theirs.family, bound_to) == (family, index)
                };
                match old.open.iter().find(same_port) {
                    Some(listener) if listener.purpose == purpose => self.open.push(listener.clone()),
                    // The interface has changed zones, or its name: no second socket can listen there.
                    Some(listener) => self.push(purpose, listener.socket.clone()),
                    None => {
                        let socket = active(&zone.name, interface, family)?;
                        self.push(purpose, Arc::new(socket));
                    }
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, purpose: Purpose, socket: Arc<OwnedFd>) {
        self.last_id += 1;
        self.open.push(ZoneListener { id: self.last_id, purpose, socket });
    }

    /// A slot that neither these nor the `old` ones have, and whose port exists.
    fn free_slot(&mut self, old: &Self, first_port: u16) -> Option<u32> {
        let slots = MAX_ZONES.min(u32::from(u16::MAX - first_port) + 1);
        let taken = |slot| self.iter().chain(old.iter()).any(|listener| listener.slot() == Some(slot));
        let slot = (0..slots).map(|step| (self.next_slot + step) % slots).find(|&slot| !taken(slot))?;
        self.next_slot = slot + 1;
        Some(slot)
    }
}

/// Where the listeners of `config` stand when it is started with, of those interfaces that are there now.
pub fn wanted(config: &Config) -> Vec<SocketAddr> {
    let mut wanted = Vec::new();
    let mut ports = config.kernel.proxy_port..=u16::MAX;
    for zone in &config.zones {
        let port = match zone.mode {
            ZoneMode::Inactive => continue,
            ZoneMode::Transparent => ports.next(),
            ZoneMode::Active => {
                zone.interfaces.iter().any(|name| interface_index(name).is_some()).then_some(SMTP_PORT)
            }
        };
        let Some(port) = port else { continue };
        wanted.extend(families().iter().map(|&family| match zone.mode {
            ZoneMode::Active => everywhere(family, port),
            ZoneMode::Transparent | ZoneMode::Inactive => loopback(family, port),
        }));
    }
    wanted
}

fn loopback(family: Family, port: u16) -> SocketAddr {
    match family {
        Family::V4 => (Ipv4Addr::LOCALHOST, port).into(),
        Family::V6 => (Ipv6Addr::LOCALHOST, port).into(),
    }
}

fn everywhere(family: Family, port: u16) -> SocketAddr {
    match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED, port).into(),
        Family::V6 => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

impl ZoneListener {
    fn slot(&self) -> Option<u32> {
        match self.purpose.role {
            Role::Transparent { slot } => Some(slot),
            Role::Active { .. } => None,
        }
    }
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

fn transparent(zone: &str, port: u16, family: Family) -> Result<OwnedFd, ListenError> {
    let address = loopback(family, port);
    let open = || {
        let socket = tcp_socket(family)?;
        // Its sessions answer from addresses that aren't ours. The kernel keeps one flag for both families.
        socket.set_ip_transparent_v4(true)?;
        // The sessions inherit it: the kernel programs know ours by it.
        socket.set_mark(SOCKET_MARK)?;
        listen(socket, address)
    };
    open().map_err(|error| ListenError::Socket { zone: zone.to_owned(), address, interface: None, error })
}

fn active(zone: &str, interface: &str, family: Family) -> Result<OwnedFd, ListenError> {
    let address = everywhere(family, SMTP_PORT);
    let open = || {
        let socket = tcp_socket(family)?;
        // By the interface, not by its addresses: they may change.
        socket.bind_device(Some(interface.as_bytes()))?;
        listen(socket, address)
    };
    open().map_err(|error| {
        let interface = Some(interface.to_owned());
        ListenError::Socket { zone: zone.to_owned(), address, interface, error }
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Listeners of transparent zones in these slots, as far as their places are concerned.
    fn in_slots(slots: &[u32], next_slot: u32) -> Listeners {
        let mut listeners = Listeners { next_slot, ..Listeners::default() };
        for &slot in slots {
            let (zone, role) = (format!("zone{slot}"), Role::Transparent { slot });
            let socket = Arc::new(std::fs::File::open("/dev/null").unwrap().into());
            listeners.push(Purpose { zone, family: Family::V4, role }, socket);
        }
        listeners
    }

    #[test]
    fn a_slot_that_was_left_is_taken_again_last() {
        let (none, old) = (Listeners::default(), in_slots(&[0, 1, 2], 3));
        let mut kept = in_slots(&[0, 2], 3);
        assert_eq!(kept.free_slot(&old, 10_025), Some(3), "1 was left by this very change");
        kept.next_slot = MAX_ZONES;
        assert_eq!(kept.free_slot(&old, 10_025), Some(3), "0 to 2 are in use, or were until now");
        kept.next_slot = MAX_ZONES;
        assert_eq!(kept.free_slot(&none, 10_025), Some(1), "all others have been used since");
    }

    #[test]
    fn there_are_no_ports_beyond_the_last() {
        let (none, mut kept) = (Listeners::default(), in_slots(&[0, 1], 2));
        assert_eq!(kept.free_slot(&none, u16::MAX - 1), None);
        assert_eq!(kept.free_slot(&none, u16::MAX - 2), Some(2));
    }
}
