//! A delivery that does as its script says, and next hops that never do.

use super::*;

/// Decides by next hop, address and how often this address was tried before.
pub(super) type Script = dyn Fn(&str, &str, usize) -> Outcome + Send + Sync;

/// What a next hop got.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) message: Outgoing,
    pub(super) octets: bytes::Bytes,
}

pub(super) struct Scripted {
    pub(super) script: Box<Script>,
    pub(super) tried: Mutex<HashMap<String, usize>>,
    pub(super) sent: Mutex<Vec<Sent>>,
    /// Next hops that never answer and are waited for.
    pub(super) dialling: AtomicUsize,
    pub(super) running: AtomicUsize,
    pub(super) most: AtomicUsize,
    /// Attempts at `slow.test` wait for a permit.
    pub(super) gate: Semaphore,
}

impl Deliver for Scripted {
    fn look_up<'a>(&'a self, _: &'a Arc<Config>, hop: &'a NextHop) -> BoxFuture<'a, Option<Names>> {
        async move {
            if hop.to_string().contains("nameless.test") {
                std::future::pending().await
            }
            Some(Names::Host(Lookup::Absent))
        }
        .boxed()
    }

    fn reach<'a>(
        &'a self,
        _config: &'a Arc<Config>,
        route: &'a Route,
        _names: Option<&'a Names>,
    ) -> BoxFuture<'a, Result<Box<dyn Reached + 'a>, Outcome>> {
        async move {
            let hop = route.next_hop.to_string();
            if hop.contains("dead-end") {
                self.dialling.fetch_add(1, Ordering::SeqCst);
                std::future::pending().await
            }
            Ok(Box::new(Greeted { deliver: self, hop }) as Box<dyn Reached + 'a>)
        }
        .boxed()
    }
}

/// A next hop that waits for a message.
struct Greeted<'s> {
    deliver: &'s Scripted,
    hop: String,
}

impl Reached for Greeted<'_> {
    fn send<'a>(self: Box<Self>, message: &'a Outgoing) -> BoxFuture<'a, Vec<Outcome>>
    where
        Self: 'a,
    {
        let Self { deliver, hop } = *self;
        async move {
            deliver.most.fetch_max(deliver.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            if hop == format!("mx:{SENTINEL}") {
                deliver.running.fetch_sub(1, Ordering::SeqCst);
                return vec![delivered()];
            }
            if hop.contains("tarpit") {
                std::future::pending().await
            }
            if hop.contains("slow.test") {
                deliver.gate.acquire().await.unwrap().forget();
            }
            let octets = message.body.head(usize::MAX).await.unwrap();
            deliver.sent.lock().unwrap().push(Sent { message: message.clone(), octets });
            deliver.running.fetch_sub(1, Ordering::SeqCst);
            let address = |r: &mailguard_core::mail::Recipient| r.forward_path.to_string();
            message.envelope.recipients.iter().map(|r| deliver.outcome(&hop, &address(r))).collect()
        }
        .boxed()
    }
}

impl Scripted {
    fn outcome(&self, hop: &str, address: &str) -> Outcome {
        let before = {
            let mut tried = self.tried.lock().unwrap();
            let count = tried.entry(address.to_owned()).or_default();
            *count += 1;
            *count - 1
        };
        (self.script)(hop, address, before)
    }
}
