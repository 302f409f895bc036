//! One attempt: which recipients are still to be decided, and what the servers said of them so far.

use std::net::SocketAddr;
use std::sync::Arc;

use mailguard_core::mail::{Envelope, Recipient};
use mailguard_core::outcome::{Outcome, Report};
use mailguard_core::smtp::client::{Conclusion, ContentForm, Ending, Transaction};
use mailguard_core::smtp::{Detail, EnhancedStatus};

use super::LOOP;
use super::content::{eight_bit, seven_bit, utf8_header};
use super::reached::nobody_to_ask;
use super::session::{Session, SessionAge};
use crate::spool::{Body, BodyWriter};

/// Most recipients of one transaction: as many as every server takes (RFC 5321 §4.5.3.1.8).
const MAX_RECIPIENTS: usize = 100;

/// Makes a writer for a body that lives no longer than an attempt.
pub type Scratch = Arc<dyn Fn() -> BodyWriter + Send + Sync>;

/// The state of an attempt.
pub(super) struct Attempt<'a> {
    envelope: &'a Envelope,
    addressees: Vec<Addressee<'a>>,
    body: &'a Body,
    seven_bit: SevenBit,
    scratch: Option<&'a Scratch>,
    /// The servers that have answered, or couldn't be used.
    asked: Vec<SocketAddr>,
    /// No other server is to be asked.
    over: bool,
}

/// A recipient, as servers are told of it, and what is known of it.
struct Addressee<'a> {
    recipient: &'a Recipient,
    verdict: Verdict,
}

/// The body made 7-bit (RFC 6152 §3).
enum SevenBit {
    /// No server has needed it.
    NotTried,
    /// It can't be.
    Impossible,
    /// This.
    Made(Body),
}

/// What is known of a recipient.
#[derive(Debug)]
enum Verdict {
    /// Nothing, or what stands if no other server says better.
    Open(Option<Outcome>),
    /// This.
    Final(Outcome),
}

impl<'a> Attempt<'a> {
    /// `recipients` in place of the envelope's; `asked`: servers that need not be asked.
    pub(super) fn new(
        envelope: &'a Envelope,
        recipients: &'a [Recipient],
        body: &'a Body,
        scratch: Option<&'a Scratch>,
        asked: Vec<SocketAddr>,
    ) -> Self {
        let addressee = |recipient| Addressee { recipient, verdict: Verdict::Open(None) };
        let addressees = recipients.iter().map(addressee).collect();
        Self { envelope, addressees, body, seven_bit: SevenBit::NotTried, scratch, asked, over: false }
    }

    /// Whether no other server needs to be asked.
    pub(super) fn is_over(&self) -> bool {
        self.over || self.addressees.iter().all(|addressee| !addressee.is_open())
    }

    /// Whether this server had its turn in this attempt: it is not asked twice.
    pub(super) fn has_asked(&self, server: SocketAddr) -> bool {
        self.asked.contains(&server)
    }

    /// Sends the message to every recipient that is open, in as many transactions as it takes.
    pub(super) async fn send(&mut self, session: &mut Session) {
        self.try_send(session, SessionAge::New).await;
    }

    /// As `send`, by a session that was waiting: false if it proved dead, and nothing is known that wasn't
    /// before.
    pub(super) async fn send_by_waiting(&mut self, session: &mut Session) -> bool {
        self.try_send(session, SessionAge::Waited).await
    }

    async fn try_send(&mut self, session: &mut Session, age: SessionAge) -> bool {
        let form = match self.form(session).await {
            Ok(form) => form,
            Err(error) => {
                self.settle(&unreadable(&error));
                return true;
            }
        };
        let mut open: Vec<_> = self.addressees.iter_mut().filter(|addressee| addressee.is_open()).collect();
        for (number, addressees) in open.chunks_mut(MAX_RECIPIENTS).enumerate() {
            let recipients: Vec<_> = addressees.iter().map(|addressee| addressee.recipient).collect();
            let (envelope, content) = (self.envelope, Some(form.content));
            let transaction = Transaction { envelope, recipients: &recipients, content };
            let conclusion = session.send(&transaction, Some(&form.body)).await;
            if age == SessionAge::Waited && number == 0 && was_over(&conclusion) {
                return false;
            }
            for (addressee, mut outcome) in addressees.iter_mut().zip(conclusion.outcomes) {
                outcome.report_mut().transfer.converted = form.converted;
                addressee.note(outcome);
            }
            // Another server might deliver what this one has, too.
            self.over |= conclusion.ending == Ending::InDoubt;
            if conclusion.ending != Ending::Settled {
                break;
            }
        }
        self.asked.push(session.address());
        true
    }

    /// What this server is given, and how that must be declared to it.
    async fn form(&mut self, session: &Session) -> std::io::Result<Form> {
        let in_question = self.envelope.smtputf8 && !session.takes_utf8();
        let utf8_header = in_question && utf8_header(self.body).await?;
        let eight_bit = eight_bit(self.body, session.takes_eight_bit()).await?;
        let converted = match eight_bit && !session.takes_eight_bit() && !utf8_header {
            true => self.seven_bit().await?,
            false => None,
        };
        Ok(match converted {
            Some(body) => {
                let content = ContentForm { size: body.octets(), eight_bit: false, utf8_header };
                Form { content, body, converted: true }
            }
            None => {
                let content = ContentForm { size: self.body.octets(), eight_bit, utf8_header };
                Form { content, body: self.body.clone(), converted: false }
            }
        })
    }

    async fn seven_bit(&mut self) -> std::io::Result<Option<Body>> {
        let Some(scratch) = self.scratch else { return Ok(None) };
        if matches!(self.seven_bit, SevenBit::NotTried) {
            let made = seven_bit(self.body, scratch()).await?;
            self.seven_bit = made.map_or(SevenBit::Impossible, SevenBit::Made);
        }
        Ok(match &self.seven_bit {
            SevenBit::Made(body) => Some(body.clone()),
            SevenBit::NotTried | SevenBit::Impossible => None,
        })
    }

    /// A server that could not be used. It speaks for itself only, and only until another says something.
    pub(super) fn note_unusable(&mut self, outcome: Outcome) {
        // Whoever comes after ourselves in the order would only send it back to us.
        self.over |= is_loop(&outcome);
        for Addressee { verdict, .. } in &mut self.addressees {
            let better = match verdict {
                Verdict::Open(None) => true,
                Verdict::Open(Some(before)) => says_more(&outcome, before),
                Verdict::Final(_) => false,
            };
            if better {
                *verdict = Verdict::Open(Some(outcome.clone()));
            }
        }
    }

    /// Decides what is open, unless a server has said something of it.
    pub(super) fn settle(&mut self, outcome: &Outcome) {
        for Addressee { verdict, .. } in &mut self.addressees {
            // What a server said that could not be used counts for that server only.
            let overrides = match verdict {
                Verdict::Open(None) => true,
                Verdict::Open(Some(before)) => {
                    matches!((&*before, outcome), (Outcome::Failed(_), Outcome::Deferred(_)))
                }
                Verdict::Final(_) => false,
            };
            if overrides {
                *verdict = Verdict::Final(outcome.clone());
            }
        }
        self.over = true;
    }

    /// One outcome a recipient.
    pub(super) fn into_outcomes(self) -> Vec<Outcome> {
        self.addressees
            .into_iter()
            .map(|addressee| match addressee.verdict {
                Verdict::Final(outcome) | Verdict::Open(Some(outcome)) => outcome,
                Verdict::Open(None) => nobody_to_ask(),
            })
            .collect()
    }
}

impl Addressee<'_> {
    /// Whether another server may still say something better.
    fn is_open(&self) -> bool {
        matches!(self.verdict, Verdict::Open(_))
    }

    fn note(&mut self, outcome: Outcome) {
        self.verdict = match outcome {
            Outcome::Deferred(_) => Verdict::Open(Some(outcome)),
            Outcome::Delivered(_) | Outcome::Relayed(_) | Outcome::Failed(_) => Verdict::Final(outcome),
        };
    }
}

/// Whether what a server that can't be used came to says more of the next hop than `before`, which another
/// one did.
pub(super) fn says_more(outcome: &Outcome, before: &Outcome) -> bool {
    let deferred = matches!(outcome, Outcome::Deferred(_));
    match before {
        Outcome::Failed(_) => deferred,
        before => deferred && before.report().reply.is_none() && outcome.report().reply.is_some(),
    }
}

/// Whether the server is ourselves.
pub(super) fn is_loop(outcome: &Outcome) -> bool {
    outcome.report().status == LOOP
}

/// What a server is given.
struct Form {
    content: ContentForm,
    body: Body,
    converted: bool,
}

/// Whether a session that had waited had come to its end before it did anything for this message: the server
/// didn't answer, or took leave (RFC 5321 §3.8) and refused nobody.
fn was_over(conclusion: &Conclusion) -> bool {
    match conclusion.ending {
        Ending::Unanswered => true,
        Ending::Interrupted => conclusion.outcomes.iter().all(Outcome::blames_next_hop),
        Ending::Settled | Ending::InDoubt => false,
    }
}

fn unreadable(error: &std::io::Error) -> Outcome {
    Outcome::Deferred(Report::ours(
        EnhancedStatus::transient(Detail::OTHER_MAIL_SYSTEM),
        format!("the message can't be read from the spool, or converted there: {error}"),
    ))
}
