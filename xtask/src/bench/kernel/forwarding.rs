//! Throughput of what isn't mail: one TCP stream to another port through the firewall, with everything on
//! (both interfaces intercept, 64,000 clients blacklisted, bypass lists) against nothing at all.
//!
//! On veth `auto` means that XDP is off; native is measured because it is known to be dear there: the kernel
//! then merges and splits no packets.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mailguard_tests::netns::{LAN, SERVER4, WAN};

use super::firewall::Contestant;
use super::{Aim, alternate, print_head, print_row};
use crate::bench::samples::Samples;

/// Rounds, each of them with every contestant.
const ROUNDS: usize = 11;
/// Length of one sample.
const WINDOW: Duration = Duration::from_secs(1);
/// Time before it in which the stream gathers speed.
const WARM_UP: Duration = Duration::from_millis(200);
/// Longest wait for the stream to move.
const PATIENCE: Duration = Duration::from_secs(5);
/// Octets a read or write.
const CHUNK: usize = 128 << 10;
/// The other port.
const PORT: u16 = 5001;
/// Clients on the blacklist.
const BLACKLISTED: u32 = 64_000;
/// Networks on each bypass list.
const BYPASSED: u32 = 1_000;
/// Share of the throughput that is to be left, more than.
const AIM: f64 = 0.97;

/// mailguard / nothing, as it comes.
pub(super) fn run(program: &Path) -> Result<Vec<Aim>> {
    let mut contestants = [
        Contestant::mailguard("mailguard, xdp auto", program, &config("auto"))?,
        Contestant::idle("nothing")?,
        Contestant::mailguard("mailguard, xdp native", program, &config("native"))?,
    ];
    let mut rates = vec![Samples::default(); contestants.len()];
    alternate(&mut contestants, ROUNDS, |number, contestant| {
        rates[number].push(measure(contestant)?);
        Ok(())
    })?;
    print_head("forwarded, Mbit/s, IPv4, one stream");
    for (contestant, samples) in contestants.iter().zip(&rates) {
        print_row(contestant.name, samples);
    }
    println!("forwarded: mailguard, xdp native / nothing: {:.3}", rates[2].ratio_to(&rates[1]));
    let what = "forwarded: mailguard, xdp auto / nothing".to_owned();
    Ok(vec![Aim { what, ratio: rates[0].ratio_to(&rates[1]), above: AIM }])
}

fn config(xdp: &str) -> String {
    let list = |count: u32, entry: &dyn Fn(u32) -> String| {
        (0..count).map(|number| format!("\"{}\"", entry(number))).collect::<Vec<_>>().join(", ")
    };
    let blacklist = list(BLACKLISTED, &|number| format!("10.{}.{}.7", number >> 8 & 0xff, number & 0xff));
    let from = list(BYPASSED, &|number| format!("172.{}.{}.0/24", 16 + (number >> 8), number & 0xff));
    let to = list(BYPASSED, &|number| format!("172.{}.{}.0/24", 24 + (number >> 8), number & 0xff));
    format!(
        "[[zone]]\nname = \"green\"\nkind = \"green\"\ninterfaces = [\"{LAN}\"]\nmode = \"transparent\"\n\
         [[zone]]\nname = \"orange\"\nkind = \"orange\"\ninterfaces = [\"{WAN}\"]\nmode = \"transparent\"\n\
         [kernel]\nxdp = \"{xdp}\"\n[access]\nblacklist_clients = [{blacklist}]\n\
         [bypass]\nfrom_subnets = [{from}]\nto_subnets = [{to}]\n"
    )
}

/// Megabits a second that the server gets.
fn measure(contestant: &Contestant) -> Result<f64> {
    let topology = &contestant.topology;
    let address = SocketAddr::from((SERVER4, PORT));
    let listener = topology.server.within(|| Ok(TcpListener::bind(address)?))?;
    let sender = topology.client.within(|| Ok(TcpStream::connect_timeout(&address, PATIENCE)?))?;
    let (receiver, _) = listener.accept()?;
    sender.set_write_timeout(Some(PATIENCE))?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| send(sender, &done));
        receive(&receiver, WARM_UP)?;
        let rate = receive(&receiver, WINDOW);
        done.store(true, Ordering::Relaxed);
        // A write that waits for us to read ends with the connection.
        drop(receiver);
        match sending.join() {
            Ok(sent) => sent?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        rate
    })
}

/// Writes until it is told that it is enough.
fn send(mut stream: TcpStream, done: &AtomicBool) -> Result<()> {
    let chunk = vec![0; CHUNK];
    while !done.load(Ordering::Relaxed) {
        match stream.write(&chunk) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => break,
            Err(error) => return Err(error).context("send"),
        }
    }
    Ok(())
}

/// Reads for so long; megabits a second.
fn receive(mut stream: &TcpStream, window: Duration) -> Result<f64> {
    let mut chunk = vec![0; CHUNK];
    let (start, mut octets) = (Instant::now(), 0);
    while start.elapsed() < window {
        let count = stream.read(&mut chunk).context("receive")?;
        ensure!(count > 0, "the stream ended early");
        octets += count;
    }
    Ok(octets as f64 * 8.0 / 1e6 / start.elapsed().as_secs_f64())
}
