//! From the writer of `spool.redb` to the queue: what has just become durable, with its octets while there is
//! room.
//!
//! The first attempt then needs no look into the store. What the budget has no room for goes by its name
//! alone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mailguard_core::mail::QueueId;
use tokio::sync::Notify;

use super::messages::MessageRecord;
use crate::store::body::Body;

/// A message that has just become durable, on its way to the queue.
#[derive(Debug)]
pub struct Committed {
    /// Its name.
    pub id: QueueId,
    /// Record and body, for the first attempt; none when the budget for cached bodies is spent.
    pub cached: Option<CachedMessage>,
}

/// A message in memory.
#[derive(Debug)]
pub struct CachedMessage {
    /// What the store has, too.
    pub record: MessageRecord,
    /// The octets.
    pub body: Body,
    /// Its share of the budget.
    pub(crate) _share: Share,
}

/// Octets of bodies that are cached for their first attempt.
#[derive(Debug, Clone, Default)]
pub(crate) struct Budget(Arc<AtomicU64>);

/// Given back to the budget when dropped.
#[derive(Debug)]
pub(crate) struct Share(Budget, u64);

impl Budget {
    /// A share of `octets`, if no more than `limit` are cached then.
    pub(crate) fn take(&self, octets: u64, limit: u64) -> Option<Share> {
        let cached = self.0.fetch_add(octets, Ordering::Relaxed);
        let share = Share(self.clone(), octets);
        (cached + octets <= limit).then_some(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// From the writer to the queue. It needs no limit of its own: each entry is a message on disk, and the
/// bodies in it are within their budget.
#[derive(Debug, Default)]
pub struct Intake {
    committed: Mutex<VecDeque<Committed>>,
    arrived: Notify,
}

impl Intake {
    /// Everything that arrived since the last call.
    pub fn drain(&self) -> VecDeque<Committed> {
        std::mem::take(&mut *self.committed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for the next arrival; one that came since the last wait counts.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Hands messages to the queue.
    pub(crate) fn push(&self, committed: impl Iterator<Item = Committed>) {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner).extend(committed);
        self.arrived.notify_one();
    }
}
