//! What runs, and what is known of it when half of it hangs.

use super::*;

#[test]
fn the_status() {
    let report = StatusReport {
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
        kernel: json!({
            "proxy_alive": true,
            "interfaces": [{ "name": "eth0", "tc": "tcx" }, { "name": "eth1", "xdp": "native" }],
            "rules": [],
        }),
        inactive: vec![Inactive { key: "spam.enabled".to_owned(), what: "not yet".to_owned() }],
    };
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
         proxy alive  true\n  \
         rules\n  \
         interfaces\n    \
         NAME  TC   XDP\n    \
         eth0  tcx\n    \
         eth1       native\n\n\
         Configured, but not active in this version:\n  \
         spam.enabled  not yet\n";
    check("status", Request::Status, Answer::Status(Box::new(report.clone())), text);
    let (_, printed) = ask("status --json", vec![Ok(Answer::Status(Box::new(report.clone())))]);
    let printed = printed.unwrap().text;
    assert_eq!(serde_json::from_str::<StatusReport>(&printed).unwrap(), report);
    let value: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(value["processes"]["mail"]["restarts"], 1);
}

/// Its socket is there and takes connections, as that of a process that is stopped.
#[test]
fn the_status_of_a_mail_process_that_hangs_is_what_the_other_process_knows() {
    for (silent, failed) in [(300, None), (5_000, Some("its last sign of life is 5 s old"))] {
        let folder = folder("runtime_dir = \"DIR\"\n");
        fs::create_dir(mail_folder(folder.path())).unwrap();
        let _hangs = std::os::unix::net::UnixListener::bind(mail_socket(folder.path())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let script = Script { silent, ..Script::default() };
        let printed = runtime.block_on(async {
            let datapath = bind(&root_socket(folder.path()), ROOT_MODE).unwrap();
            let typing = tokio::task::spawn_blocking(move || typed("status", &folder));
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
            assert!(printed.text.contains("proxy alive  true"), "{}", printed.text);
            assert!(printed.text.contains("restarts of the mail process  1"), "{}", printed.text);
        } else {
            // The one who types still waits.
            runtime.shutdown_background();
        }
    }
}
