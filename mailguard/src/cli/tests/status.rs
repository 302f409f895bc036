//! What runs, and what is known of it when half of it hangs.

use mailguard_common::maps::Reason;
use mailguard_core::config::model::OnProxyDown;
use mailguard_core::rule_key::RuleKey;

use super::*;
use crate::datapath::{
    DatapathStatus, InterfaceStatus, MapUse, MendCount, ReasonCount, RuleCount, TcAttachment, Word,
    XdpAttachment,
};

/// A kernel side with a row of each kind.
pub(super) fn kernel() -> DatapathStatus {
    let interface = |name: &str, leaving: bool, xdp, tc, problem: Option<&str>| InterfaceStatus {
        name: name.to_owned(),
        zone: "lan".to_owned(),
        intercepts: !leaving && problem.is_none(),
        leaving,
        xdp: Word::Known(xdp),
        tc: Word::Known(tc),
        problem: problem.map(str::to_owned),
    };
    let interfaces = vec![
        interface("eth0", false, XdpAttachment::Native, TcAttachment::Tcx, None),
        interface("eth1", true, XdpAttachment::Off, TcAttachment::Clsact, None),
        interface(
            "eth2",
            false,
            XdpAttachment::Off,
            TcAttachment::Off,
            Some("there is no such interface now"),
        ),
    ];
    let key = RuleKey::bypass_from("192.0.2.7/32".parse().unwrap());
    DatapathStatus {
        proxy_alive: true,
        on_proxy_down: OnProxyDown::Block.into(),
        mended: vec![MendCount { what: "the IPv4 rule for eth0".to_owned(), times: 2, last_seconds_ago: 60 }],
        interfaces,
        maps: vec![MapUse { name: "BANS".to_owned(), entries: 3, limit: 65_536 }],
        reasons: vec![ReasonCount {
            reason: Reason::Session.into(),
            packets: 12,
            octets: 720,
            per_second: 0.5,
        }],
        rules: vec![RuleCount { key, packets: 5, last_hit_seconds_ago: 7_200 }],
    }
}

/// A status with something in each of its parts.
fn report(kernel: Option<DatapathStatus>) -> StatusReport {
    StatusReport {
        version: "0.1.0".to_owned(),
        hostname: "gate.example.org".to_owned(),
        config: "/m.toml".into(),
        enabled: true,
        started_at: CAME,
        loaded_at: NOW,
        problems: vec!["the disk is full".to_owned()],
        zones: vec![ZoneStatus {
            name: "lan".to_owned(),
            kind: ZoneKind::Green,
            mode: ZoneMode::Transparent,
            interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
        }],
        sessions: 3,
        max_sessions: 10_000,
        queue: Stock { messages: 1, octets: 1_024 },
        quarantine: Stock::default(),
        paused: vec!["example.net".to_owned()],
        quarantine_max_octets: 10 << 30,
        kernel,
        inactive: vec![Inactive { key: "spam.enabled".to_owned(), what: "not yet".to_owned() }],
    }
}

#[test]
fn the_status() {
    let report = report(Some(DatapathStatus { mended: Vec::new(), rules: Vec::new(), ..kernel() }));
    let text = "mailguard 0.1.0 on gate.example.org, running for 1h\n\
         configuration /m.toml, loaded 0s ago\n\
         PROBLEM: the disk is full\n\n\
         ZONE  KIND   MODE         INTERFACES\n\
         lan   green  transparent  eth0 eth1\n\n\
         sessions    3 of 10000\n\
         queue       1 message, 1.0 KB\npaused      example.net\n\
         quarantine  0 messages, 0 B of 10.0 GB\n\
         restarts of the mail process  1, last 1h ago: it gave up (exit code 1)\n  \
         | no\u{fffd} space\n\n\
         kernel\n  \
         proxy alive    yes\n  \
         on proxy down  block\n  \
         interfaces\n    \
         NAME  ZONE  INTERCEPTS          TC      XDP     PROBLEM\n    \
         eth0  lan   yes                 tcx     native\n    \
         eth1  lan   open sessions only  clsact  off\n    \
         eth2  lan   no                  off     off     there is no such interface now\n  \
         packets\n    \
         REASON   PACKETS  OCTETS  PER SECOND\n    \
         session  12       720     0.5\n  \
         maps\n    \
         NAME  ENTRIES  LIMIT\n    \
         BANS  3        65536\n\n\
         Configured, but not active in this version:\n  \
         spam.enabled  not yet\n";
    check("status", Status {}, report.clone(), text);
    let (_, printed) = ask("status --json", vec![Ok(report.clone().into())]);
    let printed = printed.unwrap().text;
    assert_eq!(serde_json::from_str::<StatusReport>(&printed).unwrap(), report);
    let value: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(value["processes"]["mail"]["restarts"], 1);
}

/// In the order in which people read: what it is, where, what it does, how much, what is wrong; whatever the
/// alphabet says.
#[test]
fn the_columns_of_the_kernel_side_stand_in_the_order_that_people_read() {
    let mut text = String::new();
    super::super::kernel::print(&mut text, &kernel());
    let lines: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let expect = [
        "",
        "kernel",
        "proxy alive yes",
        "on proxy down block",
        "interfaces",
        "NAME ZONE INTERCEPTS TC XDP PROBLEM",
        "eth0 lan yes tcx native",
        "eth1 lan open sessions only clsact off",
        "eth2 lan no off off there is no such interface now",
        "put back",
        "WHAT TIMES LAST",
        "the IPv4 rule for eth0 2 1m ago",
        "packets",
        "REASON PACKETS OCTETS PER SECOND",
        "session 12 720 0.5",
        "rules",
        "LIST VALUE PACKETS LAST HIT",
        "bypass from 192.0.2.7 5 2h ago",
        "maps",
        "NAME ENTRIES LIMIT",
        "BANS 3 65536",
    ];
    assert_eq!(lines, expect);
}

/// Programs read it: each name stays where it was when what is said of the kernel side had no type on its
/// way.
#[test]
fn the_json_of_the_status_has_each_part_where_it_was() {
    let printed = ask("status --json", vec![Ok(report(Some(kernel())).into())]).1.unwrap().text;
    let value: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(value["hostname"], "gate.example.org");
    let of_kernel = json!({
        "proxy_alive": true,
        "on_proxy_down": "block",
        "mended": [{ "what": "the IPv4 rule for eth0", "times": 2, "last_seconds_ago": 60 }],
        "interfaces": [
            { "name": "eth0", "zone": "lan", "intercepts": true, "xdp": "native", "tc": "tcx" },
            { "name": "eth1", "zone": "lan", "intercepts": false, "leaving": true, "xdp": "off", "tc": "clsact" },
            { "name": "eth2", "zone": "lan", "intercepts": false, "xdp": "off", "tc": "off",
              "problem": "there is no such interface now" },
        ],
        "maps": [{ "name": "BANS", "entries": 3, "limit": 65_536 }],
        "reasons": [{ "reason": "session", "packets": 12, "octets": 720, "per_second": 0.5 }],
        "rules": [{ "list": "bypass from", "value": "192.0.2.7", "packets": 5, "last_hit_seconds_ago": 7_200 }],
    });
    assert_eq!((&value["kernel"], &value["processes"]["kernel"]), (&of_kernel, &of_kernel));
    let printed = ask("status --json", vec![Ok(report(None).into())]).1.unwrap().text;
    let value: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(value.get("kernel"), Some(&serde_json::Value::Null), "the datapath process said nothing");
}

/// A package was upgraded, and the daemon not started anew yet, or the other way round.
#[test]
fn words_that_another_version_says_of_the_kernel_side_are_shown_as_they_came() {
    let line = serde_json::to_string(&Reply::Ok(Box::new(report(Some(kernel())).into()))).unwrap();
    let line = line
        .replace(r#""reason":"session""#, r#""reason":"eaten","of_another_version":7"#)
        .replace(r#""list":"bypass from""#, r#""list":"whitelist""#)
        .replace(r#""xdp":"native""#, r#""xdp":"offloaded""#);
    let Reply::Ok(answer) = serde_json::from_str(&line).unwrap() else { unreachable!("it is an answer") };
    let text = ask("status", vec![Ok(*answer)]).1.unwrap().text;
    for word in ["eaten", "whitelist", "offloaded"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

/// Its socket is there and takes connections, as that of a process that is stopped.
#[test]
fn the_status_of_a_mail_process_that_hangs_is_what_the_other_process_knows() {
    let of_silence = Some("its last sign of life is 5 s old");
    for (line, silent, failed) in
        [("status", 300, None), ("status", 5_000, of_silence), ("status --json", 5_000, of_silence)]
    {
        let folder = folder("runtime_dir = \"DIR\"\n");
        fs::create_dir(mail_folder(folder.path())).unwrap();
        let _hangs = std::os::unix::net::UnixListener::bind(mail_socket(folder.path())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let script = Script { silent, ..Script::default() };
        let printed = runtime.block_on(async {
            let datapath = bind(&root_socket(folder.path()), ROOT_MODE).unwrap();
            let typing = tokio::task::spawn_blocking(move || typed(line, &folder));
            tokio::select! {
                printed = typing => Some(printed.unwrap().unwrap()),
                _ = serve(datapath, Arc::new(script)) => unreachable!(),
                // One that isn't silent is waited for: it may be busy.
                () = tokio::time::sleep(Duration::from_secs(2)), if failed.is_none() => None,
            }
        });
        assert_eq!(printed.as_ref().map(|printed| printed.failed), failed.map(|_| true));
        if let (Some(printed), Some(text)) = (printed, failed) {
            assert!(printed.text.contains(text), "{}", printed.text);
            if line == "status --json" {
                let json: serde_json::Value = serde_json::from_str(&printed.text).unwrap();
                let problems = json["problems"].as_array().unwrap();
                assert!(matches!(&problems[..], [one] if one.to_string().contains(text)), "{json}");
                assert_eq!(json["processes"], serde_json::to_value(processes(silent)).unwrap());
                assert_eq!(
                    json.as_object().unwrap().len(),
                    2,
                    "nothing that the mail process would have said"
                );
                continue;
            }
            assert!(printed.text.contains("proxy alive    yes"), "{}", printed.text);
            assert!(printed.text.contains("restarts of the mail process  1"), "{}", printed.text);
        } else {
            // The one who types still waits.
            runtime.shutdown_background();
        }
    }
}
