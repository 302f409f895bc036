//! What is asked of the mail process: messages, lists as they are in force, bans, routes, and how all of it
//! fares.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use futures::future::{BoxFuture, join_all};
use mailguard_core::config::Config;
use mailguard_core::destination::Destination;
use mailguard_core::mail::{ForwardPath, QueueId, ReversePath, UnixTime};
use mailguard_core::names::NameStatus;
use mailguard_core::origin::Origin;
use mailguard_core::route::{self, Explanation};

use super::request::{
    self, BanAdd, Entries, QuarantineDelete, QuarantineList, QuarantineRelease, QuarantineShow, QueueHold,
    QueueList, QueuePause, QueueRemove, QueueRetry, QueueShow, Status, Trace,
};
use super::{
    Actor, AdminError, Administration, Answer, BanRow, Done, EntryRow, ErrorKind, Listing, MAX_ROWS, Page,
    QuarantineMessage, QuarantineRow, QueueMessage, QueueRow, Request, RouteRow, StatusReport, Stock,
    TraceRow, Which, ZoneStatus, answer, rows,
};
use crate::bans::{BanError, Bans};
use crate::config::{Source, entries};
use crate::datapath::{DatapathStatus, RuleCount};
use crate::delivery::Delivery;
use crate::quarantine::{Filter, QuarantineHandle, Released};
use crate::queue::QueueHandle;
use crate::session::Limits;
use crate::spool::Spool;
use crate::store;
use crate::store::WriteError;
use crate::trace::{Query, Recorder};

/// Messages that one commit holds or removes.
const COMMIT_BATCH: usize = 512;

type Result<T> = std::result::Result<T, AdminError>;

/// What the datapath process answers.
pub type KernelAnswer<'a, T> = BoxFuture<'a, Result<T>>;

/// What the datapath process says of the kernel side.
pub trait KernelSide: Send + Sync + 'static {
    /// How it is, and what isn't as it should be, a line each.
    fn status(&self) -> KernelAnswer<'_, (DatapathStatus, Vec<String>)>;

    /// The rules that decided about any packet, and the addresses that names stand for.
    fn rule_counts(&self) -> KernelAnswer<'_, (Vec<RuleCount>, Vec<NameStatus>)>;
}

/// The configuration that this process uses.
#[derive(Debug)]
pub struct LoadedConfig {
    /// What it was read from.
    pub source: Source,
    /// Its number.
    pub revision: u64,
    /// Since when.
    pub since: UnixTime,
}

/// What is asked about.
pub struct Parts {
    /// What `in_force` means.
    pub config: Arc<ArcSwap<Config>>,
    /// What sessions and attempts go by.
    pub in_force: Arc<ArcSwap<LoadedConfig>>,
    /// Whether messages can be taken.
    pub spool: Spool,
    /// What waits.
    pub queue: QueueHandle,
    /// Where mail would go.
    pub delivery: Arc<Delivery>,
    /// What is quarantined.
    pub quarantine: QuarantineHandle,
    /// What happened.
    pub traces: Recorder,
    /// Open sessions.
    pub limits: Arc<Limits>,
    /// Who is banned.
    pub bans: Bans,
    /// The datapath process.
    pub kernel: Arc<dyn KernelSide>,
    /// What is the matter with the log, if something is.
    pub log_problem: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

/// The use cases of the mail process.
pub struct MailAdmin {
    parts: Parts,
    started_at: UnixTime,
}

fn now() -> UnixTime {
    SystemTime::now().into()
}

fn failed(error: impl ToString) -> AdminError {
    AdminError::new(ErrorKind::Failed, error)
}

fn refused(error: impl ToString) -> AdminError {
    AdminError::new(ErrorKind::Refused, error)
}

impl From<BanError> for AdminError {
    fn from(error: BanError) -> Self {
        let kind = match error {
            BanError::Time
            | BanError::Reason
            | BanError::Whitelisted(_)
            | BanError::Full
            | BanError::Refused(_) => ErrorKind::Refused,
            BanError::Failed(_) | BanError::Store(_) => ErrorKind::Failed,
            BanError::Unavailable(_) => ErrorKind::Unavailable,
        };
        AdminError::new(kind, error)
    }
}

fn not_found(id: QueueId) -> AdminError {
    AdminError::new(ErrorKind::NotFound, format!("there is no message {id} here"))
}

fn destination(text: &str) -> Result<Destination> {
    text.parse().map_err(|error| AdminError::new(ErrorKind::Invalid, error))
}

fn limit(page: Page) -> usize {
    page.limit.clamp(1, MAX_ROWS) as usize
}

fn stock(stock: store::stock::Stock) -> Stock {
    Stock { messages: stock.messages, octets: stock.octets }
}

impl MailAdmin {
    /// Of a process that begins now.
    pub fn new(parts: Parts) -> Self {
        Self { parts, started_at: now() }
    }

    async fn entries(&self, _: &Actor, Entries { lists }: Entries) -> Result<Vec<EntryRow>> {
        let (counts, names) = self.parts.kernel.rule_counts().await?;
        let in_force = self.parts.in_force.load_full();
        let entries = entries(&in_force.source, &lists);
        Ok(rows::entry_rows(entries, &counts, &names))
    }

    async fn status(&self, _: &Actor, Status {}: Status) -> Result<StatusReport> {
        let config = self.parts.config.load_full();
        let mut problems: Vec<String> = Vec::new();
        problems.extend(self.parts.spool.storage_available().err().map(|error| error.to_string()));
        problems.extend(self.parts.traces.failure().map(|failure| failure.to_string()));
        problems.extend(self.parts.limits.problem(&config.server));
        problems.extend((self.parts.log_problem)());
        problems.extend(self.damaged().await?);
        problems.extend(self.lost().await);
        let kernel = match self.parts.kernel.status().await {
            Ok((kernel, of_datapath)) => {
                problems.extend(of_datapath);
                Some(kernel)
            }
            Err(error) => {
                problems.push(error.message);
                None
            }
        };
        let in_force = self.parts.in_force.load_full();
        Ok(StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: config.hostname.to_string(),
            config: in_force.source.path.clone(),
            enabled: config.enabled,
            started_at: self.started_at,
            loaded_at: in_force.since,
            problems,
            zones: config.zones.iter().map(zone_status).collect(),
            sessions: self.parts.limits.sessions() as u64,
            max_sessions: config.server.max_sessions as u64,
            queue: stock(self.parts.queue.stock()),
            paused: self.paused(),
            quarantine: stock(self.parts.quarantine.stock()),
            quarantine_max_octets: config.quarantine.max_size,
            kernel,
            inactive: config.inactive.clone(),
        })
    }

    /// A line for each row of the store that can't be used.
    async fn damaged(&self) -> Result<Vec<String>> {
        let damaged = self.parts.queue.damaged().await.map_err(failed)?;
        Ok(damaged.into_iter().map(|(id, record)| format!("message {id}: {}", record.cause)).collect())
    }

    /// What no row names, and what is to be done about it.
    async fn lost(&self) -> Option<String> {
        match self.parts.queue.lost().await {
            Ok((_, stock)) if stock.messages == 0 => None,
            Ok((folder, stock)) => Some(format!(
                "{} message bodies, {} octets, that no row names are kept in {}: restore the database that names them and \
                 restart, or look at them (mailguard store export) and remove them",
                stock.messages,
                stock.octets,
                folder.display()
            )),
            Err(error) => {
                Some(format!("the folder of message bodies that no row names can't be read: {error}"))
            }
        }
    }

    async fn queue_list(&self, _: &Actor, QueueList(page): QueueList) -> Result<Listing<QueueRow>> {
        let listing = self.parts.queue.list(page.after, limit(page)).await.map_err(failed)?;
        Ok(Listing {
            rows: listing.rows.iter().map(|(id, record)| rows::queue_row(*id, record)).collect(),
            next: listing.next,
            total: self.parts.queue.stock().messages,
        })
    }

    async fn queue_show(&self, _: &Actor, QueueShow { id }: QueueShow) -> Result<QueueMessage> {
        let found = self.parts.queue.show(id).await.map_err(failed)?;
        let (record, header) = found.ok_or_else(|| not_found(id))?;
        Ok(rows::queue_message(id, &record, header))
    }

    async fn queued(&self, which: Which) -> Result<Vec<QueueId>> {
        match which {
            Which::All => Ok(self.parts.queue.ids()),
            Which::Ids(ids) => Ok(ids),
            Which::To(text) => self.parts.queue.ids_to(destination(&text)?).await.map_err(failed),
        }
    }

    /// Does something to messages, many in one commit, and to its end whether or not somebody waits for it.
    async fn each_queued<F>(&self, which: Which, act: impl Fn(QueueId) -> F + Send + 'static) -> Result<Done>
    where
        F: Future<Output = std::result::Result<bool, WriteError>> + Send + 'static,
    {
        let ids = self.queued(which).await?;
        let work = async move {
            let mut done = Done { messages: 0, missing: Vec::new() };
            for batch in ids.chunks(COMMIT_BATCH) {
                let outcomes = join_all(batch.iter().map(|id| act(*id))).await;
                for (id, outcome) in batch.iter().zip(outcomes) {
                    done.note(*id, outcome.map_err(failed)?);
                }
            }
            Ok(done)
        };
        tokio::spawn(work).await.map_err(failed)?
    }

    async fn queue_retry(&self, _: &Actor, QueueRetry { which }: QueueRetry) -> Result<Done> {
        let ids = self.queued(which).await?;
        let (there, missing): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| self.parts.queue.retry(*id));
        Ok(Done { messages: there.len() as u64, missing })
    }

    async fn queue_hold(&self, _: &Actor, QueueHold { which, held }: QueueHold) -> Result<Done> {
        let queue = self.parts.queue.clone();
        self.each_queued(which, move |id| {
            let queue = queue.clone();
            async move { queue.hold(id, held).await }
        })
        .await
    }

    async fn queue_remove(&self, _: &Actor, QueueRemove { which }: QueueRemove) -> Result<Done> {
        let queue = self.parts.queue.clone();
        self.each_queued(which, move |id| {
            let queue = queue.clone();
            async move { queue.remove(id).await }
        })
        .await
    }

    async fn queue_pause(&self, _: &Actor, asked: QueuePause) -> Result<Vec<String>> {
        let QueuePause { destination: text, paused } = asked;
        let destination = destination(&text)?;
        if paused {
            self.parts.queue.pause(destination).await.map_err(refused)?;
        } else if !self.parts.queue.resume(&destination).await.map_err(failed)? {
            return Err(AdminError::new(ErrorKind::NotFound, format!("{destination} isn't paused")));
        }
        Ok(self.paused())
    }

    fn paused(&self) -> Vec<String> {
        self.parts.queue.paused().iter().map(ToString::to_string).collect()
    }

    async fn quarantine_list(
        &self,
        _: &Actor,
        QuarantineList(page): QuarantineList,
    ) -> Result<Listing<QuarantineRow>> {
        let quarantine = &self.parts.quarantine;
        let listing = quarantine.list(Filter::default(), page.after, limit(page)).await.map_err(failed)?;
        Ok(Listing {
            rows: listing.rows.iter().map(|(id, record)| rows::quarantine_row(*id, record)).collect(),
            next: listing.next,
            total: quarantine.stock().messages,
        })
    }

    async fn quarantine_show(
        &self,
        _: &Actor,
        QuarantineShow { id }: QuarantineShow,
    ) -> Result<QuarantineMessage> {
        let shown = self.parts.quarantine.show(id).await.map_err(failed)?.ok_or_else(|| not_found(id))?;
        Ok(rows::quarantine_message(id, shown))
    }

    async fn quarantined(&self, which: Which) -> Result<Vec<QueueId>> {
        match which {
            Which::Ids(ids) => Ok(ids),
            Which::All => self.parts.quarantine.ids().await.map_err(failed),
            Which::To(_) => {
                Err(AdminError::new(ErrorKind::Invalid, "what is quarantined isn't chosen by destination"))
            }
        }
    }

    async fn quarantine_release(&self, _: &Actor, asked: QuarantineRelease) -> Result<Done> {
        let QuarantineRelease { which, to, with_virus } = asked;
        let ids = self.quarantined(which).await?;
        let released = self.parts.quarantine.release(&ids, to.as_ref(), with_virus).await.map_err(failed)?;
        let with = |wanted| released.iter().filter(move |(_, what)| *what == wanted).map(|(id, _)| *id);
        let kept: Vec<String> = with(Released::NeedsConfirmation).map(|id| id.to_string()).collect();
        if !kept.is_empty() {
            let kept = kept.join(" ");
            return Err(refused(format!(
                "a virus was found in {kept}: to release it all the same, add --with-virus"
            )));
        }
        Ok(Done {
            messages: with(Released::Queued).count() as u64,
            missing: with(Released::Absent).collect(),
        })
    }

    async fn quarantine_delete(
        &self,
        _: &Actor,
        QuarantineDelete { which }: QuarantineDelete,
    ) -> Result<Done> {
        let mut done = Done { messages: 0, missing: Vec::new() };
        for id in self.quarantined(which).await? {
            match self.parts.quarantine.delete(vec![id]).await.map_err(failed)? {
                0 => done.missing.push(id),
                _ => done.messages += 1,
            }
        }
        Ok(done)
    }

    async fn route(
        &self,
        _: &Actor,
        request::Route { recipient, sender }: request::Route,
    ) -> Result<RouteRow> {
        let config = self.parts.config.load_full();
        let sender = sender.map_or(ReversePath::Null, ReversePath::Mailbox);
        let path = ForwardPath::Mailbox(recipient);
        // As if it came to an address of this host: an original destination is known to its session only.
        let Explanation { steps, route } = route::explain(&config, &sender, &path, &Origin::Internal);
        let servers = match &route {
            Ok(route) => self.parts.delivery.destinations(&config, route).await,
            Err(none) => Err(none.clone()),
        };
        Ok(rows::route_row(&sender, &path, steps, route.ok(), servers))
    }

    async fn trace(&self, _: &Actor, Trace { query }: Trace) -> Result<Vec<TraceRow>> {
        let query =
            Query::parse(&query, now()).map_err(|error| AdminError::new(ErrorKind::Invalid, error))?;
        let traces = self.parts.traces.query(query).await.map_err(failed)?;
        Ok(traces.records.into_iter().map(rows::trace_row).collect())
    }

    async fn bans(&self, _: &Actor, request::Bans {}: request::Bans) -> Result<Vec<BanRow>> {
        Ok(self.parts.bans.list().await?.into_iter().map(rows::ban_row).collect())
    }

    async fn ban_add(&self, _: &Actor, BanAdd { clients, seconds, reason }: BanAdd) -> Result<Vec<BanRow>> {
        let banned = self.parts.bans.add_by_admin(clients, seconds, reason).await?;
        Ok(banned.into_iter().map(rows::ban_row).collect())
    }
}

fn zone_status(zone: &mailguard_core::config::model::Zone) -> ZoneStatus {
    ZoneStatus {
        name: zone.name.clone(),
        kind: zone.kind,
        mode: zone.mode,
        interfaces: zone.interfaces.clone(),
    }
}

impl Administration for MailAdmin {
    fn revision(&self) -> u64 {
        self.parts.in_force.load().revision
    }

    async fn perform(&self, actor: &Actor, request: Request) -> Result<Answer> {
        match request {
            Request::Status(ask) => answer(ask, |ask| self.status(actor, ask)).await,
            Request::Entries(ask) => answer(ask, |ask| self.entries(actor, ask)).await,
            Request::QueueList(ask) => answer(ask, |ask| self.queue_list(actor, ask)).await,
            Request::QueueShow(ask) => answer(ask, |ask| self.queue_show(actor, ask)).await,
            Request::QueueRetry(ask) => answer(ask, |ask| self.queue_retry(actor, ask)).await,
            Request::QueueHold(ask) => answer(ask, |ask| self.queue_hold(actor, ask)).await,
            Request::QueuePause(ask) => answer(ask, |ask| self.queue_pause(actor, ask)).await,
            Request::QueueRemove(ask) => answer(ask, |ask| self.queue_remove(actor, ask)).await,
            Request::QuarantineList(ask) => answer(ask, |ask| self.quarantine_list(actor, ask)).await,
            Request::QuarantineShow(ask) => answer(ask, |ask| self.quarantine_show(actor, ask)).await,
            Request::QuarantineRelease(ask) => answer(ask, |ask| self.quarantine_release(actor, ask)).await,
            Request::QuarantineDelete(ask) => answer(ask, |ask| self.quarantine_delete(actor, ask)).await,
            Request::Trace(ask) => answer(ask, |ask| self.trace(actor, ask)).await,
            Request::Route(ask) => answer(ask, |ask| self.route(actor, ask)).await,
            Request::Bans(ask) => answer(ask, |ask| self.bans(actor, ask)).await,
            Request::BanAdd(ask) => answer(ask, |ask| self.ban_add(actor, ask)).await,
            Request::Reload(_) | Request::Edit(_) | Request::BanLift(_) | Request::Processes(_) => {
                Err(AdminError::new(ErrorKind::Invalid, "this is asked of the datapath process"))
            }
        }
    }
}
