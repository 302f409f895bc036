//! How much of something the store holds, counted as it comes and goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};

/// A number of messages and their length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// Messages.
    pub messages: u64,
    /// Their bodies together, octets.
    pub octets: u64,
}

impl Stock {
    /// Counts one message more.
    pub(super) fn add(&mut self, octets: u64) {
        self.messages += 1;
        self.octets += octets;
    }
}

/// What changes a stock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Change {
    messages: i64,
    octets: i64,
}

impl Change {
    pub(super) fn add(&mut self, octets: u64) {
        self.messages += 1;
        self.octets += signed(octets);
    }

    pub(super) fn remove(&mut self, octets: u64) {
        self.messages -= 1;
        self.octets -= signed(octets);
    }
}

/// A stock that the writer changes and everybody reads.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedStock(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    messages: AtomicI64,
    octets: AtomicI64,
}

impl SharedStock {
    pub(super) fn new(stock: Stock) -> Self {
        let (messages, octets) = (signed(stock.messages).into(), signed(stock.octets).into());
        Self(Arc::new(Counters { messages, octets }))
    }

    pub(super) fn change(&self, change: Change) {
        self.0.messages.fetch_add(change.messages, Ordering::Relaxed);
        self.0.octets.fetch_add(change.octets, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Stock {
        let value = |counter: &AtomicI64| u64::try_from(counter.load(Ordering::Relaxed)).unwrap_or(0);
        Stock { messages: value(&self.0.messages), octets: value(&self.0.octets) }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
