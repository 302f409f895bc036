//! What can be asked: a type for each question, tied to the type of its answer and to the process that has
//! it.
//!
//! Whoever asks gets the answer of that type, and whoever answers must give one: anything else doesn't
//! compile. A new use case is a type here, its line in the table below, and the arms that the compiler then
//! misses. The names and fields are what goes over the sockets.

use std::net::IpAddr;

use mailguard_core::mail::{Mailbox, QueueId};
use mailguard_core::subscriber::Subscriber;
use serde::{Deserialize, Serialize};

use super::answer::{
    Answer, BanRow, Done, Edited, EntryRow, Listing, OtherAnswer, QuarantineMessage, QuarantineRow,
    QueueMessage, QueueRow, Reloaded, RouteRow, StatusReport, TraceRow,
};
use super::processes::{Process, ProcessReport};
use crate::config::{Edit, EditList};

/// A question of one kind.
pub trait Ask: Into<Request> {
    /// What answers it.
    type Answer: Into<Answer> + TryFrom<Answer, Error = OtherAnswer>;
    /// Which process is asked. Whatever changes the configuration or lets somebody in is asked of root's: a
    /// mail process that was taken over must not be able to open anything.
    const OF: Process;
}

/// Makes of a table of questions the protocol's [`Request`], and ties each to its answer.
macro_rules! asks {
    ($($question:ident, of $process:ident, answered by $answer:ty;)+) => {
        /// One request, as it is written.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "request", rename_all = "kebab-case")]
        pub enum Request {
            $(#[doc = concat!("[`", stringify!($question), "`]")] $question($question),)+
        }

        impl Request {
            /// Which process is asked.
            pub fn asks(&self) -> Process {
                match self {
                    $(Request::$question(_) => <$question as Ask>::OF,)+
                }
            }
        }

        $(
            impl From<$question> for Request {
                fn from(question: $question) -> Self {
                    Request::$question(question)
                }
            }

            impl Ask for $question {
                type Answer = $answer;
                const OF: Process = Process::$process;
            }
        )+
    };
}

asks! {
    Status, of Mail, answered by StatusReport;
    Reload, of Datapath, answered by Reloaded;
    Entries, of Mail, answered by Vec<EntryRow>;
    Edit, of Datapath, answered by Edited;
    QueueList, of Mail, answered by Listing<QueueRow>;
    QueueShow, of Mail, answered by QueueMessage;
    QueueRetry, of Mail, answered by Done;
    QueueRemove, of Mail, answered by Done;
    QueueHold, of Mail, answered by Done;
    QueuePause, of Mail, answered by Vec<String>;
    QuarantineList, of Mail, answered by Listing<QuarantineRow>;
    QuarantineShow, of Mail, answered by QuarantineMessage;
    QuarantineRelease, of Mail, answered by Done;
    QuarantineDelete, of Mail, answered by Done;
    Trace, of Mail, answered by Vec<TraceRow>;
    Route, of Mail, answered by RouteRow;
    Bans, of Mail, answered by Vec<BanRow>;
    BanAdd, of Mail, answered by Vec<BanRow>;
    BanLift, of Datapath, answered by Vec<Subscriber>;
    Processes, of Datapath, answered by ProcessReport;
}

/// The state of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {}

/// Read the configuration file again and apply it, or refuse it whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {}

/// What is on lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// Which lists.
    pub lists: Vec<EditList>,
}

/// Messages that wait, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueList(pub Page);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueShow {
    /// Which.
    pub id: QueueId,
}

/// Make an attempt now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRetry {
    /// Which.
    pub which: Which,
}

/// Give them up without a notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRemove {
    /// Which.
    pub which: Which,
}

/// Make no attempt at them from now on, or make attempts again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueHold {
    /// Which.
    pub which: Which,
    /// Whether they are held.
    pub held: bool,
}

/// Make no attempt at a destination from now on, or make attempts again. Answered by those that are paused
/// then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuePause {
    /// As [`mailguard_core::destination::Destination`] is written.
    pub destination: String,
    /// Whether it is paused.
    pub paused: bool,
}

/// Messages that are quarantined, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineList(pub Page);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineShow {
    /// Which.
    pub id: QueueId,
}

/// Deliver them to their recipients after all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRelease {
    /// Which.
    pub which: Which,
    /// To this address instead of the recipients.
    pub to: Option<Mailbox>,
    /// Also messages in which a virus was found.
    pub with_virus: bool,
}

/// Delete them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineDelete {
    /// Which.
    pub which: Which,
}

/// What happened to messages, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// As [`crate::trace::SYNTAX`] says.
    pub query: String,
}

/// Where mail for an address would go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// For whom.
    pub recipient: Mailbox,
    /// From whom; absent: a notice, which has no sender.
    pub sender: Option<Mailbox>,
}

/// Clients that are banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bans {}

/// Ban clients: all of them, or none. Answered by these only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanAdd {
    /// Whom: an address of each.
    pub clients: Vec<IpAddr>,
    /// For how long; absent: `kernel.ban_after_abuse`, or an hour if that is zero.
    pub seconds: Option<u64>,
    /// Why; absent: by hand.
    pub reason: Option<String>,
}

/// Let clients in again: all of them, or none if one isn't banned. Answered by those who were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanLift {
    /// Whom; absent: all who are banned.
    pub clients: Option<Vec<IpAddr>>,
}

/// What the datapath process knows, however its mail process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {}

/// A piece of a long list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Begin behind this one; absent: at the beginning.
    pub after: Option<QueueId>,
    /// At most so many, and at most [`super::MAX_ROWS`].
    pub limit: u32,
}

/// Which messages something is done to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// All that are there.
    All,
    /// These.
    Ids(Vec<QueueId>),
    /// Of the queue, those of which a recipient is at this destination.
    To(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What other programs, and command lines of other versions, write.
    #[test]
    fn each_question_is_written_as_ever() {
        for line in [
            r#"{"request":"status"}"#,
            r#"{"request":"reload"}"#,
            r#"{"request":"entries","lists":["bypass-from-ip"]}"#,
            r#"{"request":"edit","list":"bypass-from-ip","change":"add","values":["192.0.2.1"],"all":false}"#,
            r#"{"request":"queue-list","after":"11","limit":7}"#,
            r#"{"request":"queue-show","id":"11"}"#,
            r#"{"request":"queue-retry","which":"all"}"#,
            r#"{"request":"queue-remove","which":{"ids":["11"]}}"#,
            r#"{"request":"queue-hold","which":{"to":"example.net"},"held":true}"#,
            r#"{"request":"queue-pause","destination":"example.net","paused":false}"#,
            r#"{"request":"quarantine-list","after":null,"limit":7}"#,
            r#"{"request":"quarantine-show","id":"11"}"#,
            r#"{"request":"quarantine-release","which":{"ids":["11"]},"to":"a@example.net","with_virus":true}"#,
            r#"{"request":"quarantine-delete","which":"all"}"#,
            r#"{"request":"trace","query":"from:a"}"#,
            r#"{"request":"route","recipient":"a@example.net","sender":null}"#,
            r#"{"request":"bans"}"#,
            r#"{"request":"ban-add","clients":["192.0.2.1"],"seconds":7,"reason":null}"#,
            r#"{"request":"ban-lift","clients":null}"#,
            r#"{"request":"processes"}"#,
        ] {
            let request: Request = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&request).unwrap(), line);
            // A key that this version doesn't have is another version's, whether the question has keys of
            // ours or none.
            let more = line.replacen('{', r#"{"more":7,"#, 1);
            assert_eq!(serde_json::from_str::<Request>(&more).unwrap(), request, "{more}");
        }
    }
}
