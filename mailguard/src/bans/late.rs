//! What the store of bans doesn't know yet, because writing failed: bans that are in force, and lifts that
//! are. Pure; the store is told when it can be written again.

use std::collections::BTreeSet;

use mailguard_core::subscriber::Subscriber;

use super::{MAX_BANS, Record, Records};

/// Bans and lifts that are to be stored. No client is in both.
#[derive(Debug, Default)]
pub(super) struct Late {
    bans: BTreeSet<Subscriber>,
    /// At most [`MAX_BANS`].
    lifts: BTreeSet<Subscriber>,
}

impl Late {
    /// These were banned, and that was stored or not: what was to become of their rows before is over.
    pub(super) fn banned(&mut self, clients: &[Subscriber], stored: bool) {
        for client in clients {
            self.lifts.remove(client);
            if stored {
                self.bans.remove(client);
            } else {
                self.bans.insert(*client);
            }
        }
    }

    /// The bans of these were lifted, which couldn't be stored. False if that can't be remembered for want of
    /// room.
    pub(super) fn lifted(&mut self, clients: &[Subscriber]) -> bool {
        let new = clients.iter().filter(|client| !self.lifts.contains(client)).count();
        if self.lifts.len() + new > MAX_BANS as usize {
            return false;
        }
        for client in clients {
            self.bans.remove(client);
            self.lifts.insert(*client);
        }
        true
    }

    /// The lifts to store.
    pub(super) fn lifts(&self) -> Vec<Subscriber> {
        self.lifts.iter().copied().collect()
    }

    /// The lifts were stored.
    pub(super) fn lifts_are_stored(&mut self) {
        self.lifts.clear();
    }

    /// The bans to store: those that are still among the records.
    pub(super) fn bans(&self, records: &Records) -> Records {
        let with_record = |client: &Subscriber| -> Option<(Subscriber, Record)> {
            records.get(client).map(|record| (*client, record.clone()))
        };
        self.bans.iter().filter_map(with_record).collect()
    }

    /// The bans were stored, or are over.
    pub(super) fn bans_are_stored(&mut self) {
        self.bans.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use mailguard_core::mail::UnixTime;

    use super::*;

    fn client(text: &str) -> Subscriber {
        Subscriber::of(text.parse::<IpAddr>().unwrap())
    }

    fn records(clients: &[Subscriber]) -> Records {
        let record = Record { reason: "x".to_owned(), since: UnixTime(1), until: UnixTime(2) };
        clients.iter().map(|client| (*client, record.clone())).collect()
    }

    #[test]
    fn a_ban_that_could_not_be_stored_is_stored_later_and_once() {
        let (a, b) = (client("192.0.2.1"), client("192.0.2.2"));
        let mut late = Late::default();
        late.banned(&[a, b], false);
        late.banned(&[b], true);
        assert_eq!(late.bans(&records(&[a, b])), records(&[a]));
        assert_eq!(late.bans(&records(&[b])), Records::new(), "it has ended meanwhile");
        late.bans_are_stored();
        assert_eq!(late.bans(&records(&[a, b])), Records::new());
    }

    #[test]
    fn a_lift_that_could_not_be_stored_brings_no_ban_back() {
        let a = client("192.0.2.1");
        let mut late = Late::default();
        late.banned(&[a], false);
        assert!(late.lifted(&[a]));
        assert_eq!((late.lifts(), late.bans(&records(&[a]))), (vec![a], Records::new()));
        // And a ban after it isn't taken out by it.
        late.banned(&[a], false);
        assert_eq!((late.lifts(), late.bans(&records(&[a]))), (vec![], records(&[a])));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut late = Late::default();
        let many: Vec<Subscriber> =
            (0..MAX_BANS).map(|n| Subscriber::of(std::net::Ipv4Addr::from(n).into())).collect();
        assert!(late.lifted(&many));
        assert!(late.lifted(&many), "known already");
        assert!(!late.lifted(&[client("192.0.2.1")]));
    }
}
