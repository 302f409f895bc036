//! Accepts connections from a listener that somebody else opened, without any privilege.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::{OwnAddresses, Purpose, Role};

/// A listener, registered with the runtime.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    purpose: Purpose,
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    /// The connection. What is written goes at once (TCP_NODELAY).
    pub stream: TcpStream,
    /// The client's address, and its port.
    pub client: SocketAddr,
    /// The original destination.
    pub destination: SocketAddr,
    /// Whether `destination` is an address of this host.
    pub destination_is_local: bool,
}

impl Listener {
    /// Takes over a listener. Must be called within a runtime.
    pub fn new(purpose: Purpose, socket: OwnedFd) -> io::Result<Self> {
        let socket = std::net::TcpListener::from(socket);
        socket.set_nonblocking(true)?;
        // Connections have it from the listener: one call fewer for each of them.
        SockRef::from(&socket).set_tcp_nodelay(true)?;
        let socket = TcpListener::from_std(socket)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, purpose })
    }

    /// What it is for.
    pub fn purpose(&self) -> &Purpose {
        &self.purpose
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next client's connection. An error is one of the listener (such as too many open files) or of one
    /// connection that broke meanwhile; the listener remains usable. Cancellation loses no connection.
    pub async fn accept(&self, own: &OwnAddresses) -> io::Result<Connection> {
        loop {
            let (stream, client) = self.socket.accept().await?;
            let destination = stream.local_addr()?;
            // Somebody on this host connected to the listener's own port: such connections are closed.
            let transparent = matches!(self.purpose.role, Role::Transparent { .. });
            if transparent && destination.port() == self.address.port() {
                continue;
            }
            let destination_is_local = !transparent || own.has(destination);
            let (client, destination) = (canonical(client), canonical(destination));
            return Ok(Connection { stream, client, destination, destination_is_local });
        }
    }
}

/// An IPv4 address in IPv4 form. One of IPv6 keeps its scope: without it a link-local one is no address.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(_) => address,
        v4 @ IpAddr::V4(_) => SocketAddr::new(v4, address.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intercept::Family;

    fn listener(role: Role) -> (Listener, SocketAddr) {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let purpose = Purpose { zone: "green".to_owned(), family: Family::V4, role };
        (Listener::new(purpose, socket.into()).unwrap(), address)
    }

    #[tokio::test]
    async fn an_active_listener_names_client_and_destination() {
        let (listener, address) = listener(Role::Active { interface: "lo".to_owned(), index: 1 });
        let client = TcpStream::connect(address).await.unwrap();
        let connection = listener.accept(&OwnAddresses::default()).await.unwrap();
        assert_eq!(connection.client, client.local_addr().unwrap());
        assert_eq!(connection.destination, address);
        assert!(connection.destination_is_local);
        assert!(connection.stream.nodelay().unwrap(), "a reply doesn't wait for another");
    }

    #[tokio::test]
    async fn a_transparent_listener_hangs_up_on_whoever_dials_it_directly() {
        let (listener, address) = listener(Role::Transparent { slot: 0 });
        let accepting = tokio::spawn(async move { listener.accept(&OwnAddresses::default()).await });
        let client = TcpStream::connect(address).await.unwrap();
        client.readable().await.unwrap();
        assert_eq!(client.try_read(&mut [0; 16]).unwrap(), 0, "closed without a word");
        assert!(!accepting.is_finished(), "it goes on waiting");
    }

    #[test]
    fn a_scope_is_kept_and_ipv4_is_ipv4() {
        for (address, expect) in [
            ("[::ffff:192.0.2.1]:25", "192.0.2.1:25"),
            ("[fe80::1%3]:25", "[fe80::1%3]:25"),
            ("[2001:db8::1]:25", "[2001:db8::1]:25"),
        ] {
            assert_eq!(canonical(address.parse().unwrap()), expect.parse().unwrap(), "{address}");
        }
    }
}
