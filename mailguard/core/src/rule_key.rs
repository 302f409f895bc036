//! The name of a rule that the kernel counts by: `datapath` says by it how often a rule decided, and whoever
//! has an entry of the configuration finds that entry's count by it. Both make it here, so that they can't
//! disagree about how it is written.
//!
//! Pure.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::syntax::Mac;

/// A list whose entries the kernel knows. Whoever reads of one may be of another version than the kernel
/// side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub enum RuleList {
    /// `access.blacklist_clients`, and what a whitelist takes out of it.
    BlacklistClient,
    /// `bypass.from_subnets` and `bypass.from_ips`, which are one there.
    BypassFrom,
    /// `bypass.to_subnets` and `bypass.to_ips`, and the addresses of `bypass.to_names`.
    BypassTo,
    /// `bypass.from_macs`.
    BypassFromMac,
    /// `zone.allow_clients` of all zones, and all others there.
    AllowClients,
    /// One that another version has, by its name.
    Other(String),
}

impl RuleList {
    /// All that this version has.
    pub const ALL: [RuleList; 5] = [
        RuleList::BlacklistClient,
        RuleList::BypassFrom,
        RuleList::BypassTo,
        RuleList::BypassFromMac,
        RuleList::AllowClients,
    ];

    /// Its name in `mailguard status`.
    pub fn name(&self) -> &str {
        match self {
            RuleList::BlacklistClient => "blacklist client",
            RuleList::BypassFrom => "bypass from",
            RuleList::BypassTo => "bypass to",
            RuleList::BypassFromMac => "bypass from-mac",
            RuleList::AllowClients => "allow_clients",
            RuleList::Other(name) => name,
        }
    }
}

impl From<RuleList> for String {
    fn from(list: RuleList) -> Self {
        list.name().to_owned()
    }
}

impl From<String> for RuleList {
    fn from(name: String) -> Self {
        RuleList::ALL.into_iter().find(|list| list.name() == name).unwrap_or(RuleList::Other(name))
    }
}

impl fmt::Display for RuleList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which rule: entries that mean the same have the same one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleKey {
    list: RuleList,
    value: String,
}

impl RuleKey {
    /// An entry of `access.blacklist_clients`, or an exception from one.
    pub fn blacklist_client(clients: IpNet) -> Self {
        Self { list: RuleList::BlacklistClient, value: shortest(clients) }
    }

    /// An entry of `bypass.from_subnets` or `bypass.from_ips`.
    pub fn bypass_from(sources: IpNet) -> Self {
        Self { list: RuleList::BypassFrom, value: shortest(sources) }
    }

    /// An entry of `bypass.to_subnets` or `bypass.to_ips`, or an address of a name.
    pub fn bypass_to(destinations: IpNet) -> Self {
        Self { list: RuleList::BypassTo, value: shortest(destinations) }
    }

    /// An entry of `bypass.from_macs`.
    pub fn bypass_from_mac(source: [u8; 6]) -> Self {
        Self { list: RuleList::BypassFromMac, value: Mac(source).to_string() }
    }

    /// An entry of `zone.allow_clients`, or all others of a family; the zone of a rule that is over may have
    /// no name any more.
    pub fn allow_clients(zone: Option<&str>, clients: IpNet) -> Self {
        let whom = if clients.prefix_len() == 0 { "others, " } else { "" };
        let value = format!("{}: {whom}{}", zone.unwrap_or("?"), shortest(clients));
        Self { list: RuleList::AllowClients, value }
    }

    /// The list that the rule is of.
    pub fn list(&self) -> &RuleList {
        &self.list
    }

    /// The entry, as short as it can be written.
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// A network of one is a single address.
fn shortest(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that reads `status --json` finds a rule by these two.
    #[test]
    fn a_rule_key_is_its_list_and_its_value_on_the_wire() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        for (key, expect) in [
            (
                RuleKey::blacklist_client(net("192.0.2.7/32")),
                r#"{"list":"blacklist client","value":"192.0.2.7"}"#,
            ),
            (RuleKey::bypass_from(net("192.0.2.0/24")), r#"{"list":"bypass from","value":"192.0.2.0/24"}"#),
            (RuleKey::bypass_to(net("2001:DB8:0::1/128")), r#"{"list":"bypass to","value":"2001:db8::1"}"#),
            (
                RuleKey::bypass_from_mac([2, 0, 0x5e, 0x10, 0, 1]),
                r#"{"list":"bypass from-mac","value":"02:00:5e:10:00:01"}"#,
            ),
            (
                RuleKey::allow_clients(Some("lan"), net("10.0.0.0/8")),
                r#"{"list":"allow_clients","value":"lan: 10.0.0.0/8"}"#,
            ),
            (
                RuleKey::allow_clients(None, net("::/0")),
                r#"{"list":"allow_clients","value":"?: others, ::/0"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&key).unwrap(), expect);
            assert_eq!(serde_json::from_str::<RuleKey>(expect).unwrap(), key);
        }
        let of_another_version = r#"{"list":"whitelist","value":"192.0.2.7"}"#;
        let key: RuleKey = serde_json::from_str(of_another_version).unwrap();
        assert_eq!(key.list(), &RuleList::Other("whitelist".to_owned()));
        assert_eq!(serde_json::to_string(&key).unwrap(), of_another_version);
    }
}
