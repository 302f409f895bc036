//! What the datapath process's one thread is asked to do: by the mail process, which may have little, and by
//! an administrator, who may have all. Who waits for the mail process to take a change, too, hears of it
//! here.

use mailguard_core::subscriber::Subscriber;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc::{SyncSender, sync_channel};

use tracing::{error, info, warn};

use super::super::ipc::{Answer, Request, ToMail};
use super::super::{names, open_files};
use super::{Mail, Supervisor, known, log_warnings};
use crate::admin::root::{Change, Order, Taken};
use crate::admin::{AdminError, ErrorKind, SYSTEM_PROBLEM};
use crate::bans::{self, is_whitelisted};
use crate::config::{self, WriteError};
use crate::datapath::DatapathError;

/// Somebody who waits for the mail process.
pub(super) struct Waiting {
    until: Until,
    reply: SyncSender<Result<(), AdminError>>,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// It uses a configuration.
    Revision(u64),
    /// It has forgotten these bans.
    Lifted(u64),
}

impl Supervisor {
    /// The mail process has taken a configuration, or can't.
    pub(super) fn note_adopted(&mut self, revision: u64, result: &Result<(), AdminError>) {
        if let Err(error) = result {
            error!(
                %error,
                revision, "the mail process can't use the configuration in force, and goes on as before"
            );
        }
        self.answer_waiting(|until| matches!(until, Until::Revision(wanted) if wanted <= revision), result);
    }

    /// The mail process has forgotten bans that were lifted.
    pub(super) fn note_forgotten(&mut self, clients: Vec<Subscriber>) {
        for client in clients {
            self.lifted.remove(&client);
        }
        let left: BTreeSet<u64> = self.lifted.values().copied().collect();
        self.answer_waiting(|until| matches!(until, Until::Lifted(lift) if !left.contains(&lift)), &Ok(()));
    }

    /// Tells those who have waited for this that it has happened.
    fn answer_waiting(&mut self, over: impl Fn(Until) -> bool, result: &Result<(), AdminError>) {
        for waiting in self.waiting.extract_if(.., |waiting| over(waiting.until)) {
            // It may have given up.
            let _ = waiting.reply.try_send(result.clone());
        }
    }

    /// What is to be said of something done, and how to learn that the mail process has taken it.
    fn taken<T>(&mut self, what: T, until: Until, is_there: bool) -> Taken<T> {
        let (reply, taken) = sync_channel(1);
        if is_there {
            self.waiting.push(Waiting { until, reply });
        }
        Taken { what, taken }
    }

    /// Does what the mail process may ask for.
    pub(super) fn perform(&mut self, request: Request) -> Result<Answer, AdminError> {
        match request {
            Request::RuleCounts => {
                let rules = self.datapath.rule_counts().map_err(of_kernel)?;
                Ok(Answer::RuleCounts { rules, names: self.names.status() })
            }
            Request::Status => {
                let mut problems = self.kept.problems(&self.source.path);
                problems.extend(self.problems());
                let kernel = self.datapath.status().map_err(of_kernel)?;
                Ok(Answer::Status { kernel: Box::new(kernel), problems })
            }
            Request::Ban(clients) => {
                bans::may_ban(&self.config, &bans::own_addresses(), &clients).map_err(|error| {
                    warn!(%error, "the mail process asks for a ban that isn't made");
                    AdminError::new(ErrorKind::Refused, error)
                })?;
                self.datapath.ban(&clients).map_err(of_kernel)?;
                for (client, _) in &clients {
                    self.lifted.remove(&Subscriber::of(*client));
                }
                Ok(Answer::Done)
            }
            Request::Bans => self.datapath.bans().map(Answer::Bans).map_err(of_kernel),
        }
    }

    /// What is the matter with the kernel side, with names that bypass, with the firewall's rules, with the
    /// log and open files.
    fn problems(&self) -> Vec<String> {
        let mut problems = self.datapath.problems();
        problems.extend(names::problems(&self.names.status()));
        problems.extend(self.firewall.problems());
        problems.extend(self.logging.problem());
        problems.extend(open_files::shortage(&self.config).map(|what| format!("{SYSTEM_PROBLEM}{what}")));
        problems
    }

    /// Does what an administrator wants; whoever asked may be gone by then.
    pub(super) fn obey(&mut self, order: Order, mail: Option<&mut Mail>) {
        match order {
            Order::Adopt { change, reply } => {
                let adopted = self.change(*change);
                let is_there = mail.is_some();
                if let (Some(mail), Ok(())) = (mail, &adopted) {
                    self.announce(mail);
                }
                let notes = self.datapath.problems();
                let until = Until::Revision(self.revision);
                let _ = reply.try_send(adopted.map(|()| self.taken(notes, until, is_there)));
            }
            Order::Lift { clients, reply } => {
                let lifted = self.lift(clients);
                let is_there = mail.is_some();
                if let (Some(mail), Ok(clients)) = (mail, &lifted) {
                    self.tell(mail, &ToMail::Lifted(clients.clone()));
                }
                let until = lifted.as_ref().ok().and_then(|clients| self.lifted.get(clients.first()?));
                let until = Until::Lifted(until.copied().unwrap_or_default());
                let _ = reply.try_send(lifted.map(|clients| {
                    let is_there = is_there && !clients.is_empty();
                    self.taken(clients, until, is_there)
                }));
            }
            Order::Report { reply } => {
                let mut report = known(&self.report, &self.vigil, &self.kept);
                match self.datapath.status() {
                    Ok(kernel) => report.kernel = Some(kernel),
                    Err(error) => report.problems.push(error.to_string()),
                }
                report.problems.extend(self.lacking.clone());
                report.problems.extend(self.problems());
                let _ = reply.try_send(report);
            }
        }
    }

    /// Puts a configuration into force, and into the file if it was made by an edit.
    fn change(&mut self, change: Change) -> Result<(), AdminError> {
        let Change { source, config, edited } = change;
        let before = edited.map(|before| (before, self.config.clone()));
        self.adopt(source, config)?;
        let Some((before, config)) = before else {
            // The file was read anew: names are asked for anew.
            self.names.adopt(&self.config, true);
            self.firewall.look(&self.source, &self.config);
            log_warnings(&self.source, &self.config);
            return Ok(());
        };
        // Only what is in force is written, and what can't be written isn't left in force.
        if let Err(error) = config::write(&before, &self.source) {
            self.adopt(before, config)?;
            return Err(of_write(&error));
        }
        Ok(())
    }

    /// Lets these clients in again, or all who are banned: all of them, or none if one isn't.
    fn lift(&mut self, clients: Option<Vec<IpAddr>>) -> Result<Vec<Subscriber>, AdminError> {
        let banned: BTreeSet<Subscriber> =
            self.datapath.bans().map_err(of_kernel)?.iter().map(|ban| ban.client).collect();
        let wanted: BTreeSet<Subscriber> = match clients {
            Some(clients) => clients.into_iter().map(Subscriber::of).collect(),
            None => banned.clone(),
        };
        let others: Vec<String> = wanted.difference(&banned).map(Subscriber::to_string).collect();
        if !others.is_empty() {
            let text = format!("{}: not banned; nothing was lifted", others.join(", "));
            return Err(AdminError::new(ErrorKind::Refused, text));
        }
        let clients: Vec<Subscriber> = wanted.into_iter().collect();
        self.datapath.lift(&addresses(&clients)).map_err(of_kernel)?;
        let number = self.lifted.values().max().copied().unwrap_or_default() + 1;
        self.lifted.extend(clients.iter().map(|client| (*client, number)));
        info!(?clients, "bans were lifted by hand");
        Ok(clients)
    }

    /// Lets those in again who are on the whitelist now: the mail process, which forgets them, can't.
    pub(super) fn lift_whitelisted(&mut self) {
        let lifted = self.datapath.bans().and_then(|bans| {
            let white = bans
                .iter()
                .map(|ban| ban.client)
                .filter(|client| is_whitelisted(&self.config, client.network()));
            let white: Vec<Subscriber> = white.collect();
            if white.is_empty() { Ok(0) } else { self.datapath.lift(&addresses(&white)) }
        });
        if let Err(error) = lifted {
            error!(%error, "clients that are whitelisted now can't be let in");
        }
    }
}

/// Why the kernel side doesn't do something: too much is asked of it, or it was tried and failed.
pub(super) fn of_kernel(error: DatapathError) -> AdminError {
    let kind = if error.is_too_much() { ErrorKind::Refused } else { ErrorKind::Failed };
    AdminError::new(kind, error)
}

/// Why the file isn't written: somebody has edited it meanwhile, or it was tried and failed.
fn of_write(error: &WriteError) -> AdminError {
    let kind = match error {
        WriteError::Changed(_) => ErrorKind::Refused,
        WriteError::Read { .. } | WriteError::Io { .. } => ErrorKind::Failed,
    };
    AdminError::new(kind, error)
}

/// An address of each.
fn addresses(clients: &[Subscriber]) -> Vec<IpAddr> {
    clients.iter().map(|client| client.first()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_is_refused_and_what_was_tried_has_failed() {
        let too_many = DatapathError::TooMany { list: "bans", entries: 65_537, limit: 65_536 };
        for (error, expect) in [
            (of_kernel(too_many), ErrorKind::Refused),
            (of_kernel(DatapathError::Interfaces(5_000)), ErrorKind::Refused),
            (of_kernel(DatapathError::NotBuilt), ErrorKind::Failed),
            (of_write(&WriteError::Changed("/etc/m.toml".into())), ErrorKind::Refused),
            (
                of_write(&WriteError::Io {
                    path: "/etc/m.toml".into(),
                    cause: std::io::ErrorKind::StorageFull.into(),
                }),
                ErrorKind::Failed,
            ),
        ] {
            assert_eq!(error.kind, expect, "{error}");
        }
    }
}
