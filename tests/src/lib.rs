//! What end-to-end tests, demonstration and benchmarks are made of: namespaces, real peers, a running
//! mailguard, and an independent witness.

pub mod appliance;
pub mod crash;
pub mod crowd;
pub mod frames;
pub mod ledger;
pub mod machine;
pub mod memory;
pub mod netns;
pub mod outage;
pub mod peers;
pub mod programs;
pub mod stopwatch;
