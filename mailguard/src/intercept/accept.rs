//! Accepts connections from a listener that somebody else opened, without any privilege.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use tokio::net::{TcpListener, TcpStream};

use super::{Purpose, Role};

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
    /// The connection.
    pub stream: TcpStream,
    /// The client's address, and its port.
    pub client: SocketAddr,
    /// The address that the client had dialled.
    pub destination: SocketAddr,
    /// Whether `destination` is an address of this host.
    pub destination_is_ours: bool,
}

impl Listener {
    /// Takes over a listener. Must be called within a runtime.
    pub fn new(purpose: Purpose, socket: OwnedFd) -> io::Result<Self> {
        let socket = std::net::TcpListener::from(socket);
        socket.set_nonblocking(true)?;
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
    pub async fn accept(&self) -> io::Result<Connection> {
        loop {
            let (stream, client) = self.socket.accept().await?;
            let destination = stream.local_addr()?;
            // Somebody on this host dialled the loopback port itself: there is nobody at home.
            let transparent = matches!(self.purpose.role, Role::Transparent { .. });
            if transparent && destination.port() == self.address.port() {
                continue;
            }
            let destination_is_ours = !transparent || is_local(destination.ip());
            let (client, destination) = (canonical(client), canonical(destination));
            return Ok(Connection { stream, client, destination, destination_is_ours });
        }
    }
}

/// An IPv4 address in IPv4 form.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether `address` is one of this host: only those can be bound to without privilege. (Where the administrator
/// has set net.ipv4.ip_nonlocal_bind all can; mail for the dialled server then takes the general route.)
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
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
        let connection = listener.accept().await.unwrap();
        assert_eq!(connection.client, client.local_addr().unwrap());
        assert_eq!(connection.destination, address);
        assert!(connection.destination_is_ours);
    }

    #[tokio::test]
    async fn a_transparent_listener_hangs_up_on_whoever_dials_it_directly() {
        let (listener, address) = listener(Role::Transparent { slot: 0 });
        let accepting = tokio::spawn(async move { listener.accept().await });
        let client = TcpStream::connect(address).await.unwrap();
        client.readable().await.unwrap();
        assert_eq!(client.try_read(&mut [0; 16]).unwrap(), 0, "closed without a word");
        assert!(!accepting.is_finished(), "it goes on waiting");
    }

    #[test]
    fn local_addresses_are_told_from_others() {
        assert!(is_local("127.0.0.1".parse().unwrap()));
        assert!(!is_local("192.0.2.77".parse().unwrap()));
    }
}
