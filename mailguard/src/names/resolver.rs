//! The resolver: the process that asks the DNS for `bypass.to_names`. It parses what strangers send, so it is
//! nobody: a user of its own without a file, a capability or anything to read but its standard input. All
//! that it can do is say which addresses a name has, and those are judged by whoever asked.

use std::io::{self, BufRead, Write};
use std::thread;

use mailguard_core::config::model::Dns as DnsConfig;
use mailguard_core::lookup::Lookup;
use mailguard_core::mail::Domain;
use mailguard_core::names::{Addresses, Question};
use tokio::sync::mpsc;

use super::frames::{self, Answer, FromResolver, ToResolver};
use crate::lookup::dns::{CurrentDns, Dns};

/// Questions that wait between reading and asking.
const MAX_WAITING: usize = 64;

/// Answers questions until standard input ends.
pub fn run() -> io::Result<()> {
    nix::sys::prctl::set_name(c"mailguard-names")?;
    // Another process of the same user may not look into this one.
    nix::sys::prctl::set_dumpable(false)?;
    serve(io::stdin().lock(), io::stdout())
}

/// Answers questions until `from` ends.
fn serve(mut from: impl BufRead, to: impl Write + Send + 'static) -> io::Result<()> {
    let Some(ToResolver::Start { servers, timeout }) = frames::read(&mut from)? else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the datapath process began with something else",
        ));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (config, current) = (DnsConfig { servers, timeout }, CurrentDns::uncached());
    let (questions, mut waiting) = mpsc::channel(MAX_WAITING);
    let (answers, mut ready) = mpsc::channel::<FromResolver>(MAX_WAITING);
    let answering = async move {
        while let Some((id, question)) = waiting.recv().await {
            let (dns, answers) = (current.get(&config), answers.clone());
            tokio::spawn(async move {
                let answer = Answer::of(ask(&dns, &question).await);
                // Whoever asked is gone, if this fails.
                let _ = answers.send(FromResolver { id, answer }).await;
            });
        }
    };
    let writing = async move {
        let mut to = to;
        while let Some(answer) = ready.recv().await {
            frames::write(&mut to, &answer)?;
        }
        io::Result::Ok(())
    };
    thread::scope(|scope| {
        // Reading blocks; looking up doesn't.
        let asked = scope.spawn(move || runtime.block_on(async { tokio::join!(answering, writing).1 }));
        let read = read_questions(&mut from, questions);
        read.and(asked.join().unwrap_or_else(|_| Err(io::Error::other("the resolver panicked"))))
    })
}

/// Hands questions over until there are none any more.
fn read_questions(from: &mut impl BufRead, questions: mpsc::Sender<(u32, Question)>) -> io::Result<()> {
    while let Some(ToResolver::Ask { id, question }) = frames::read(from)? {
        if questions.blocking_send((id, question)).is_err() {
            break;
        }
    }
    Ok(())
}

async fn ask(dns: &Dns, question: &Question) -> Lookup<Addresses> {
    match Domain::parse(&question.name) {
        Ok(name) => dns.addresses_for_a_time(&name, question.family).await,
        Err(error) => Lookup::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, pipe};

    use mailguard_core::names::Family;

    use super::*;
    use crate::lookup::dns_server::DnsServer;

    #[tokio::test(flavor = "multi_thread")]
    async fn each_question_gets_its_answer() {
        let server = DnsServer::start(&["a.test A 192.0.2.1", "b.test AAAA SERVFAIL"]).await;
        let (questions, mut asked) = pipe().unwrap();
        let (answers, answered) = pipe().unwrap();
        let resolver = thread::spawn(move || serve(BufReader::new(questions), answered));
        let work = move || {
            frames::write(&mut asked, &frames::start(&server.config())).unwrap();
            for (id, name, family) in [
                (1, "a.test", Family::V4),
                (2, "a.test", Family::V6),
                (3, "b.test", Family::V6),
                (4, "..", Family::V4),
            ] {
                let question = Question { name: name.to_owned(), family };
                frames::write(&mut asked, &ToResolver::Ask { id, question }).unwrap();
            }
            drop(asked);
            let mut from = BufReader::new(answers);
            let mut answers = Vec::new();
            while let Some(FromResolver { id, answer }) = frames::read(&mut from).unwrap() {
                answers.push((id, answer.taken()));
            }
            answers.sort_by_key(|(id, _)| *id);
            answers.into_iter().map(|(_, answer)| answer).collect::<Vec<_>>()
        };
        let answers = tokio::task::spawn_blocking(work).await.unwrap();
        let found = Addresses { addresses: vec!["192.0.2.1".parse().unwrap()], ttl: 60 };
        assert_eq!(answers[..2], [Lookup::Found(found), Lookup::Absent]);
        assert!(answers[2..].iter().all(|answer| matches!(answer, Lookup::Unavailable(_))), "{answers:?}");
        resolver.join().unwrap().unwrap();
    }
}
