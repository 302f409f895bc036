//! New intercepted connections a second, and what one costs the processors: mailguard's TC program against
//! nftables' TPROXY. Client, listeners and acceptor are the same.
//!
//! One client dials, and breaks off with a RST, so that ports don't run out; the acceptor closes what it
//! gets. On veth the whole handshake is done on the client's processor, the acceptor has the other. Processor
//! time is that of the client's thread, of the acceptor's process and of the kernel's ksoftirqd threads, by
//! their clocks, to the nanosecond; softirqs count where they ran.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mailguard_tests::netns::{LAN, SERVER4, SERVER6};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use super::firewall::{Contestant, processor_time, thread_time};
use super::{Aim, alternate, print_head, print_row};
use crate::bench::samples::Samples;

/// Rounds, each of them with both contestants.
const ROUNDS: usize = 21;
/// Length of one sample.
const WINDOW: Duration = Duration::from_millis(500);
/// The loopback port of the zone's listener.
const PORT: u16 = 10_025;
/// Longest time in which the acceptor catches up with the client.
const PATIENCE: Duration = Duration::from_secs(5);
/// SYNs that are sent again before the kernel gives a connection up: that ends a dial within seven seconds.
const SYN_RETRIES: &str = "2";

/// mailguard / nft, rates and processor times.
pub(super) fn run(program: &Path) -> Result<Vec<Aim>> {
    let mut aims = Vec::new();
    for (family, server) in [("IPv4", IpAddr::from(SERVER4)), ("IPv6", SERVER6.into())] {
        let mut contestants = [
            Contestant::mailguard("mailguard", program, &config())?,
            Contestant::nft("nft tproxy", &rules(), Some((program, &config())))?,
        ];
        policy_routes(&contestants[1])?;
        for contestant in &contestants {
            contestant.topology.client.sysctl("net.ipv4.tcp_syn_retries", SYN_RETRIES)?;
        }
        let mut rates = [Samples::default(), Samples::default()];
        let mut times = rates.clone();
        alternate(&mut contestants, ROUNDS, |number, contestant| {
            let (rate, time) = measure(contestant, (server, 25).into())?;
            rates[number].push(rate);
            times[number].push(time);
            Ok(())
        })?;
        print_head(&format!("new connections/s, {family}"));
        for (contestant, samples) in contestants.iter().zip(&rates) {
            print_row(contestant.name, samples);
        }
        print_head(&format!("processor time a connection, {family}, ns"));
        for (contestant, samples) in contestants.iter().zip(&times) {
            print_row(contestant.name, samples);
        }
        let what = format!("new connections, {family}: mailguard / nft tproxy");
        aims.push(Aim { what, ratio: rates[0].ratio_to(&rates[1]), above: 1.0 });
        let what = format!("processor time a connection, {family}: nft tproxy / mailguard");
        aims.push(Aim { what, ratio: times[1].ratio_to(&times[0]), above: 1.0 });
    }
    Ok(aims)
}

fn config() -> String {
    format!(
        "[[zone]]\nname = \"green\"\nkind = \"green\"\ninterfaces = [\"{LAN}\"]\nmode = \"transparent\"\n\
         [kernel]\nproxy_port = {PORT}\n"
    )
}

fn rules() -> String {
    [("ip", "127.0.0.1"), ("ip6", "[::1]")]
        .map(|(family, loopback)| {
            format!(
                "table {family} bench {{\n chain prerouting {{\n  type filter hook prerouting priority mangle;\n  \
                 tcp dport 25 tproxy to {loopback}:{PORT} meta mark set 0x19 accept\n }}\n}}\n"
            )
        })
        .concat()
}

/// Marked packets are delivered here, as the kernel's tproxy.rst has it.
fn policy_routes(contestant: &Contestant) -> Result<()> {
    let firewall = &contestant.topology.firewall;
    for family in ["", "-6 "] {
        firewall.ip(&format!("{family}rule add fwmark 0x19 lookup 100 priority 25"))?;
        firewall.ip(&format!("{family}route add local default dev lo table 100"))?;
    }
    Ok(())
}

/// Connections a second, and nanoseconds of processor time for each.
fn measure(contestant: &mut Contestant, server: SocketAddr) -> Result<(f64, f64)> {
    let before = accepted(contestant)?;
    let (acceptor, softirqs) = (contestant.processor_time()?, softirq_time()?);
    let (dialled, seconds, mut busy) = contestant.topology.client.within(|| dial(server))?;
    let deadline = Instant::now() + PATIENCE;
    while accepted(contestant)? < before + dialled {
        ensure!(
            Instant::now() < deadline,
            "{}: the acceptor got fewer connections than the {dialled} dialled",
            contestant.name
        );
    }
    busy += contestant.processor_time()? - acceptor + softirq_time()?.saturating_sub(softirqs);
    let dialled = dialled as f64;
    Ok((dialled / seconds, busy.as_nanos() as f64 / dialled))
}

fn accepted(contestant: &mut Contestant) -> Result<u64> {
    contestant.counts()?.get("accepted").copied().context("accepted connections are counted")
}

/// Dials for one window: connections, seconds, processor time of this thread.
fn dial(server: SocketAddr) -> Result<(u64, f64, Duration)> {
    let abort = linger { l_onoff: 1, l_linger: 0 };
    let (start, busy) = (Instant::now(), thread_time()?);
    let mut dialled = 0;
    while start.elapsed() < WINDOW {
        let stream = TcpStream::connect(server).with_context(|| format!("dial {server}"))?;
        setsockopt(&stream, sockopt::Linger, &abort)?;
        drop(stream);
        dialled += 1;
    }
    Ok((dialled, start.elapsed().as_secs_f64(), thread_time()? - busy))
}

/// Processor time of the threads that take over softirqs when there are too many.
fn softirq_time() -> Result<Duration> {
    let mut time = Duration::ZERO;
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/")) {
            time += processor_time(pid)?;
        }
    }
    Ok(time)
}
