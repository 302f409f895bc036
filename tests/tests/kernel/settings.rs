//! Settings of the firewall's own that might get in the way of interception, and the traffic that they must
//! let be.

use std::net::IpAddr;

use mailguard_tests::netns::{
    CLIENT4, CLIENT6, FIREWALL4, FIREWALL4_WAN, FIREWALL6_WAN, LAN, SERVER4, SERVER6,
};
use mailguard_tests::peers::wait_until;

use crate::firewall::{Answer, Firewall, Session, ZONES};
use crate::servers::Server;

/// Longer than a segment, so that data flows in both directions.
fn long_line() -> Vec<u8> {
    [vec![b'x'; 5_000], vec![b'\n']].concat()
}

/// Both families are intercepted, and data gets through.
#[track_caller]
fn check(firewall: &Firewall, what: &str) {
    let line = long_line();
    let pairs = [(IpAddr::from(CLIENT4), IpAddr::from(SERVER4)), (CLIENT6.into(), SERVER6.into())];
    for (client, server) in pairs {
        firewall.beat();
        let session = Session::open(&firewall.topology.client, None, (server, 25).into());
        let mut session = session.unwrap_or_else(|answer| panic!("{what}: {server}: {answer:?}"));
        assert_eq!(session.answer, Answer::intercepted(client, server), "{what}");
        assert!(session.echo_patiently(&line), "{what}: {server}");
    }
}

#[test]
fn every_combination_of_the_routing_settings_is_survived() {
    let firewall = Firewall::new("");
    let set = |keys: &[&str], value: u8| {
        for key in keys {
            firewall.topology.firewall.sysctl(key, &value.to_string()).unwrap();
        }
    };
    for early_demux in [0, 1] {
        set(&["net.ipv4.ip_early_demux", "net.ipv4.tcp_early_demux"], early_demux);
        for rp_filter in [0, 1, 2] {
            set(&["net.ipv4.conf.all.rp_filter", &format!("net.ipv4.conf.{LAN}.rp_filter")], rp_filter);
            for src_valid_mark in [0, 1] {
                set(&["net.ipv4.conf.all.src_valid_mark"], src_valid_mark);
                for fwmark_accept in [0, 1] {
                    set(&["net.ipv4.tcp_fwmark_accept"], fwmark_accept);
                    let what = format!(
                        "early_demux {early_demux}, rp_filter {rp_filter}, src_valid_mark {src_valid_mark}, \
                         tcp_fwmark_accept {fwmark_accept}"
                    );
                    check(&firewall, &what);
                }
            }
        }
    }
}

#[test]
fn answers_to_syn_cookies_find_their_listener() {
    let firewall = Firewall::new("");
    firewall.topology.firewall.sysctl("net.ipv4.tcp_syncookies", "2").unwrap();
    check(&firewall, "cookies always");
    assert_eq!(firewall.packets("cookie-answer"), 2, "one a family");
}

/// Loads these lines into the firewall's packet filter.
fn nft(firewall: &Firewall, lines: &[&str]) {
    for line in lines {
        let output = firewall.topology.firewall.command("nft").arg(line).output().expect("nftables");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn where_input_is_dropped_the_mark_lets_mail_in() {
    let firewall = Firewall::new("");
    nft(
        &firewall,
        &[
            "add table inet filter",
            "add chain inet filter input { type filter hook input priority 0; policy drop; }",
            "add rule inet filter input meta l4proto ipv6-icmp accept",
        ],
    );
    assert_eq!(firewall.dial(SERVER4), Answer::Nobody);
    assert_eq!(firewall.dial(SERVER6), Answer::Nobody);
    nft(&firewall, &["add rule inet filter input meta mark & 0x10000000 == 0x10000000 accept"]);
    check(&firewall, "with the mark accepted");
}

#[test]
fn a_client_that_reconnects_from_the_same_port_is_intercepted_at_once() {
    let firewall = Firewall::new("");
    let mut port = 40_001;
    for (rfc1337, cookies) in [("0", "1"), ("1", "1"), ("0", "2"), ("1", "2")] {
        firewall.topology.firewall.sysctl("net.ipv4.tcp_rfc1337", rfc1337).unwrap();
        firewall.topology.firewall.sysctl("net.ipv4.tcp_syncookies", cookies).unwrap();
        for (client, server) in
            [(IpAddr::from(CLIENT4), IpAddr::from(SERVER4)), (CLIENT6.into(), SERVER6.into())]
        {
            let what = format!("tcp_rfc1337 {rfc1337}, tcp_syncookies {cookies}, {client}");
            let source = Some((client, port).into());
            let dial = || Session::open(&firewall.topology.client, source, (server, 25).into());
            firewall.beat();
            // The proxy closes first, so the TIME_WAIT is the firewall's.
            dial().unwrap_or_else(|answer| panic!("{what}: {answer:?}")).ask_to_close();
            wait_until("the firewall's socket is in TIME_WAIT", || {
                let mut command = firewall.topology.firewall.command("ss");
                let filter = format!("sport = :25 and dport = :{port}");
                let output = command.args(["-Htan", "state", "time-wait", &filter]).output();
                !output.unwrap().stdout.is_empty()
            })
            .unwrap();
            let mut again = dial().unwrap_or_else(|answer| panic!("{what}: reconnecting: {answer:?}"));
            assert_eq!(again.answer, Answer::intercepted(client, server), "{what}");
            assert!(again.alive(), "{what}");
            port += 1;
        }
    }
    assert_eq!(firewall.packets("reconnected"), 8);
}

/// The firewall remembers a session of ours; then its client is bypassed and dials anew from the same port.
#[test]
fn a_bypassed_client_reconnects_from_the_same_port_past_the_closed_session() {
    // With it the kernel itself drops what it would forward and finds a closed session for.
    for early_demux in ["0", "1"] {
        let mut firewall = Firewall::new("");
        firewall.topology.firewall.sysctl("net.ipv4.ip_early_demux", early_demux).unwrap();
        check_reconnection_of_a_bypassed_client(&mut firewall);
    }
}

fn check_reconnection_of_a_bypassed_client(firewall: &mut Firewall) {
    let port = 40_101;
    for (client, server) in [(IpAddr::from(CLIENT4), IpAddr::from(SERVER4)), (CLIENT6.into(), SERVER6.into())]
    {
        let source = Some((client, port).into());
        let session = Session::open(&firewall.topology.client, source, (server, 25).into());
        session.unwrap().ask_to_close();
    }
    firewall.reload(&format!("[bypass]\nfrom_ips = [\"{CLIENT4}\", \"{CLIENT6}\"]\n"));
    for (client, server) in [(IpAddr::from(CLIENT4), IpAddr::from(SERVER4)), (CLIENT6.into(), SERVER6.into())]
    {
        let source = Some((client, port).into());
        let mut again = Session::open(&firewall.topology.client, source, (server, 25).into()).unwrap();
        assert_eq!(again.answer, Answer::server(client));
        assert!(again.alive());
    }
}

/// Who answers `from` at port 25 of `address`.
fn answer(from: &mailguard_tests::netns::Namespace, address: impl Into<IpAddr>) -> Answer {
    let session = Session::open(from, None, (address.into(), 25).into());
    session.map_or_else(|answer| answer, |session| session.answer)
}

#[test]
fn a_mail_server_of_the_firewalls_own_is_left_alone_in_other_zones() {
    let mut firewall = Firewall::idle(&ZONES.replace("mode = \"active\"", "mode = \"inactive\""));
    let _mta = Server::start(&firewall.topology.firewall, 25);
    let mut older = [firewall.session(FIREWALL4), firewall.session(FIREWALL6_WAN)];
    firewall.start();
    let server = &firewall.topology.server;
    assert_eq!(answer(server, FIREWALL4_WAN), Answer::server(SERVER4));
    assert_eq!(answer(server, FIREWALL6_WAN), Answer::server(SERVER6));
    assert_eq!(answer(server, FIREWALL4), Answer::server(SERVER4), "also by the other zone's address");
    // In the intercepted zone the same addresses are the proxy's, but for what was open before.
    for (client, address) in
        [(IpAddr::from(CLIENT4), IpAddr::from(FIREWALL4_WAN)), (CLIENT6.into(), FIREWALL6_WAN.into())]
    {
        let destination = (address, 25).into();
        assert_eq!(firewall.dial(address), Answer::Proxy { zone: 0, client, destination, ours: true });
    }
    assert!(older.iter_mut().all(Session::alive));
    assert!(firewall.packets("other-socket") >= 2);
}
