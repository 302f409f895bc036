//! x
pub mod appliance;
pub mod peers;
