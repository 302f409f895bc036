//! What values mean, and which are refused with which words.

use std::time::Duration;

use mailguard_core::config::model::*;
use mailguard_core::file_sets::FileSet;
use mailguard_core::mail::Domain;
use proptest::prelude::*;

use super::*;

/// The errors of `LEAST` and `more`: `key: message` and, after ` = `, what to do; each on a line.
fn check(more: &str, expect: &[&str]) {
    check_text(&format!("{LEAST}{more}"), expect);
}

fn check_text(text: &str, expect: &[&str]) {
    let seen: Vec<String> = match parse_and_validate(&Source::of_text("m.toml", text)) {
        Ok(_) => Vec::new(),
        Err(errors) => errors
            .iter()
            .map(|error| {
                let remedy = error.remedy.as_ref().map(|remedy| format!(" = {remedy}")).unwrap_or_default();
                format!("{}: {}{remedy}", error.key, error.message)
            })
            .collect(),
    };
    assert_eq!(seen, expect, "{text}");
}

fn contract() -> Config {
    let source = Source::of_text("mailguard.toml", include_str!("../../../mailguard.toml"));
    parse_and_validate(&source).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_contract_file_loads_as_it_stands() {
    let config = contract();
    assert_eq!(config.hostname, Domain::parse("mailguard.example.org").unwrap());
    assert_eq!(config.zones.len(), 3);
    assert_eq!(config.quarantine.retention, Duration::from_secs(15 * 86_400));
    assert_eq!(config.server.max_message_size, 30 << 20);
    assert_eq!(config.server.dsn_zones, ["green", "orange"]);
    assert_eq!(config.files.extensions, FileSet::Common.extensions());
}

/// Every key of the contract, said aloud, is its own default: leaving it out changes nothing.
#[test]
fn what_the_contract_says_is_the_default() {
    let said = contract();
    let silent = parse_and_validate(&Source::of_text(
        "mailguard.toml",
        "hostname = \"mailguard.example.org\"\n\
         zone = [{ name = \"green\", kind = \"green\", interfaces = [\"eth0\"], mode = \"transparent\" },\n\
         { name = \"orange\", kind = \"orange\", interfaces = [\"eth1\"], mode = \"active\" },\n\
         { name = \"red\", kind = \"red\", interfaces = [\"eth2\"], mode = \"active\" }]",
    ));
    assert_eq!(silent, Ok(said));
}

#[test]
fn protections_that_are_not_there_yet_are_named() {
    let keys =
        |config: &Config| config.inactive.iter().map(|inactive| inactive.key.clone()).collect::<Vec<_>>();
    let all = [
        "files.archives",
        "files.archive_passwords",
        "files.double_extensions",
        "files.notify_recipients",
        "files.limits.max_scan_time",
        "spam.enabled",
        "spam.builtin.enabled",
        "spam.builtin.bayes",
        "spam.authentication.spf",
        "spam.authentication.dkim",
        "spam.authentication.dmarc",
        "spam.impersonation.enabled",
        "spam.impersonation.lookalikes",
        "notifications.notify_virus_recipients",
        "notifications.operator",
        "admin.listen",
    ];
    assert_eq!(keys(&contract()), all);
    let off = least_and(
        "[files]\narchives = false\ndouble_extensions = false\nnotify_recipients = false\n\
         [spam]\nenabled = false\n[admin]\nlisten = \"\"\n\
         [notifications]\nnotify_virus_recipients = false\n",
    );
    // Nothing switches these two off.
    assert_eq!(keys(&off.unwrap()), ["files.limits.max_scan_time", "notifications.operator"]);
    let no_files = least_and("[files]\nenabled = false\n");
    let no_files = keys(&no_files.unwrap_or_else(|errors| panic!("{errors}")));
    assert!(!no_files.iter().any(|key| key.starts_with("files.")), "{no_files:?}");
}

#[test]
fn keys_not_built_yet_take_their_default_only() {
    check(
        "[spam]\nhandling = \"drop\"\n",
        &[
            "spam.handling: found \"drop\", not supported yet: only \"quarantine\" is accepted = remove it, or write \"quarantine\"",
        ],
    );
    check(
        "[spam]\ntag_level = 3\n[spam.greylist]\ndelay = \"5m\"\n", // the default in other words
        &[],
    );
    check(
        "[log]\nformat = \"journald\"\n",
        &[
            "log.format: found \"journald\", not supported yet: only \"text\" or \"json\" is accepted = remove it, or write \"text\" or \"json\"",
        ],
    );
    check(
        "[spam.spamassassin]\nenabled = true\n",
        &[
            "spam.spamassassin.enabled: found true, not supported yet: only false is accepted = remove it, or write false",
        ],
    );
}

#[test]
fn what_the_contract_promises_and_nothing_does_is_refused() {
    check(
        "[virus]\nhandling = \"strip\"\n[files]\nhandling = \"reject\"\n",
        &[
            "virus.handling: found \"strip\", not supported yet: only \"quarantine\", \"redirect\", \"pass\" or \"drop\" is accepted = remove it, or write \"quarantine\", \"redirect\", \"pass\" or \"drop\"",
            "files.handling: found \"reject\", not supported yet: only \"quarantine\", \"redirect\", \"pass\" or \"drop\" is accepted = remove it, or write \"quarantine\", \"redirect\", \"pass\" or \"drop\"",
        ],
    );
    check(
        "[[dkim]]\ndomain = \"a.b\"\n",
        &["dkim: [[dkim]] is not supported yet: no mail is signed = remove it"],
    );
    check(
        "[admin]\npassword_file = \"/etc/mailguard/admin.password\"\n",
        &[
            "admin.password_file: there is no such file any more: accounts with their passwords are kept in admin.state_dir = remove the key",
        ],
    );
    check(
        "[spam.authentication]\ndmarc = \"policy\"\n[spam.links]\nlists = [\"dbl.spamhaus.org\"]\n[quarantine.users]\nenabled = true\n",
        &[
            "spam.authentication.dmarc: found \"policy\", not supported yet: only \"score\" or \"off\" is accepted = remove it, or write \"score\" or \"off\"",
            "spam.links.lists: found a list of one value, not supported yet: only [] is accepted = remove it, or write []",
            "quarantine.users.enabled: found true, not supported yet: only false is accepted = remove it, or write false",
        ],
    );
}

/// Values that a file may hold for years: the example of an earlier version wrote its defaults aloud.
#[test]
fn what_earlier_versions_wrote_aloud_is_accepted_or_explained() {
    check("[files]\nnotify_recipients = false\n[notifications]\nnotify_virus_recipients = false\n", &[]);
    check(
        "[files]\nextensions = [\"exe\", \"com\", \"vbs\", \"pif\", \"scr\", \"bat\", \"cmd\", \"dll\"]\n",
        &[],
    );
    check(
        "[notifications]\nsender = \"postmaster@mailguard.example.org\"\n",
        &[
            "notifications.sender: found \"postmaster@mailguard.example.org\", not supported yet: only \"\" is accepted = remove it, or write \"\"",
        ],
    );
}

#[test]
fn names_that_bypass() {
    let names = |list: &str| {
        let config = least_and(&format!("[bypass]\nto_names = {list}\n"));
        config.unwrap_or_else(|errors| panic!("{errors}")).bypass.to_names
    };
    let named: Vec<String> = names("[\"Mail.Example.net.\", \"bücher.example\"]")
        .iter()
        .map(|name| name.ascii().to_owned())
        .collect();
    assert_eq!(named, ["mail.example.net", "xn--bcher-kva.example"]);
    let name = "found \"192.0.2.1\", accepted: a fully qualified host name like \"mail.example.com\"";
    check(
        "[bypass]\nto_names = [\"192.0.2.1\", \"*.example.net\"]\n",
        &[
            &format!("bypass.to_names[0]: {name}"),
            &format!("bypass.to_names[1]: {}", name.replace("192.0.2.1", "*.example.net")),
        ],
    );
    let many: Vec<String> = (0..257).map(|n| format!("n{n}.test")).collect();
    check(
        &format!("[bypass]\nto_names = {many:?}\n"),
        &[
            "bypass.to_names: found a list of 257 values, accepted: at most 256 values, those of @ files included",
        ],
    );
    // There is room in the kernel's maps for all that the names may ever stand for.
    let ips: Vec<String> = (0..16_384 - 31).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect();
    check(
        &format!("[bypass]\nto_ips = {ips:?}\nto_names = [\"a.test\"]\n"),
        &[
            "bypass.to_subnets: 16385 subnets and addresses together, 32 for each name, at most 16384 are accepted = join neighbouring ones into larger subnets",
        ],
    );
}

#[test]
fn sets_of_extensions() {
    let files = |extensions: &str| {
        let config = least_and(&format!("[files]\nextensions = {extensions}\n"));
        config.unwrap_or_else(|errors| panic!("{errors}")).files.extensions
    };
    assert_eq!(
        files("[\"@programs\", \"EXE\", \".docm\", \"docm\"]").concat(),
        "batcmdcomdllexepifscrvbsdocm"
    );
    assert_eq!(files("[]"), [""; 0]);
    check(
        "[files]\nextensions = [\"@common\", \"@commons\"]\n",
        &[
            "files.extensions[1]: found \"@commons\", accepted: a file name extension like \"exe\", without wildcards or further dots, or a set like \"@common\" = the sets are @common, @gmail, @outlook, @programs, @scripts, @disk-images, @macros, @archives",
        ],
    );
}

#[test]
fn unknown_keys() {
    check("[kernel]\nxpd = \"auto\"\n", &["kernel.xpd: unknown key = did you mean kernel.xdp?"]);
    check("[kernal]\nxdp = \"auto\"\n", &["kernal: unknown key = did you mean kernel?"]);
    check(
        "[server]\nretry_min = \"1m\"\n",
        &["server.retry_min: unknown key = did you mean delivery.retry_min?"],
    );
    check("[trace]\nwhat_is_this = 1\n", &["trace.what_is_this: unknown key = remove it"]);
    check(
        "[spam.reputation.scores]\nbluk = 8.0\n",
        &["spam.reputation.scores.bluk: unknown key = did you mean spam.reputation.scores.bulk?"],
    );
    check(
        "[[incoming_domain]]\ndomain = \"a.b\"\nserver = \"10.0.0.1\"\nport = 26\n",
        &["incoming_domain[0].port: unknown key = remove it"],
    );
}

#[test]
fn wrong_types_and_ranges() {
    check(
        "[server]\nmax_message_size = 30\nmax_recipients = \"many\"\nrequire_helo = 1\n",
        &[
            "server.max_message_size: found the integer 30, accepted: a size like \"512KB\", \"30MB\" or \"10GB\"",
            "server.max_recipients: found \"many\", accepted: a whole number from 100 to 10000",
            "server.require_helo: found the integer 1, accepted: true or false",
        ],
    );
    check(
        "[server]\nhard_error_limit = 0\ncommand_timeout = \"0s\"\nmax_message_size = \"1KB\"\n",
        &[
            "server.hard_error_limit: found the integer 0, accepted: a whole number from 1 to 1000",
            "server.command_timeout: found \"0s\", accepted: a duration from \"1s\" to \"1h\"",
            "server.max_message_size: found \"1KB\", accepted: a size from \"64KB\" to \"2GB\"",
        ],
    );
    check(
        "[quarantine]\nretention_days = 1979-05-27\n",
        &[
            "quarantine.retention_days: found the date or time 1979-05-27, accepted: a whole number from 1 to 3650",
        ],
    );
    check(
        "[bypass]\nfrom_ips = \"192.0.2.1\"\nto_ips = [\"192.0.2.1\", 5, \"192.0.2.0/24\"]\n",
        &[
            "bypass.from_ips: found \"192.0.2.1\", accepted: a list, each an address like \"192.168.5.7\" or \"2001:db8::7\"",
            "bypass.to_ips[1]: found the integer 5, accepted: an address like \"192.168.5.7\" or \"2001:db8::7\"",
            "bypass.to_ips[2]: found \"192.0.2.0/24\", accepted: an address like \"192.168.5.7\" or \"2001:db8::7\" = 192.0.2.0/24 is a network; this list holds single addresses",
        ],
    );
    check(
        "access = []\n[[kernel]]\n",
        &[
            "zone[0].access: unknown key = did you mean access?",
            "kernel: found a list of one value, accepted: a table, [kernel]",
        ],
    );
    check(
        "[dns]\nservers = [\"ns.example.net\"]\n",
        &[
            "dns.servers[0]: found \"ns.example.net\", accepted: \"ADDRESS\", \"ADDRESS:PORT\" or \"[IPV6]:PORT\" = write its address: names are not looked up here",
        ],
    );
}

#[test]
fn words() {
    check(
        "[kernel]\nxdp = \"nativ\"\n",
        &[
            "kernel.xdp: found \"nativ\", accepted: \"auto\", \"native\", \"generic\" or \"off\" = did you mean \"native\"?",
        ],
    );
    let kernel = least_and("[kernel]\nblacklist_action = \"reset\"\n").unwrap().kernel;
    assert_eq!(kernel.blacklist_action, BlacklistAction::Reset);
}

#[test]
fn zones() {
    let zone = |name: &str, kind: &str, interface: &str, mode: &str| {
        format!("[[zone]]\nname = {name:?}\nkind = {kind:?}\ninterfaces = [{interface:?}]\nmode = {mode:?}\n")
    };
    check(&zone("dmz", "orange", "eth1", "active"), &[]);
    check(
        &zone("lan", "orange", "eth1", "active"),
        &[
            "zone[1].name: the zone name \"lan\" stands here twice = it stands first in zone[0].name; remove one of them",
        ],
    );
    check(
        &zone("dmz", "orange", "eth0", "active"),
        &[
            "zone[1].interfaces: the interface \"eth0\" stands here twice = it stands first in zone[0].interfaces; remove one of them",
        ],
    );
    check(
        &zone("wan", "red", "eth1", "transparent"),
        &[
            "zone[1].mode: a red zone can't be transparent: it would carry anybody's mail anywhere = write mode = \"active\" or \"inactive\"; mail to inner servers is taken by [[incoming_domain]]",
        ],
    );
    check(
        "[[zone]]\nname = \"b\"\nkind = \"purple\"\ninterfaces = []\n",
        &[
            "zone[1].mode: missing: \"transparent\", \"active\" or \"inactive\" = add the key",
            "zone[1].kind: found \"purple\", accepted: \"red\", \"green\", \"orange\" or \"blue\"",
            "zone[1].interfaces: a zone has at least one interface = name one, or remove the zone",
        ],
    );
    check(
        "[server]\ndsn_zones = [\"lan\", \"wan\"]\n",
        &["server.dsn_zones: there is no zone \"wan\" = write the name of a [[zone]]"],
    );
    check_text(
        "",
        &[
            "hostname: missing: a fully qualified host name like \"mail.example.com\" = add the key",
            "zone: missing: at least one [[zone]] with name, kind, interfaces and mode = add the key",
        ],
    );
}

#[test]
fn values_that_need_one_another() {
    let needs = " handling = \"redirect\" needs redirect_to = add redirect_to = \"ADDRESS\"";
    check(
        "[virus]\nhandling = \"redirect\"\n[files]\nhandling = \"redirect\"\nredirect_to = \"\"\n",
        &[&format!("virus.handling:{needs}"), &format!("files.handling:{needs}")],
    );
    // One error is enough.
    check(
        "[files]\nhandling = \"redirect\"\nredirect_to = \"nobody\"\n",
        &[
            "files.redirect_to: found \"nobody\", accepted: a mail address like \"user@example.com\" = an address is written local-part@domain",
        ],
    );
    check(
        "[delivery]\nretry_min = \"2h\"\n",
        &["delivery.retry_min: retry_min is longer than retry_max = write a shorter one"],
    );
    check(
        "[smarthost]\nenabled = true\n",
        &["smarthost.address: an enabled smarthost needs an address = add address = \"NAME OR ADDRESS\""],
    );
    check(
        "[[incoming_domain]]\ndomain = \"A.b\"\nserver = \"10.0.0.1\"\n[[incoming_domain]]\ndomain = \"a.B\"\nserver = \"10.0.0.2\"\n\
         [[incoming_domain]]\ndomain = \".a.b\"\nserver = \"10.0.0.3\"\n",
        &[
            "incoming_domain[1].domain: the domain \"a.b\" stands here twice = it stands first in incoming_domain[0].domain; remove one of them",
        ],
    );
}

#[test]
fn typed_values() {
    let config = least_and(
        "[virus]\nhandling = \"redirect\"\nredirect_to = \"it@example.com\"\nsignatures.enabled = false\n\
         [[incoming_domain]]\ndomain = \".example.com\"\nserver = \"10.0.0.1\"\n\
         [[incoming_domain]]\ndomain = \"example.net\"\nserver = \"[2001:db8::1]:26\"\n\
         [delivery]\nhelo_name = \"address\"\n[smarthost]\nenabled = true\naddress = \"relay.example.net\"\nport = 587\n",
    )
    .unwrap();
    assert!(matches!(&config.virus.handling, Handling::Redirect(to) if to.to_string() == "it@example.com"));
    assert!(!config.virus.signatures);
    assert_eq!(config.postmaster.unwrap().to_string(), "postmaster@example.net");
    assert_eq!(
        config.incoming_domains[1].servers,
        [MailServer::Address("[2001:db8::1]:26".parse().unwrap())]
    );
    assert_eq!(config.delivery.helo_name, HeloName::AddressLiteral);
    assert_eq!(config.smarthost.unwrap().port, 587);
    assert_eq!(least_and("").unwrap().delivery.helo_name, HeloName::Name(config.hostname));
}

proptest! {
    /// Any text is a configuration or has errors that print; nothing panics.
    #[test]
    fn any_text_is_answered(text in any_text()) {
        let source = Source::of_text("m.toml", text);
        match parse_and_validate(&source) {
            Ok(config) => prop_assert!(!config.zones.is_empty()),
            Err(errors) => {
                prop_assert!(errors.iter().count() > 0);
                prop_assert!(!errors.to_string().is_empty());
            }
        }
    }
}

/// Lines of the contract, mixed with lines that look so and with noise.
fn any_text() -> impl Strategy<Value = String> {
    let contract: Vec<&str> = include_str!("../../../mailguard.toml").lines().collect();
    let line = prop_oneof![
        4 => prop::sample::select(contract).prop_map(str::to_owned),
        2 => "(kernel|server|zone|spam|access|bypass|files)\\.?[a-z_]{0,8} = (\"[ -~]{0,9}\"|[0-9]{1,25}|true|\\[[\"a-z@/,0-9.]{0,12}\\]|-?inf|1979-05-27)",
        1 => "\\[{1,2}[a-z._]{0,9}\\]{1,2}",
        1 => any::<String>(),
    ];
    prop::collection::vec(line, 0..40).prop_map(|lines| lines.join("\n"))
}

/// Depth is bounded by the parser, not by the stack.
#[test]
fn deep_nesting() {
    for text in ["a = ".to_owned() + &"[".repeat(200_000), "a = ".to_owned() + &"{a=".repeat(100_000)] {
        assert!(parse_and_validate(&Source::of_text("m.toml", text)).is_err());
    }
}

#[test]
fn clients_are_listed_by_address_network_or_name() {
    let access = least_and(
        "[access]\nblacklist_clients = [\"192.0.2.1\", \"Dialup.Example.com\", \"2001:db8::/32\"]\n",
    )
    .unwrap()
    .access;
    assert_eq!(access.blacklist_clients.len(), 2);
    assert_eq!(access.blacklist_client_names, [Domain::parse("dialup.example.com").unwrap()]);
    assert!(access.asks_for_names());
}

#[test]
fn block_lists_are_named_by_list_family_or_kind() {
    let asked = |rbl: &str| {
        let config = least_and(&format!("[rbl]\nenabled = true\n{rbl}")).unwrap();
        let notes: Vec<_> = config.inactive.iter().map(|inactive| inactive.what.clone()).collect();
        (config.rbl.unwrap(), notes)
    };
    assert_eq!(least_and("").unwrap().rbl, None);
    let (usual, _) = asked("");
    assert_eq!(usual.ip_lists, ["zen.spamhaus.org", "bl.spamcop.net"]);
    assert_eq!(usual.domain_lists, ["dbl.spamhaus.org"]);
    let (all, _) = asked("ip_lists = [\"all\", \"zen.spamhaus.org\"]\ndomain_lists = []\n");
    let zen = all.ip_lists.iter().filter(|zone| *zone == "zen.spamhaus.org").count();
    assert!(zen == 1 && all.ip_lists.len() >= 10, "{:?}", all.ip_lists);
    assert!(!all.ip_lists.iter().any(|zone| zone == "sbl.spamhaus.org" || zone.contains("sorbs")));
    let (own, notes) = asked("ip_lists = [\"UCEPROTECT\", \"dnsbl.sorbs.net\", \"own.example.com\"]\n");
    assert_eq!(own.ip_lists, ["dnsbl-1.uceprotect.net", "own.example.com"]);
    assert!(
        notes.contains(&"dnsbl.sorbs.net isn't asked: SORBS ended on 5 June 2024".to_owned()),
        "{notes:?}"
    );
    // As manuals of other appliances name them; the catalogue doesn't.
    let (own, notes) = asked(
        "ip_lists = [\"safe.dnsbl.sorbs.net\", \"own.example.com\"]\ndomain_lists = [\"RHSBL.dnsbl.sorbs.net\"]\n",
    );
    assert_eq!((own.ip_lists, own.domain_lists), (vec!["own.example.com".to_owned()], Vec::new()));
    for zone in ["safe.dnsbl.sorbs.net", "rhsbl.dnsbl.sorbs.net"] {
        assert!(notes.contains(&format!("{zone} isn't asked: SORBS ended on 5 June 2024")), "{notes:?}");
    }
    check(
        "[rbl]\nenabled = true\nip_lists = [\"dbl.spamhaus.org\", \"zen\"]\n",
        &[
            "rbl.ip_lists: dbl.spamhaus.org is no list of this kind = write it into domain_lists",
            "rbl.ip_lists[1]: found \"zen\", accepted: a list's zone like \"zen.spamhaus.org\", a family of `mailguard rbl list` like \"uceprotect\", or \"all\"",
        ],
    );
}

#[test]
fn a_certificate_has_its_key() {
    check(
        "[server]\ntls_certificate = \"/c.pem\"\n",
        &[
            "server.tls_certificate: /c.pem: was not read",
            "server.tls_certificate: there is no tls_key = add tls_key = \"/PATH\"",
        ],
    );
    let imap = least_and("[imap_auth]\nenabled = true\ntls = \"implicit\"\n").unwrap().imap_auth.unwrap();
    assert_eq!((imap.port, imap.daemons), (993, 5));
    assert_eq!(least_and("").unwrap().imap_auth, None);
}

#[test]
fn who_may_send_from_a_zone() {
    let allowed = |more: &str| least_and(more).unwrap().zones.remove(0).allow_clients;
    assert_eq!(allowed(""), None);
    assert_eq!(allowed("allow_clients = []\n"), Some(Vec::new()));
    let nets = allowed("allow_clients = [\"10.1.0.25\", \"2001:db8::/32\"]\n").unwrap();
    assert_eq!(nets.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.25/32", "2001:db8::/32"]);
    check(
        "allow_clients = [\"mx.example.com\"]\n",
        &[
            "zone[0].allow_clients[0]: found \"mx.example.com\", accepted: an address like \"192.0.2.7\" or a network like \"192.0.2.0/24\"",
        ],
    );
    let inactive = "[[zone]]\nname = \"blue\"\nkind = \"blue\"\ninterfaces = [\"wlan0\"]\nmode = \"inactive\"\nallow_clients = []\n";
    let noted = least_and(inactive).unwrap().inactive;
    assert!(noted.iter().any(|inactive| inactive.key == "zone[1].allow_clients"), "{noted:?}");
}
