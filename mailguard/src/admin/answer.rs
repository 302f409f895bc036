//! What is answered: a type for each answer, and their rows. [`super::Ask`] ties them to what is asked.
//!
//! Rows are plain: texts as people read them, times by RFC 3339 in UTC, numbers in the unit that their field
//! names (`octets`, `seconds_left`, `silent_milliseconds`). They are what `--json` prints, so a field that is
//! there stays there.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use mailguard_core::config::model::{Inactive, ZoneKind, ZoneMode};
use mailguard_core::mail::{QueueId, UnixTime, rfc3339};
use mailguard_core::subscriber::Subscriber;
use serde::{Deserialize, Serialize};

use super::processes::ProcessReport;
use crate::config::{Change, EditList, ListEntry};
use crate::datapath::DatapathStatus;

/// The answer line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Done.
    Ok(Box<Answer>),
    /// Not done.
    Error(AdminError),
}

/// Why a request wasn't done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct AdminError {
    /// Which kind of reason.
    pub kind: ErrorKind,
    /// For people; may have several lines.
    pub message: String,
}

impl AdminError {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl ToString) -> Self {
        Self { kind, message: message.to_string() }
    }
}

/// The kinds of reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// Not a request.
    Invalid,
    /// There is no such message.
    NotFound,
    /// Understood, and not possible as things are: the configuration has errors, the file was changed.
    Refused,
    /// Tried, and failed.
    Failed,
    /// The other process does it, and is away or busy: it may do it in a moment.
    Unavailable,
    /// One that another version has: all that is known is that it wasn't done.
    #[serde(other)]
    Other,
}

/// An answer that isn't of the type that was asked for: the other end is of another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the daemon answered another question: is it of the same version?")]
pub struct OtherAnswer;

/// Makes of a table of types the protocol's [`Answer`], and each type of it and back.
macro_rules! answers {
    ($($(#[$doc:meta])+ $name:ident($answer:ty),)+) => {
        /// What a request brought, as it is written.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Answer {
            $($(#[$doc])+ $name($answer),)+
        }

        $(
            impl From<$answer> for Answer {
                fn from(answer: $answer) -> Self {
                    Answer::$name(answer)
                }
            }

            impl TryFrom<Answer> for $answer {
                type Error = OtherAnswer;

                fn try_from(answer: Answer) -> Result<Self, OtherAnswer> {
                    match answer {
                        Answer::$name(answer) => Ok(answer),
                        _ => Err(OtherAnswer),
                    }
                }
            }
        )+
    };
}

answers! {
    /// The state of everything.
    Status(StatusReport),
    /// The new configuration is in force.
    Reloaded(Reloaded),
    /// Entries of lists.
    Entries(Vec<EntryRow>),
    /// The list is changed.
    Edited(Edited),
    /// Messages that wait.
    Queue(Listing<QueueRow>),
    /// A message that waits.
    QueueMessage(QueueMessage),
    /// Messages that are quarantined.
    Quarantine(Listing<QuarantineRow>),
    /// A message that is quarantined.
    QuarantineMessage(QuarantineMessage),
    /// Something was done to messages.
    Done(Done),
    /// The destinations that are paused now.
    Paused(Vec<String>),
    /// What happened to messages.
    Traces(Vec<TraceRow>),
    /// Where mail would go.
    Route(RouteRow),
    /// Clients that are banned, in the order of addresses.
    Bans(Vec<BanRow>),
    /// These clients are let in again.
    Lifted(Vec<Subscriber>),
    /// What the datapath process knows.
    Processes(ProcessReport),
}

/// The state of everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Of the program that runs.
    pub version: String,
    /// `hostname`
    pub hostname: String,
    /// The configuration file.
    pub config: PathBuf,
    /// `enabled`
    pub enabled: bool,
    /// When the mail process began.
    #[serde(with = "rfc3339")]
    pub started_at: UnixTime,
    /// When the configuration in force was loaded.
    #[serde(with = "rfc3339")]
    pub loaded_at: UnixTime,
    /// What keeps mailguard from doing its work right now, one line each; empty when all is well.
    pub problems: Vec<String>,
    /// In the file's order.
    pub zones: Vec<ZoneStatus>,
    /// Open sessions.
    pub sessions: u64,
    /// `server.max_sessions`
    pub max_sessions: u64,
    /// Messages that wait.
    pub queue: Stock,
    /// Destinations at which no attempt is made, at an administrator's word.
    pub paused: Vec<String>,
    /// Messages that are quarantined.
    pub quarantine: Stock,
    /// `quarantine.max_size`, octets.
    pub quarantine_max_octets: u64,
    /// The kernel side as the datapath process reports it; absent while that says nothing.
    pub kernel: Option<DatapathStatus>,
    /// Configured protections that this version doesn't have.
    pub inactive: Vec<Inactive>,
}

/// One zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneStatus {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: ZoneKind,
    /// Its mode.
    pub mode: ZoneMode,
    /// Its interfaces.
    pub interfaces: Vec<String>,
}

/// How much of something there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// Their number.
    pub messages: u64,
    /// Their bodies together, octets.
    pub octets: u64,
}

/// A configuration came into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The file.
    pub config: PathBuf,
    /// What became different, or needs a restart, one line each.
    pub notes: Vec<String>,
    /// Configured protections that this version doesn't have.
    pub inactive: Vec<Inactive>,
}

/// An entry of a list, and what the kernel did by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRow {
    /// The entry.
    #[serde(flatten)]
    pub entry: ListEntry,
    /// New connections that it decided about; absent on the lists of senders and recipients, which the kernel
    /// doesn't know.
    pub packets: Option<u64>,
    /// Seconds since the last of them; absent when there was none.
    pub last_hit_seconds_ago: Option<u64>,
    /// The addresses that a name stands for; absent on the lists of other things.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<IpAddr>>,
    /// What an administrator should know of it, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A list was changed, in the file and in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edited {
    /// Which list.
    pub list: EditList,
    /// What was done.
    pub change: Change,
    /// The values.
    pub values: Vec<String>,
    /// The file.
    pub config: PathBuf,
    /// What an administrator should know, one line each.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A piece of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Ask for what comes behind this one; absent: nothing does.
    pub next: Option<QueueId>,
    /// How many there are in all.
    pub total: u64,
}

/// Something was done to messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// To how many.
    pub messages: u64,
    /// Those that were named and aren't there.
    pub missing: Vec<QueueId>,
}

impl Done {
    /// Notes one message, which `was` there or not.
    pub fn note(&mut self, id: QueueId, was: bool) {
        match was {
            true => self.messages += 1,
            false => self.missing.push(id),
        }
    }
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRow {
    /// Its id.
    pub id: QueueId,
    /// When the session took it.
    #[serde(with = "rfc3339")]
    pub received_at: UnixTime,
    /// Its length.
    pub octets: u64,
    /// The reverse-path, in angle brackets.
    pub sender: String,
    /// Recipients that wait.
    pub waiting: u64,
    /// The first of them.
    pub first_recipient: String,
    /// When the next of them is due.
    #[serde(with = "rfc3339")]
    pub next_attempt: UnixTime,
    /// Most attempts that any of them had.
    pub attempts: u32,
    /// What the last attempt came to; empty before the first.
    pub last: String,
    /// No attempt is made, at an administrator's word.
    pub held: bool,
}

/// A message that waits, with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueMessage {
    /// Its row.
    #[serde(flatten)]
    pub row: QueueRow,
    /// Who brought it; absent for our own notifications.
    pub source: Option<SourceRow>,
    /// Every recipient, in the envelope's order.
    pub recipients: Vec<QueueRecipient>,
    /// The beginning of its header, as text.
    pub header: String,
}

/// The session that brought a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRow {
    /// The client's address.
    pub client: IpAddr,
    /// Its zone.
    pub zone: String,
    /// Its original destination.
    pub destination: SocketAddr,
    /// What it called itself.
    pub helo: String,
}

/// One recipient of a message that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecipient {
    /// The forward-path, without brackets.
    pub address: String,
    /// `queued`, `delivered`, `failed`, `quarantined`, `merged` or `discarded`; redirections are named.
    pub state: String,
    /// Attempts so far.
    pub attempts: u32,
    /// When the next one is due; absent when nothing more is done.
    #[serde(default, with = "rfc3339::option")]
    pub next_attempt: Option<UnixTime>,
    /// What the last one came to; empty before the first.
    pub last: String,
}

/// A message that is quarantined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRow {
    /// Its id.
    pub id: QueueId,
    /// When the session took it.
    #[serde(with = "rfc3339")]
    pub received_at: UnixTime,
    /// Since when it is quarantined.
    #[serde(with = "rfc3339")]
    pub since: UnixTime,
    /// Its length.
    pub octets: u64,
    /// The reverse-path, in angle brackets.
    pub sender: String,
    /// Those who haven't got it.
    pub recipients: Vec<String>,
    /// Why, for the first of them.
    pub reason: String,
}

/// A message that is quarantined, with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineMessage {
    /// Its row.
    #[serde(flatten)]
    pub row: QuarantineRow,
    /// Who brought it; absent for our own notifications.
    pub source: Option<SourceRow>,
    /// Why, one a recipient.
    pub reasons: Vec<String>,
    /// The beginning of its header, as text.
    pub header: String,
    /// The beginning of what follows, undecoded, as text.
    pub text: String,
}

/// What happened to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRow {
    /// Its id; a refused transaction has one, too.
    pub id: QueueId,
    /// When the session answered.
    #[serde(with = "rfc3339")]
    pub at: UnixTime,
    /// Who brought it; absent for our own notifications.
    pub source: Option<SourceRow>,
    /// The reverse-path, in angle brackets.
    pub sender: String,
    /// One a forward-path.
    pub recipients: Vec<TraceRecipient>,
    /// The Subject field, decoded.
    pub subject: String,
    /// Its length.
    pub octets: u64,
    /// What each check thought of it, in the order of asking.
    pub checks: Vec<CheckRow>,
    /// `accepted`, or the reply that refused it.
    pub result: String,
    /// Attempts at delivery, in the order of time.
    pub attempts: Vec<AttemptRow>,
}

/// A recipient in a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRecipient {
    /// The forward-path, without brackets.
    pub address: String,
    /// `deliver`, `quarantine: …`, `redirect: …`, `discard: …`, or empty when the transaction was refused.
    pub disposition: String,
}

/// What one check thought of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRow {
    /// The check.
    pub check: String,
    /// Its opinion.
    pub outcome: String,
    /// Its reason.
    pub reason: String,
}

/// One attempt at delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRow {
    /// When it ended.
    #[serde(with = "rfc3339")]
    pub at: UnixTime,
    /// For whom.
    pub recipient: String,
    /// Where to.
    pub next_hop: String,
    /// `delivered`, `deferred` or `failed`.
    pub outcome: String,
    /// What the next hop said, or why there was none.
    pub text: String,
    /// How the session was encrypted, by which mechanism we logged in, whether the content was converted;
    /// empty where there is nothing to say.
    pub transfer: String,
}

/// Where mail for an address would go, and by which rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    /// For whom.
    pub recipient: String,
    /// From whom, in angle brackets.
    pub sender: String,
    /// The rules in the order in which they are read, and what each says.
    pub steps: Vec<String>,
    /// `10.0.0.25:25`, `relay.example.net:587` or `mx:example.com`; absent: mail has no way.
    pub next_hop: Option<String>,
    /// The servers in the order in which they would be tried now.
    pub servers: Vec<String>,
    /// Where connections come from; absent: the system chooses.
    pub outgoing_address: Option<String>,
    /// `off`, `opportunistic`, `required` or `implicit`; absent without a next hop.
    pub tls: Option<String>,
    /// Who we are to the server; absent: nobody.
    pub username: Option<String>,
    /// Why mail has no way now; absent: it has one.
    pub problem: Option<String>,
}

/// A client that is banned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanRow {
    /// Who.
    pub client: Subscriber,
    /// Since when.
    #[serde(with = "rfc3339")]
    pub since: UnixTime,
    /// Until when.
    #[serde(with = "rfc3339")]
    pub until: UnixTime,
    /// For how long it goes on, seconds.
    pub seconds_left: u64,
    /// Why.
    pub reason: String,
    /// Packets that the kernel refused.
    pub packets: u64,
    /// When the last of them came; absent: none came.
    #[serde(default, with = "rfc3339::option")]
    pub last: Option<UnixTime>,
}
