//! The configuration: what it means, complete and typed.
//!
//! `model` is what every other module reads: each value present and in range. `resolve` makes it from what a
//! file said, or returns every error at once. Files, TOML and the lines of an error are the file layer's.

mod content;
pub mod error;
mod mac;
pub mod model;
pub mod named;
mod outbound;
mod rbl;
pub mod resolve;
pub mod review;
mod routing;
mod section;
mod suggest;
pub mod syntax;
mod unbuilt;
pub mod value;

pub use error::{ConfigError, Problem};
pub use model::Config;
pub use rbl::{DEFAULT_DOMAIN_LISTS, DEFAULT_IP_LISTS};
pub use resolve::resolve;
pub use value::{Data, Entry, Place, Value};
