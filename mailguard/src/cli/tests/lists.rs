//! Lists that are shown and changed: bypass, blacklist, block lists.

use super::*;

#[test]
fn lists() {
    let entry = |list, value: &str, line, packets: Option<u64>, last_hit_seconds_ago| EntryRow {
        entry: ListEntry { list, value: value.to_owned(), file: "/m.toml".into(), line },
        packets,
        last_hit_seconds_ago,
        addresses: None,
        note: None,
    };
    check(
        "bypass list from-ip",
        Entries { lists: vec![EditList::BypassFromIp] },
        vec![
            entry(EditList::BypassFromIp, "192.0.2.1", 7, Some(12), Some(90)),
            entry(EditList::BypassFromIp, "2001:db8::1", 12, Some(0), None),
        ],
        "KIND     VALUE        HITS  LAST HIT  WRITTEN IN\n\
         from-ip  192.0.2.1    12    1m ago    /m.toml:7\n\
         from-ip  2001:db8::1  0     -         /m.toml:12\n",
    );
    let named = |value, line, addresses: &[&str], note: Option<&str>| EntryRow {
        addresses: Some(addresses.iter().map(|address| address.parse().unwrap()).collect()),
        note: note.map(str::to_owned),
        ..entry(EditList::BypassToName, value, line, Some(3), None)
    };
    check(
        "bypass list to-name",
        Entries { lists: vec![EditList::BypassToName] },
        vec![
            named("mail.example.net", 7, &["192.0.2.1", "2001:db8::1"], None),
            named("no.example.net", 8, &[], Some("it has no address")),
        ],
        "KIND     VALUE             HITS  LAST HIT  WRITTEN IN\n\
         to-name  mail.example.net  3     -         /m.toml:7\n\
         to-name  no.example.net    3     -         /m.toml:8\n\n\
         mail.example.net: 192.0.2.1 2001:db8::1\n\
         no.example.net: no address\n  it has no address\n",
    );
    // Whoever removes a value must be able to read it.
    let long = format!("{}@example.com", "x".repeat(64));
    check(
        "blacklist list recipient",
        Entries { lists: vec![EditList::BlacklistRecipient] },
        vec![entry(EditList::BlacklistRecipient, &long, 3, None, None)],
        &format!(
            "KIND       VALUE{:73}HITS  LAST HIT  WRITTEN IN\nrecipient  {long}  -     -         /m.toml:3\n",
            ""
        ),
    );
    let lists = vec![EditList::BlacklistClient, EditList::BlacklistSender, EditList::BlacklistRecipient];
    check("blacklist list", Entries { lists }, Vec::new(), "nothing is listed\n");
    let (list, change) = (EditList::BlacklistSender, Change::Add);
    let values = vec!["a@example.com".to_owned(), "example.net".to_owned()];
    let edited = Edited { list, change, values: values.clone(), config: "/m.toml".into(), notes: Vec::new() };
    check(
        "blacklist add sender a@example.com example.net",
        Edit { list, change, values, all: false },
        edited,
        "added: sender a@example.com\nadded: sender example.net\nin force, and written into /m.toml\n",
    );
    let (list, change, values) = (EditList::RblIp, Change::Add, vec!["psbl.surriel.com".to_owned()]);
    check(
        "rbl enable ip psbl.surriel.com",
        Edit { list, change, values: values.clone(), all: false },
        Edited { list, change, values, config: "/m.toml".into(), notes: Vec::new() },
        "enabled: psbl.surriel.com\nin force, and written into /m.toml\n",
    );
    let many: Vec<String> = (0..21).map(|number| format!("192.0.2.{number}")).collect();
    let (list, change) = (EditList::BypassToIp, Change::Remove);
    let edited = Edited { list, change, values: many, config: "/m.toml".into(), notes: Vec::new() };
    let edited = ask("bypass remove to-ip 192.0.2.0", vec![Ok(edited.into())]).1.unwrap();
    assert_eq!(edited.text, "removed: 21 values of to-ip\nin force, and written into /m.toml\n");
    let refused = AdminError::new(ErrorKind::Refused, "192.0.2.1 is not in bypass.to_ips");
    let (asked, printed) = ask("bypass remove to-ip 192.0.2.1", vec![Err(refused)]);
    let (list, change) = (EditList::BypassToIp, Change::Remove);
    assert_eq!(asked, [Edit { list, change, values: vec!["192.0.2.1".to_owned()], all: false }.into()]);
    assert_eq!(printed.unwrap_err().to_string(), "192.0.2.1 is not in bypass.to_ips");
}

#[test]
fn values_are_typed_or_in_a_file() {
    for line in ["bypass add to-ip", "bypass add to-ip 192.0.2.1 --from-file x"] {
        let (asked, printed) = ask(line, Vec::new());
        assert!(asked.is_empty() && printed.is_err(), "{line}");
    }
    let error = ask("bypass add to-ip --from-file /nowhere", Vec::new()).1.unwrap_err();
    assert_eq!(
        complaint(&error),
        "mailguard: /nowhere: can't be read: No such file or directory (os error 2)\n"
    );
    let (asked, printed) = ask("bypass add to-ip --from-file /etc/passwd", Vec::new());
    assert!(asked.is_empty(), "a wrong line is found before anything is asked");
    assert!(printed.unwrap_err().to_string().starts_with("/etc/passwd:1: "));
}

#[test]
fn sets_of_extensions_are_listed() {
    let shown = typed("files sets", &folder("")).unwrap().text;
    let programs = "@programs  programs of DOS and Windows\n  bat cmd com dll exe pif scr vbs\n@scripts  ";
    assert!(shown.contains(programs), "{shown}");
    assert!(shown.starts_with("@common  ") && shown.lines().all(|line| line.len() <= 100), "{shown}");
    let json: serde_json::Value =
        serde_json::from_str(&typed("files sets --json", &folder("")).unwrap().text).unwrap();
    assert_eq!((json[3]["set"].as_str(), &json[3]["extensions"][0]), (Some("@programs"), &json!("bat")));
}

#[test]
fn everybody_is_put_on_a_list_only_by_an_explicit_word() {
    for value in ["0.0.0.0/0", "::/0", "192.0.2.1/0", " 0.0.0.0/00"] {
        for line in ["bypass add from-subnet", "bypass add to-subnet", "blacklist add client"] {
            let line: &'static str = format!("{line} {}", value.trim()).leak();
            let (asked, printed) = ask(line, Vec::new());
            assert!(asked.is_empty(), "{line}");
            assert!(printed.unwrap_err().to_string().contains("add --all"), "{line}");
        }
    }
    let (list, change) = (EditList::BypassFromSubnet, Change::Add);
    let (values, notes) = (vec!["0.0.0.0/0".to_owned()], vec!["the mail process hangs".to_owned()]);
    let edited = Edited { list, change, values: values.clone(), config: "/m.toml".into(), notes };
    check(
        "bypass add from-subnet 0.0.0.0/0 --all",
        Edit { list, change, values, all: true },
        edited,
        "added: from-subnet 0.0.0.0/0\nin force, and written into /m.toml\n  the mail process hangs\n",
    );
}

/// What docs/administration.md says of exit codes, for whatever the daemon says.
#[test]
fn the_kind_of_a_daemons_error_decides_the_exit_code() {
    for (kind, expect) in [
        (ErrorKind::Invalid, Some(2)),
        (ErrorKind::NotFound, None),
        (ErrorKind::Refused, None),
        (ErrorKind::Failed, None),
        (ErrorKind::Unavailable, None),
        (serde_json::from_str(r#""eaten""#).expect("one of another version"), None),
    ] {
        let error = AdminError::new(kind, "why");
        let error = ask("bypass list", vec![Err(error)]).1.unwrap_err();
        let printed = failed(&error, &Alone);
        let expect = Printed { complaint: "mailguard: why\n".to_owned(), code: expect, ..Printed::default() };
        assert_eq!(printed, expect, "{kind:?}");
    }
}
