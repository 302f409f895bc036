//! Pins that aren't what they should be, or are somebody else's, are never trusted.

use std::path::{Path, PathBuf};

use aya::EbpfLoader;
use aya::programs::links::FdLink;
use aya::programs::{Xdp, xdp::XdpMode};
use mailguard::datapath::Hook;
use mailguard_tests::netns::{CLIENT4, CLIENT6, LAN, SERVER4, SERVER6};
use mailguard_tests::programs::{EMPTY_XDP, object};

use crate::firewall::{Answer, Firewall, hooks};

/// The pin of the TC program's link on the client's interface.
fn tc_pin(firewall: &Firewall) -> PathBuf {
    let line = firewall.topology.firewall.ip_output(&format!("-o link show {LAN}")).unwrap();
    let index = line.split(':').next().unwrap();
    firewall.pin_dir().join("links").join(format!("tc-{index}"))
}

/// Pins a link of an XDP program that isn't mailguard's at `pin`, in place of what is there.
fn pin_another_kind_of_link(firewall: &Firewall, pin: &Path) {
    let replace = || {
        let mut ebpf = EbpfLoader::new().load(&std::fs::read(object())?)?;
        let program: &mut Xdp = ebpf.program_mut(EMPTY_XDP).expect("it").try_into()?;
        program.load()?;
        let id = program.attach(LAN, XdpMode::Skb)?;
        let link: FdLink = program.take_link(id)?.try_into()?;
        std::fs::remove_file(pin)?;
        link.pin(pin)?;
        Ok(())
    };
    firewall.topology.firewall.within(replace).unwrap();
}

#[test]
fn a_pin_of_another_kind_of_link_is_never_used() {
    if !hooks().contains(&Hook::Tcx) {
        println!("this kernel has no TCX links that could be pinned");
        return;
    }
    let mut firewall = Firewall::new("");
    let pin = tc_pin(&firewall);
    firewall.stop();
    pin_another_kind_of_link(&firewall, &pin);
    firewall.start();
    assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
    assert_eq!(firewall.dial(SERVER6), Answer::intercepted(CLIENT6, SERVER6));
}

/// Another firewall with the same folder of pins and interfaces of the same numbers.
#[test]
fn pins_of_another_network_namespace_are_refused_until_they_are_removed() {
    let mut firewall = Firewall::new("");
    let mut other = Firewall::idle(crate::firewall::ZONES);
    other.share_pins(&firewall);
    let error = other.try_start().unwrap_err();
    assert!(error.contains("in use by another network namespace"), "{error}");
    assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4), "the first one keeps its own");
    assert_eq!(other.dial(SERVER4), Answer::server(CLIENT4));

    firewall.unload();
    other.try_start().unwrap();
    assert_eq!(other.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
    assert_eq!(other.dial(SERVER6), Answer::intercepted(CLIENT6, SERVER6));
}

/// A container that is made anew has another namespace each time.
#[test]
fn what_a_namespace_that_is_gone_has_left_is_no_hindrance() {
    let mut firewall = Firewall::new("");
    firewall.kill_proxy();
    firewall.stop();
    let mut next = Firewall::idle(crate::firewall::ZONES);
    next.share_pins(&firewall);
    drop(firewall);
    next.try_start().unwrap();
    assert_eq!(next.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
}
