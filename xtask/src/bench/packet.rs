//! What a packet costs: the XDP drop of a blacklisted client, and the TC pass of a packet to another port,
//! against a program of the same type that does nothing. By BPF_PROG_TEST_RUN, so without driver, stack or
//! cache pressure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use mailguard_common::maps::{
    ACTION_DROP, HAS_BLACKLIST_HOSTS4, HAS_BLACKLIST_HOSTS6, HAS_BLACKLIST4, HAS_BLACKLIST6,
    INTERFACE_CHECKS, INTERFACE_SERVES, INTERFACE_STEERS, Interface, RuleValue, Settings, map,
};
use mailguard_tests::frames::{ACK, SYN, TCP, ethernet, ipv4, ipv6, segment};
use mailguard_tests::programs::{ALIVE, EARLY, EMPTY_TC, EMPTY_XDP, Programs, STEER};

use super::samples::Samples;
use crate::{build, setup};

/// Runs of a program for one sample.
const REPEAT: u32 = 1_000_000;
/// Samples of each figure.
const SAMPLES: usize = 11;
/// Entries in the lists, one and many.
const ENTRIES: [u32; 2] = [1, 64_000];
/// Nanoseconds that a drop may cost above the empty program.
const DROP_AIM: f64 = 60.0;
/// Nanoseconds that a drop in TC may cost above the empty program: it looks at the interface and the frame,
/// too.
const TC_DROP_AIM: f64 = 120.0;
/// Nanoseconds that a pass may cost above the empty program.
const PASS_AIM: f64 = 20.0;

const XDP_DROP: i32 = 1;
const TC_NEXT: i32 = -1;
const TC_DROP: i32 = 2;

/// One thing that is measured.
struct Case {
    name: String,
    program: &'static str,
    empty: &'static str,
    frame: Vec<u8>,
    verdict: i32,
    aim: f64,
}

/// How a client stands on the blacklist.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    /// By its address.
    Host,
    /// By its network.
    Network,
}

/// Measures everything and prints the table.
pub(crate) fn run() -> Result<()> {
    setup::everything()?;
    build::ebpf()?;
    println!("packet: ns a packet above the empty program of the same type; {REPEAT} runs a sample");
    println!("{:44} {:>8} {:>8} {:>8}  samples", "", "min", "median", "max");
    let mut missed = Vec::new();
    for entries in ENTRIES {
        for listed in [Listed::Host, Listed::Network] {
            let programs = programs(entries, listed)?;
            for case in cases(entries, listed) {
                // Passing doesn't look at the lists: once is enough.
                if case.verdict == TC_NEXT && listed == Listed::Network {
                    continue;
                }
                let samples = measure(&programs, &case)?;
                println!("{:44} {}", case.name, samples.row(1));
                if samples.median() > case.aim {
                    missed.push(format!("{}: aim {}", case.name, case.aim));
                }
            }
        }
    }
    println!(
        "packet: beyond its aim: {}",
        if missed.is_empty() { "nothing".to_owned() } else { missed.join("; ") }
    );
    Ok(())
}

/// Alternates the program with the empty one, so that a change of the machine's pace meets both.
fn measure(programs: &Programs, case: &Case) -> Result<Samples> {
    let verdict = programs.run(case.program, &case.frame)?.verdict;
    ensure!(verdict == case.verdict, "{}: the verdict is {verdict}, not {}", case.name, case.verdict);
    let mut samples = Samples::default();
    for _ in 0..SAMPLES {
        let empty = programs.time(case.empty, &case.frame, REPEAT)?;
        let full = programs.time(case.program, &case.frame, REPEAT)?;
        samples.push(full.as_nanos() as f64 - empty.as_nanos() as f64);
    }
    Ok(samples)
}

fn cases(entries: u32, listed: Listed) -> Vec<Case> {
    let how = match listed {
        Listed::Host => "addresses",
        Listed::Network => "networks",
    };
    let (client4, client6) = listed_client(entries / 2, listed);
    let mut cases = Vec::new();
    for (family, client, server) in [
        ("IPv4", client4, IpAddr::from(Ipv4Addr::new(198, 51, 100, 2))),
        ("IPv6", client6, Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2).into()),
    ] {
        cases.push(Case {
            name: format!("XDP drop, {family}, {entries} {how}"),
            program: EARLY,
            empty: EMPTY_XDP,
            frame: frame(client, server, 25, SYN),
            verdict: XDP_DROP,
            aim: DROP_AIM,
        });
        cases.push(Case {
            name: format!("TC drop, {family}, {entries} {how}"),
            program: STEER,
            empty: EMPTY_TC,
            frame: frame(client, server, 25, SYN),
            verdict: TC_DROP,
            aim: TC_DROP_AIM,
        });
        cases.push(Case {
            name: format!("TC pass of another port, {family}, {entries} entries"),
            program: STEER,
            empty: EMPTY_TC,
            frame: frame(client, server, 443, ACK),
            verdict: TC_NEXT,
            aim: PASS_AIM,
        });
    }
    cases
}

fn frame(source: IpAddr, destination: IpAddr, port: u16, flags: u8) -> Vec<u8> {
    let tcp = segment(source, destination, port, flags, b"");
    let packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4(source, destination, 0, b"", &tcp),
        (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6(source, destination, TCP, &tcp),
        _ => unreachable!("the two are of one family"),
    };
    ethernet([0; 6], [2, 0, 0, 0, 0, 7], None, &packet)
}

/// The addresses of entry `number`; of a network, one within it.
fn listed_client(number: u32, listed: Listed) -> (IpAddr, IpAddr) {
    // Scattered over the address space, as a list from the world is.
    let scattered = number.wrapping_mul(0x9e37_79b1);
    let v4 = match listed {
        Listed::Host => Ipv4Addr::from(scattered),
        Listed::Network => Ipv4Addr::from(scattered & 0xffff_ff00 | 7),
    };
    let [a, b, c, d] = scattered.to_be_bytes().map(u16::from);
    (v4.into(), Ipv6Addr::new(0x2001, a << 8 | b, c << 8 | d, 0, 0, 0, 0, 7).into())
}

/// Programs whose blacklist holds so many addresses, or so many networks, of each family.
fn programs(entries: u32, listed: Listed) -> Result<Programs> {
    let mut programs = Programs::load()?;
    let populated = match listed {
        Listed::Host => HAS_BLACKLIST_HOSTS4 | HAS_BLACKLIST_HOSTS6 | HAS_BLACKLIST4,
        Listed::Network => HAS_BLACKLIST4 | HAS_BLACKLIST6,
    };
    programs.settings(Settings { heartbeat_ns: ALIVE, armed: 1, populated, ..Settings::default() })?;
    programs.interface(Interface {
        duties: INTERFACE_CHECKS | INTERFACE_STEERS | INTERFACE_SERVES,
        ethernet: 1,
        ..Interface::default()
    })?;
    // Both families share the map of addresses.
    let count = if listed == Listed::Host { entries.div_ceil(2) } else { entries };
    for number in entries / 2..entries / 2 + count {
        let value = RuleValue { rule: number, action: ACTION_DROP };
        let (v4, v6) = listed_client(number, listed);
        match listed {
            Listed::Host => {
                programs.blacklist_host(v4, value)?;
                programs.blacklist_host(v6, value)?;
            }
            Listed::Network => {
                programs.network(map::BLACKLIST4, v4, 24, value)?;
                programs.network(map::BLACKLIST6, v6, 48, value)?;
            }
        }
    }
    Ok(programs)
}
