//! Bans: the client's address as IPv6 has it, of an IPv6 client the first of its network ▶ JSON. Who bans
//! waits for the commit.

use std::net::{IpAddr, Ipv6Addr};

use mailguard_core::mail::UnixTime;
use mailguard_core::subscriber::Subscriber;
use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use super::{Change, FactsDb, Writing};
use crate::store::error::{ReadError, StoreError, UnreadableRow, WriteError};
use crate::store::table::{StoredTable, encode};

/// The table.
pub(super) struct Bans;

impl StoredTable for Bans {
    const NAME: &'static str = "bans";
    type Key = &'static [u8; 16];
    type Value = &'static [u8];
}

/// Why a client is banned, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanRecord {
    /// For people.
    #[serde(rename = "reason")]
    pub reason: String,
    /// When it began.
    #[serde(rename = "since")]
    pub since: UnixTime,
    /// When it ends.
    #[serde(rename = "until")]
    pub until: UnixTime,
}

/// The address under which a client's ban is kept.
pub fn ban_key(client: Subscriber) -> Ipv6Addr {
    match client.first() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// A ban as it is kept: the address and what is known of it.
pub type StoredBan = (Ipv6Addr, Result<BanRecord, UnreadableRow>);

impl FactsDb {
    /// All bans, those that have ended too, in the order of addresses.
    pub async fn bans(&self) -> Result<Vec<StoredBan>, ReadError> {
        self.read(|view| {
            let table = view.open::<Bans>()?;
            let rows = table.iter()?.map(|row| {
                let (address, row) = row?;
                let row = row.value();
                let record = serde_json::from_slice(row).map_err(|error| UnreadableRow::of(row, &error));
                Ok((Ipv6Addr::from(*address.value()), record))
            });
            rows.collect()
        })
        .await
    }

    /// Bans clients, or bans them otherwise than before; on disk when this returns.
    pub async fn ban<'a>(
        &self,
        bans: impl IntoIterator<Item = (&'a Subscriber, &'a BanRecord)>,
    ) -> Result<(), WriteError> {
        let row = |(client, record): (&Subscriber, &BanRecord)| {
            Ok((ban_key(*client).octets(), encode(client, record)?))
        };
        let rows: Result<_, StoreError> = bans.into_iter().map(row).collect();
        self.submit(Ban(rows?)).await.map(drop)
    }

    /// Removes the bans that are kept under these addresses; on disk when this returns.
    pub async fn lift(&self, addresses: impl IntoIterator<Item = Ipv6Addr>) -> Result<(), WriteError> {
        let addresses = addresses.into_iter().map(|address| address.octets());
        self.submit(Lift(addresses.collect())).await.map(drop)
    }
}

#[derive(Debug)]
struct Ban(Vec<([u8; 16], Vec<u8>)>);

impl Change for Ban {
    fn octets(&self) -> usize {
        self.0.iter().map(|(address, row)| address.len() + row.len()).sum()
    }

    fn apply(self: Box<Self>, tables: &mut Writing<'_>) -> Result<usize, StoreError> {
        for (address, row) in self.0 {
            tables.bans.insert(&address, row.as_slice())?;
        }
        Ok(0)
    }
}

#[derive(Debug)]
struct Lift(Vec<[u8; 16]>);

impl Change for Lift {
    fn octets(&self) -> usize {
        self.0.len() * size_of::<[u8; 16]>()
    }

    fn apply(self: Box<Self>, tables: &mut Writing<'_>) -> Result<usize, StoreError> {
        let mut removed = 0;
        for address in self.0 {
            removed += usize::from(tables.bans.remove(&address)?.is_some());
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::golden;
    use crate::store::lossy::{ENOSPC, LossyDisk};

    fn client(text: &str) -> Subscriber {
        Subscriber::of(text.parse().unwrap())
    }

    fn record(reason: &str) -> BanRecord {
        BanRecord { reason: reason.to_owned(), since: UnixTime(1), until: UnixTime(2) }
    }

    async fn ban(facts: &FactsDb, bans: &[(&str, &str)]) -> Result<(), WriteError> {
        let bans: Vec<_> = bans.iter().map(|(address, reason)| (client(address), record(reason))).collect();
        facts.ban(bans.iter().map(|(client, record)| (client, record))).await
    }

    /// Addresses and reasons.
    async fn stored(facts: &FactsDb) -> Vec<(String, String)> {
        let bans = facts.bans().await.unwrap().into_iter();
        bans.map(|(address, record)| (address.to_string(), record.unwrap().reason)).collect()
    }

    fn expect(bans: &[(&str, &str)]) -> Vec<(String, String)> {
        bans.iter().map(|(address, reason)| ((*address).to_owned(), (*reason).to_owned())).collect()
    }

    #[tokio::test]
    async fn bans_are_there_when_the_answer_is() {
        let facts = FactsDb::in_memory();
        ban(&facts, &[("2001:db8::1", "b"), ("192.0.2.1", "a")]).await.unwrap();
        ban(&facts, &[("192.0.2.1", "c")]).await.unwrap();
        assert_eq!(stored(&facts).await, expect(&[("::ffff:192.0.2.1", "c"), ("2001:db8::", "b")]));
        facts.lift([ban_key(client("192.0.2.1")), ban_key(client("192.0.2.3"))]).await.unwrap();
        assert_eq!(stored(&facts).await, expect(&[("2001:db8::", "b")]));
    }

    #[tokio::test]
    async fn a_disk_that_was_full_once_costs_what_was_under_way_and_no_restart() {
        let disk = LossyDisk::default();
        let opened = disk.clone();
        let facts = FactsDb::open_on(move || opened.backend()).unwrap();
        ban(&facts, &[("192.0.2.1", "a")]).await.unwrap();
        disk.fail_in(1, ENOSPC);
        assert!(ban(&facts, &[("192.0.2.2", "b")]).await.is_err());
        assert!(facts.failure().is_some(), "said while it lasts");
        let again = async {
            while facts.failure().is_some() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), again).await.expect("opened again by itself");
        ban(&facts, &[("192.0.2.3", "c")]).await.unwrap();
        assert_eq!(stored(&facts).await, expect(&[("::ffff:192.0.2.1", "a"), ("::ffff:192.0.2.3", "c")]));
    }

    #[test]
    fn each_ban_is_read_and_written_as_it_stands() {
        golden::BANS.check::<BanRecord>(&[]);
        for (row, address) in golden::BANS.rows().iter().zip(["192.0.2.7", "2001:db8:1:2:3:4:5:6"]) {
            assert_eq!(ban_key(client(address)).to_string(), row.key);
        }
    }
}
