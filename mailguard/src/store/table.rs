//! What a table is: a name and the types of its keys and values, said once, in the file of the table; and the
//! list that a database has of its tables, by which opening makes them and the golden files know them.
//!
//! A new table is a file in `spool` or `facts` (its types, how a row is encoded, its reads and writes), a
//! line in the [`tables!`] of that folder, and a golden file.

use std::fmt::Display;

use redb::{
    Key, ReadOnlyTable, ReadTransaction, Table, TableDefinition, TableError, Value, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{StoreError, UnreadableRow};

/// A table of one of the databases.
pub(super) trait StoredTable {
    /// Its name on disk.
    const NAME: &'static str;
    /// As redb stores and orders them.
    type Key: Key + 'static;
    /// As redb stores them.
    type Value: Value + 'static;

    /// What redb opens it by.
    fn definition() -> TableDefinition<'static, Self::Key, Self::Value> {
        TableDefinition::new(Self::NAME)
    }

    /// Opens it to be read, at the state of this transaction.
    fn open(reading: &ReadTransaction) -> Result<ReadOnlyTable<Self::Key, Self::Value>, StoreError> {
        Ok(reading.open_table(Self::definition())?)
    }
}

/// A table that the writer has open.
pub(super) type OpenTable<'t, T> = Table<'t, <T as StoredTable>::Key, <T as StoredTable>::Value>;

/// A table in the list of its database: what is asked of every one, whatever its types.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed {
    #[cfg(test)]
    pub(super) name: &'static str,
    /// Of its keys and its values, as redb names them.
    #[cfg(test)]
    pub(super) types: fn() -> (redb::TypeName, redb::TypeName),
    is_there: fn(&ReadTransaction) -> Result<bool, StoreError>,
    create: fn(&WriteTransaction) -> Result<(), StoreError>,
}

impl Listed {
    pub(super) const fn of<T: StoredTable>() -> Self {
        Self {
            #[cfg(test)]
            name: T::NAME,
            #[cfg(test)]
            types: || (T::Key::type_name(), T::Value::type_name()),
            is_there: |reading| match reading.open_table(T::definition()) {
                Ok(_) => Ok(true),
                Err(TableError::TableDoesNotExist(_)) => Ok(false),
                Err(error) => Err(error.into()),
            },
            create: |writing| {
                writing.open_table(T::definition())?;
                Ok(())
            },
        }
    }

    /// Whether the database has it; one of other types is an error.
    pub(super) fn is_there(&self, reading: &ReadTransaction) -> Result<bool, StoreError> {
        (self.is_there)(reading)
    }

    /// Makes it, where it isn't there.
    pub(super) fn create(&self, writing: &WriteTransaction) -> Result<(), StoreError> {
        (self.create)(writing)
    }
}

/// Lists the tables of a database: `TABLES`, and `Writing`, which has all of them open for the writer.
macro_rules! tables {
    ($($field:ident: $table:ty,)+) => {
        /// Every table of this database.
        pub(in crate::store) const TABLES: &[$crate::store::table::Listed] =
            &[$($crate::store::table::Listed::of::<$table>()),+];

        /// The tables, open in one transaction of the writer.
        struct Writing<'t> {
            $($field: $crate::store::table::OpenTable<'t, $table>,)+
        }

        impl<'t> Writing<'t> {
            fn open(
                transaction: &'t redb::WriteTransaction,
            ) -> Result<Self, $crate::store::error::StoreError> {
                use $crate::store::table::StoredTable;
                Ok(Self { $($field: transaction.open_table(<$table>::definition())?,)+ })
            }
        }
    };
}
pub(super) use tables;

/// The JSON of a row.
pub(super) fn encode(key: impl Display, row: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    // Our types have no map with keys that JSON can't hold, the one thing that could fail.
    serde_json::to_vec(row).map_err(|error| StoreError::row(key, UnreadableRow::Damaged(error.to_string())))
}

/// What the JSON of a row says.
pub(super) fn decode<T: DeserializeOwned>(key: impl Display, row: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(row).map_err(|error| StoreError::row(key, UnreadableRow::of(row, &error)))
}
