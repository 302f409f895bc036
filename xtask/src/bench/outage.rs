//! How long mail waits for those who are up while a thousand domains don't answer: for the server inside, and
//! for domains that no mail went to before. Against the same with none of them dead, in the same run.
//!
//! The time counts from the 250 to the arrival, with everything else of the thousand still waited for.

use std::collections::BTreeMap;

use anyhow::Result;
use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::Topology;
use mailguard_tests::outage::{self, DEAD, INSIDE, NEW, Outage, Silent};

use super::samples::Samples;
use crate::setup;

/// Longest wait that is aimed at, milliseconds.
const AIM: u32 = 2_000;

/// What is measured, and whether the dead domains get mail first.
const SCENES: [(&str, Silent, bool); 3] = [
    ("nobody dead", Silent::Servers, false),
    ("servers silent", Silent::Servers, true),
    ("name server silent", Silent::NameServer, true),
];

/// Measures and prints the table.
pub(crate) fn run() -> Result<()> {
    setup::everything()?;
    super::use_release()?;
    let mut waits: BTreeMap<(&str, &str), Samples> = BTreeMap::new();
    for (scene, silent, dead) in SCENES {
        let topology = Topology::new()?;
        let firewall = |program: &str| topology.firewall.command(program);
        let mut appliance = Appliance::start(&firewall, &outage::config())?;
        let outage = Outage::begin(&topology, appliance.folder(), silent)?;
        if dead {
            outage.send_to_the_dead(&topology)?;
        }
        for number in 0..NEW {
            for (whose, recipient) in [("inside", INSIDE), ("new", &outage::up(number))] {
                let wait = outage.time(&topology, recipient)?.as_secs_f64() * 1000.0;
                waits.entry((whose, scene)).or_default().push(wait);
            }
        }
        let waiting = if dead { DEAD } else { 0 };
        let ended = outage::wait_for(&appliance, waiting)?;
        println!("{scene}: {waiting} messages wait, {ended} of them not for the first time");
        // It would wait for what is under way.
        appliance.kill()?;
    }
    print(&waits);
    Ok(())
}

fn print(waits: &BTreeMap<(&str, &str), Samples>) {
    println!(
        "\nmilliseconds from the 250 to the arrival, {DEAD} domains that don't answer (aim: at most {AIM}):"
    );
    println!("{:<8} {:<20} {:>8} {:>8} {:>8}  samples", "to", "outage", "min", "median", "max");
    for ((whose, scene), samples) in waits {
        println!("{whose:<8} {scene:<20} {}", samples.row(0));
    }
    println!("\n{:<8} {:<20} {:>14}", "to", "outage", "/ nobody dead");
    for ((whose, scene), samples) in waits {
        if let Some(none) = waits.get(&(*whose, SCENES[0].0)) {
            println!("{whose:<8} {scene:<20} {:>14.2}", samples.median() / none.median());
        }
    }
}
