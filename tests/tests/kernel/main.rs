//! The kernel side on real packets: a client, a firewall and a server in namespaces, IPv4 and IPv6, judged by
//! who answers the client and by what arrives at the server. Needs root and the eBPF object
//! (`cargo xtask build`).
//!
//! The mail process is stood in for by a proxy that greets with what it knows of the connection and echoes.

mod bans;
mod blacklist;
mod bypass;
mod closed;
mod counters;
mod daemon;
mod doctor;
mod doctor_hops;
mod doctor_rules;
mod drift;
mod evasion;
mod firewall;
mod flood;
mod from_file;
mod instances;
mod intercept;
mod lifecycle;
mod links;
mod many_rules;
mod names;
mod neighbours;
mod own_addresses;
mod path;
mod pins;
mod programs;
mod senders;
mod servers;
mod settings;
mod tags;
mod upgrade;
mod zones;
