//! Network namespaces of a test's own: client, firewall and server in a row, IPv4 and IPv6, gone when
//! dropped.
//!
//! Commands are put into a namespace with `nsenter --net`, not `ip netns exec`: that would remount /sys and
//! hide the BPF file system.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one; `label` is part of its name.
    pub fn new(label: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mg{}-{number}-{label}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        // Addresses are usable at once, without a search for duplicates.
        for setting in ["all", "default"] {
            namespace.sysctl(&format!("net.ipv6.conf.{setting}.accept_dad"), "0")?;
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that names it for `setns`.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that runs in here.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs `ip` in here with these words.
    pub fn ip(&self, words: &str) -> Result<()> {
        run(Command::new("ip").args(["-n", &self.name]).args(words.split_whitespace()))
    }

    /// What `ip` prints in here.
    pub fn ip_output(&self, words: &str) -> Result<String> {
        let output = Command::new("ip").args(["-n", &self.name]).args(words.split_whitespace()).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Sets a kernel setting of this namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        run(self.command("sysctl").args(["-q", "-w", &format!("{key}={value}")]))
    }

    /// Moves the calling thread in here, for good: only for threads that a test made for this.
    pub fn enter(&self) -> Result<()> {
        let file = File::open(self.path())?;
        Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
    }

    /// What `work` returns, done in here by a thread of its own.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("ip").args(["netns", "del", &self.name])) {
            eprintln!("{error}");
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("can't start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {} (network tests need root)", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A client and a server with a firewall between them that forwards.
#[derive(Debug)]
pub struct Topology {
    /// 192.0.2.2 to .4 and 2001:db8:1::2 on `eth0`; everything goes by way of the firewall.
    pub client: Namespace,
    /// [`LAN`] towards the client, [`WAN`] towards the server.
    pub firewall: Namespace,
    /// 198.51.100.2 and 2001:db8:2::2 on `eth0`.
    pub server: Namespace,
}

/// The firewall's interface towards the client.
pub const LAN: &str = "lan0";
/// The firewall's bridge towards the client, where there is one.
pub const BRIDGE: &str = "br0";
/// The firewall's interface towards the server.
pub const WAN: &str = "wan0";
/// The client's first address.
pub const CLIENT4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The client's second address.
pub const CLIENT4_SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
/// The client's third address.
pub const CLIENT4_THIRD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 4);
/// The client's IPv6 address.
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
/// The firewall's address towards the client.
pub const FIREWALL4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The firewall's IPv6 address towards the client.
pub const FIREWALL6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
/// The firewall's address towards the server.
pub const FIREWALL4_WAN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The firewall's IPv6 address towards the server.
pub const FIREWALL6_WAN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
/// The server's address.
pub const SERVER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The server's IPv6 address.
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2);

impl Topology {
    /// Makes the three and what connects them.
    pub fn new() -> Result<Self> {
        let topology = Self {
            client: Namespace::new("client")?,
            firewall: Namespace::new("firewall")?,
            server: Namespace::new("server")?,
        };
        topology.plug_client()?;
        topology.plug_server()?;
        let firewall = &topology.firewall;
        firewall.sysctl("net.ipv4.ip_forward", "1")?;
        firewall.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        Ok(topology)
    }

    /// Joins client and firewall, addresses and routes included; also anew, when an end was deleted.
    pub fn plug_client(&self) -> Result<()> {
        let Self { client, firewall, .. } = self;
        join(client, "eth0", firewall, LAN)?;
        for address in [CLIENT4, CLIENT4_SECOND, CLIENT4_THIRD] {
            client.ip(&format!("address add {address}/24 dev eth0"))?;
        }
        client.ip(&format!("address add {CLIENT6}/64 dev eth0 nodad"))?;
        address(firewall, LAN, FIREWALL4, FIREWALL6)?;
        go_by_way_of(client, FIREWALL4, FIREWALL6)
    }

    /// Makes [`LAN`] a port of the firewall's new bridge [`BRIDGE`], which gets its addresses.
    pub fn bridge_client(&self) -> Result<()> {
        let Self { firewall, .. } = self;
        firewall.ip(&format!("link add {BRIDGE} type bridge"))?;
        firewall.ip(&format!("address flush dev {LAN}"))?;
        firewall.ip(&format!("link set {LAN} master {BRIDGE}"))?;
        firewall.ip(&format!("link set {BRIDGE} up"))?;
        address(firewall, BRIDGE, FIREWALL4, FIREWALL6)
    }

    /// Joins server and firewall in the same way as the client.
    pub fn plug_server(&self) -> Result<()> {
        let Self { server, firewall, .. } = self;
        join(server, "eth0", firewall, WAN)?;
        address(server, "eth0", SERVER4, SERVER6)?;
        address(firewall, WAN, FIREWALL4_WAN, FIREWALL6_WAN)?;
        go_by_way_of(server, FIREWALL4_WAN, FIREWALL6_WAN)
    }
}

fn address(namespace: &Namespace, interface: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    namespace.ip(&format!("address add {v4}/24 dev {interface}"))?;
    namespace.ip(&format!("address add {v6}/64 dev {interface} nodad"))
}

fn go_by_way_of(namespace: &Namespace, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    namespace.ip(&format!("route add default via {v4}"))?;
    namespace.ip(&format!("-6 route add default via {v6}"))
}

/// Joins two namespaces by a cable (a veth pair), both ends up.
pub fn join(one: &Namespace, interface: &str, other: &Namespace, other_interface: &str) -> Result<()> {
    run(Command::new("ip")
        .args([
            "link",
            "add",
            interface,
            "netns",
            one.name(),
            "type",
            "veth",
            "peer",
            "name",
            other_interface,
        ])
        .args(["netns", other.name()]))?;
    one.ip(&format!("link set {interface} up"))?;
    other.ip(&format!("link set {other_interface} up"))
}

/// `192.0.2.1:25`, `[2001:db8::1]:25`.
pub fn port25(address: impl Into<std::net::IpAddr>) -> String {
    SocketAddr::new(address.into(), 25).to_string()
}
