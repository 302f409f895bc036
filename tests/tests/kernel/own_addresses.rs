//! Which of the destination addresses are the firewall's own, while those change.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Stdio;
use std::time::{Duration, Instant};

use mailguard_core::local_routes::MAX_LOCAL_ROUTES;
use mailguard_tests::netns::{FIREWALL4, FIREWALL6, Namespace, SERVER4, SERVER6};

use crate::firewall::{Answer, Firewall};

/// Addresses that nobody has at first.
const NEW4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const NEW6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1);

/// Longest time in which a change is noticed on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked without an announcement.
const LOOK_EVERY: Duration = Duration::from_secs(3);

fn is_ours(firewall: &Firewall, address: IpAddr) -> bool {
    match firewall.dial(address) {
        Answer::Proxy { ours, .. } => ours,
        other => panic!("{address}: {other:?}"),
    }
}

/// Waits until a client that dials `address` is told so.
#[track_caller]
fn becomes(firewall: &Firewall, address: impl Into<IpAddr>, ours: bool) {
    let (address, start) = (address.into(), Instant::now());
    while is_ours(firewall, address) != ours {
        assert!(start.elapsed() < PATIENCE, "{address} should be ours: {ours}");
    }
}

/// What is always so.
#[track_caller]
fn check_others(firewall: &Firewall) {
    for (address, ours) in [
        (IpAddr::from(FIREWALL4), true),
        (FIREWALL6.into(), true),
        (SERVER4.into(), false),
        (SERVER6.into(), false),
    ] {
        assert_eq!(is_ours(firewall, address), ours, "{address}");
    }
}

/// Runs many commands of iproute2 at once.
fn batch(namespace: &Namespace, commands: &str) {
    let mut command = namespace.command("ip");
    let mut ip = command.args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    ip.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(ip.wait().unwrap().success());
}

#[test]
fn an_address_that_comes_while_we_run_is_ours_until_it_goes() {
    let firewall = Firewall::new("");
    let namespace = &firewall.topology.firewall;
    check_others(&firewall);
    let (start, rounds) = (Instant::now(), 4);
    for _ in 0..rounds {
        assert!(!is_ours(&firewall, NEW4.into()));
        assert!(!is_ours(&firewall, NEW6.into()));
        namespace.ip(&format!("addr add {NEW4}/32 dev lo")).unwrap();
        becomes(&firewall, NEW4, true);
        namespace.ip(&format!("addr add {NEW6}/128 dev lo")).unwrap();
        becomes(&firewall, NEW6, true);
        check_others(&firewall);
        namespace.ip(&format!("addr del {NEW4}/32 dev lo")).unwrap();
        becomes(&firewall, NEW4, false);
        namespace.ip(&format!("addr del {NEW6}/128 dev lo")).unwrap();
        becomes(&firewall, NEW6, false);
    }
    // Each change would have waited for a look of its own.
    assert!(start.elapsed() < LOOK_EVERY * rounds * 4, "at the kernel's word, not at the next look");
}

#[test]
fn a_network_that_is_routed_here_is_ours_but_for_its_exceptions() {
    let firewall = Firewall::new("");
    let namespace = &firewall.topology.firewall;
    for (network, exception, inside, outside) in [
        ("203.0.113.0/24", "203.0.113.128/25", IpAddr::from(NEW4), IpAddr::from([203, 0, 113, 200])),
        ("2001:db8:99::/64", "2001:db8:99::8000/113", NEW6.into(), "2001:db8:99::8001".parse().unwrap()),
    ] {
        namespace.ip(&format!("route add local {network} dev lo")).unwrap();
        becomes(&firewall, inside, true);
        becomes(&firewall, outside, true);
        namespace.ip(&format!("route add throw {exception} table local")).unwrap();
        becomes(&firewall, outside, false);
        assert!(is_ours(&firewall, inside));
        namespace.ip(&format!("route del local {network} dev lo")).unwrap();
        becomes(&firewall, inside, false);
    }
    check_others(&firewall);
}

/// The kernel, when asked for one address, doesn't know the networks of IPv6 that are routed here: by that it
/// is seen who is asked.
#[test]
fn with_more_addresses_than_are_kept_the_kernel_is_asked_for_each() {
    let firewall = Firewall::new("");
    let namespace = &firewall.topology.firewall;
    namespace.ip("route add local 2001:db8:99::/64 dev lo").unwrap();
    becomes(&firewall, NEW6, true);
    let flood = |action: &str| -> String {
        let address = |number| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 64, 0, 0)) + number);
        (0..MAX_LOCAL_ROUTES as u32)
            .map(|number| format!("route {action} local {} dev lo\n", address(number)))
            .collect()
    };
    batch(namespace, &flood("add"));
    becomes(&firewall, NEW6, false);
    // Each of the listeners has a table of its own here, and sees the flood in its own time.
    becomes(&firewall, Ipv4Addr::new(10, 64, 1, 1), true);
    check_others(&firewall);
    assert!(!is_ours(&firewall, NEW4.into()));
    namespace.ip(&format!("addr add {NEW4}/32 dev lo")).unwrap();
    becomes(&firewall, NEW4, true);
    batch(namespace, &flood("del"));
    becomes(&firewall, NEW6, true);
    becomes(&firewall, Ipv4Addr::new(10, 64, 1, 1), false);
    becomes(&firewall, NEW4, true);
    check_others(&firewall);
}
