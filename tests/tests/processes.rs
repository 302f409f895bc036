//! The two processes of the real program: what each may do, how a mail process dies, and who hears of it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mailguard_tests::appliance::{Appliance, program};
use mailguard_tests::netns::{FIREWALL4, LAN, SERVER4, Topology, port25};
use mailguard_tests::peers::service_manager::ServiceManager;
use mailguard_tests::peers::{Process, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use serde_json::{Value, json};

/// A zone that listens on the client's side.
fn config(more: &str) -> String {
    format!(
        "hostname = \"mailguard.example.test\"\n[[zone]]\nname = \"green\"\nkind = \"green\"\n\
         interfaces = [\"{LAN}\"]\nmode = \"active\"\n{more}\n"
    )
}

fn with_appliance(more: &str, work: impl FnOnce(&mut Appliance<'_>)) {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::start(&firewall, &config(more)).expect("mailguard runs");
    work(&mut appliance);
}

/// The mail process, which is the datapath process's one child.
fn mail_process(appliance: &Appliance<'_>) -> Option<Pid> {
    let parent = appliance.process()?.pid();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.trim().parse().ok().map(Pid::from_raw)
}

/// Waits for a mail process that serves and isn't `old`.
fn next_mail_process(appliance: &Appliance<'_>, old: Pid) -> Pid {
    let mut next = old;
    let came = wait_until("another mail process serves", || {
        next = mail_process(appliance).unwrap_or(old);
        next != old && appliance.ok(&["status"]).is_ok()
    });
    came.unwrap_or_else(|error| panic!("{error}: {}", appliance.log()));
    next
}

fn fails(appliance: &Appliance<'_>, arguments: &[&str], why: &str) {
    let output = appliance.cli(arguments).expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(why), "{arguments:?}: {said}");
}

fn mail_user() -> User {
    User::from_name("nobody").unwrap().expect("every Debian has it")
}

/// What a socket at `path` answers to a line, asked by the mail user.
fn as_mail_user(path: &Path, line: &str) -> Result<String, String> {
    let user = mail_user();
    let mut command = Command::new("python3");
    let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                  s.sendall(sys.argv[2].encode() + b'\\n')\nprint(s.makefile().readline())";
    command.args(["-c", script]).arg(path).arg(line);
    command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    let output = command.output().expect("python3 runs");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn root_alone_changes_what_passes_and_nobody_else_can_take_its_place() {
    with_appliance("", |appliance| {
        let run = appliance.folder().join("run");
        for (name, owner, mode) in [
            ("", 0, 0o755),
            ("control.sock", 0, 0o600),
            ("mail", mail_user().uid.as_raw(), 0o755),
            ("mail/control.sock", mail_user().uid.as_raw(), 0o660),
        ] {
            let facts = fs::metadata(run.join(name)).unwrap();
            assert_eq!((facts.uid(), facts.mode() & 0o777), (owner, mode), "{name}");
        }
        let edit = r#"{"request":"edit","list":"bypass-from-subnet","change":"add","values":["0.0.0.0/0"]}"#;
        let edit = edit.replace("bypass-from-subnet", &list_name());
        let refused = as_mail_user(&run.join("control.sock"), &edit).unwrap_err();
        assert!(refused.contains("PermissionError"), "{refused}");
        // Even if somebody opened the socket to all.
        fs::set_permissions(run.join("control.sock"), fs::Permissions::from_mode(0o666)).unwrap();
        let refused = as_mail_user(&run.join("control.sock"), &edit).unwrap_or_default();
        assert!(refused.contains("only root may ask here") || refused.is_empty(), "{refused}");
        for request in [edit.as_str(), r#"{"request":"reload"}"#, r#"{"request":"ban-lift","clients":null}"#]
        {
            let refused = as_mail_user(&run.join("mail/control.sock"), request).unwrap();
            assert!(refused.contains("this is asked of the datapath process"), "{refused}");
        }
        let status = as_mail_user(&run.join("mail/control.sock"), r#"{"request":"status"}"#).unwrap();
        assert!(status.starts_with(r#"{"ok":{"status":"#), "{status}");
        assert_eq!(appliance.ok(&["bypass", "list"]).unwrap(), "nothing is listed\n");

        fails(appliance, &["bypass", "add", "from-subnet", "0.0.0.0/0"], "add --all");
        fails(appliance, &["blacklist", "add", "client", "::/0"], "add --all");
        appliance.ok(&["bypass", "add", "from-subnet", "192.0.2.0/24"]).unwrap();
        assert!(appliance.ok(&["bypass", "list"]).unwrap().contains("192.0.2.0/24"));
    });
}

/// The name of the list of bypassed networks on the wire.
fn list_name() -> String {
    serde_json::to_value(mailguard::config::EditList::BypassFromSubnet).unwrap().as_str().unwrap().to_owned()
}

/// The mail process's end of the channel, copied out of it: a test talks by it as a mail process that was
/// taken over.
fn channel_of(mail: Pid) -> UnixStream {
    let line = fs::read(format!("/proc/{mail}/cmdline")).unwrap();
    let words: Vec<&[u8]> = line.split(|octet| *octet == 0).collect();
    let place = words.iter().position(|word| *word == b"--channel").expect("it is told its channel");
    let number: i32 = String::from_utf8_lossy(words[place + 1]).parse().unwrap();
    // SAFETY: plain system calls; the descriptor that comes back is ours alone.
    unsafe {
        let process = nix::libc::syscall(nix::libc::SYS_pidfd_open, mail.as_raw(), 0);
        assert!(process >= 0, "pidfd_open");
        let copy = nix::libc::syscall(nix::libc::SYS_pidfd_getfd, process, number, 0);
        assert!(copy >= 0, "pidfd_getfd");
        nix::libc::close(process as i32);
        UnixStream::from_raw_fd(copy as i32)
    }
}

fn frame(message: &Value) -> Vec<u8> {
    let text = message.to_string();
    [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

#[test]
fn a_mail_process_that_was_taken_over_opens_nothing() {
    let more = "[access]\nwhitelist_clients = [\"203.0.113.0/24\"]\n";
    with_appliance(more, |appliance| {
        let before = fs::read_to_string(appliance.config()).unwrap();
        appliance.ok(&["ban", "add", "198.51.100.9"]).unwrap();
        let openings = [
            json!({ "Edit": { "list": list_name(), "change": "add", "values": ["0.0.0.0/0"] } }),
            json!("Reload"),
            json!({ "Lift": ["198.51.100.9"] }),
        ];
        for request in openings {
            let mail = mail_process(appliance).unwrap();
            channel_of(mail)
                .write_all(&frame(&json!({ "Request": { "id": 1_000_000, "request": request } })))
                .unwrap();
            // What isn't of the protocol ends the conversation.
            next_mail_process(appliance, mail);
            assert_eq!(appliance.ok(&["bypass", "list"]).unwrap(), "nothing is listed\n", "{request}");
            assert_eq!(fs::read_to_string(appliance.config()).unwrap(), before, "{request}");
            assert!(appliance.ok(&["ban", "list"]).unwrap().contains("198.51.100.9"), "{request}");
        }
        // Bans it may ask for: within limits.
        let hour = json!({ "secs": 3_600, "nanos": 0 });
        let bans = [
            ("203.0.113.7", hour.clone(), "whitelist_clients"),
            ("127.0.0.1", hour.clone(), "own address"),
            ("10.1.0.1", json!({ "secs": 400 * 86_400, "nanos": 0 }), "at most 365 days"),
        ];
        for (client, time, why) in bans {
            let channel = channel_of(mail_process(appliance).unwrap());
            let request = json!({ "Ban": [[client, time]] });
            (&channel)
                .write_all(&frame(&json!({ "Request": { "id": 1_000_001, "request": request } })))
                .unwrap();
            let said =
                || appliance.log().lines().any(|line| line.contains("isn't made") && line.contains(why));
            wait_until("the ban is refused", said)
                .unwrap_or_else(|error| panic!("{error}: {}", appliance.log()));
        }
        assert!(!appliance.ok(&["ban", "list"]).unwrap().contains("203.0.113.7"));
    });
}

#[test]
fn a_ban_that_root_lifted_while_the_mail_process_was_stopped_stays_lifted() {
    with_appliance("", |appliance| {
        appliance.ok(&["ban", "add", "198.51.100.9", "198.51.100.10"]).unwrap();
        let mail = mail_process(appliance).unwrap();
        kill(mail, Signal::SIGSTOP).unwrap();
        assert_eq!(appliance.ok(&["ban", "lift", "198.51.100.9"]).unwrap(), "lifted: 198.51.100.9\n");
        kill(mail, Signal::SIGKILL).unwrap();
        next_mail_process(appliance, mail);
        let list = appliance.ok(&["ban", "list"]).unwrap();
        assert!(!list.contains("198.51.100.9 ") && list.contains("198.51.100.10"), "{list}");
    });
}

/// How a mail process is brought to its end, and what must be in the log and in `status` afterwards.
#[test]
fn every_death_of_a_mail_process_reaches_the_log() {
    with_appliance("", |appliance| {
        let causes = [
            (Signal::SIGKILL, "killed by signal 9 (SIGKILL), not by mailguard"),
            (Signal::SIGABRT, "killed by signal 6 (SIGABRT)"),
            (Signal::SIGSEGV, "killed by signal 11 (SIGSEGV)"),
            (Signal::SIGBUS, "killed by signal 7 (SIGBUS)"),
            (Signal::SIGSYS, "killed by signal 31 (SIGSYS)"),
        ];
        for (round, (signal, cause)) in causes.into_iter().enumerate() {
            let mail = mail_process(appliance).unwrap();
            // The language's runtime takes the first SIGSEGV for the end of a stack, and looks.
            wait_until("it dies", || kill(mail, signal).is_err() || mail_process(appliance) != Some(mail))
                .unwrap();
            next_mail_process(appliance, mail);
            assert!(appliance.log().contains(cause), "{cause}: {}", appliance.log());
            let status = appliance.json(&["status"]).unwrap();
            assert_eq!(status["processes"]["mail"]["restarts"], round + 1, "{status}");
            let last = status["processes"]["mail"]["last_cause"].as_str().unwrap_or_default().to_owned();
            assert!(last.contains(cause), "{last}");
        }
    });
}

/// A session of the client's, greeted.
fn session(topology: &Topology) -> BufReader<TcpStream> {
    let dial = || Ok(TcpStream::connect(port25(FIREWALL4))?);
    let stream = topology.client.within(dial).expect("mailguard accepts");
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut session = BufReader::new(stream);
    let greeting = line(&mut session);
    assert!(greeting.starts_with("220 mailguard.example.test"), "{greeting}");
    session
}

fn line(session: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    session.read_line(&mut line).expect("a line comes");
    line
}

/// As `kill` does it, or a service manager that signals every process of a service.
#[test]
fn a_mail_process_that_is_told_to_end_does_so_in_order_and_the_next_one_follows() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::start(&firewall, &config("")).expect("mailguard runs");
    let mut open = session(&topology);
    let mail = mail_process(&appliance).unwrap();
    for signal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGTERM] {
        kill(mail, signal).unwrap();
    }
    let told = "told to end by signal 15 (SIGTERM), not by mailguard";
    wait_until("it says so", || appliance.log().contains(told))
        .unwrap_or_else(|error| panic!("{error}: {}", appliance.log()));
    assert_eq!(mail_process(&appliance), Some(mail), "an open session is waited for");
    open.get_mut().write_all(b"NOOP\r\n").unwrap();
    let answer = line(&mut open);
    assert!(answer.starts_with("421 "), "{answer}");
    let next = next_mail_process(&appliance, mail);
    let cause = format!("was {told}, and ended in order");
    assert!(appliance.log().contains(&cause), "{}", appliance.log());
    let status = appliance.json(&["status"]).unwrap();
    let known = &status["processes"]["mail"];
    assert_eq!((&known["restarts"], &known["pid"]), (&json!(1), &json!(next.as_raw())), "{status}");
    assert_eq!(known["last_cause"], cause.as_str(), "{status}");
    session(&topology);

    // Both at once, in either order: mailguard ends, and no mail process comes after.
    kill(next, Signal::SIGTERM).unwrap();
    appliance.stop().unwrap();
    let log = appliance.log();
    assert!(log.contains("stopped; rules and drops stay in force"), "{log}");
    assert!(kill(next, None).is_err(), "it is gone");
}

#[test]
fn the_service_manager_hears_when_mail_is_served_and_that_the_mail_process_lives() {
    let topology = Topology::new().expect("namespaces");
    let manager = ServiceManager::new().expect("it listens");
    let hears = |wanted: &[&str]| manager.hears(wanted).expect("a message");
    let firewall = |program: &str| {
        let mut command = topology.firewall.command(program);
        manager.manages(&mut command);
        command.env("WATCHDOG_USEC", "3000000");
        command
    };
    let mut appliance = Appliance::start(&firewall, &config("")).expect("mailguard runs");
    assert_eq!(hears(&["READY"]), "READY=1");
    for _ in 0..3 {
        hears(&["WATCHDOG=1"]);
    }

    let mail = mail_process(&appliance).expect("it runs");
    let environment = fs::read_to_string(format!("/proc/{mail}/environ")).unwrap();
    assert!(!environment.contains("NOTIFY_SOCKET"), "the mail process has nothing to say there");
    kill(mail, Signal::SIGSTOP).unwrap();
    let last = hears(&["STATUS"]);
    assert!(last.contains("started anew: the last one hung"), "{last}");
    assert_eq!(hears(&["STATUS", "READY"]), "STATUS=mail is served");
    appliance.stop().unwrap();
    assert_eq!(hears(&["STOPPING", "READY"]), "STOPPING=1");
}

/// Who starts mailguard may have left a descriptor open: the datapath process has it, and nobody else.
#[test]
fn what_else_was_open_when_mailguard_was_started_reaches_no_process_of_the_mail_user() {
    let topology = Topology::new().expect("namespaces");
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    let leaked = fs::File::create(&secret).expect("created");
    let number = leaked.as_raw_fd();
    let firewall = |program: &str| {
        let mut command = topology.firewall.command(program);
        // SAFETY: one system call, on a descriptor that is open as long as this closure is used.
        unsafe {
            command.pre_exec(move || match nix::libc::fcntl(number, nix::libc::F_SETFD, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            })
        };
        command
    };
    let names = "[bypass]\nto_names = [\"relay.example.test\"]\n[dns]\nservers = [\"192.0.2.2\"]";
    let appliance = Appliance::start(&firewall, &config(names)).expect("mailguard runs");
    let open = |pid: i32| -> Vec<PathBuf> {
        let folder = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
        folder.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
    };
    let datapath = appliance.process().expect("it runs").pid();
    assert!(open(datapath.as_raw()).contains(&secret), "it was left open indeed");
    let children = children(datapath.as_raw());
    assert!(children.len() >= 2, "mail and names: {children:?}");
    for child in children {
        let open = open(child);
        assert!(!open.is_empty() && !open.contains(&secret), "{child}: {open:?}");
    }
    let mail = mail_process(&appliance).unwrap();
    let out = fs::read_link(format!("/proc/{mail}/fd/1")).expect("it has a standard output");
    assert_eq!(out, Path::new("/dev/null"), "the log of root's is no file of the mail user's");
}

/// The children of every thread of a process.
fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    texts
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn the_status_of_a_hung_mail_process_comes_within_three_seconds() {
    with_appliance("", |appliance| {
        let mail = mail_process(appliance).unwrap();
        kill(mail, Signal::SIGSTOP).unwrap();
        let asked = Instant::now();
        let output = appliance.cli(&["status"]).unwrap();
        let took = asked.elapsed();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert!(!output.status.success() && text.contains("doesn't answer"), "{text}");
        assert!(text.contains("on proxy down"), "the kernel side is shown: {text}");
        kill(mail, Signal::SIGCONT).unwrap();
        wait_until("it answers again", || appliance.ok(&["status"]).is_ok()).unwrap();
    });
}

#[test]
fn what_can_not_start_ends_with_its_cause_and_an_exit_code() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil, &str, i32); 8] = [
        (
            "a damaged database",
            |folder| own_file(folder, "state/spool.redb", b"rubbish, long enough"),
            "spool.redb: is damaged",
            78,
        ),
        (
            "a damaged store of facts",
            |folder| own_file(folder, "state/facts.redb", b"rubbish, long enough"),
            "facts.redb: is damaged",
            78,
        ),
        (
            "a database that is damaged inside",
            |folder| {
                own_file(
                    folder,
                    "state/spool.redb",
                    &[b"redb\x1a\x0a\xa9\x0d\x0a".as_slice(), &[7; 5_000]].concat(),
                )
            },
            "the mail process can't serve",
            1,
        ),
        (
            "a database of a newer version",
            |folder| {
                own_file(folder, "state/spool.redb", b"");
                let database = redb::Database::create(folder.join("state/spool.redb")).unwrap();
                let writing = database.begin_write().unwrap();
                let meta = redb::TableDefinition::<&str, u64>::new("meta");
                writing.open_table(meta).unwrap().insert("schema", 1_000).unwrap();
                writing.commit().unwrap();
            },
            "spool.redb: a newer mailguard wrote it: its stored format is version 1000",
            1,
        ),
        (
            "a database of root's",
            |folder| {
                own_file(folder, "state/spool.redb", b"");
                chown(folder.join("state/spool.redb"), Some(0), Some(0)).unwrap();
                fs::set_permissions(folder.join("state/spool.redb"), fs::Permissions::from_mode(0o600))
                    .unwrap();
            },
            "spool.redb: can't be opened as the mail user",
            78,
        ),
        (
            "a state_dir that the mail user can't reach",
            |folder| fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap(),
            "nothing can be written there as the mail user",
            78,
        ),
        (
            "a folder in the place of the socket",
            |folder| {
                fs::create_dir_all(folder.join("run/mail/control.sock")).unwrap();
                give(&folder.join("run/mail"));
            },
            "control.sock: is not a socket: remove it",
            78,
        ),
        (
            "a file in the place of the bodies",
            |folder| own_file(folder, "state/bodies", b""),
            "bodies: is no folder",
            78,
        ),
    ];
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    for (what, spoil, expect, code) in cases {
        let appliance = Appliance::prepare(&firewall, &config("")).expect("prepared");
        spoil(appliance.folder());
        let (ended, said) = appliance.run_to_its_end().expect(what);
        assert!(said.contains(expect), "{what}: {said}");
        assert_eq!(ended, Some(code), "{what}: {said}");
        fs::set_permissions(appliance.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn give(path: &Path) {
    let user = mail_user();
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
}

/// A file of the mail user's in a folder of its own.
fn own_file(folder: &Path, name: &str, content: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    give(path.parent().unwrap());
    fs::write(&path, content).unwrap();
    give(&path);
}

/// Rules enough to take a while.
const MANY_RULES: usize = 3_000;

#[test]
fn rules_are_tried_before_a_reload_and_keep_nobody_waiting() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::prepare(&firewall, "").expect("prepared");
    let rules = appliance.folder().join("rules");
    fs::create_dir(&rules).unwrap();
    let more = format!("[virus.signatures]\nenabled = true\nrules_dir = \"{}\"\n", rules.display());
    appliance.write_config(&config(&more)).unwrap();
    appliance.run().expect("mailguard runs");

    fs::write(rules.join("own.yar"), "rule Own {\n condition: $x }\n").unwrap();
    fails(&appliance, &["reload"], "own.yar:2:");
    fails(&appliance, &["check"], "own.yar:2:");

    let rule =
        |number| format!("rule R{number} {{ strings: $a = /x{number}[a-z]{{3,9}}y/ condition: $a }}\n");
    fs::write(rules.join("own.yar"), (0..MANY_RULES).map(rule).collect::<String>()).unwrap();
    let begun = Instant::now();
    let mut command = topology.firewall.command(&program().to_string_lossy());
    command.arg("--config").arg(appliance.config()).arg("reload").stdout(Stdio::null());
    let mut reload = Process(command.spawn().expect("mailguard runs"));
    let status = loop {
        // On a busy machine the mail process may be called silent; what counts is what the kernel thinks of
        // it.
        let status: Value = serde_json::from_slice(&appliance.cli(&["status", "--json"]).unwrap().stdout)
            .expect("it answers meanwhile");
        assert_eq!(status["processes"]["kernel"]["proxy_alive"], true, "{status}");
        if let Some(status) = reload.0.try_wait().unwrap() {
            break status;
        }
    };
    let took = begun.elapsed();
    assert!(status.success(), "{}", appliance.log());
    let begun = Instant::now();
    appliance.ok(&["bypass", "add", "from-subnet", "192.0.2.0/24"]).unwrap();
    assert!(
        begun.elapsed() < took,
        "nothing is compiled for it: {:?}, a reload takes {took:?}",
        begun.elapsed()
    );
}

/// Whether a command succeeds, and what it says, run by nobody in particular with this group.
fn as_member(group: u32, config: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=4711", &format!("--regid={group}"), "--clear-groups"]);
    let output =
        command.arg(program()).arg("--config").arg(config).args(arguments).output().expect("setpriv");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

#[test]
fn a_member_of_the_group_asks_without_reading_the_configuration() {
    let inside = format!("[[incoming_domain]]\ndomain = \"example.com\"\nserver = \"{SERVER4}\"\n");
    with_appliance(&inside, |appliance| {
        let (config, group) = (appliance.config(), mail_user().gid.as_raw());
        let elsewhere = config.with_file_name("other.toml");
        fs::copy(&config, &elsewhere).unwrap();
        for file in [&config, &elsewhere] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let reads = "status, queue list, quarantine list, trace, route somebody@example.com, bypass list, \
                     blacklist list, ban list";
        for line in reads.split(", ") {
            let (done, text) = as_member(group, &config, &line.split(' ').collect::<Vec<_>>());
            assert!(done, "{line}: {text}");
        }
        for (group, file, line, why) in [
            (group, &config, "bypass add to-ip 192.0.2.1", "control.sock: run this as root\n"),
            (group, &config, "reload", "control.sock: run this as root\n"),
            (group, &config, "ban lift --all", "control.sock: run this as root\n"),
            (group, &config, "check", "Permission denied"),
            (4711, &config, "status", "run this as root or as a member of its group\n"),
            (group, &elsewhere, "status", "no mailguard runs by this file: start it, or run this as root\n"),
        ] {
            let (done, text) = as_member(group, file, &line.split(' ').collect::<Vec<_>>());
            assert!(!done && text.contains(why), "{line}: {text}");
        }
        appliance.stop().unwrap();
        let (done, text) = as_member(group, &config, &["status"]);
        assert!(!done && text.contains("no mailguard runs by this file"), "{text}");
    });
}
