//! The answer of something that may be out of order: an outage is never read as "no".

/// What a lookup gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T> {
    /// This.
    Found(T),
    /// Certainly nothing.
    Absent,
    /// Nobody knows right now; why, in one line.
    Unavailable(String),
}
