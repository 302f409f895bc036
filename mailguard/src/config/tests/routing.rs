//! `[smarthost]`, `[[domain_route]]`, `[[mail_route]]` and what `[delivery]` says of routing.

use std::path::Path;

use mailguard_core::config::model::*;

use super::*;

fn errors(text: &str) -> Vec<String> {
    match parse_and_validate(&Source::of_text("m.toml", format!("{LEAST}{text}"))) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(|error| format!("{}: {}", error.key, error.message)).collect(),
    }
}

/// As the daemon reads it: with the files that it names.
fn loaded(directory: &Path, text: &str) -> Result<Config, String> {
    let path = directory.join("mailguard.toml");
    std::fs::write(&path, format!("{LEAST}{text}")).unwrap();
    parse_and_validate(&load(&path).unwrap()).map_err(|errors| errors.to_string())
}

#[test]
fn a_smarthost_with_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (ca, password) = (directory.path().join("ca.pem"), directory.path().join("password"));
    std::fs::write(&ca, "PEM").unwrap();
    std::fs::write(&password, "geheim ß\nsecond line\n").unwrap();
    let text = format!(
        "[smarthost]\nenabled = true\naddress = \"relay.example.net\"\ntls = \"implicit\"\nca_file = \"{}\"\n\
         username = \"me\"\npassword_file = \"{}\"\nmethods = [\"plain\", \"CRAM-MD5\"]\n",
        ca.display(),
        password.display()
    );
    let config = loaded(directory.path(), &text).unwrap();
    let smarthost = config.smarthost.unwrap();
    let login = smarthost.login.as_ref().unwrap();
    assert_eq!((smarthost.port, smarthost.tls, smarthost.ca.as_deref()), (465, Tls::Implicit, Some("PEM")));
    assert_eq!((login.user.as_str(), login.password.as_str()), ("me", "geheim ß"));
    assert_eq!(login.methods, [Mechanism::Plain, Mechanism::CramMd5]);
    assert!(!format!("{smarthost:?}").contains("geheim"));
}

#[test]
fn what_is_wrong_with_a_smarthost() {
    let on = "[smarthost]\nenabled = true\naddress = \"10.0.0.1\"\n";
    for (more, expect) in [
        ("username = \"me\"\n", "smarthost.username: a username needs a password"),
        (
            "username = \"me\"\npassword = \"a\"\npassword_file = \"/dev/null/x\"\n",
            "smarthost.password_file: there is a password, too",
        ),
        (
            "methods = [\"GSSAPI\"]\n",
            "smarthost.methods[0]: found \"GSSAPI\", accepted: \"CRAM-MD5\", \"DIGEST-MD5\", \"PLAIN\" or \"LOGIN\"",
        ),
        ("methods = []\n", "smarthost.methods: no method is allowed"),
    ] {
        let found = errors(&format!("{on}{more}"));
        assert!(found.contains(&expect.to_owned()), "{more}: {found:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let named = format!("{on}username = \"me\"\npassword_file = \"{}\"\n", empty.display());
    let refused = loaded(directory.path(), &named).unwrap_err();
    assert!(refused.contains("holds no password of 1 to 255 octets"), "{refused}");
    let absent = loaded(directory.path(), &named.replace("/empty", "/absent")).unwrap_err();
    assert!(absent.contains("smarthost.password_file") && absent.contains("/absent"), "{absent}");
}

#[test]
fn no_message_holds_a_password() {
    let on = "[smarthost]\nenabled = true\naddress = \"10.0.0.1\"\nusername = \"me\"\n";
    for password in ["123456", "\"geheim\\t\"", "\"ge\"heim\"", "[\"geheim\"]"] {
        let text = format!("{LEAST}{on}password = {password}\n");
        let errors = parse_and_validate(&Source::of_text("m.toml", text)).unwrap_err();
        let (said, json) = (errors.to_string(), serde_json::to_string(&errors).unwrap());
        for secret in ["123456", "geheim"] {
            assert!(!said.contains(secret) && !json.contains(secret), "{said}");
        }
        assert!(said.contains("m.toml:11:"), "the line is named: {said}");
    }
}

#[test]
fn domain_routes_and_their_smarthosts() {
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    std::fs::write(&password, "secret\n").unwrap();
    let text = format!(
        "[[domain_route]]\ndirection = \"sender\"\ndomain = \"a.example\"\noutgoing_address = \"192.0.2.7\"\n\
         [domain_route.smarthost]\naddress = \"relay.example.net\"\nusername = \"me\"\npassword_file = \"{}\"\n\
         [[domain_route]]\ndirection = \"recipient\"\ndomain = \"b.example\"\noutgoing_address = \"wan1\"\n\
         [[domain_route]]\ndirection = \"recipient\"\ndomain = \"c.example\"\nsmarthost = {{ enabled = false }}\n",
        password.display()
    );
    let routes = loaded(directory.path(), &text).unwrap().domain_routes;
    let RouteSmarthost::Own(own) = &routes[0].smarthost else { panic!("{routes:?}") };
    assert_eq!((own.port, own.login.as_ref().unwrap().password.as_str()), (25, "secret"));
    assert_eq!(routes[0].outgoing, Some(OutgoingAddress::Address("192.0.2.7".parse().unwrap())));
    assert_eq!(
        (&routes[1].outgoing, &routes[1].smarthost),
        (&Some(OutgoingAddress::Interface("wan1".to_owned())), &RouteSmarthost::General,)
    );
    assert_eq!(routes[2].smarthost, RouteSmarthost::Without);
    let twice = "[[domain_route]]\ndirection = \"sender\"\ndomain = \"a.example\"\n".repeat(2);
    assert_eq!(errors(&twice), ["domain_route[1].domain: the sender domain \"a.example\" stands here twice"]);
    assert_eq!(
        errors("[[domain_route]]\ndomain = \"a.example\"\n"),
        ["domain_route[0].direction: missing: \"sender\" or \"recipient\""]
    );
    assert_eq!(
        errors("[[domain_route]]\ndirection = \"sender\"\ndomain = \"a.example\"\nsmarthost = {}\n"),
        ["domain_route[0].smarthost.address: an enabled smarthost needs an address"]
    );
}

#[test]
fn copies() {
    let text = "[[mail_route]]\ndirection = \"recipient\"\naddress = \"boss@example.com\"\nbcc = \"archive@example.com\"\n\
                [delivery]\nalways_bcc = \"all@example.com\"\ndelay_warning = \"0s\"\ntls = \"required\"\n";
    let config = parse_and_validate(&Source::of_text("m.toml", format!("{LEAST}{text}"))).unwrap();
    assert_eq!(config.mail_routes[0].bcc.to_string(), "archive@example.com");
    assert_eq!(config.delivery.always_bcc.unwrap().to_string(), "all@example.com");
    assert!(config.delivery.delay_warning.is_zero());
    assert_eq!(config.delivery.tls, Tls::Required);
    assert_eq!(
        errors("[[mail_route]]\ndirection = \"recipient\"\naddress = \"example.com\"\nbcc = \"a@b.c\"\n")
            .len(),
        1
    );
}

#[test]
fn the_servers_of_an_incoming_domain() {
    let with = |server: &str| format!("[[incoming_domain]]\ndomain = \"a.b\"\n{server}\n");
    for (server, expect, balance) in [
        ("server = \"10.0.0.1\"", "10.0.0.1:25", false),
        ("server = \"exchange.a.b:2525\"", "exchange.a.b:2525", false),
        ("server = [\"10.0.0.1\"]\nbalance = true", "10.0.0.1:25", true),
        (
            "server = [\"10.0.0.1\", \"mx.a.b\", \"[2001:db8::1]:26\"]\nbalance = true",
            "10.0.0.1:25 mx.a.b:25 [2001:db8::1]:26",
            true,
        ),
    ] {
        let config = least_and(&with(server)).unwrap();
        let incoming = &config.incoming_domains[0];
        let servers: Vec<String> = incoming.servers.iter().map(ToString::to_string).collect();
        assert_eq!((servers.join(" ").as_str(), incoming.balance), (expect, balance), "{server}");
    }
    for (server, expect) in [
        ("server = []", "incoming_domain[0].server: the list is empty"),
        ("balance = true", "incoming_domain[0].server: missing: "),
        (
            "server = [\"10.0.0.1\", \"10.0.0.256\"]",
            "incoming_domain[0].server[1]: found \"10.0.0.256\", accepted: ",
        ),
        ("server = 25", "incoming_domain[0].server: found the integer 25, accepted: "),
        ("server = \"10.0.0.1\"\nbalance = 1", "incoming_domain[0].balance: found the integer 1"),
    ] {
        let found = errors(&with(server));
        assert!(found.len() == 1 && found[0].starts_with(expect), "{server}: {found:?}");
    }
    let many: Vec<String> = (0..17).map(|number| format!("\"10.0.0.{number}\"")).collect();
    let found = errors(&with(&format!("server = [{}]", many.join(", "))));
    assert!(found[0].contains("at most 16 values"), "{found:?}");
}

#[test]
fn host_names_of_servers_beside_bypassing_names_have_a_limit() {
    let domains = |count: usize| -> String {
        (0..count)
            .map(|number| {
                format!("[[incoming_domain]]\ndomain = \"d{number}.test\"\nserver = \"mx{number}.test\"\n")
            })
            .collect()
    };
    let bypass = "[bypass]\nto_names = [\"mail.example.net\"]\n";
    assert_eq!(errors(&domains(257)), [] as [String; 0]);
    assert_eq!(errors(&format!("{bypass}{}", domains(256))), [] as [String; 0]);
    let found = errors(&format!("{bypass}{}", domains(257)));
    assert!(found[0].contains("257 host names of servers beside bypass.to_names"), "{found:?}");
}

#[test]
fn a_domain_that_is_incoming_and_covers_its_subdomains_elsewhere_is_warned_of() {
    let incoming = "[[incoming_domain]]\ndomain = \"a.test\"\nserver = \"10.0.0.1\"\n";
    let doubts = |text: &str| -> Vec<String> {
        let source = Source::of_text("m.toml", format!("{LEAST}{text}"));
        let found = doubts(&source, &parse_and_validate(&source).unwrap());
        found.iter().map(|error| format!("{} {}: {}", error.line, error.key, error.message)).collect()
    };
    let route =
        "[[domain_route]]\ndirection = \"recipient\"\ndomain = \"A.test\"\noutgoing_address = \"10.0.0.9\"\n";
    let warned = |line: usize, keys: &str| {
        vec![format!(
            "{line} incoming_domain[0].domain: \"a.test\" is that domain only here, and covers its subdomains, too, in {keys}"
        )]
    };
    for (text, expect) in [
        (
            format!("[access]\nwhitelist_recipients = [\"b.test\", \"a.test\"]\n{incoming}"),
            warned(10, "access.whitelist_recipients"),
        ),
        (
            format!("[access]\nblacklist_clients = [\"a.test\"]\n{incoming}{route}"),
            warned(10, "access.blacklist_clients, a [[domain_route]] for recipients"),
        ),
        // Others, an address in it, a domain above it or below it say nothing of it.
        (format!("[access]\nwhitelist_senders = [\"x@a.test\", \"test\", \"b.a.test\"]\n{incoming}"), vec![]),
        // All is said.
        (format!("{incoming}{}{route}", incoming.replace("a.test", ".a.test")), vec![]),
        (incoming.to_owned(), vec![]),
    ] {
        assert_eq!(doubts(&text), expect, "{text}");
    }
}
