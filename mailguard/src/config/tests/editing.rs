//! Lists that change within a file that doesn't.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn change(text: &str, list: EditList, change: Change, values: &[&str]) -> Result<String, EditError> {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    let edit = Edit { list, change, values, all: false };
    made(&Source::of_text("m.toml", text), &edit).map(|edited| edited.text)
}

/// The source that comes of it.
fn made(source: &Source, edit: &Edit) -> Result<Source, EditError> {
    let config = parse_and_validate(source).map_err(EditError::Invalid)?;
    super::edit(source, &config, edit).map(|(edited, _)| edited)
}

/// What stands behind `LEAST` after values are added to, or removed from, the bypassed source addresses.
fn check(what: Change, more: &str, values: &[&str], expect: &str) {
    let text = change(&format!("{LEAST}{more}"), EditList::BypassFromIp, what, values).unwrap();
    assert_eq!(text.strip_prefix(LEAST).unwrap(), expect);
}

const ADD: Change = Change::Add;
const REMOVE: Change = Change::Remove;

#[test]
fn lists_on_one_line() {
    check(
        ADD,
        "[bypass]\nfrom_ips = []   # none\n",
        &["192.0.2.1"],
        "[bypass]\nfrom_ips = [\"192.0.2.1\"]   # none\n",
    );
    check(
        ADD,
        "[bypass]\nfrom_ips = [ \"192.0.2.1\" ] # one\n",
        &["2001:DB8::1", " 192.0.2.2 "],
        "[bypass]\nfrom_ips = [ \"192.0.2.1\", \"2001:db8::1\", \"192.0.2.2\" ] # one\n",
    );
    check(
        REMOVE,
        "[bypass]\nfrom_ips = [\"192.0.2.1\", '192.0.2.2',\"192.0.2.3\"]\n",
        &["192.0.2.2"],
        "[bypass]\nfrom_ips = [\"192.0.2.1\", \"192.0.2.3\"]\n",
    );
    check(
        REMOVE,
        "[bypass]\nfrom_ips = [\"192.0.2.1\"] # one\n",
        &["192.0.2.1"],
        "[bypass]\nfrom_ips = [] # one\n",
    );
    check(
        REMOVE,
        "[bypass]\nfrom_ips = [\"192.0.2.1\", \"192.0.2.2\"]\n",
        &["192.0.2.2", "192.0.2.1"],
        "[bypass]\nfrom_ips = []\n",
    );
}

#[test]
fn lists_of_one_value_a_line() {
    let before = "[bypass]\nfrom_ips = [ # ours\n  \"192.0.2.1\", # one\n  # the second:\n  \"192.0.2.2\"  # two\n  # end\n]\n";
    check(
        ADD,
        before,
        &["192.0.2.3"],
        "[bypass]\nfrom_ips = [ # ours\n  \"192.0.2.1\", # one\n  # the second:\n  \"192.0.2.2\",  # two\n  \"192.0.2.3\"\n  # end\n]\n",
    );
    check(
        REMOVE,
        before,
        &["192.0.2.2"],
        "[bypass]\nfrom_ips = [ # ours\n  \"192.0.2.1\" # one\n  # the second:\n  # end\n]\n",
    );
    check(
        REMOVE,
        before,
        &["192.0.2.1"],
        "[bypass]\nfrom_ips = [ # ours\n  # the second:\n  \"192.0.2.2\"  # two\n  # end\n]\n",
    );
    let commas = "[bypass]\nfrom_ips = [\n    \"192.0.2.1\", # one\n    \"192.0.2.2\", # two\n]\n";
    check(
        ADD,
        commas,
        &["192.0.2.3"],
        "[bypass]\nfrom_ips = [\n    \"192.0.2.1\", # one\n    \"192.0.2.2\", # two\n    \"192.0.2.3\",\n]\n",
    );
    check(REMOVE, commas, &["192.0.2.2"], "[bypass]\nfrom_ips = [\n    \"192.0.2.1\", # one\n]\n");
    check(REMOVE, commas, &["192.0.2.1", "192.0.2.2"], "[bypass]\nfrom_ips = []\n");
    check(
        ADD,
        "[bypass]\nfrom_ips = [\n    # nobody yet\n]\n",
        &["192.0.2.1"],
        "[bypass]\nfrom_ips = [\n    # nobody yet\n    \"192.0.2.1\",\n]\n",
    );
}

#[test]
fn lists_that_are_not_there() {
    check(ADD, "", &["192.0.2.1"], "\n[bypass]\nfrom_ips = [\"192.0.2.1\"]\n");
    check(
        ADD,
        "[bypass]\nto_ips = [] # none\n\n# ── Viruses\n[virus]\nenabled = true\n",
        &["192.0.2.1"],
        "[bypass]\nto_ips = [] # none\nfrom_ips = [\"192.0.2.1\"]\n\n# ── Viruses\n[virus]\nenabled = true\n",
    );
    let inline =
        change(&format!("bypass = {{ to_ips = [] }}\n{LEAST}"), EditList::BypassFromIp, ADD, &["192.0.2.1"]);
    assert_eq!(inline.unwrap(), format!("bypass = {{ to_ips = [] , from_ips = [\"192.0.2.1\"] }}\n{LEAST}"));
    let dotted = change(&format!("bypass.to_ips = []\n{LEAST}"), EditList::BypassFromIp, ADD, &["192.0.2.1"]);
    assert_eq!(dotted.unwrap(), format!("bypass.to_ips = []\nbypass.from_ips = [\"192.0.2.1\"]\n{LEAST}"));
}

#[test]
fn line_ends_stay() {
    let text = format!("{LEAST}[bypass]\nfrom_ips = []").replace('\n', "\r\n");
    let edited = change(&text, EditList::BypassFromIp, ADD, &["192.0.2.1"]).unwrap();
    assert_eq!(edited, text.replace("[]", "[\"192.0.2.1\"]\r\n"));
    let mixed = format!("{LEAST}# \r\n");
    assert_eq!(change(&mixed, EditList::BypassFromIp, ADD, &["192.0.2.1"]), Err(EditError::Document));
}

#[test]
fn every_list() {
    for (list, typed, written) in [
        (EditList::BypassFromSubnet, "192.0.2.0/24", "192.0.2.0/24"),
        (EditList::BypassFromIp, "2001:DB8:0::1", "2001:db8::1"),
        (EditList::BypassFromMac, "02:00:5E:10:00:01", "02:00:5e:10:00:01"),
        (EditList::BypassToSubnet, "2001:DB8::/32", "2001:db8::/32"),
        (EditList::BypassToIp, "192.0.2.1", "192.0.2.1"),
        (EditList::BypassToName, "Mail.Example.com.", "Mail.Example.com"),
        (EditList::BlacklistClient, "192.0.2.7", "192.0.2.7"),
        (EditList::BlacklistClient, "192.0.2.0/24", "192.0.2.0/24"),
        (EditList::BlacklistSender, "Spam@Example.com", "Spam@Example.com"),
        (EditList::BlacklistRecipient, "example.com", "example.com"),
    ] {
        let text = change(LEAST, list, ADD, &[typed]).unwrap();
        let [table, key] = list.path();
        assert_eq!(text.strip_prefix(LEAST).unwrap(), format!("\n[{table}]\n{key} = [\"{written}\"]\n"));
        let listed = entries(&Source::of_text("m.toml", &*text), &[list]);
        assert_eq!((listed[0].value.as_str(), listed[0].line), (written, 9));
        let emptied = change(&text, list, REMOVE, &[&typed.to_uppercase()]).unwrap();
        assert_eq!(emptied.strip_prefix(LEAST).unwrap(), format!("\n[{table}]\n{key} = []\n"));
    }
}

#[test]
fn refusals() {
    let text = format!(
        "{LEAST}[access]\nblacklist_clients = [\"192.0.2.1\"]\nblacklist_senders = [\"Bad@example.com\"]\n"
    );
    let check = |list, what, values: &[&str], expect: &str| {
        assert_eq!(change(&text, list, what, values).unwrap_err().to_string(), expect);
    };
    use EditList::*;
    check(
        BlacklistClient,
        ADD,
        &["192.0.2.1/32"],
        "192.0.2.1 is already in access.blacklist_clients: m.toml, line 8",
    );
    check(
        BlacklistSender,
        ADD,
        &["new@example.com", "bad@EXAMPLE.com"],
        "bad@EXAMPLE.com is already in access.blacklist_senders: m.toml, line 9",
    );
    check(BlacklistSender, ADD, &["a.example", "A.example"], "A.example is named twice");
    check(BlacklistSender, REMOVE, &["example.com"], "example.com is not in access.blacklist_senders");
    check(
        BlacklistClient,
        ADD,
        &["@/etc/passwd"],
        "\"@/etc/passwd\" is not accepted in access.blacklist_clients: it takes an address like \"192.0.2.7\", a network like \"192.0.2.0/24\" or a host name like \"mx.example.com\"",
    );
    check(
        BypassFromSubnet,
        ADD,
        &["192.0.2.1/24"],
        "\"192.0.2.1/24\" is not accepted in bypass.from_subnets: it takes a network like \"192.168.5.0/24\" or \"2001:db8::/32\" (write \"192.0.2.0/24\": no bits beyond the prefix length)",
    );
    check(BypassFromIp, ADD, &[], "an edit names 1 to 65536 values, this one 0");
    let full: String = (0..16_384u32).map(|n| format!("\"10.0.{}.{}\",", n >> 8, n & 255)).collect();
    let full = format!("{LEAST}[bypass]\nfrom_ips = [{full}]\n");
    let error = change(&full, BypassFromIp, ADD, &["192.0.2.1"]).unwrap_err().to_string();
    assert!(
        error.starts_with("the configuration would not be valid:\nm.toml:8:12: bypass.from_ips: "),
        "{error}"
    );
}

/// A list that holds as much as it may takes a while to parse, and the administrator waits for the answer.
#[test]
fn an_edit_parses_each_text_once() {
    let text = format!("{LEAST}[access]\nblacklist_clients = [\"192.0.2.1\"]\n[rbl]\nenabled = false\n");
    let source = Source::of_text("m.toml", text);
    let config = parse_and_validate(&source).unwrap();
    for (list, change, value) in [
        (EditList::BlacklistClient, ADD, "192.0.2.2"),
        (EditList::BlacklistClient, REMOVE, "192.0.2.1"),
        (EditList::BypassFromSubnet, ADD, "192.0.2.0/24"),
        (EditList::RblIp, ADD, "psbl.surriel.com"),
        (EditList::RblIp, REMOVE, "zen.spamhaus.org"),
    ] {
        let asked = Edit { list, change, values: vec![value.to_owned()], all: false };
        let (parses, edited) = parses_of(|| edit(&source, &config, &asked));
        let (edited, after) = edited.unwrap();
        assert_eq!(parses, 2, "{value}: the text that changes, and the one that comes of it");
        assert_eq!(parse_and_validate(&edited).unwrap(), after, "{value}: it means what it says");
    }
    let (parses, listed) = parses_of(|| entries(&source, &EditList::ALL));
    assert_eq!((parses, listed.len()), (1, 1), "all lists are shown by one parse");
}

/// Values of an @ file are known, and the array that names it takes further ones.
#[test]
fn lists_with_a_file() {
    let dir = TempDir::new().unwrap();
    let (path, list) = (dir.path().join("m.toml"), dir.path().join("list"));
    fs::write(&list, "# first\n192.0.2.1\n").unwrap();
    fs::write(&path, format!("{LEAST}[access]\nblacklist_clients = [\"@{}\"]\n", list.display())).unwrap();
    let source = load(&path).unwrap();
    let attempt = |change, value: &str| {
        made(
            &source,
            &Edit { list: EditList::BlacklistClient, change, values: vec![value.to_owned()], all: false },
        )
    };
    let added = attempt(ADD, "192.0.2.2").unwrap();
    assert_eq!(added.text, source.text.replace("list\"]", "list\", \"192.0.2.2\"]"));
    assert_eq!(parse_and_validate(&added).unwrap().access.blacklist_clients.len(), 2);
    let file = list.display();
    assert_eq!(
        attempt(ADD, "192.0.2.1").unwrap_err().to_string(),
        format!("192.0.2.1 is already in access.blacklist_clients: {file}, line 2")
    );
    assert_eq!(
        attempt(REMOVE, "192.0.2.1").unwrap_err().to_string(),
        format!("192.0.2.1 stands in {file}, line 2: remove it there, then run `mailguard reload`")
    );
}

#[test]
fn the_contract_file_keeps_every_other_line() {
    let text = include_str!("../../../mailguard.toml");
    for list in EditList::ALL {
        let value = match list {
            EditList::BypassFromMac => "02:00:5e:10:00:01",
            EditList::BypassFromSubnet | EditList::BypassToSubnet => "192.0.2.0/24",
            EditList::BypassFromIp | EditList::BypassToIp | EditList::BlacklistClient => "192.0.2.1",
            EditList::BypassToName => "mail.example.com",
            EditList::BlacklistSender | EditList::BlacklistRecipient => "example.com",
            EditList::RblIp | EditList::RblDomain => continue,
        };
        let added = change(text, list, ADD, &[value]).unwrap();
        let differing = text.lines().zip(added.lines()).filter(|(before, after)| before != after);
        let expect = format!("{} = [\"{value}\"]", list.path()[1]);
        assert!(differing.clone().all(|(_, after)| after.starts_with(&expect)), "{list:?}");
        assert_eq!((differing.count(), added.lines().count()), (1, text.lines().count()), "{list:?}");
        assert_eq!(change(&added, list, REMOVE, &[value]).unwrap(), text);
    }
}

/// What stands behind `LEAST` after a block list is enabled or disabled.
fn check_block_list(what: Change, more: &str, list: EditList, values: &[&str], expect: &str) {
    let edited = change(&format!("{LEAST}{more}"), list, what, values);
    let text = edited.map_err(|error| error.to_string());
    assert_eq!(text.as_ref().map(|text| text.strip_prefix(LEAST).unwrap()), Ok(expect));
}

#[test]
fn a_block_list_that_is_enabled_is_asked() {
    use EditList::{RblDomain, RblIp};
    // What is asked where nothing is written stays so.
    check_block_list(
        ADD,
        "[rbl]\nenabled = true # since May\n",
        RblIp,
        &["psbl.surriel.com"],
        "[rbl]\nenabled = true # since May\nip_lists = [\"zen.spamhaus.org\", \"bl.spamcop.net\", \"psbl.surriel.com\"]\n",
    );
    check_block_list(
        REMOVE,
        "[rbl]\nenabled = true\n",
        RblDomain,
        &["dbl.spamhaus.org"],
        "[rbl]\nenabled = true\ndomain_lists = []\n",
    );
    check_block_list(
        ADD,
        "",
        RblIp,
        &["psbl.surriel.com", "zen.spamhaus.org"],
        // Nothing was asked before, and nothing else is now.
        "\n[rbl]\nip_lists = [\"psbl.surriel.com\", \"zen.spamhaus.org\"]\ndomain_lists = []\nenabled = true\n",
    );
    check_block_list(
        ADD,
        "[rbl]\nenabled = false # for now\nip_lists = [\"zen.spamhaus.org\"]\n",
        RblIp,
        &["zen.spamhaus.org"],
        "[rbl]\nenabled = true # for now\nip_lists = [\"zen.spamhaus.org\"]\ndomain_lists = []\n",
    );
}

#[test]
fn block_lists_that_are_not_enabled() {
    use EditList::{RblDomain, RblIp};
    let on = format!("{LEAST}[rbl]\nenabled = true\n");
    let written = format!("{on}ip_lists = [\"a.example\"]\n");
    for (text, list, what, values, expect) in [
        (
            &on,
            RblIp,
            ADD,
            &["zen.spamhaus.org"][..],
            "is in rbl.ip_lists already, which isn't written: it is the default",
        ),
        (&written, RblIp, ADD, &["a.example"], "a.example is already in rbl.ip_lists: m.toml, line"),
        (&on, RblIp, REMOVE, &["psbl.surriel.com"], "psbl.surriel.com is not in rbl.ip_lists"),
        (&on, RblDomain, ADD, &["psbl.surriel.com"], "psbl.surriel.com is no list of this kind"),
        (&on, RblIp, ADD, &["no such name"], "\"no such name\" is not accepted in rbl.ip_lists"),
        (&LEAST.to_owned(), RblIp, ADD, &["a.example", "a.example"], "a.example is named twice"),
    ] {
        let error = change(text, list, what, values).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }
}

proptest! {
    /// Whatever the layout: an addition and its removal lead back to the same text, comments are never lost
    /// by an addition, and the list holds what it should.
    #[test]
    fn any_layout(array in any_array(), removed in any::<prop::sample::Index>()) {
        let text = format!("{LEAST}[bypass]\nfrom_ips = {array} # behind\n# after\n");
        let values = |text: &str| entries(&Source::of_text("m.toml", text), &[EditList::BypassFromIp])
            .into_iter().map(|entry| entry.value).collect::<Vec<_>>();
        let before = values(&text);
        let added = change(&text, EditList::BypassFromIp, ADD, &["198.51.100.1"]).unwrap();
        let expect: Vec<String> = before.iter().cloned().chain(["198.51.100.1".to_owned()]).collect();
        prop_assert_eq!(values(&added), expect);
        prop_assert_eq!(added.matches('#').count(), text.matches('#').count(), "{}", added);
        let back = change(&added, EditList::BypassFromIp, REMOVE, &["198.51.100.1"]).unwrap();
        prop_assert_eq!(values(&back), before.clone());
        prop_assert_eq!(back.matches('#').count(), text.matches('#').count(), "{}", back);
        if !before.is_empty() {
            let gone = removed.get(&before);
            let less = change(&text, EditList::BypassFromIp, REMOVE, &[gone]).unwrap();
            let expect: Vec<String> = before.iter().filter(|value| *value != gone).cloned().collect();
            prop_assert_eq!(values(&less), expect);
            prop_assert!(less.contains("] # behind\n# after\n"), "{}", less);
        }
    }
}

/// An array of up to six addresses with blanks, comments and line ends wherever TOML allows them.
fn any_array() -> impl Strategy<Value = String> {
    let gap = prop::sample::select(vec!["", " ", "\n", "\n    ", " # c\n", "\n  # c\n  ", " # c\n  # d\n\t"]);
    let item = (gap.clone(), gap.clone());
    (prop::collection::vec(item, 0..6), gap.clone(), any::<bool>()).prop_map(|(items, end, comma)| {
        let count = items.len();
        let mut text = "[".to_owned();
        for (index, (before, behind)) in items.into_iter().enumerate() {
            text += &format!("{before}\"192.0.2.{index}\"{behind}");
            text += if index + 1 < count || comma { "," } else { "" };
        }
        text + end + "]"
    })
}

#[test]
fn writing() {
    let dir = TempDir::new().unwrap();
    let (path, link) = (dir.path().join("m.toml"), dir.path().join("link"));
    fs::write(&path, LEAST).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("m.toml", &link).unwrap();
    let loaded = load(&link).unwrap();
    let values = vec!["192.0.2.1".to_owned()];
    let edited =
        made(&loaded, &Edit { list: EditList::BypassToIp, change: ADD, values, all: false }).unwrap();
    write(&loaded, &edited).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), edited.text);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    // Against what is on disk now, the first source is stale.
    let stale = write(&loaded, &edited).unwrap_err();
    assert!(matches!(stale, WriteError::Changed(ref path) if *path == link), "{stale}");
    fs::remove_file(&path).unwrap();
    assert!(matches!(write(&edited, &loaded), Err(WriteError::Io { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing but the link is left");
}

/// Adds `values` to a list of a configuration with `more`, without the word that lets it stand for everybody.
fn refused_as_everybody(more: &str, list: EditList, values: &[&str]) -> Option<&'static str> {
    match change(&format!("{LEAST}{more}"), list, ADD, values) {
        Ok(_) => None,
        Err(EditError::Everybody { family, .. }) => Some(family),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn pieces_that_add_up_to_everybody_want_an_explicit_word() {
    use EditList::{BlacklistClient, BypassFromIp, BypassFromSubnet, BypassToIp, BypassToSubnet};
    let halves4: &[&str] = &["0.0.0.0/1", "128.0.0.0/1"];
    for list in [BypassFromSubnet, BypassToSubnet, BlacklistClient] {
        let [table, key] = list.path();
        let holding = |values: &str| format!("[{table}]\n{key} = [{values}]\n");
        for (there, added, expect) in [
            ("", halves4, Some("IPv4")),
            ("", &["::/1", "8000::/1"], Some("IPv6")),
            ("", &["0.0.0.0/0"], Some("IPv4")),
            ("", &["2000::/3"], Some("IPv6")),
            ("\"0.0.0.0/1\"", &["128.0.0.0/1"], Some("IPv4")),
            ("\"128.0.0.0/1\"", &["0.0.0.0/2", "64.0.0.0/2"], Some("IPv4")),
            // Without multicast and what nobody has.
            ("", &["0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/3"], Some("IPv4")),
            ("\"192.0.0.0/2\"", &["0.0.0.0/1"], None),
            ("", &["0.0.0.0/1"], None),
            ("", &["10.0.0.0/8", "2001::/16"], None),
            // Somebody has said so already.
            ("\"0.0.0.0/0\"", halves4, None),
            ("\"0.0.0.0/0\"", &["4000::/2"], None),
            ("\"0.0.0.0/0\"", &["::/0"], Some("IPv6")),
        ] {
            assert_eq!(
                refused_as_everybody(&holding(there), list, added),
                expect,
                "{list:?} {there} {added:?}"
            );
        }
        let values = halves4.iter().map(|&half| half.to_owned()).collect();
        let edit_all = Edit { list, change: ADD, values, all: true };
        assert!(made(&Source::of_text("m.toml", LEAST), &edit_all).is_ok(), "{list:?}");
    }
    // Lists that work as one.
    let rest: Vec<String> = (0..24).map(|bit| format!("\"1.{}/{}\"", rest_of_1(bit), 32 - bit)).collect();
    let others = "\"0.0.0.0/8\", \"2.0.0.0/7\", \"4.0.0.0/6\", \"8.0.0.0/5\", \"16.0.0.0/4\", \"32.0.0.0/3\", \"64.0.0.0/2\", \"128.0.0.0/1\"";
    let nearly = format!("[bypass]\nfrom_subnets = [{}, {others}]\n", rest.join(", "));
    assert_eq!(refused_as_everybody(&nearly, BypassFromIp, &["1.0.0.0"]), Some("IPv4"));
    assert_eq!(refused_as_everybody(&nearly, BypassToIp, &["1.0.0.0"]), None);
}

/// The last three octets of the network that is in 1.0.0.0/8 with this one bit set, none above it.
fn rest_of_1(bit: u32) -> String {
    let [_, b, c, d] = (1u32 << bit).to_be_bytes();
    format!("{b}.{c}.{d}")
}

#[test]
fn what_a_killed_edit_left_is_removed_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("mailguard.toml");
    fs::write(&path, LEAST).unwrap();
    let loaded = load(&path).unwrap();
    let edited = made(
        &loaded,
        &Edit { list: EditList::BypassToIp, change: ADD, values: vec!["192.0.2.1".to_owned()], all: false },
    );
    let edited = edited.unwrap();
    let stale =
        [std::process::id(), 1, 4_194_304].map(|pid| dir.path().join(format!(".mailguard.toml.{pid}.new")));
    let others = [
        ".mailguard.toml.new",
        ".mailguard.toml.x.new",
        ".mailguard.toml.7.new.bak",
        ".other.toml.7.new",
        ".mailguard.toml.07.new",
    ];
    let others = others.map(|name| dir.path().join(name));
    let link = dir.path().join(".mailguard.toml.9.new");
    let leave = || {
        stale.iter().chain(&others).for_each(|path| fs::write(path, "password = \"secret\"\n").unwrap());
    };
    symlink(&others[0], &link).unwrap();
    for clean in [&(|| write(&loaded, &edited).unwrap()) as &dyn Fn(), &|| sweep(&path)] {
        leave();
        clean();
        assert!(
            stale.iter().all(|path| !path.exists()),
            "{:?}",
            fs::read_dir(dir.path()).unwrap().collect::<Vec<_>>()
        );
        assert!(others.iter().all(|path| path.exists()) && link.is_symlink(), "what isn't ours stays");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), edited.text);
    // One that somebody is writing.
    leave();
    let file = fs::File::open(&stale[1]).unwrap();
    let held = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
    sweep(&path);
    assert!(stale[1].exists() && !stale[2].exists());
    drop(held);
}
