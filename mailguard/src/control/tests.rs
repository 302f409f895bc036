//! Both ends over a real socket.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use mailguard_core::config::model::{Log, LogFormat};
use mailguard_core::mail::{QueueId, UnixTime};
use tempfile::TempDir;

use super::*;
use crate::admin::request::{
    BanAdd, BanLift, Bans, QuarantineRelease, QueueRetry, Reload, Status, Trace, Which,
};
use crate::admin::{Actor, AdminError, Administration, Answer, Done, ErrorKind, Process, Request, TraceRow};

/// Lists by one row, refuses to reload, answers a trace with its own query, a long one many times, and
/// refuses everything else at length.
struct Echo;

impl Administration for Echo {
    fn revision(&self) -> u64 {
        7
    }

    async fn perform(&self, _: &Actor, request: Request) -> Result<Answer, AdminError> {
        match request {
            Request::Reload(Reload {}) => Err(AdminError::new(ErrorKind::Refused, "line 1\nline 2")),
            Request::QueueRetry(QueueRetry { which: Which::Ids(missing) }) => {
                Ok(Answer::Done(Done { messages: 0, missing }))
            }
            Request::Trace(Trace { query }) => Ok(vec![row(&query); query.len().div_ceil(100)].into()),
            _ => Err(AdminError::new(ErrorKind::Refused, "\u{1}".repeat(5_000))),
        }
    }
}

/// A trace with this subject.
fn row(subject: &str) -> TraceRow {
    TraceRow {
        id: QueueId(1),
        at: UnixTime(0),
        source: None,
        sender: String::new(),
        recipients: Vec::new(),
        subject: subject.to_owned(),
        octets: 0,
        checks: Vec::new(),
        result: String::new(),
        attempts: Vec::new(),
    }
}

/// Runs `ask` in a thread while a server with [`Echo`] serves in a folder of its own.
fn serve_while<T: Send + 'static>(ask: impl FnOnce(&Path) -> T + Send + 'static) -> T {
    let folder = TempDir::new().unwrap();
    let path = root_socket(folder.path());
    runtime().block_on(async move {
        let listener = bind(&path, MAIL_MODE).unwrap();
        let asked = tokio::task::spawn_blocking(move || ask(&path));
        tokio::select! {
            result = asked => result.unwrap(),
            _ = serve(listener, Arc::new(Echo)) => unreachable!(),
        }
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn requests_are_answered_one_after_another() {
    let (done, error, again) = serve_while(|path| {
        let mut client = Client::connect(path, Process::Mail).unwrap();
        let ids = vec![QueueId(1), QueueId(u64::MAX)];
        let done = client.ask(QueueRetry { which: Which::Ids(ids) });
        let error = client.ask(Reload {});
        let again = client.ask(Trace { query: "a \"b\"\n".to_owned() });
        (done.unwrap(), error.unwrap_err(), again.unwrap())
    });
    let missing = vec![QueueId(1), QueueId(u64::MAX)];
    assert_eq!(done, Done { messages: 0, missing });
    assert_eq!(error.to_string(), "line 1\nline 2");
    assert_eq!(again, [row("a \"b\"\n")]);
}

/// The lines themselves: what another program has to write and read.
#[test]
fn wire_form() {
    let lines = serve_while(|path| {
        let mut stream = UnixStream::connect(path).unwrap();
        stream
            .write_all(
                b"{\"request\":\"queue-retry\",\"which\":{\"ids\":[\"10\"]}}\n{\"request\":\"queue-retry\"}\nrubbish\n{\"request\":\"reload\"}\n",
            )
            .unwrap();
        BufReader::new(stream).lines().take(4).map(Result::unwrap).collect::<Vec<_>>()
    });
    assert_eq!(lines[0], "{\"ok\":{\"done\":{\"messages\":0,\"missing\":[\"10\"]}}}");
    assert!(
        lines[1].starts_with("{\"error\":{\"kind\":\"invalid\",\"message\":\"not a request: missing field")
    );
    assert!(
        lines[2].starts_with("{\"error\":{\"kind\":\"invalid\",\"message\":\"not a request: expected value")
    );
    assert_eq!(lines[3], "{\"error\":{\"kind\":\"refused\",\"message\":\"line 1\\nline 2\"}}");
}

#[test]
fn long_lines() {
    let (request, reply, answer) = serve_while(|path| {
        let query = "x".repeat(MAX_REQUEST_OCTETS);
        let request = Client::connect(path, Process::Mail).unwrap().ask(Trace { query }).unwrap_err();
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(&vec![b' '; MAX_REQUEST_OCTETS + 1]).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        // Answered a thousand times over.
        let query = "x".repeat(100_000);
        let answer = Client::connect(path, Process::Mail).unwrap().ask(Trace { query }).unwrap_err();
        (request, reply, answer)
    });
    assert!(matches!(request, ClientError::TooLong));
    assert!(reply.contains("a line holds at most 4194304 octets"), "{reply}");
    assert_eq!(answer.to_string(), "the answer is longer than 67108864 octets: ask for less");
}

/// Sixteen are served; the next one isn't refused, but has its turn when one of them leaves.
#[test]
fn clients_beyond_the_limit_wait_for_their_turn() {
    let reply = serve_while(|path| {
        let mut crowd: Vec<UnixStream> = (0..16).map(|_| UnixStream::connect(path).unwrap()).collect();
        let mut late = UnixStream::connect(path).unwrap();
        late.write_all(b"{\"request\":\"reload\"}\n").unwrap();
        crowd.pop();
        let mut reply = String::new();
        BufReader::new(late).read_line(&mut reply).unwrap();
        reply
    });
    assert!(reply.starts_with("{\"error\":{\"kind\":\"refused\""), "{reply}");
}

#[test]
fn the_socket_and_what_stands_in_its_place() {
    let folder = TempDir::new().unwrap();
    let path = root_socket(folder.path());
    assert!(matches!(Client::connect(&path, Process::Mail), Err(ClientError::NotRunning(_))));
    let runtime = runtime();
    let _within = runtime.enter();
    drop(UnixListener::bind(&path).unwrap());
    assert!(
        matches!(Client::connect(&path, Process::Mail), Err(ClientError::NotRunning(_))),
        "a dead daemon left it"
    );
    let listener = bind(&path, MAIL_MODE).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert!(matches!(bind(&path, MAIL_MODE), Err(BindError::InUse(_))));
    drop(listener);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    assert!(matches!(bind(&path, MAIL_MODE), Err(BindError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

/// Refuses everybody.
struct Closed;

impl Administration for Closed {
    fn admits(&self, _: &Actor) -> bool {
        false
    }

    fn revision(&self) -> u64 {
        7
    }

    async fn perform(&self, _: &Actor, request: Request) -> Result<Answer, AdminError> {
        panic!("not admitted: {request:?}")
    }
}

#[test]
fn who_is_not_admitted_is_told_so_and_not_heard() {
    let folder = TempDir::new().unwrap();
    let path = root_socket(folder.path());
    runtime().block_on(async move {
        let listener = bind(&path, ROOT_MODE).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let asked = tokio::task::spawn_blocking(move || {
            let mut reply = String::new();
            UnixStream::connect(path).unwrap().read_to_string(&mut reply).unwrap();
            reply
        });
        tokio::select! {
            reply = asked => assert!(reply.unwrap().contains("only root may ask here"), "told"),
            _ = serve(listener, Arc::new(Closed)) => unreachable!(),
        }
    });
}

/// One line for each change, whatever came of it, with who asked; none for looking.
#[test]
fn each_change_has_its_line_in_the_audit() {
    let log = mailguard_core::testing::config("log = { level = \"error\", mail = false }").log;
    let (heard, _guard) = crate::process::heard_log(&log);
    serve_while(|path| {
        let mut client = Client::connect(path, Process::Mail).unwrap();
        let ids = vec![QueueId(33), QueueId(u64::MAX)];
        client.ask(QueueRetry { which: Which::Ids(ids) }).unwrap();
        client.ask(Reload {}).unwrap_err();
        client.ask(Trace { query: "a".to_owned() }).unwrap();
    });
    let text = String::from_utf8(heard.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> =
        text.lines().filter_map(|line| Some(line.split_once(" INFO audit: ")?.1)).collect();
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).unwrap().unwrap().name;
    let who = format!("uid={uid} user={user} pid={} revision=7", std::process::id());
    assert_eq!(
        lines,
        [
            format!("verb=queue-retry outcome=done {who} messages=0 what=11,FZZZZZZZZZZZZ"),
            format!("verb=reload outcome=refused {who} what=\"\" error=\"line 1\\nline 2\""),
        ]
    );
}

/// Else the rest of the line, or all of it, would be missing from the log.
#[test]
fn no_line_of_the_audit_is_longer_than_what_is_passed_on() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let log = Log {
            format,
            ..mailguard_core::testing::config("log = { level = \"error\", mail = false }").log
        };
        let (heard, _guard) = crate::process::heard_log(&log);
        serve_while(|path| {
            let mut client = Client::connect(path, Process::Mail).unwrap();
            let evil = "\u{1}".repeat(5_000);
            let ids = vec![QueueId(u64::MAX); 1_000];
            let to = Some(crate::spool::fixture::mailbox("bob@example.test"));
            let clients =
                (0..1_000_u32).map(|number| IpAddr::from(Ipv6Addr::from(u128::from(number) << 100 | 1)));
            // Whatever the answers.
            let _ = client.ask(QuarantineRelease { which: Which::Ids(ids), to, with_virus: true });
            let _ = client.ask(QueueRetry { which: Which::To(evil.clone()) });
            let (clients, seconds) = (clients.collect(), Some(u64::MAX));
            let _ = client.ask(BanAdd { clients, seconds, reason: Some(evil.clone()) });
        });
        let text = String::from_utf8(heard.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        let longest = text.lines().map(str::len).max().unwrap();
        assert!(longest < 16 << 10, "{longest} octets");
    }
}

/// The one place that says what goes to root: nothing that opens is asked of the mail process.
#[test]
fn what_opens_is_asked_of_the_datapath_process() {
    let edit = crate::config::Edit {
        list: crate::config::EditList::BypassFromSubnet,
        change: crate::config::Change::Add,
        values: vec!["192.0.2.0/24".to_owned()],
        all: false,
    };
    for request in [Request::from(Reload {}), edit.into(), BanLift { clients: None }.into()] {
        assert_eq!(request.asks(), Process::Datapath, "{request:?}");
    }
    for request in [Request::from(Status {}), Bans {}.into(), QueueRetry { which: Which::All }.into()] {
        assert_eq!(request.asks(), Process::Mail, "{request:?}");
    }
}
