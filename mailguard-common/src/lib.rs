//! What mailguard's kernel and userspace parts share.
//!
//! `packet` turns bytes into a [`packet::Flow`], `decide` turns a flow into a verdict, `reset` writes the
//! answer to a refused client, `layout` names the maps between the two sides. All of it is pure and tested on
//! the host; the eBPF programs call these very functions and add only what needs the kernel: map and socket
//! look-ups.

#![cfg_attr(not(test), no_std)]

pub mod decide;
pub mod maps;
pub mod packet;
pub mod reason;
pub mod reset;
pub mod tags;
