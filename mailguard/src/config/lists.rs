//! The lists that can be changed while mailguard runs: where each stands, what it takes, what is in it.

use std::path::{Path, PathBuf};

use mailguard_core::config::model::{AddressPattern, ClientPattern};
use mailguard_core::config::syntax::{self, Mac, Mismatch, Syntax};
use mailguard_core::config::value::quoted;
use mailguard_core::config::{DEFAULT_DOMAIN_LISTS, DEFAULT_IP_LISTS};
use mailguard_core::config::{Data, Value};
use mailguard_core::rule_key::RuleKey;
use serde::{Deserialize, Serialize};

use super::edit::EditError;
use super::report::Text;
use super::source::{IncludeContent, Source};
use super::tree;

/// A list that can be changed while mailguard runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EditList {
    /// `bypass.from_subnets`
    BypassFromSubnet,
    /// `bypass.from_ips`
    BypassFromIp,
    /// `bypass.from_macs`
    BypassFromMac,
    /// `bypass.to_subnets`
    BypassToSubnet,
    /// `bypass.to_ips`
    BypassToIp,
    /// `bypass.to_names`
    BypassToName,
    /// `access.blacklist_clients`
    BlacklistClient,
    /// `access.blacklist_senders`
    BlacklistSender,
    /// `access.blacklist_recipients`
    BlacklistRecipient,
    /// `rbl.ip_lists`
    RblIp,
    /// `rbl.domain_lists`
    RblDomain,
}

/// One value of a list and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListEntry {
    /// Which list.
    pub list: EditList,
    /// The value as it is written.
    pub value: String,
    /// The configuration file, or the file that the list names.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
}

impl EditList {
    /// All of them, in the order in which they are listed.
    pub const ALL: [EditList; 11] = [
        EditList::BypassFromSubnet,
        EditList::BypassFromIp,
        EditList::BypassFromMac,
        EditList::BypassToSubnet,
        EditList::BypassToIp,
        EditList::BypassToName,
        EditList::BlacklistClient,
        EditList::BlacklistSender,
        EditList::BlacklistRecipient,
        EditList::RblIp,
        EditList::RblDomain,
    ];

    /// Table and key.
    pub const fn path(self) -> [&'static str; 2] {
        match self {
            EditList::BypassFromSubnet => ["bypass", "from_subnets"],
            EditList::BypassFromIp => ["bypass", "from_ips"],
            EditList::BypassFromMac => ["bypass", "from_macs"],
            EditList::BypassToSubnet => ["bypass", "to_subnets"],
            EditList::BypassToIp => ["bypass", "to_ips"],
            EditList::BypassToName => ["bypass", "to_names"],
            EditList::BlacklistClient => ["access", "blacklist_clients"],
            EditList::BlacklistSender => ["access", "blacklist_senders"],
            EditList::BlacklistRecipient => ["access", "blacklist_recipients"],
            EditList::RblIp => ["rbl", "ip_lists"],
            EditList::RblDomain => ["rbl", "domain_lists"],
        }
    }

    /// What the command line calls the kind of value.
    pub const fn kind(self) -> &'static str {
        match self {
            EditList::BypassFromSubnet => "from-subnet",
            EditList::BypassFromIp => "from-ip",
            EditList::BypassFromMac => "from-mac",
            EditList::BypassToSubnet => "to-subnet",
            EditList::BypassToIp => "to-ip",
            EditList::BypassToName => "to-name",
            EditList::BlacklistClient => "client",
            EditList::BlacklistSender => "sender",
            EditList::BlacklistRecipient => "recipient",
            EditList::RblIp => "ip",
            EditList::RblDomain => "domain",
        }
    }

    /// What it holds where it isn't written.
    pub(super) const fn default_values(self) -> &'static [&'static str] {
        match self {
            EditList::RblIp => DEFAULT_IP_LISTS,
            EditList::RblDomain => DEFAULT_DOMAIN_LISTS,
            _ => &[],
        }
    }

    /// The lists on which the same switch works.
    pub(super) const fn switched_with(self) -> &'static [EditList] {
        match self {
            EditList::RblIp | EditList::RblDomain => &[EditList::RblIp, EditList::RblDomain],
            _ => &[],
        }
    }

    /// The key of its table that says whether the list has any effect.
    pub(super) const fn switch(self) -> Option<&'static str> {
        match self {
            EditList::RblIp | EditList::RblDomain => Some("enabled"),
            _ => None,
        }
    }

    /// The key path.
    pub(super) fn key(self) -> String {
        self.path().join(".")
    }

    /// By which name the kernel counts what `value` of this list does. None for those lists that it doesn't
    /// know, and for what is no value of this list.
    pub fn rule_key(self, value: &str) -> Option<RuleKey> {
        fn read<T>(syntax: &Syntax<T>, value: &str) -> Option<T> {
            (syntax.parse)(value.trim()).ok()
        }
        match self {
            EditList::BypassFromSubnet => read(&syntax::NETWORK, value).map(RuleKey::bypass_from),
            EditList::BypassFromIp => read(&syntax::ADDRESS, value).map(|ip| RuleKey::bypass_from(ip.into())),
            EditList::BypassToSubnet => read(&syntax::NETWORK, value).map(RuleKey::bypass_to),
            EditList::BypassToIp => read(&syntax::ADDRESS, value).map(|ip| RuleKey::bypass_to(ip.into())),
            EditList::BypassFromMac => read(&syntax::MAC, value).map(RuleKey::bypass_from_mac),
            EditList::BlacklistClient => match read(&syntax::CLIENT, value)? {
                ClientPattern::Network(clients) => Some(RuleKey::blacklist_client(clients)),
                ClientPattern::Name(_) => None,
            },
            EditList::BypassToName
            | EditList::BlacklistSender
            | EditList::BlacklistRecipient
            | EditList::RblIp
            | EditList::RblDomain => None,
        }
    }

    /// The value as it is written into the file, and the form in which two values are compared.
    pub(super) fn read(self, text: &str) -> Result<Entry, EditError> {
        match self {
            EditList::BypassFromSubnet | EditList::BypassToSubnet => {
                self.entry(text, &syntax::NETWORK, |network| Entry::of(network.to_string()))
            }
            EditList::BypassFromIp | EditList::BypassToIp => {
                self.entry(text, &syntax::ADDRESS, |address| Entry::of(address.to_string()))
            }
            EditList::BypassFromMac => self.entry(text, &syntax::MAC, |mac| Entry::of(Mac(mac).to_string())),
            EditList::BlacklistClient => self.entry(text, &syntax::CLIENT, |client| match client {
                ClientPattern::Name(name) => {
                    Entry { written: name.to_string(), compared: name.ascii().to_owned() }
                }
                ClientPattern::Network(network) => {
                    let single = network.prefix_len() == network.max_prefix_len();
                    let written = if single { network.addr().to_string() } else { network.to_string() };
                    Entry { written, compared: network.to_string() }
                }
            }),
            EditList::RblIp | EditList::RblDomain => self.entry(text, &syntax::BLOCK_LIST, Entry::of),
            EditList::BypassToName => self.entry(text, &syntax::HOST_NAME, |name| Entry {
                written: name.to_string(),
                compared: name.ascii().to_owned(),
            }),
            EditList::BlacklistSender | EditList::BlacklistRecipient => {
                self.entry(text, &syntax::PATTERN, |pattern| match pattern {
                    AddressPattern::Domain(domain) => {
                        Entry { written: domain.to_string(), compared: domain.ascii().to_owned() }
                    }
                    AddressPattern::Mailbox(mailbox) => Entry {
                        written: mailbox.to_string(),
                        compared: format!(
                            "{}@{}",
                            mailbox.local_part.comparison_key(),
                            mailbox
                                .domain()
                                .map_or_else(|| mailbox.host.to_string(), |d| d.ascii().to_owned())
                        ),
                    },
                })
            }
        }
    }

    fn entry<T>(
        self,
        text: &str,
        syntax: &Syntax<T>,
        entry: impl Fn(T) -> Entry,
    ) -> Result<Entry, EditError> {
        let hint = match (syntax.parse)(text) {
            Ok(value) => return Ok(entry(value)),
            Err(Mismatch::Wrong) => None,
            Err(Mismatch::Hint(hint)) => Some(hint),
        };
        let value = quoted(text);
        Err(EditError::Value { key: self.key(), value, accepted: syntax.accepted.to_owned(), hint })
    }
}

/// A value in its two forms.
pub(super) struct Entry {
    /// As it is written into the file.
    pub(super) written: String,
    /// Equal for values that mean the same.
    pub(super) compared: String,
}

impl Entry {
    fn of(written: String) -> Self {
        Self { compared: written.clone(), written }
    }
}

/// The values of these lists, those of named files included. The text is parsed once for all of them.
pub fn entries(source: &Source, lists: &[EditList]) -> Vec<ListEntry> {
    let Ok(root) = tree::from_toml(&source.text) else { return Vec::new() };
    let text = Text::new(&source.path, &source.text);
    let of_list = |list: &EditList| {
        let Some(Data::Array(items)) = root.at(&list.path()).map(|value| &value.data) else {
            return Vec::new();
        };
        let value = |item: &'_ Value| Some((item.as_text()?.to_owned(), text.line(item.place.start)));
        let values: Vec<(String, usize)> = items.iter().filter_map(value).collect();
        listed(source, *list, values.iter().map(|(value, line)| (value.as_str(), *line)))
    };
    lists.iter().flat_map(of_list).collect()
}

/// The entries of a list in whose array these values stand, each with its line: those of a named file in the
/// place of its name.
pub(super) fn listed<'a>(
    source: &Source,
    list: EditList,
    values: impl Iterator<Item = (&'a str, usize)>,
) -> Vec<ListEntry> {
    let entry = |value: &str, file: &Path, line| ListEntry {
        list,
        value: value.to_owned(),
        file: file.to_owned(),
        line,
    };
    let mut entries = Vec::new();
    for (value, line) in values {
        let Some(file) = tree::named_file(value) else {
            entries.push(entry(value, &source.path, line));
            continue;
        };
        let include = source.includes.iter().find(|include| include.path == file);
        let Some(IncludeContent::Text(text)) = include.map(|include| &include.content) else { continue };
        let of_file = Text::new(&file, text);
        entries.extend(tree::lines(text).map(|(start, value)| entry(value, &file, of_file.line(start))));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_under_their_shortest_form() {
        let json = |list, value| format!(r#"{{"list":"{list}","value":"{value}"}}"#);
        for (list, value, expect) in [
            (EditList::BypassFromIp, "2001:DB8::1", Some(json("bypass from", "2001:db8::1"))),
            (EditList::BypassFromSubnet, " 192.0.2.7/32", Some(json("bypass from", "192.0.2.7"))),
            (EditList::BypassToSubnet, "192.0.2.0/24", Some(json("bypass to", "192.0.2.0/24"))),
            (EditList::BypassToIp, "192.0.2.7", Some(json("bypass to", "192.0.2.7"))),
            (
                EditList::BypassFromMac,
                "02:00:5E:10:00:01",
                Some(json("bypass from-mac", "02:00:5e:10:00:01")),
            ),
            (EditList::BlacklistClient, "192.0.2.7/32", Some(json("blacklist client", "192.0.2.7"))),
            (EditList::BlacklistClient, "mx.example.com", None),
            (EditList::BlacklistClient, "nonsense", None),
            (EditList::BlacklistSender, "example.com", None),
        ] {
            let key = list.rule_key(value).map(|key| serde_json::to_string(&key).unwrap());
            assert_eq!(key, expect, "{value}");
        }
    }

    /// What the kernel is told of a configuration it counts by the names that the lists' entries have here.
    #[test]
    fn every_entry_that_the_kernel_knows_is_found_by_its_rule_key() {
        let text = "[bypass]\nfrom_subnets = [\"192.0.2.0/24\"]\nfrom_ips = [\"2001:DB8::1\"]\n\
                    from_macs = [\"02:00:5E:10:00:01\"]\nto_subnets = [\"198.51.100.7/32\"]\nto_ips = [\"203.0.113.9\"]\n\
                    [access]\nblacklist_clients = [\"10.0.0.0/8\", \"192.0.2.7/32\"]\n";
        let source = Source::of_text("m.toml", format!("{}{text}", crate::config::tests::LEAST));
        let config = crate::config::parse_and_validate(&source).unwrap();
        let rules = mailguard_core::rules::compile(&config);
        let mut told: Vec<RuleKey> =
            rules.clients.keys().map(|net| RuleKey::blacklist_client(*net)).collect();
        told.extend(rules.bypass_from.keys().map(|net| RuleKey::bypass_from(*net)));
        told.extend(rules.bypass_to.keys().map(|net| RuleKey::bypass_to(*net)));
        told.extend(rules.bypass_macs.iter().map(|mac| RuleKey::bypass_from_mac(*mac)));
        let listed = entries(&source, &EditList::ALL).into_iter();
        let mut listed: Vec<RuleKey> = listed.filter_map(|entry| entry.list.rule_key(&entry.value)).collect();
        told.sort();
        listed.sort();
        assert_eq!((listed.len(), listed), (7, told));
    }
}
