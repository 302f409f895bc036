//! What an administrator reads.

use super::*;

fn check(text: &str, expect: &str) {
    let errors = parse_and_validate(&Source::of_text("/etc/m.toml", text)).expect_err(text);
    assert_eq!(errors.to_string(), expect);
}

#[test]
fn several_errors() {
    check(
        &format!("{LEAST}[kernel]\nxdp = \"nativ\"\n\tproxy_prot = 7\n[spam]\nreport = true\n"),
        "\
/etc/m.toml:8:7: kernel.xdp: found \"nativ\", accepted: \"auto\", \"native\", \"generic\" or \"off\"
   8 | xdp = \"nativ\"
     |       ^^^^^^^
     = did you mean \"native\"?

/etc/m.toml:9:2: kernel.proxy_prot: unknown key
   9 |  proxy_prot = 7
     |  ^^^^^^^^^^
     = did you mean kernel.proxy_port?

/etc/m.toml:11:10: spam.report: found true, not supported yet: only false is accepted
  11 | report = true
     |          ^^^^
     = remove it, or write false

3 errors",
    );
}

#[test]
fn what_is_absent() {
    check(
        &LEAST.replace("hostname", "#"),
        "\
/etc/m.toml:1:1: hostname: missing: a fully qualified host name like \"mail.example.com\"
     = add the key

1 error",
    );
    check(
        &LEAST.replace("mode", "#"),
        "\
/etc/m.toml:2:1: zone[0].mode: missing: \"transparent\", \"active\" or \"inactive\"
   2 | [[zone]]
     | ^^^^^^^^
     = add the key

1 error",
    );
}

#[test]
fn what_is_no_toml() {
    check(
        "hostname = \"gate.example.org\nenabled = yes\r\n[kernel]\nxdp = \"auto\"\nxdp = \"off\"\n",
        "\
/etc/m.toml:1:29: not TOML: invalid basic string, expected `\"`
   1 | hostname = \"gate.example.org
     |                             ^

/etc/m.toml:2:11: not TOML: string values must be quoted, expected literal string
   2 | enabled = yes
     |           ^^^

/etc/m.toml:5:1: not TOML: duplicate key
   5 | xdp = \"off\"
     | ^^^

3 errors",
    );
    let errors = parse_and_validate(&Source::of_text("m.toml", "zone = 99999999999999999999")).unwrap_err();
    assert!(errors.to_string().contains("m.toml:1:8: not TOML: a number out of range\n"), "{errors}");
}

/// Columns count characters; a long line is cut around the mark; nothing reaches the terminal but text.
#[test]
fn odd_lines() {
    check(
        &format!("{LEAST}\"gr\u{fc}n\" = 1\n"),
        "\
/etc/m.toml:7:1: zone[0].gr\u{fc}n: unknown key
   7 | \"gr\u{fc}n\" = 1
     | ^^^^^^
     = remove it

1 error",
    );
    let line =
        |entry: &str| format!("{LEAST}[bypass]\nto_ips = [{} {entry}]\n", "\"192.0.2.1\", ".repeat(20));
    check(
        &line("\"192.0.2.x\""),
        "\
/etc/m.toml:8:272: bypass.to_ips[20]: found \"192.0.2.x\", accepted: an address like \"192.168.5.7\" or \"2001:db8::7\"
   8 | …\", \"192.0.2.1\", \"192.0.2.1\",  \"192.0.2.x\"]
     |                                ^^^^^^^^^^^

1 error",
    );
    check(
        &format!("{LEAST}[bypass]\nto_ips = [\"\\u001b[31m{}\"]\n", "y".repeat(300)),
        &format!(
            "\
/etc/m.toml:8:11: bypass.to_ips[0]: found \"\u{fffd}[31m{}…\", accepted: an address like \"192.168.5.7\" or \"2001:db8::7\"
   8 | to_ips = [\"\\u001b[31m{}…
     |           {}

1 error",
            "y".repeat(55),
            "y".repeat(79),
            "^".repeat(90)
        ),
    );
}

#[test]
fn many_errors_are_counted() {
    let entries = "\"x\", ".repeat(1_500);
    let errors =
        parse_and_validate(&Source::of_text("m.toml", format!("{LEAST}[bypass]\nto_ips = [{entries}]\n")));
    let printed = errors.unwrap_err().to_string();
    assert_eq!(printed.matches("bypass.to_ips[").count(), 1_000);
    assert!(printed.ends_with("\n\n1500 errors, the first 1000 of them shown"), "{printed}");
}
