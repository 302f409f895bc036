//! Commands from the typed line to the printed text, over a real socket to a daemon that knows its answers.

mod check;
mod lists;
mod status;

use std::fs;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailguard_core::config::model::{Inactive, ZoneKind, ZoneMode};
use mailguard_core::mail::{Mailbox, QueueId};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::admin::request::{
    BanAdd, BanLift, Bans, Entries, QuarantineDelete, QuarantineList, QuarantineRelease, QuarantineShow,
    QueueList, QueueRemove, QueueRetry, QueueShow, Reload, Status,
};
use crate::admin::{self, *};
use crate::config::{Change, Edit, EditList, ListEntry, Located};
use crate::control::*;
use crate::doctor::{Finding, Severity};

/// An hour after the messages of these tests came.
const NOW: UnixTime = UnixTime(1_795_501_776_000_000);
const CAME: UnixTime = UnixTime(1_795_498_176_000_000);

/// Stands in for the other processes; refuses a configuration with a zone named "broken".
struct Alone;

impl Processes for Alone {
    fn run(&self, config: &Path) -> anyhow::Result<()> {
        bail!("run {}", config.display())
    }
    fn mail(&self, channel: RawFd) -> anyhow::Result<()> {
        bail!("mail {channel}")
    }
    fn names(&self) -> anyhow::Result<()> {
        bail!("names")
    }
    fn unload(&self, pin_dir: Option<&Path>) -> anyhow::Result<Vec<String>> {
        Ok(vec![pin_dir.map_or("what was left".to_owned(), |pin_dir| pin_dir.display().to_string())])
    }
    fn trial(&self) -> anyhow::Result<()> {
        bail!("trial")
    }
    fn exit_code(&self, _error: &anyhow::Error) -> Option<u8> {
        None
    }
    fn validate(&self, _source: &Source, config: &Config) -> anyhow::Result<Vec<String>> {
        if config.zone("broken").is_some() { bail!("rule 7 doesn't compile") } else { Ok(Vec::new()) }
    }
    fn warnings(&self, source: &Source, config: &Config) -> Vec<Located> {
        config::hops_to_ourselves(source, config, |address| address.ip().is_loopback())
    }
    fn check_store(&self, state_dir: &Path) -> anyhow::Result<Inspection> {
        let problems = vec!["1: its body is missing".to_owned()];
        let database = state_dir.join("spool.redb");
        Ok(Inspection { database, problems, orphans: vec!["/f".into()], ..Inspection::default() })
    }
    fn export_store(&self, state_dir: &Path, _to: &Path) -> anyhow::Result<Exported> {
        let problems = if state_dir == Path::new("/ok") { Vec::new() } else { vec!["2: no body".to_owned()] };
        Ok(Exported { messages: 7, problems })
    }
    fn doctor(&self, config: &Path) -> anyhow::Result<Report> {
        let finding = |severity, check: &str, why: &str| Finding {
            check: check.to_owned(),
            severity,
            what: format!("of {}", config.file_name().unwrap_or_default().display()),
            why: why.to_owned(),
            commands: (severity != Severity::Ok).then(|| "mend \u{1b}it".to_owned()).into_iter().collect(),
        };
        let broken = fs::read_to_string(config)?.contains("broken");
        let mut findings =
            vec![finding(Severity::Ok, "fine", ""), finding(Severity::Warning, "odd", "Since.")];
        findings.extend(broken.then(|| finding(Severity::Error, "bad", "Because.")));
        Ok(Report { findings })
    }
}

/// Gives the next answer to whatever is asked, and notes the question; how the processes are is asked at any
/// time.
#[derive(Default)]
struct Script {
    answers: Mutex<Vec<std::result::Result<Answer, AdminError>>>,
    asked: Mutex<Vec<Request>>,
    /// Milliseconds since the mail process's last sign of life.
    silent: u64,
}

impl Administration for Script {
    fn revision(&self) -> u64 {
        7
    }

    async fn perform(&self, _: &Actor, request: Request) -> std::result::Result<Answer, AdminError> {
        if let Request::Processes(_) = request {
            return Ok(processes(self.silent).into());
        }
        self.asked.lock().unwrap().push(request);
        self.answers.lock().unwrap().remove(0)
    }
}

/// A mail process that was started anew once.
fn processes(silent: u64) -> ProcessReport {
    ProcessReport {
        version: "0.1.0".to_owned(),
        hostname: "gate.example.org".to_owned(),
        config: "/m.toml".into(),
        pid: 7,
        started_at: CAME,
        problems: Vec::new(),
        stand_in: None,
        mail: MailProcess {
            pid: Some(8),
            started_at: Some(CAME),
            silent_milliseconds: Some(silent),
            restarts: 1,
            last_ended_at: Some(CAME),
            last_cause: Some("gave up (exit code 1)".to_owned()),
            last_words: vec!["no\u{1b} space".to_owned()],
        },
        kernel: Some(status::kernel()),
    }
}

/// A configuration whose daemon is to be found in `folder`, as DIR.
fn folder(text: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let text = text.replace("DIR", folder.path().to_str().unwrap());
    fs::write(folder.path().join("m.toml"), text).unwrap();
    folder
}

fn typed(line: &str, folder: &TempDir) -> anyhow::Result<Printed> {
    let config = folder.path().join("m.toml");
    let words = ["mailguard", "--config", config.to_str().unwrap()].into_iter().chain(line.split(' '));
    perform(Args::try_parse_from(words)?, &Alone, NOW)
}

/// Types a line while the daemon has these answers; the questions it got, and what was printed.
fn ask(
    line: &'static str,
    answers: Vec<std::result::Result<Answer, AdminError>>,
) -> (Vec<Request>, anyhow::Result<Printed>) {
    let folder = folder("runtime_dir = \"DIR\"\nthis line = is no TOML\n");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let script = Arc::new(Script { answers: Mutex::new(answers), ..Script::default() });
    let printed = runtime.block_on(async {
        fs::create_dir(mail_folder(folder.path())).unwrap();
        let datapath = bind(&root_socket(folder.path()), ROOT_MODE).unwrap();
        let mail = bind(&mail_socket(folder.path()), MAIL_MODE).unwrap();
        let typing = tokio::task::spawn_blocking(move || typed(line, &folder));
        tokio::select! {
            printed = typing => printed.unwrap(),
            _ = serve(datapath, script.clone()) => unreachable!(),
            _ = serve(mail, script.clone()) => unreachable!(),
        }
    });
    let asked = script.asked.lock().unwrap().clone();
    (asked, printed)
}

/// One question, one answer, one text.
fn check<A: Ask>(line: &'static str, question: A, answer: A::Answer, text: &str) {
    let (asked, printed) = ask(line, vec![Ok(answer.into())]);
    assert_eq!((asked, printed.unwrap()), (vec![question.into()], Printed::text(text)), "{line}");
}

fn queue_row(id: u64) -> QueueRow {
    QueueRow {
        id: QueueId(id),
        received_at: CAME,
        octets: 4_300,
        sender: "<a@example.com>".to_owned(),
        waiting: 3,
        first_recipient: "b@example.net".to_owned(),
        next_attempt: UnixTime(NOW.0 + 300_000_000),
        attempts: 2,
        last: "451 4.3.0 try later\u{1b}[2J".to_owned(),
        held: false,
    }
}

fn source() -> SourceRow {
    SourceRow {
        client: "192.0.2.7".parse().unwrap(),
        zone: "lan".to_owned(),
        destination: "203.0.113.5:25".parse().unwrap(),
        helo: "client.example".to_owned(),
    }
}

#[test]
fn lines_that_are_no_commands() {
    for line in [
        "",
        "bypass add",
        "bypass add from-ip",
        "bypass add from-host 192.0.2.1",
        "blacklist add from-ip 192.0.2.1",
        "queue show",
        "queue show not-an-id!",
        "queue retry",
        "queue remove 10 --all",
        "run --json",
        "mail",
    ] {
        let words = std::iter::once("mailguard").chain(line.split(' ').filter(|word| !word.is_empty()));
        assert_eq!(Args::try_parse_from(words).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn the_other_processes() {
    let folder = folder("runtime_dir = \"/run/x\"\n[kernel]\npin_dir = \"/pins\"\n[broken\n");
    let config = folder.path().join("m.toml");
    assert_eq!(typed("run", &folder).unwrap_err().to_string(), format!("run {}", config.display()));
    assert_eq!(typed("mail --channel 7", &folder).unwrap_err().to_string(), "mail 7");
    assert_eq!(typed("unload", &folder).unwrap(), Printed::text("removed: /pins\n"));
    let json = "{\n  \"removed\": [\n    \"/pins\"\n  ]\n}\n";
    assert_eq!(typed("unload --json", &folder).unwrap(), Printed::text(json));
    std::fs::remove_file(config).unwrap();
    let unloaded = typed("unload", &folder).unwrap();
    assert_eq!(unloaded.text, "removed: what was left\n", "port 25 is opened again without a file, too");
    let said = unloaded.complaint;
    assert!(said.contains("unloading what the last mailguard here left"), "{said}");
}

#[test]
fn the_store_without_the_daemon() {
    let good = folder("state_dir = \"/ok\"\n[broken\n");
    let shown = typed("store check", &good).unwrap();
    let expect = "/ok/spool.redb\nqueue       0 messages, 0 B\nquarantine  0 messages, 0 B\n\
        no row names it: /f: kept; `mailguard store export` writes it, too\nPROBLEM: 1: its body is missing\n";
    assert_eq!((shown.text.as_str(), shown.failed), (expect, true));
    let exported = typed("store export /out", &good).unwrap();
    assert_eq!((exported.text.as_str(), exported.failed), ("7 messages written to /out\n", false));
    let bad = typed("store export /out", &folder("state_dir = \"/bad\"\n")).unwrap();
    assert_eq!((bad.text.ends_with("PROBLEM: 2: no body\n"), bad.failed), (true, true));
}

#[test]
fn where_mail_goes() {
    let row = RouteRow {
        recipient: "b@example.net".to_owned(),
        sender: "<a@example.com>".to_owned(),
        steps: vec!["no incoming domain takes example.net".to_owned(), "there is no smarthost".to_owned()],
        next_hop: Some("mx:example.net".to_owned()),
        servers: vec!["mx1.example.net[192.0.2.1]:25".to_owned(), "mx2.example.net[192.0.2.2]:25".to_owned()],
        outgoing_address: Some("wan1".to_owned()),
        tls: Some("opportunistic".to_owned()),
        username: None,
        problem: None,
    };
    let request = admin::request::Route {
        recipient: Mailbox::parse("b@example.net").unwrap(),
        sender: Some(Mailbox::parse("a@example.com").unwrap()),
    };
    check(
        "route b@example.net --sender a@example.com",
        request,
        row,
        "b@example.net from <a@example.com>\n  \
         - no incoming domain takes example.net\n  \
         - there is no smarthost\n\
         next hop  mx:example.net\n\
         servers   mx1.example.net[192.0.2.1]:25, mx2.example.net[192.0.2.2]:25\n\
         from      wan1\n\
         tls       opportunistic\n",
    );
}

#[test]
fn checking_a_file() {
    let least = "hostname = \"gate.example.org\"\nspam.enabled = false\n\
        kernel.ban_after_abuse = \"0s\"\nfiles.enabled = false\n\
        notifications.notify_virus_recipients = false\n\
        [[zone]]\nname = \"lan\"\nkind = \"green\"\ninterfaces = [\"eth0\"]\nmode = \"active\"\n";
    let good = folder(least);
    let path = good.path().join("m.toml").display().to_string();
    let expect = format!(
        "{path}: OK\n\nConfigured, but not active in this version:\n  \
         notifications.operator  nobody is written to yet when mailguard needs a hand: watch its log and \
         `mailguard status`\n  admin.listen            there is no web page, REST API or /metrics yet\n"
    );
    let shown = typed("check", &good).unwrap();
    assert_eq!(shown.text, expect);
    assert!(!shown.failed);

    let bad = folder(&least.replace("active", "activ"));
    let path = bad.path().join("m.toml").display().to_string();
    let printed = typed("check", &bad).unwrap();
    assert!(printed.failed && printed.complaint.is_empty());
    assert_eq!(
        printed.text,
        format!(
            "{path}:10:8: zone[0].mode: found \"activ\", accepted: \"transparent\", \"active\" or \"inactive\"\n  \
             10 | mode = \"activ\"\n     |        ^^^^^^^\n     = did you mean \"active\"?\n\n1 error\n"
        )
    );
    let printed = typed("check --json", &bad).unwrap();
    let value: serde_json::Value = serde_json::from_str(&printed.text).unwrap();
    let seen = (&value["valid"], &value["errors"]["told"][0]["line"], &value["errors"]["count"]);
    assert_eq!((seen, printed.failed), ((&json!(false), &json!(10), &json!(1)), true));

    let broken = folder(&least.replace("\"lan\"", "\"broken\""));
    assert_eq!(typed("check", &broken).unwrap_err().to_string(), "rule 7 doesn't compile");
    assert!(typed("check /nowhere", &good).unwrap_err().to_string().starts_with("/nowhere: can't be read: "));
}

#[test]
fn complaints_name_each_cause_once() {
    let folder = folder("");
    let error = typed("check /nowhere", &folder).unwrap_err();
    assert_eq!(
        complaint(&error),
        "mailguard: /nowhere: can't be read: No such file or directory (os error 2)\n"
    );
    let error = error.context("the configuration");
    assert!(complaint(&error).starts_with("mailguard: the configuration: /nowhere: can't be read: "));
}

#[test]
fn without_a_daemon() {
    let folder = folder("runtime_dir = \"DIR\"\n");
    let error = typed("status", &folder).unwrap_err().to_string();
    let expect =
        format!("mailguard is not running: nobody answers on {}/control.sock", folder.path().display());
    assert_eq!(error, expect);
}

#[test]
fn the_queue() {
    check(
        "queue list --limit 1",
        QueueList(Page { after: None, limit: 1 }),
        Listing { rows: vec![queue_row(33)], next: Some(QueueId(33)), total: 8 },
        "ID  AGE  SIZE    FROM             TO                TRIES  NEXT   LAST\n\
         11  1h   4.2 KB  <a@example.com>  b@example.net +2  2      in 5m  451 4.3.0 try later\u{fffd}[2J\n\
         1 of 8 shown, see --limit\n",
    );
    let empty = Listing { rows: Vec::new(), next: None, total: 0 };
    check("queue list", QueueList(Page { after: None, limit: 100 }), empty, "the queue is empty\n");
    let recipients = vec![QueueRecipient {
        address: "b@example.net".to_owned(),
        state: "queued".to_owned(),
        attempts: 1,
        next_attempt: Some(NOW),
        last: "451 try later".to_owned(),
    }];
    let header = "Subject: x\r\n\ty\u{1b}c\r\n".to_owned();
    let message = QueueMessage { row: queue_row(33), source: Some(source()), recipients, header };
    check(
        "queue show 11",
        QueueShow { id: QueueId(33) },
        message,
        "11  2026-11-24T05:29:36Z, 1h ago, 4.2 KB\n  \
         client     192.0.2.7 in zone lan, to 203.0.113.5:25, HELO client.example\n  \
         sender     <a@example.com>\n  \
         recipient  b@example.net: queued, 1 attempt, next now; 451 try later\n\n  \
         Subject: x\n   y\u{fffd}c\n",
    );
}

/// Long lists come in pieces; `--json` prints them as one.
#[test]
fn long_lists() {
    let piece = |ids: std::ops::Range<u64>, next: Option<u64>| {
        let rows = ids.map(queue_row).collect();
        Ok(Listing { rows, next: next.map(QueueId), total: 2_500 }.into())
    };
    let (asked, printed) = ask(
        "queue list --json --limit 1500",
        vec![piece(0..1_000, Some(999)), piece(1_000..1_500, Some(1_499))],
    );
    let page = |after: Option<u64>, limit| -> Request {
        QueueList(Page { after: after.map(QueueId), limit }).into()
    };
    assert_eq!(asked, [page(None, 1_000), page(Some(999), 500)]);
    let rows: Vec<QueueRow> = serde_json::from_str(&printed.unwrap().text).unwrap();
    assert_eq!(rows, (0..1_500).map(queue_row).collect::<Vec<_>>());
}

#[test]
fn changes_of_messages() {
    let done = |messages, missing: &[u64]| Done {
        messages,
        missing: missing.iter().copied().map(QueueId).collect(),
    };
    let some = Which::Ids(vec![QueueId(33), QueueId(34)]);
    check("queue retry --all", QueueRetry { which: Which::All }, done(2, &[]), "2 messages are due now\n");
    check("queue remove 11 12", QueueRemove { which: some.clone() }, done(2, &[]), "2 messages removed\n");
    check(
        "quarantine delete 11 12",
        QuarantineDelete { which: some.clone() },
        done(2, &[]),
        "2 messages deleted\n",
    );
    let (asked, printed) =
        ask("quarantine release 11 12 --to it@example.com", vec![Ok(done(1, &[34]).into())]);
    let to = Some("it@example.com".to_owned().try_into().unwrap());
    assert_eq!(asked, [QuarantineRelease { which: some, to, with_virus: false }.into()]);
    let printed = printed.unwrap();
    assert_eq!(printed.text, "1 message released\n");
    assert_eq!(printed.complaint, "mailguard: there is no message 12\n");
}

#[test]
fn the_quarantine() {
    let row = QuarantineRow {
        id: QueueId(33),
        received_at: CAME,
        since: CAME,
        octets: 70,
        sender: "<>".to_owned(),
        recipients: vec!["b@example.net".to_owned(), "c@example.net".to_owned()],
        reason: "virus EICAR".to_owned(),
    };
    check(
        "quarantine list",
        QuarantineList(Page { after: None, limit: 100 }),
        Listing { rows: vec![row.clone()], next: None, total: 1 },
        "ID  AGE  SIZE  FROM  TO                REASON\n\
         11  1h   70 B  <>    b@example.net +1  virus EICAR\n",
    );
    let message = QuarantineMessage {
        row,
        source: None,
        reasons: vec!["virus EICAR".to_owned(), "blocked file a.exe".to_owned()],
        header: "Subject: x\n".to_owned(),
        text: "hello\n".to_owned(),
    };
    check(
        "quarantine show 11",
        QuarantineShow { id: QueueId(33) },
        message,
        "11  2026-11-24T05:29:36Z, 1h ago, 70 B\n  \
         client     mailguard itself\n  \
         sender     <>\n  \
         recipient  b@example.net: virus EICAR\n  \
         recipient  c@example.net: blocked file a.exe\n  \
         since      1h ago\n\n  \
         Subject: x\n\n  \
         hello\n",
    );
}

#[test]
fn bans() {
    let rows = [("192.0.2.9", Some(CAME)), ("2001:db8::9", None)].map(|(client, last)| BanRow {
        client: client.parse().unwrap(),
        since: CAME,
        until: NOW.plus(Duration::from_secs(7_200)),
        seconds_left: 7_200,
        reason: "21 errors in a session, 20 allowed".to_owned(),
        packets: if last.is_some() { 7 } else { 0 },
        last,
    });
    let clients: Vec<IpAddr> = ["192.0.2.9", "2001:db8::9"].map(|client| client.parse().unwrap()).into();
    let came = terminal::ago(NOW, CAME);
    let width = came.len();
    let text = format!(
        "CLIENT         {:width$}  LEFT  REASON                              REFUSED  LAST\n\
         192.0.2.9      {came}  2h    21 errors in a session, 20 allowed  7        {came}\n\
         2001:db8::/64  {came}  2h    21 errors in a session, 20 allowed  0        -\n",
        "SINCE"
    );
    check("ban list", Bans {}, rows.to_vec(), &text);
    check("ban list", Bans {}, Vec::new(), "nobody is banned\n");
    check(
        "ban add 192.0.2.9 2001:db8::9 --for 2h --reason loud",
        BanAdd { clients: clients.clone(), seconds: Some(7_200), reason: Some("loud".to_owned()) },
        rows.to_vec(),
        "banned: 192.0.2.9 for 2h\nbanned: 2001:db8::/64 for 2h\n",
    );
    let lift = |clients| BanLift { clients };
    let lifted = rows.iter().map(|row| row.client).collect();
    let both = lift(Some(vec![clients[0], "2001:db8::".parse().unwrap()]));
    check("ban lift 192.0.2.9 2001:db8::/64", both, lifted, "lifted: 192.0.2.9\nlifted: 2001:db8::/64\n");
    check("ban lift --all", lift(None), Vec::new(), "nobody was banned\n");
    let folder = folder("");
    for line in [
        "ban lift",
        "ban add",
        "ban lift --all 192.0.2.9",
        "ban add 192.0.2.0/24",
        "ban add 2001:db8::/48",
        "ban add ::1 --for 1",
    ] {
        assert!(typed(line, &folder).is_err(), "{line}");
    }
}

#[test]
fn traces() {
    let row = |id: u64, disposition: &str, attempts: Vec<AttemptRow>| TraceRow {
        id: QueueId(id),
        at: CAME,
        source: Some(source()),
        sender: "<a@example.com>".to_owned(),
        recipients: vec![TraceRecipient {
            address: "b@example.net".to_owned(),
            disposition: disposition.to_owned(),
        }],
        subject: "hi".to_owned(),
        octets: 70,
        checks: vec![CheckRow {
            check: "files".to_owned(),
            outcome: "pass".to_owned(),
            reason: "2 parts".to_owned(),
        }],
        result: if disposition.is_empty() { "554 5.7.1 no".to_owned() } else { "accepted".to_owned() },
        attempts,
    };
    let attempt = AttemptRow {
        at: NOW,
        recipient: "b@example.net".to_owned(),
        next_hop: "10.0.0.25:25".to_owned(),
        outcome: "delivered".to_owned(),
        text: "250 ok".to_owned(),
        transfer: String::new(),
    };
    let question = |query: &str| Trace { query: query.to_owned() };
    let rows = vec![
        row(33, "deliver", vec![attempt.clone()]),
        row(34, "deliver", Vec::new()),
        row(35, "quarantine: virus EICAR", Vec::new()),
        row(36, "", Vec::new()),
    ];
    check(
        "trace from:a@example.com since:1d",
        question("from:a@example.com since:1d"),
        rows,
        "ID  WHEN    CLIENT     FROM             TO             SUBJECT  RESULT\n\
         11  1h ago  192.0.2.7  <a@example.com>  b@example.net  hi       delivered: 250 ok\n\
         12  1h ago  192.0.2.7  <a@example.com>  b@example.net  hi       accepted\n\
         13  1h ago  192.0.2.7  <a@example.com>  b@example.net  hi       quarantine: virus EICAR\n\
         14  1h ago  192.0.2.7  <a@example.com>  b@example.net  hi       554 5.7.1 no\n",
    );
    let one = "11  2026-11-24T05:29:36Z, 1h ago, 70 B\n  \
         client     192.0.2.7 in zone lan, to 203.0.113.5:25, HELO client.example\n  \
         sender     <a@example.com>\n  \
         recipient  b@example.net: deliver\n  \
         subject    hi\n  \
         check      files: pass (2 parts)\n  \
         result     accepted\n  \
         attempt    0s ago: delivered to b@example.net via 10.0.0.25:25: 250 ok\n";
    let row = row(33, "deliver", vec![attempt]);
    check("trace 11", question("11"), vec![row.clone()], one);
    check("trace --full", question(""), vec![row.clone(), row], &format!("{one}\n{one}"));
    check("trace", question(""), Vec::new(), "no message matches\n");
}

#[test]
fn reloading() {
    let notes = vec!["state_dir: restart needed".to_owned()];
    check(
        "reload",
        Reload {},
        Reloaded { config: "/m.toml".into(), notes, inactive: Vec::new() },
        "/m.toml is in force\n  state_dir: restart needed\n",
    );
    let (_, printed) = ask("reload", vec![Ok(Answer::Traces(Vec::new()))]);
    assert!(printed.unwrap_err().to_string().starts_with("the daemon answered another question"));
}

#[test]
fn a_doctors_report_names_the_worst_first_and_fails_for_errors_only() {
    let printed = typed("doctor", &folder("# broken\n")).unwrap();
    let expect = "\
ERROR    bad: of m.toml
         Because.
         # mend \u{fffd}it
warning  odd: of m.toml
         Since.
         # mend \u{fffd}it
ok       fine: of m.toml

1 error, 1 warning
";
    assert_eq!((printed.text.as_str(), printed.failed), (expect, true));
    let printed = typed("doctor --json", &folder("")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&printed.text).unwrap();
    assert!(!printed.failed, "a warning is no error");
    assert_eq!((&json["errors"], &json["warnings"]), (&json!(0), &json!(1)));
    assert_eq!(json["findings"][1]["severity"], "warning");
    assert_eq!(json["findings"][1]["commands"][0], "mend \u{1b}it");
}
