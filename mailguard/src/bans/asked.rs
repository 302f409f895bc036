//! What the mail process may have: bans within limits, whatever it says. It was perhaps taken over, so each
//! request is judged by the datapath process's own configuration and by what the machine says of itself,
//! never by what comes with it.
//!
//! Pure, but for [`own_addresses`]. That nothing else can be asked is the protocol's between the processes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use mailguard_core::config::Config;
use mailguard_core::config::resolve::MAX_BAN_SECONDS;
use mailguard_core::subscriber::Subscriber;
use nix::ifaddrs::getifaddrs;

use super::MAX_CLIENTS;

/// Why a ban isn't made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BanRefused {
    /// More than a request may name.
    #[error("{0} clients in one request, at most {MAX_CLIENTS} are possible")]
    TooMany(usize),
    /// Longer than a ban lasts.
    #[error("{client}: a ban lasts at most {days} days", client = .0, days = MAX_BAN_SECONDS / 86_400)]
    TooLong(IpAddr),
    /// The administrator said never.
    #[error("{0}: on access.whitelist_clients, which is never banned")]
    Whitelisted(IpAddr),
    /// This machine, or nobody at all.
    #[error("{0}: is this machine's own address, or no client's")]
    NoClient(IpAddr),
}

/// Whether these bans may be made, in a configuration and on a machine with these addresses.
pub fn may_ban(
    config: &Config,
    own: &BTreeSet<IpAddr>,
    bans: &[(IpAddr, Duration)],
) -> Result<(), BanRefused> {
    if bans.len() > MAX_CLIENTS {
        return Err(BanRefused::TooMany(bans.len()));
    }
    for (client, time) in bans {
        let plain = client.to_canonical();
        if time.as_secs() > MAX_BAN_SECONDS {
            return Err(BanRefused::TooLong(plain));
        }
        if is_whitelisted(config, Subscriber::of(plain).network()) {
            return Err(BanRefused::Whitelisted(plain));
        }
        if own.contains(&plain) || is_nobody(plain) {
            return Err(BanRefused::NoClient(plain));
        }
    }
    Ok(())
}

/// Whether the administrator said of all these addresses that they are never banned.
pub fn is_whitelisted(config: &Config, clients: IpNet) -> bool {
    config.access.whitelist_clients.iter().any(|network| network.contains(&clients))
}

/// Addresses that no other machine has.
fn is_nobody(address: IpAddr) -> bool {
    address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
}

/// The addresses of this machine's interfaces; none where the system doesn't tell.
pub fn own_addresses() -> BTreeSet<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return BTreeSet::new() };
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    interfaces.filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// 192.0.2.0/24 and 2001:db8:1::/48 are whitelisted, the machine is 203.0.113.1 and 2001:db8:2::1.
    #[track_caller]
    fn check(client: &str, time: Duration, expect: Result<(), BanRefused>) {
        let folder = tempfile::tempdir().unwrap();
        let mut config = crate::spool::fixture::config(folder.path());
        config.access.whitelist_clients =
            ["192.0.2.0/24", "2001:db8:1::/48"].map(|network| network.parse().unwrap()).into();
        let own = ["203.0.113.1", "2001:db8:2::1"].map(|address| address.parse().unwrap()).into();
        assert_eq!(may_ban(&config, &own, &[(client.parse().unwrap(), time)]), expect, "{client}");
    }

    #[test]
    fn a_client_is_banned_unless_the_administrator_or_reason_forbids() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        check("198.51.100.7", HOUR, Ok(()));
        check("2001:db8:3::7", HOUR, Ok(()));
        check("198.51.100.7", Duration::from_secs(MAX_BAN_SECONDS), Ok(()));
        let too_long = BanRefused::TooLong(address("198.51.100.7"));
        check("198.51.100.7", Duration::from_secs(MAX_BAN_SECONDS + 1), Err(too_long));
        for white in ["192.0.2.9", "::ffff:192.0.2.9", "2001:db8:1::9"] {
            check(white, HOUR, Err(BanRefused::Whitelisted(address(white).to_canonical())));
        }
        for nobody in [
            "203.0.113.1",
            "::ffff:203.0.113.1",
            "2001:db8:2::1",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ] {
            check(nobody, HOUR, Err(BanRefused::NoClient(address(nobody).to_canonical())));
        }
    }

    #[test]
    fn so_many_at_once_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::spool::fixture::config(folder.path());
        let client = |number: usize| (IpAddr::from((number as u32 + (11 << 24)).to_be_bytes()), HOUR);
        let bans: Vec<_> = (0..=MAX_CLIENTS).map(client).collect();
        assert_eq!(may_ban(&config, &BTreeSet::new(), &bans[1..]), Ok(()));
        assert_eq!(may_ban(&config, &BTreeSet::new(), &bans), Err(BanRefused::TooMany(MAX_CLIENTS + 1)));
    }

    #[test]
    fn this_machine_has_addresses() {
        assert!(own_addresses().contains(&IpAddr::from([127, 0, 0, 1])));
    }
}
