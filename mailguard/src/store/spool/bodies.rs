//! Bodies that aren't files: id ▶ octets. And where a message's body is kept: here, or in a file of its own.

use bytes::Bytes;
use mailguard_core::mail::QueueId;
use serde::{Deserialize, Serialize};

use super::{SpoolDb, SpoolSnapshot};
use crate::store::body::Body;
use crate::store::error::{ReadError, StoreError};
use crate::store::table::StoredTable;

/// The table.
pub(super) struct Bodies;

impl StoredTable for Bodies {
    const NAME: &'static str = "bodies";
    type Key = u64;
    type Value = &'static [u8];
}

/// Where a body is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoredBody {
    /// In the table of bodies, under the message's id.
    #[serde(rename = "row")]
    Row {
        /// Its length.
        #[serde(rename = "octets")]
        octets: u64,
    },
    /// In a file of its own.
    #[serde(rename = "file")]
    File {
        /// Names the file; not the message's id.
        #[serde(rename = "number")]
        number: u64,
        /// Its length.
        #[serde(rename = "octets")]
        octets: u64,
    },
}

impl StoredBody {
    /// Where `body` will be kept.
    pub fn of(body: &Body) -> Self {
        match body {
            Body::Memory(bytes) => StoredBody::Row { octets: bytes.len() as u64 },
            Body::File(file) => StoredBody::File { number: file.number(), octets: file.octets() },
        }
    }

    /// Its length in octets.
    pub fn octets(self) -> u64 {
        match self {
            StoredBody::Row { octets } | StoredBody::File { octets, .. } => octets,
        }
    }
}

impl SpoolSnapshot {
    /// The octets of a body that isn't a file.
    pub(super) fn body(&self, id: QueueId) -> Result<Option<Bytes>, StoreError> {
        Ok(self.open::<Bodies>()?.get(id.0)?.map(|row| Bytes::copy_from_slice(row.value())))
    }
}

impl SpoolDb {
    /// The octets of a message.
    pub async fn body(&self, id: QueueId, stored: StoredBody) -> Result<Body, ReadError> {
        match stored {
            StoredBody::Row { .. } => {
                let row = self.read(move |view| view.body(id)).await?;
                let missing = || ReadError::BodyMissing { id, path: self.path().to_owned() };
                row.map(Body::Memory).ok_or_else(missing)
            }
            StoredBody::File { number, octets } => {
                let path = self.bodies().path_of(number);
                match tokio::fs::metadata(&path).await {
                    Ok(found) if found.len() == octets => Ok(self.bodies().stored(number, octets)),
                    _ => Err(ReadError::BodyMissing { id, path }),
                }
            }
        }
    }
}
