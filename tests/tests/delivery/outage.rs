//! Mail for those who are up while a thousand domains don't answer, on real connections.

use mailguard_tests::outage::{self, DEAD, INSIDE, Outage, Silent};

use super::*;

/// Mail for the server inside, and for domains that no mail went to before, is there while the dead ones are
/// still waited for. Were they waited for in turn, all of them but the last would have had their time first.
fn goes_first(silent: Silent) {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::start(&firewall, &outage::config()).expect("mailguard runs");
    let outage = Outage::begin(&topology, appliance.folder(), silent).expect("an outage");
    outage.send_to_the_dead(&topology).expect("taken");
    for number in 0..5 {
        for recipient in [INSIDE, &outage::up(number)] {
            let time = outage.time(&topology, recipient).expect("it arrives");
            println!("{recipient} waited {} ms", time.as_millis());
        }
    }
    let ended = outage::wait_for(&appliance, DEAD).expect("all of the dead ones wait, and nobody else");
    assert!(ended < DEAD / 2, "it waited until {ended} of the dead ones had been given up");
    // It would wait for what is under way.
    appliance.kill().expect("killed");
}

#[test]
fn servers_that_swallow_packets_hold_up_nobody_who_is_up() {
    goes_first(Silent::Servers);
}

#[test]
fn a_name_server_that_swallows_questions_holds_up_nobody_who_is_up() {
    goes_first(Silent::NameServer);
}
