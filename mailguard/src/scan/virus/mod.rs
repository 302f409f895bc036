//! Virus engines: each is shown every content of a message and names what it finds.

pub mod signatures;
