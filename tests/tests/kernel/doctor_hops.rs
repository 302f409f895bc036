//! Next hops that are this mailguard, told by `check`, `doctor` and the log before there is mail for them.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{FIREWALL4, LAN, SERVER4, Topology, port25};
use mailguard_tests::peers::wait_until;

use super::doctor::complaints;

fn config(server: &str, more: &str) -> String {
    format!(
        "hostname = \"mailguard.example.test\"\n[[zone]]\nname = \"green\"\nkind = \"green\"\ninterfaces = [\"{LAN}\"]\n\
         mode = \"active\"\n[[incoming_domain]]\ndomain = \"inside.example.test\"\nserver = \"{server}\"\n{more}"
    )
}

/// A server behind the firewall that calls itself so, for as long as the test runs.
fn serve(topology: &Topology, name: &'static str) {
    let bind = || Ok(TcpListener::bind(port25(SERVER4))?);
    let listener = topology.server.within(bind).expect("port 25 is free");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut writer = stream.try_clone().expect("cloned");
            let answers =
                std::iter::once(()).chain(BufReader::new(stream).lines().map_while(Result::ok).map(drop));
            for (number, ()) in answers.enumerate() {
                let code = if number == 0 { 220 } else { 250 };
                if writer.write_all(format!("{code} {name}\r\n").as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
}

#[test]
fn next_hops_that_are_ourselves_are_told_before_there_is_mail() {
    let topology = Topology::new().unwrap();
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::prepare(&firewall, &config(&SERVER4.to_string(), "")).unwrap();
    let checked = |appliance: &Appliance<'_>| appliance.ok(&["check"]).unwrap();
    let next_hops = |appliance: &Appliance<'_>| -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        complaints(appliance).iter().map(|found| (text(&found["severity"]), text(&found["what"]))).collect()
    };
    let only = |appliance: &Appliance<'_>, severity: &str, what: &str| {
        let found = next_hops(appliance);
        let [(how_bad, found)] = found.as_slice() else { panic!("{what}: {found:?}") };
        assert!(how_bad == severity && found.contains(what), "{what}: {how_bad}: {found}");
    };

    assert!(!checked(&appliance).contains("warning"), "{}", checked(&appliance));
    only(
        &appliance,
        "warning",
        "incoming_domain[0].server: 198.51.100.2:25 doesn't say who it is: can't connect",
    );
    serve(&topology, "inside.example.test");
    assert_eq!(next_hops(&appliance), []);

    // Our own address, in a zone that listens there.
    appliance.write_config(&config(&FIREWALL4.to_string(), "")).unwrap();
    let text = std::fs::read_to_string(appliance.config()).unwrap();
    let number = text.lines().position(|line| line.starts_with("server = ")).unwrap() + 1;
    let warning = format!(
        "warning: {}:{number}:10: incoming_domain[0].server: found {FIREWALL4}:25, where mailguard itself listens",
        appliance.config().display()
    );
    assert!(checked(&appliance).contains(&warning), "{}", checked(&appliance));
    only(&appliance, "error", "192.0.2.1:25 is ourselves, or is called as we are");
    appliance.run().unwrap();
    let logged = || appliance.log().contains("192.0.2.1:25, where mailguard itself listens");
    wait_until("the log says so", logged).unwrap_or_else(|error| panic!("{error}: {}", appliance.log()));
    only(&appliance, "error", "192.0.2.1:25 is ourselves, or is called as we are");

    // Our own name: written, or only heard.
    let named = "[smarthost]\nenabled = true\naddress = \"MAILGUARD.example.test.\"\n";
    appliance.write_config(&config(&SERVER4.to_string(), named)).unwrap();
    assert!(
        checked(&appliance)
            .contains("smarthost.address: found \"MAILGUARD.example.test\", which is our own hostname")
    );
    appliance.ok(&["reload"]).unwrap();
    wait_until("the log says so", || appliance.log().contains("which is our own hostname"))
        .unwrap_or_else(|error| panic!("{error}: {}", appliance.log()));
    let same_name = config(&SERVER4.to_string(), "[delivery]\nhelo_name = \"inside.example.test\"\n");
    appliance.write_config(&same_name).unwrap();
    assert!(!checked(&appliance).contains("warning"), "{}", checked(&appliance));
    only(&appliance, "error", "it greets with our own name");
}
