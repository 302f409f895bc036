//! `cargo xtask demo`: the main job on real traffic. Three namespaces, a real server behind a firewall, real
//! clients in front of it; what happens is judged from outside, by what the server received and from whom,
//! and by a capture on the server's side; and all of it again with mailguard detached, as a control that must
//! differ. Then, on the uplink, what strangers and our own users are told.

mod capture;
mod envelope;
mod scenario;
mod table;

use std::path::Path;

use anyhow::{Context, Result, bail};
use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{LAN, SERVER4, SERVER6, Topology, WAN, port25};
use mailguard_tests::peers::smtp_sink::SmtpSink;

use self::scenario::{Run, SCENARIOS, Seen};
use self::table::Table;
use crate::{build, setup};

/// Shows everything; an error unless all is as expected.
pub(crate) fn run() -> Result<()> {
    setup::run(setup::Purpose::Demo)?;
    // Nothing is measured here, and it is built in half the time.
    build::debug()?;
    println!("demo: making the namespaces client, firewall and server");
    let mut table = Table::default();
    for xdp in ["native", "auto"] {
        let topology = Topology::new()?;
        with_mailguard(&topology, xdp, &mut table)?;
    }
    control(&mut table)?;
    envelope::play(&mut table)?;
    print!("{}", table.render());
    if table.unexpected() > 0 {
        bail!("{} results were not as expected", table.unexpected());
    }
    println!("demo: all as expected; the namespaces, pins, rules and processes are gone");
    Ok(())
}

/// The zones and rules of the demonstration: the client's side is intercepted, the server's side is an
/// inactive uplink.
fn config(xdp: &str) -> String {
    format!(
        r#"hostname = "mailguard.example.test"

[[zone]]
name = "green"
kind = "green"
interfaces = ["{LAN}"]
mode = "transparent"

[[zone]]
name = "red"
kind = "red"
interfaces = ["{WAN}"]
mode = "inactive"

[kernel]
xdp = "{xdp}"

[bypass]
from_ips = ["{bypassed}"]

[access]
blacklist_clients = ["{blacklisted}"]

[delivery]
default = "original"
"#,
        bypassed = scenario::BYPASSED,
        blacklisted = scenario::BLACKLISTED,
    )
}

fn sinks(topology: &Topology, folder: &Path) -> Result<[SmtpSink; 3]> {
    let place = |program: &str| topology.server.command(program);
    Ok([
        SmtpSink::start(&place, folder, &port25(SERVER4), true)?,
        SmtpSink::start(&place, folder, &port25(SERVER6), true)?,
        SmtpSink::start(&place, folder, &format!("{SERVER4}:{}", scenario::OTHER_PORT), true)?,
    ])
}

fn with_mailguard(topology: &Topology, xdp: &str, table: &mut Table) -> Result<()> {
    println!("demo: starting mailguard on the firewall, xdp = \"{xdp}\"");
    let firewall = |program: &str| topology.firewall.command(program);
    let appliance = Appliance::start(&firewall, &config(xdp))?;
    let sinks = sinks(topology, appliance.folder())?;
    let run = Run { topology, folder: appliance.folder(), sinks: &sinks, appliance: Some(&appliance) };
    for scenario in SCENARIOS {
        let seen = run.play(scenario)?;
        table.add(&format!("xdp {xdp}"), scenario, scenario.expected, &seen);
    }
    println!("\n── mailguard trace ──\n{}", appliance.ok(&["trace"])?);
    println!("── mailguard quarantine list ──\n{}", appliance.ok(&["quarantine", "list"])?);
    println!("── mailguard status ──\n{}", appliance.ok(&["status"])?);
    drop(appliance);
    nothing_left(topology)
}

/// The same mail without mailguard: everything arrives, from the clients' own addresses.
fn control(table: &mut Table) -> Result<()> {
    println!("demo: the same mail with mailguard detached");
    let topology = Topology::new()?;
    let folder = tempfile::tempdir().context("a folder for the control run")?;
    let sinks = sinks(&topology, folder.path())?;
    let run = Run { topology: &topology, folder: folder.path(), sinks: &sinks, appliance: None };
    for scenario in SCENARIOS {
        table.add("detached", scenario, Seen::delivered_directly(scenario), &run.play(scenario)?);
    }
    Ok(())
}

/// Neither a program nor a rule nor a route stays on the firewall.
fn nothing_left(topology: &Topology) -> Result<()> {
    let firewall = &topology.firewall;
    for (what, words, trace) in [
        ("a policy rule", "rule show", "fwmark"),
        ("a policy rule", "-6 rule show", "fwmark"),
        ("an XDP program", "link show", "prog/xdp"),
    ] {
        let listing = firewall.ip_output(words)?;
        if listing.contains(trace) {
            bail!("{what} is left behind:\n{listing}");
        }
    }
    Ok(())
}
