//! Frames: the parser keeps within the octets that the IP header claims, whatever they say.
#![no_main]

use std::mem::MaybeUninit;

use libfuzzer_sys::fuzz_target;
use mailguard_common::packet::{Flow, Parsed, TCP_HEADER, Version, parse};

fuzz_target!(|input: (bool, &[u8])| {
    let (ipv6, packet) = input;
    let version = if ipv6 { Version::V6 } else { Version::V4 };
    let mut flow = MaybeUninit::<Flow>::uninit();
    if parse(&packet, 0, version, &mut flow) == Parsed::Smtp {
        // SAFETY: the parser writes the flow whenever it says Smtp.
        let flow = unsafe { flow.assume_init() };
        assert_eq!(flow.is_ipv6(), ipv6);
        let transport = usize::from(flow.transport);
        assert!(transport + TCP_HEADER <= packet.len(), "a header that isn't there");
        assert_eq!(packet[transport + 2..transport + 4], 25u16.to_be_bytes());
        assert_eq!(packet[transport + 13], flow.flags);
    }
});
