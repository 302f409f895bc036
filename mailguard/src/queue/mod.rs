//! x
mod attempt;
pub use self::attempt::*;
/// Most recipients of one attempt: what every server must take (RFC 5321 §4.5.3.1.8).
pub const MAX_ATTEMPT_RECIPIENTS: usize = 100;
