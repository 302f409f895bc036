//! A flood of SYNs, from addresses that don't exist and from one that does: a good client beside it gets
//! through.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};

use mailguard_tests::frames::{Wire, ethernet, mac, syn};
use mailguard_tests::netns::{CLIENT4, CLIENT4_SECOND, CLIENT6, LAN, SERVER4, SERVER6};
use mailguard_tests::peers::wait_until;

use crate::firewall::{Answer, Firewall};

/// SYNs of one flood: some seconds' worth, and many times what the listener's queue holds.
const SYNS: u32 = 60_000;
/// Attempts that the good client makes for a connection, as any mail server would.
const ATTEMPTS: usize = 5;

/// Floods the firewall with SYNs from `source(number)` to `server` while the client dials it as well.
fn check(firewall: &Firewall, client: IpAddr, server: IpAddr, source: impl Fn(u32) -> IpAddr + Sync) {
    let wire = Wire::open(&firewall.topology.client, "eth0");
    let router = mac(&firewall.topology.firewall, LAN);
    let flooding = AtomicBool::new(true);
    let frame = |number: u32| {
        // No port twice from one address: a SYN that is repeated is no new one.
        let port = 1_024 + (number / 200 + number) % 60_000;
        ethernet(router, wire.mac, None, &syn(source(number), port as u16, server))
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wire.send_all((0..SYNS).map(frame));
            flooding.store(false, Ordering::Relaxed);
        });
        let mut dials = 0;
        while flooding.load(Ordering::Relaxed) || dials == 0 {
            let answer = (0..ATTEMPTS)
                .map(|_| firewall.dial_from(client, server))
                .find(|answer| *answer != Answer::Nobody);
            assert_eq!(answer, Some(Answer::intercepted(client, server)), "dial {dials}");
            dials += 1;
        }
    });
}

#[test]
fn a_client_gets_through_beside_a_flood_from_addresses_that_dont_exist() {
    let firewall = Firewall::new("");
    let spoofed4 = |number| Ipv4Addr::new(192, 0, 2, 50 + (number % 200) as u8).into();
    check(&firewall, CLIENT4.into(), SERVER4.into(), spoofed4);
    let cookies = firewall.packets("cookie-answer");
    assert!(cookies > 0, "the flood filled the queue");
    let spoofed6 = |number| Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x100 + (number % 200) as u16).into();
    check(&firewall, CLIENT6.into(), SERVER6.into(), spoofed6);
    assert!(firewall.packets("cookie-answer") > cookies, "the flood filled the queue, IPv6");
}

#[test]
fn a_client_gets_through_beside_a_flood_from_a_real_host() {
    let firewall = Firewall::new("");
    check(&firewall, CLIENT4.into(), SERVER4.into(), |_| CLIENT4_SECOND.into());
    check(&firewall, CLIENT6.into(), SERVER6.into(), |_| CLIENT6.into());
    assert!(firewall.packets("intercepted") > u64::from(SYNS) / 2, "most of the flood met the listener");
}

/// Without a proxy the programs ask for each packet whether they are where they were attached.
#[test]
fn without_a_proxy_nothing_of_a_flood_passes() {
    let mut firewall = Firewall::new("");
    firewall.silence();
    wait_until("on_proxy_down is in force", || firewall.dial(SERVER4) == Answer::Nobody).unwrap();
    let wire = Wire::open(&firewall.topology.client, "eth0");
    let router = mac(&firewall.topology.firewall, LAN);
    for (client, server) in [(IpAddr::from(CLIENT4), IpAddr::from(SERVER4)), (CLIENT6.into(), SERVER6.into())]
    {
        let before = firewall.packets("proxy-down-blocked");
        let ports = (0..SYNS).map(|number| 1_024 + number as u16 % 60_000);
        wire.send_all(ports.map(|port| ethernet(router, wire.mac, None, &syn(client, port, server))));
        let blocked = || firewall.packets("proxy-down-blocked") - before;
        wait_until("each SYN is blocked", || blocked() == u64::from(SYNS))
            .unwrap_or_else(|error| panic!("{error}: {} of {SYNS}", blocked()));
    }
}
