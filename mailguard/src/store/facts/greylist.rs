//! What the greylist has seen. A key begins with an octet that tells triplets from client networks; each ▶
//! JSON. Nobody waits for a change to be on disk.

use mailguard_core::policy::check::greylist::{CLIENT_KEY_OCTETS, KnownClient, Seen, Triplet};
use redb::ReadableTable;

use super::{Change, FactsDb, Writing};
use crate::store::error::{ReadError, StoreError, WriteError};
use crate::store::table::{StoredTable, encode};

/// First octet of the key of a triplet's row.
const TRIPLET: u8 = 0;
/// First octet of the key of a client network's row.
const CLIENT: u8 = 1;

/// The table.
pub(super) struct Greylist;

impl StoredTable for Greylist {
    const NAME: &'static str = "greylist";
    type Key = &'static [u8];
    type Value = &'static [u8];
}

/// The keys of one triplet's rows.
pub struct Keys {
    /// Of the triplet itself.
    pub triplet: Vec<u8>,
    /// Of its client network.
    pub client: Vec<u8>,
}

impl Keys {
    /// The keys of this triplet's rows.
    pub fn of(triplet: &Triplet) -> Self {
        Self {
            triplet: [&[TRIPLET], triplet.key().as_slice()].concat(),
            client: [&[CLIENT], triplet.client_key().as_slice()].concat(),
        }
    }
}

/// The client network in a key of either kind.
pub fn network(key: &[u8]) -> &[u8] {
    key.get(1..=CLIENT_KEY_OCTETS).unwrap_or(key)
}

/// A row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GreylistRow {
    /// A triplet that was seen.
    Triplet(Seen),
    /// A client network that came again.
    Client(KnownClient),
}

impl From<Seen> for GreylistRow {
    fn from(seen: Seen) -> Self {
        Self::Triplet(seen)
    }
}

impl From<KnownClient> for GreylistRow {
    fn from(client: KnownClient) -> Self {
        Self::Client(client)
    }
}

impl GreylistRow {
    /// None: it is of another version, or damaged.
    fn decode(key: &[u8], row: &[u8]) -> Option<Self> {
        match key.first() {
            Some(&TRIPLET) => serde_json::from_slice(row).ok().map(Self::Triplet),
            Some(&CLIENT) => serde_json::from_slice(row).ok().map(Self::Client),
            _ => None,
        }
    }

    fn encode(&self) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Triplet(seen) => encode("of a triplet", seen),
            Self::Client(client) => encode("of a client network", client),
        }
    }
}

impl FactsDb {
    /// All rows by their keys; none where one can't be read.
    pub async fn greylist(&self) -> Result<Vec<(Vec<u8>, Option<GreylistRow>)>, ReadError> {
        self.read(|view| {
            let table = view.open::<Greylist>()?;
            let rows = table.iter()?.map(|row| {
                let (key, row) = row?;
                Ok((key.value().to_vec(), GreylistRow::decode(key.value(), row.value())))
            });
            rows.collect()
        })
        .await
    }

    /// Changes rows; where there is none now, the row goes. Returns when that is queued, not when it is on
    /// disk.
    pub async fn change_greylist(&self, rows: Vec<(Vec<u8>, Option<GreylistRow>)>) -> Result<(), WriteError> {
        let encoded = |(key, row): (Vec<u8>, Option<GreylistRow>)| {
            Ok((key, row.as_ref().map(GreylistRow::encode).transpose()?))
        };
        let rows: Result<_, StoreError> = rows.into_iter().map(encoded).collect();
        self.post(ChangeRows(rows?)).await
    }

    /// Stores rows as another version or a failing disk may leave them.
    #[cfg(test)]
    pub(crate) async fn store_greylist_rows(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
        self.submit(ChangeRows(rows)).await.unwrap();
    }
}

#[derive(Debug)]
struct ChangeRows(Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl Change for ChangeRows {
    fn octets(&self) -> usize {
        self.0.iter().map(|(key, row)| key.len() + row.as_ref().map_or(0, Vec::len)).sum()
    }

    fn apply(self: Box<Self>, tables: &mut Writing<'_>) -> Result<usize, StoreError> {
        for (key, row) in self.0 {
            match row {
                Some(row) => drop(tables.greylist.insert(key.as_slice(), row.as_slice())?),
                None => drop(tables.greylist.remove(key.as_slice())?),
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use mailguard_core::mail::{ForwardPath, Mailbox, ReversePath};

    use super::*;
    use crate::store::golden::{self, GoldenRow};

    #[test]
    fn each_row_of_the_greylist_is_read_and_written_as_it_stands() {
        let (triplets, clients): (Vec<_>, Vec<_>) =
            golden::GREYLIST.rows().into_iter().partition(|row| row.key.starts_with("00 "));
        golden::check::<Seen>(&triplets, &[]);
        golden::check::<KnownClient>(&clients, &[]);
        let keys =
            [("192.0.2.7", "alice@far.example"), ("2001:db8:1:2:3:4:5:6", "")].map(|(client, from)| {
                let from = Mailbox::parse(from).map_or(ReversePath::Null, ReversePath::Mailbox);
                let to = ForwardPath::Mailbox(Mailbox::parse("Bob@near.example").unwrap());
                Keys::of(&Triplet::new(client.parse().unwrap(), &from, &to))
            });
        let hex = |key: &[u8]| key.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        let golden = |rows: &[GoldenRow]| rows.iter().map(|row| row.key.replace(' ', "")).collect::<Vec<_>>();
        assert_eq!(golden(&triplets), keys.each_ref().map(|keys| hex(&keys.triplet)));
        assert_eq!(golden(&clients), keys.each_ref().map(|keys| hex(&keys.client)));
    }
}
