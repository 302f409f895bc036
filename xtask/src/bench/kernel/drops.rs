//! Dropped packets a second: SYNs of blacklisted clients, dropped by mailguard in XDP, by mailguard in TC,
//! and by a set of nftables at the same interface's ingress hook, with 1, 1,000 and 64,000 entries, addresses
//! or networks.
//!
//! "Nothing" is what the way costs by itself: frames as long of an EtherType that nobody takes, so that the
//! stack drops them behind the hooks; "nothing, xdp" is the same with an XDP program that lets them pass at
//! once. Every other contestant must have counted what was sent. nftables' set is given its size, so that the
//! kernel chooses the fastest kind, and its rule asks less than mailguard's: not whether it is a SYN, not
//! whether a rule lets it pass. Both count their packets.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mailguard_tests::frames::{SYN, ethernet, ipv4, mac, segment};
use mailguard_tests::netns::{LAN, SERVER4};

use super::firewall::Contestant;
use super::sender::Sender;
use super::{Aim, alternate, print_head, print_row};
use crate::bench::samples::Samples;

/// Rounds, each of them with every contestant.
const ROUNDS: usize = 11;
/// Length of one sample.
const WINDOW: Duration = Duration::from_millis(250);
/// Entries of the lists.
const ENTRIES: [u32; 3] = [1, 1_000, 64_000];
/// Share of the sent packets that must have been counted by who was to drop them.
const COUNTED: f64 = 0.99;
/// Longest wait for packets that are on their way.
const PATIENCE: Duration = Duration::from_secs(2);
/// IEEE 802's EtherType for experiments.
const NOBODYS_ETHERTYPE: [u8; 2] = [0x88, 0xb5];

const XDP: &str = "mailguard xdp";
const TC: &str = "mailguard tc";
const NFT: &str = "nft set";
const NOTHING: &str = "nothing";
const NOTHING_XDP: &str = "nothing, xdp";

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Address,
    Network,
}

/// mailguard / nft, in XDP and in TC.
pub(super) fn run(program: &Path) -> Result<Vec<Aim>> {
    let mut aims = Vec::new();
    for (kind, kind_name) in [(Kind::Address, "addresses"), (Kind::Network, "networks")] {
        for count in ENTRIES {
            let mut contestants = contestants(program, kind, count)?;
            let frames = contestants.iter().map(|contestant| frames(contestant, count));
            let frames: Vec<Vec<Vec<u8>>> = frames.collect();
            let mut rates = vec![Samples::default(); contestants.len()];
            alternate(&mut contestants, ROUNDS, |number, contestant| {
                rates[number].push(measure(contestant, &frames[number])?);
                Ok(())
            })?;
            print_head(&format!("dropped packets/s, IPv4, {count} {kind_name}"));
            for (contestant, samples) in contestants.iter().zip(&rates) {
                print_row(&format!("{:<14} {:>5.0} ns", contestant.name, 1e9 / samples.median()), samples);
            }
            for (name, samples) in [(XDP, &rates[0]), (TC, &rates[1])] {
                let what = format!("drops, {count} {kind_name}: {name} / {NFT}");
                aims.push(Aim { what, ratio: samples.ratio_to(&rates[2]), above: 1.0 });
            }
        }
    }
    Ok(aims)
}

fn contestants(program: &Path, kind: Kind, count: u32) -> Result<[Contestant; 5]> {
    let entries: Vec<String> = (1..=count).map(|number| entry(kind, number)).collect();
    Ok([
        Contestant::mailguard(XDP, program, &config("native", &entries))?,
        Contestant::mailguard(TC, program, &config("off", &entries))?,
        Contestant::nft(NFT, &rules(kind, &entries), None)?,
        Contestant::idle(NOTHING)?,
        Contestant::mailguard(NOTHING_XDP, program, &config("native", &[]))?,
    ])
}

/// A client that the list names, or that lies in the network that it names. Scattered over the address space,
/// as a list from the world is, and no two in one network.
fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(number.wrapping_mul(0x9e37_79b1))
}

fn entry(kind: Kind, number: u32) -> String {
    let [a, b, c, d] = client(number).octets();
    match kind {
        Kind::Address => format!("{a}.{b}.{c}.{d}"),
        Kind::Network => format!("{a}.{b}.{c}.0/24"),
    }
}

fn config(xdp: &str, entries: &[String]) -> String {
    let entries = entries.iter().map(|entry| format!("\"{entry}\"")).collect::<Vec<_>>();
    format!(
        "[[zone]]\nname = \"green\"\nkind = \"green\"\ninterfaces = [\"{LAN}\"]\nmode = \"transparent\"\n\
         [kernel]\nxdp = \"{xdp}\"\n[access]\nblacklist_clients = [{}]\n",
        entries.join(", ")
    )
}

fn rules(kind: Kind, entries: &[String]) -> String {
    let kind = if kind == Kind::Network { "flags interval;" } else { "" };
    format!(
        "table netdev bench {{\n counter dropped {{ }}\n set listed {{ type ipv4_addr; {kind} size {}; elements = \
         {{ {} }} }}\n chain ingress {{\n  type filter hook ingress device {LAN} priority 0;\n  \
         ip saddr @listed tcp dport 25 counter name dropped drop\n }}\n}}\n",
        // A network is two elements: where it begins, and where it ends.
        entries.len() * 2,
        entries.join(", ")
    )
}

/// A SYN of each client of the list.
fn frames(contestant: &Contestant, count: u32) -> Vec<Vec<u8>> {
    let to = mac(&contestant.topology.firewall, LAN);
    let frame = |number| {
        let client = client(number);
        let syn = segment(client.into(), SERVER4.into(), 25, SYN, b"");
        let mut frame = ethernet(to, [2, 0, 0, 0, 0, 7], None, &ipv4(client, SERVER4, 0, b"", &syn));
        if [NOTHING, NOTHING_XDP].contains(&contestant.name) {
            frame[12..14].copy_from_slice(&NOBODYS_ETHERTYPE);
        }
        frame
    };
    (1..=count).map(frame).collect()
}

/// Packets a second.
fn measure(contestant: &mut Contestant, frames: &[Vec<u8>]) -> Result<f64> {
    let sender = Sender::open(&contestant.topology.client, "eth0")?;
    let before = dropped(contestant)?;
    let (sent, seconds) = sender.send_for(frames, WINDOW)?;
    let Some(before) = before else { return Ok(sent as f64 / seconds) };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let counted = dropped(contestant)?.unwrap_or(0) - before;
        if counted as f64 >= sent as f64 * COUNTED {
            return Ok(counted as f64 / seconds);
        }
        ensure!(
            Instant::now() < deadline,
            "{}: of {sent} packets {counted} were dropped where they should be",
            contestant.name
        );
    }
}

/// Packets that the contestant says it has dropped; "nothing" says nothing.
fn dropped(contestant: &mut Contestant) -> Result<Option<u64>> {
    let reason = match contestant.name {
        XDP => "blacklist-dropped-xdp",
        TC => "blacklist-dropped",
        NFT => return nft_dropped(contestant).map(Some),
        _ => return Ok(None),
    };
    let count = contestant.counts()?.get(reason).copied();
    count.with_context(|| format!("{reason} is counted")).map(Some)
}

fn nft_dropped(contestant: &Contestant) -> Result<u64> {
    let mut command = contestant.topology.firewall.command("nft");
    let output = command.args(["list", "counter", "netdev", "bench", "dropped"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
    let count = words.nth(1).and_then(|count| count.parse().ok());
    count.with_context(|| format!("nft doesn't show its counter: {text}"))
}
