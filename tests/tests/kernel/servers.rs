//! Those who answer: the proxy behind a listener of mailguard's, and the server that the client dials.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;

use mailguard::datapath;
use mailguard::intercept::{Listener, OwnAddresses, ZoneListener};
use mailguard_tests::netns::Namespace;
use socket2::{Domain, Socket, Type};

/// A thread that serves a listener until it is dropped.
pub(crate) struct Proxy {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Accepts with mailguard's own `Listener`, which must live in the namespace.
    pub(crate) fn start(namespace: &Namespace, zone: usize, listener: &ZoneListener) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (purpose, socket) = (listener.purpose.clone(), listener.socket.try_clone().unwrap());
        let path = namespace.path();
        let thread = std::thread::spawn(move || {
            nix::sched::setns(std::fs::File::open(path).unwrap(), nix::sched::CloneFlags::CLONE_NEWNET)
                .unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = Listener::new(purpose, socket).unwrap();
                let own = OwnAddresses::default();
                datapath::keep_own_addresses(&own);
                assert!(own.are_known());
                let serve = async {
                    while let Ok(connection) = listener.accept(&own).await {
                        let mailguard::intercept::Connection {
                            stream,
                            client,
                            destination,
                            destination_is_local,
                        } = connection;
                        let greeting =
                            format!("proxy {zone} {} {destination} {destination_is_local}\n", client.ip());
                        tokio::spawn(greet_and_echo(stream, greeting));
                    }
                };
                tokio::select! { () = serve => {}, _ = stopped => {} }
            });
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(JoinHandle::join);
    }
}

async fn greet_and_echo(mut stream: tokio::net::TcpStream, greeting: String) {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
    let (reader, mut writer) = stream.split();
    let mut lines = tokio::io::BufReader::new(reader);
    let mut line = Vec::new();
    let mut answer = greeting.into_bytes();
    while writer.write_all(&answer).await.is_ok() {
        line.clear();
        match lines.read_until(b'\n', &mut line).await {
            Ok(octets) if octets > 0 && line != b"close\n" => answer.clone_from(&line),
            _ => return,
        }
    }
}

/// A server that greets with the client's address and echoes, on one port, until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    namespace: PathBuf,
    thread: Option<JoinHandle<()>>,
    stop: mpsc::Sender<()>,
}

impl Server {
    /// One for each family.
    pub(crate) fn start(namespace: &Namespace, port: u16) -> Vec<Self> {
        let addresses: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        addresses.map(|address| Self::start_one(namespace, (address, port).into())).into()
    }

    fn start_one(namespace: &Namespace, address: SocketAddr) -> Self {
        let listen = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.bind(&address.into())?;
            socket.listen(16)?;
            Ok(TcpListener::from(socket))
        };
        let listener = namespace.within(listen).unwrap();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.try_recv() != Err(mpsc::TryRecvError::Empty) {
                    return;
                }
                let Ok(stream) = stream else { return };
                std::thread::spawn(move || echo_plainly(stream));
            }
        });
        Self { address, namespace: namespace.path(), thread: Some(thread), stop }
    }
}

fn echo_plainly(stream: TcpStream) {
    let client = stream.peer_addr().map(|client| client.ip().to_canonical());
    let Ok(client) = client else { return };
    let mut stream = BufReader::new(stream);
    let mut line = format!("server {client}\n").into_bytes();
    while stream.get_mut().write_all(&line).is_ok() {
        line.clear();
        if !matches!(stream.read_until(b'\n', &mut line), Ok(octets) if octets > 0) {
            return;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        // A last connection wakes the thread up.
        let address = self.address;
        let loopback: IpAddr =
            if address.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let path = self.namespace.clone();
        let wake = std::thread::spawn(move || {
            let namespace = std::fs::File::open(path).ok()?;
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
            TcpStream::connect((loopback, address.port())).ok()
        });
        let _ = wake.join();
        self.thread.take().map(JoinHandle::join);
    }
}
