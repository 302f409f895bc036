//! `mailguard check`: what would surprise with a configuration that can be used.

use super::*;

#[test]
fn a_next_hop_that_is_ourselves_is_told_beforehand_with_its_line() {
    let text = "hostname = \"gate.example.org\"\n[[zone]]\nname = \"lan\"\nkind = \"green\"\n\
        interfaces = [\"eth0\"]\nmode = \"active\"\n[[incoming_domain]]\ndomain = \"a.example.org\"\n\
        server = \"192.0.2.25\"\n[[incoming_domain]]\ndomain = \"b.example.org\"\nserver = \"127.0.0.1\"\n\
        [smarthost]\nenabled = true\naddress = \"Gate.Example.org\"\n";
    let folder = folder(text);
    let path = folder.path().join("m.toml").display().to_string();
    let printed = typed("check", &folder).unwrap();
    assert!(!printed.failed, "the daemon takes it");
    for expect in [
        format!("{path}: OK\n"),
        format!(
            "\nwarning: {path}:15:11: smarthost.address: found \"Gate.Example.org\", which is our own hostname, accepted: "
        ),
        "\n  15 | address = \"Gate.Example.org\"\n     |           ^^^^^^^^^^^^^^^^^^\n     = ".to_owned(),
        format!(
            "\nwarning: {path}:12:10: incoming_domain[1].server: found 127.0.0.1:25, where mailguard itself listens"
        ),
    ] {
        assert!(printed.text.contains(&expect), "{expect}: {}", printed.text);
    }
    assert!(!printed.text.contains("192.0.2.25"), "{}", printed.text);
    let printed = typed("check --json", &folder).unwrap();
    let json: serde_json::Value = serde_json::from_str(&printed.text).unwrap();
    assert_eq!((&json["valid"], &json["warnings"][1]["line"]), (&json!(true), &json!(12)));
    assert_eq!(json["warnings"][1]["key"], "incoming_domain[1].server");
}
