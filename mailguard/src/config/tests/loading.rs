//! Files that the configuration names.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tempfile::TempDir;

use super::*;

/// A folder with `m.toml`, `LEAST` and `more` with DIR replaced by the folder's path.
fn folder(more: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    let text = format!("{LEAST}{}", more.replace("DIR", dir.path().to_str().unwrap()));
    fs::write(dir.path().join("m.toml"), text).unwrap();
    dir
}

fn load_from(dir: &TempDir) -> Source {
    load(&dir.path().join("m.toml")).unwrap()
}

/// The errors of the configuration in `dir`, the folder's path replaced by DIR.
fn check(dir: &TempDir, expect: &str) {
    let errors = parse_and_validate(&load_from(dir)).unwrap_err();
    assert_eq!(errors.to_string().replace(dir.path().to_str().unwrap(), "DIR"), expect);
}

#[test]
fn a_zones_list_comes_from_a_file_as_well() {
    let dir = folder(
        "allow_clients = [\"10.1.0.25\", \"@DIR/hosts\"]\n[[zone]]\nname = \"red\"\nkind = \"red\"\n\
         interfaces = [\"eth1\"]\nmode = \"active\"\nallow_clients = [\"@DIR/hosts\"]\n",
    );
    fs::write(dir.path().join("hosts"), "10.2.0.0/16 # printers\n2001:db8::25\n").unwrap();
    let lists =
        parse_and_validate(&load_from(&dir)).unwrap().zones.into_iter().map(|zone| zone.allow_clients);
    let lists: Vec<Vec<String>> =
        lists.map(|list| list.unwrap().iter().map(ToString::to_string).collect()).collect();
    let hosts = ["10.2.0.0/16", "2001:db8::25/128"];
    assert_eq!(lists, [[&["10.1.0.25/32"][..], &hosts].concat(), hosts.to_vec()]);
    fs::write(dir.path().join("hosts"), "10.2.0.0/16\nprinter\n").unwrap();
    let errors = parse_and_validate(&load_from(&dir)).unwrap_err().to_string();
    assert!(errors.contains("DIR/hosts:2".replace("DIR", dir.path().to_str().unwrap()).as_str()), "{errors}");
}

#[test]
fn lists_from_files() {
    let dir = folder(
        "[access]\nblacklist_clients = [\"192.0.2.1\", \"@DIR/clients\", \"192.0.2.9\"]\n\
         blacklist_senders = [\"@DIR/senders\"]\nwhitelist_clients = [\"@DIR/clients\"]\n",
    );
    fs::write(dir.path().join("clients"), "# known\n\n  198.51.100.0/24 # bad\r\n203.0.113.7").unwrap();
    fs::write(dir.path().join("senders"), "a#b@example.com\nexample.net\t# all of it\n").unwrap();
    let source = load_from(&dir);
    assert_eq!(source.includes.len(), 2);
    let access = parse_and_validate(&source).unwrap().access;
    let clients: Vec<String> = access.blacklist_clients.iter().map(ToString::to_string).collect();
    assert_eq!(clients, ["192.0.2.1/32", "198.51.100.0/24", "203.0.113.7/32", "192.0.2.9/32"]);
    assert_eq!(access.whitelist_clients.len(), 2);
    let senders: Vec<String> = access.blacklist_senders.iter().map(|sender| format!("{sender:?}")).collect();
    assert!(senders[0].contains("a#b") && senders[1].contains("example.net"), "{senders:?}");
    let listed: Vec<(String, usize)> = entries(&source, &[EditList::BlacklistClient])
        .into_iter()
        .map(|entry| (format!("{} {}", entry.file.file_name().unwrap().display(), entry.value), entry.line))
        .collect();
    let expect = [
        ("m.toml 192.0.2.1", 8),
        ("clients 198.51.100.0/24", 3),
        ("clients 203.0.113.7", 4),
        ("m.toml 192.0.2.9", 8),
    ];
    assert_eq!(listed, expect.map(|(text, line)| (text.to_owned(), line)));
}

#[test]
fn errors_name_the_file_and_the_line() {
    let dir = folder("[bypass]\nfrom_ips = [\"@DIR/ips\", \"@DIR/missing\"]\n");
    fs::write(dir.path().join("ips"), "192.0.2.1\n  192.0.2.256 # typo\n").unwrap();
    check(
        &dir,
        &"\
DIR/m.toml:8:SECOND: bypass.from_ips: DIR/missing: can't be read: No such file or directory (os error 2)
   8 | from_ips = [\"@DIR/ips\", \"@DIR/missing\"]
     | INDENTMARK

DIR/ips:2:3: bypass.from_ips: found \"192.0.2.256\", accepted: an address like \"192.168.5.7\" or \"2001:db8::7\"
   2 |   192.0.2.256 # typo
     |   ^^^^^^^^^^^

2 errors"
            .replace("SECOND", &(22 + dir.path().as_os_str().len()).to_string())
            .replace("INDENT", &" ".repeat(21 + dir.path().as_os_str().len()))
            .replace("MARK", &"^".repeat(11 + dir.path().as_os_str().len())),
    );
}

#[test]
fn limits() {
    let dir = folder("[bypass]\nfrom_macs = [\"@DIR/pipe\", \"@/\", \"@DIR/latin\", \"@DIR/large\"]\n");
    nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    fs::write(dir.path().join("latin"), b"# ok\n# \xfc\n").unwrap();
    fs::File::create(dir.path().join("large")).unwrap().set_len((8 << 20) + 1).unwrap();
    let errors = parse_and_validate(&load_from(&dir)).unwrap_err();
    let messages: Vec<String> =
        errors.iter().map(|error| error.message.replace(dir.path().to_str().unwrap(), "DIR")).collect();
    assert_eq!(
        messages,
        [
            "DIR/pipe: is not a regular file",
            "/: is not a regular file",
            "DIR/latin: is not UTF-8 in line 2",
            "DIR/large: is too large: at most 8388608 octets a file and 33554432 in all are read",
        ]
    );
}

#[test]
fn as_many_entries_as_a_list_holds() {
    let dir = folder("[access]\nblacklist_clients = [\"@DIR/a\", \"@DIR/b\"]\n");
    fs::write(dir.path().join("a"), "192.0.2.1\n".repeat(65_535)).unwrap();
    fs::write(dir.path().join("b"), "192.0.2.2\n").unwrap();
    let clients = parse_and_validate(&load_from(&dir)).unwrap().access.blacklist_clients;
    assert_eq!((clients.len(), clients[65_535].to_string()), (65_536, "192.0.2.2/32".to_owned()));
    fs::write(dir.path().join("b"), "192.0.2.2\n".repeat(2)).unwrap();
    let errors = parse_and_validate(&load_from(&dir)).unwrap_err();
    assert!(errors.to_string().contains("/b: the list would hold more than 65536 entries\n"), "{errors}");
}

#[test]
fn yara_rules() {
    let dir = folder("[virus.signatures]\nrules_dir = \"DIR/rules\"\n");
    check(
        &dir,
        &"\
DIR/m.toml:8:13: virus.signatures.rules_dir: DIR/rules: can't be read: No such file or directory (os error 2)
   8 | rules_dir = \"DIR/rules\"
     |             MARK

1 error"
            .replace("MARK", &"^".repeat(8 + dir.path().as_os_str().len())),
    );
    let rules = dir.path().join("rules");
    fs::create_dir(&rules).unwrap();
    for name in ["b.yar", "a.yar", "notes.txt"] {
        fs::write(rules.join(name), name).unwrap();
    }
    let parsed = parse_and_validate(&load_from(&dir)).unwrap().virus.rules;
    let expect = ["a.yar", "b.yar"].map(|name| (rules.join(name), name.to_owned()));
    assert_eq!(parsed, expect);
}

#[test]
fn the_file_itself() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("m.toml");
    let check = |expect: &str| assert_eq!(load(&path).unwrap_err().cause.to_string(), expect);
    check("can't be read: No such file or directory (os error 2)");
    fs::write(&path, b"\n\n\xff").unwrap();
    check("is not UTF-8 in line 3");
    assert_eq!(
        load(Path::new("/")).unwrap_err().to_string(),
        "/: is not a regular file",
        "the error names the file"
    );
    assert!(path.as_os_str().as_bytes().ends_with(b"m.toml"));
}

/// The daemon is found by a file that is under repair; only one that can't be read is an error.
#[test]
fn places_of_a_broken_file() {
    let dir = folder("");
    let path = dir.path().join("m.toml");
    let check = |text: &str, runtime_dir: &str, pin_dir: &str| {
        fs::write(&path, text).unwrap();
        let state_dir = "/var/lib/mailguard".into();
        let expect = Places { runtime_dir: runtime_dir.into(), pin_dir: pin_dir.into(), state_dir };
        assert_eq!(places(&path).unwrap(), expect, "{text}");
    };
    check("", "/run/mailguard", "/sys/fs/bpf/mailguard");
    check("runtime_dir = \"/r\"\nhostname = \n[kernel]\npin_dir = \"/p\"\nxdp = \"off\n", "/r", "/p");
    check("runtime_dir = \"relative\"\nkernel = 5\n", "/run/mailguard", "/sys/fs/bpf/mailguard");
    fs::remove_file(&path).unwrap();
    assert!(places(&path).is_err());
}
