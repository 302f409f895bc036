//! What the mail process keeps of its memory: before, at most during, and after 80 messages of 20 MB, 20 at a
//! time; `smtp-source` → mailguard → `smtp-sink`. The same of another program of mailguard's, if there is one
//! to compare with.
//!
//! What it needs while it works is bounded elsewhere. What it keeps of that once it idles is missing to
//! whatever else runs on the firewall, for good: so it is looked at while nothing wakes it.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use mailguard_tests::appliance::{self, Appliance};
use mailguard_tests::memory;
use mailguard_tests::netns::{LAN, SERVER4, Topology, port25};
use mailguard_tests::peers::smtp_sink::SmtpSink;
use mailguard_tests::peers::smtp_source::{self, Load};
use mailguard_tests::peers::wait_at_most;

use crate::setup;

/// Messages.
const MESSAGES: u64 = 80;
/// Octets of each message's text.
const OCTETS: u32 = 20_000_000;
/// Connections at a time.
const SESSIONS: u32 = 20;
/// Longest wait for the last message.
const PATIENCE: Duration = Duration::from_secs(120);
/// Seconds after the last message at which it is looked.
const LATER: [u64; 3] = [10, 30, 60];
/// What may be left at the last look, MB.
const AIM: u32 = 80;

/// Resident memory of one mail process, KiB.
struct Held {
    before: u64,
    peak: u64,
    later: [u64; LATER.len()],
}

/// Measures and prints the table.
pub(crate) fn run(baseline: Option<&Path>) -> Result<()> {
    setup::everything()?;
    super::use_release()?;
    let built = appliance::program();
    let programs = [("mailguard", Some(built.as_path())), ("baseline", baseline)];
    let mut rows = Vec::new();
    for (name, program) in programs {
        if let Some(program) = program {
            rows.push((name, measure(program)?));
        }
    }
    print(&rows);
    Ok(())
}

fn measure(program: &Path) -> Result<Held> {
    let topology = Topology::new()?;
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::prepare(&firewall, &config())?.with_program(program);
    let server = |program: &str| topology.server.command(program);
    let sink = SmtpSink::start(&server, appliance.folder(), &port25(SERVER4), false)?;
    appliance.run()?;
    let mail = appliance.mail_process()?;
    let before = memory::of_process(mail)?.now;
    let server = port25(SERVER4);
    let load = Load::of_strangers(&server, SESSIONS, MESSAGES, OCTETS);
    smtp_source::run(&|program| topology.client.command(program), &load)?;
    wait_at_most(PATIENCE, "the last message arrives", &mut || sink.count() >= MESSAGES)?;
    let end = Instant::now();
    let mut later = [0; LATER.len()];
    for (seconds, held) in LATER.into_iter().zip(&mut later) {
        thread::sleep((end + Duration::from_secs(seconds)).saturating_duration_since(Instant::now()));
        *held = memory::of_process(mail)?.now;
    }
    Ok(Held { before, peak: memory::of_process(mail)?.peak, later })
}

fn config() -> String {
    format!(
        "hostname = \"mailguard.example.test\"\n[[zone]]\nname = \"green\"\nkind = \"green\"\n\
         interfaces = [\"{LAN}\"]\nmode = \"transparent\"\n[delivery]\ndefault = \"original\"\n"
    )
}

fn print(rows: &[(&str, Held)]) {
    println!(
        "\nresident memory of the mail process, MB, {MESSAGES} messages of {OCTETS} octets, {SESSIONS} at a time:"
    );
    print!("{:<10} {:>8} {:>8}", "", "before", "peak");
    LATER.iter().for_each(|seconds| print!(" {:>8}", format!("+{seconds} s")));
    println!("   (aim at the end: at most {AIM})");
    for (name, Held { before, peak, later }) in rows {
        print!("{name:<10}");
        [before, peak].into_iter().chain(later).for_each(|kib| print!(" {:>8.1}", megabytes(*kib)));
        println!();
    }
}

fn megabytes(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}
