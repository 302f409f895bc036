//! What goes into the kernel maps: the access lists and bypass lists of the configuration as prefixes and
//! actions.
//!
//! Pure. Whitelisted clients are taken out here, so that the kernel needs no whitelist: an entry that a
//! whitelisted network covers is left out, a whitelisted part of an entry becomes an exception with a longer
//! prefix. Who may send from a zone is no access list: whitelists have no part in it. Numbers, limits and the
//! maps themselves are `datapath`'s.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::Config;
use crate::config::model::{BlacklistAction, Zone, ZoneMode};
use crate::subscriber::IPV6_NETWORK_BITS;

/// What the kernel does with a new connection of a listed client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientRule {
    /// Drops it.
    Drop,
    /// Answers it with a RST.
    Reset,
    /// Nothing: an exception.
    Allow,
}

/// What the kernel does with a new connection from or to a listed address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BypassRule {
    /// Lets it pass.
    Bypass,
    /// Nothing: an exception.
    Intercept,
}

/// What the kernel does with a new connection of a client that enters a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SenderRule {
    /// Nothing: it may send.
    Allow,
    /// Drops it.
    Drop,
    /// Answers it with a RST.
    Reset,
}

impl SenderRule {
    /// Whether it keeps the client out.
    pub fn refuses(self) -> bool {
        self != Self::Allow
    }
}

/// All rules. In each list the longest prefix that holds an address decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// By the client's address.
    pub clients: BTreeMap<IpNet, ClientRule>,
    /// By the client's address.
    pub bypass_from: BTreeMap<IpNet, BypassRule>,
    /// By the destination address.
    pub bypass_to: BTreeMap<IpNet, BypassRule>,
    /// By the source MAC of the frame: they pass.
    pub bypass_macs: BTreeSet<[u8; 6]>,
    /// By the name of the zone that is entered, and the client's address, whatever it is. A zone that
    /// everybody may send from isn't there.
    pub senders: BTreeMap<String, BTreeMap<IpNet, SenderRule>>,
}

/// The rules that `config` means.
pub fn compile(config: &Config) -> Rules {
    let bypass = &config.bypass;
    let list = |subnets: &[IpNet], ips: &[IpAddr]| {
        let hosts = ips.iter().copied().map(IpNet::from);
        subnets.iter().map(IpNet::trunc).chain(hosts).map(|net| (net, BypassRule::Bypass)).collect()
    };
    Rules {
        clients: client_rules(
            config.kernel.blacklist_action,
            &config.access.blacklist_clients,
            &config.access.whitelist_clients,
        ),
        bypass_from: list(&bypass.from_subnets, &bypass.from_ips),
        bypass_to: list(&bypass.to_subnets, &bypass.to_ips),
        bypass_macs: bypass.from_macs.iter().copied().collect(),
        senders: config
            .zones
            .iter()
            .filter_map(|zone| sender_rules(zone, config.kernel.blacklist_action))
            .collect(),
    }
}

/// Who may send from a zone, and what is done to all others. SMTP has no say in it, and neither has a
/// whitelist: what the firewall forbids isn't opened.
fn sender_rules(zone: &Zone, action: BlacklistAction) -> Option<(String, BTreeMap<IpNet, SenderRule>)> {
    let allowed = zone.allow_clients.as_ref().filter(|_| zone.mode != ZoneMode::Inactive)?;
    let others = match action {
        BlacklistAction::Drop | BlacklistAction::Reject => SenderRule::Drop,
        BlacklistAction::Reset => SenderRule::Reset,
    };
    let everywhere = [IpNet::from(Ipv4Net::default()), Ipv6Net::default().into()];
    let others = everywhere.into_iter().map(|net| (net, others));
    // Whoever allows everybody of a family takes the place of its others.
    let rules = others.chain(allowed.iter().map(|net| (net.trunc(), SenderRule::Allow)));
    Some((zone.name.clone(), rules.collect()))
}

impl Rules {
    /// Lets connections to these addresses pass, too; the rule of an address that has one stays.
    pub fn bypass_to_each<'a>(&mut self, addresses: impl IntoIterator<Item = &'a IpAddr>) {
        for address in addresses {
            self.bypass_to.entry(IpNet::from(*address)).or_insert(BypassRule::Bypass);
        }
    }
}

fn client_rules(action: BlacklistAction, black: &[IpNet], white: &[IpNet]) -> BTreeMap<IpNet, ClientRule> {
    let (rule, black) = match action {
        BlacklistAction::Drop => (ClientRule::Drop, black),
        BlacklistAction::Reset => (ClientRule::Reset, black),
        BlacklistAction::Reject => (ClientRule::Allow, &[][..]),
    };
    let white: HashSet<IpNet> = white.iter().map(IpNet::trunc).collect();
    let black = black.iter().map(IpNet::trunc);
    let listed: HashSet<IpNet> = black.filter(|net| !covered(*net, &white)).collect();
    // What isn't within a listed network, or one that can be banned, needs no exception.
    let needed = |net: &&IpNet| is_part_of_subscriber(**net) || covered(**net, &listed);
    let exceptions = white.iter().filter(needed).map(|net| (*net, ClientRule::Allow));
    listed.iter().map(|net| (*net, rule)).chain(exceptions).collect()
}

/// Whether a ban of a whole IPv6 network would meet others than those of `net`.
fn is_part_of_subscriber(net: IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.prefix_len() > IPV6_NETWORK_BITS)
}

/// Whether `net` is in `nets` or within one of them.
fn covered(net: IpNet, nets: &HashSet<IpNet>) -> bool {
    std::iter::successors(Some(net), IpNet::supernet).any(|net| nets.contains(&net))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace().map(|net| net.parse().unwrap()).collect()
    }

    fn lists(black: Vec<IpNet>, white: Vec<IpNet>) -> BTreeMap<IpNet, ClientRule> {
        client_rules(BlacklistAction::Drop, &black, &white)
    }

    #[track_caller]
    fn check(black: &str, white: &str, expect: &[(&str, ClientRule)]) {
        let expect = expect.iter().map(|(net, rule)| (net.parse().unwrap(), *rule)).collect();
        assert_eq!(lists(nets(black), nets(white)), expect);
    }

    #[test]
    fn whitelisted_clients_are_taken_out() {
        use ClientRule::{Allow, Drop};
        check("10.0.0.0/8 192.0.2.7/32", "", &[("10.0.0.0/8", Drop), ("192.0.2.7/32", Drop)]);
        check("192.0.2.7/32", "192.0.2.7/32", &[]);
        check("192.0.2.7/32", "192.0.2.0/24", &[]);
        check("192.0.2.0/24", "192.0.2.7/32", &[("192.0.2.0/24", Drop), ("192.0.2.7/32", Allow)]);
        check("10.0.0.0/8 10.1.2.0/24", "10.1.0.0/16", &[("10.0.0.0/8", Drop), ("10.1.0.0/16", Allow)]);
        check("2001:db8::/32", "2001:db8::1/128", &[("2001:db8::/32", Drop), ("2001:db8::1/128", Allow)]);
        check("0.0.0.0/0", "::/0", &[("0.0.0.0/0", Drop)]);
        // Its network may be banned.
        check("", "2001:db8::1/128 2001:db8::/65", &[("2001:db8::/65", Allow), ("2001:db8::1/128", Allow)]);
        check("", "2001:db8::/64 2001:db8:1::/48 192.0.2.1/32", &[]);
        check("10.1.2.3/8", "", &[("10.0.0.0/8", Drop)]);
    }

    #[test]
    fn an_address_that_has_a_rule_keeps_it() {
        let mut rules = Rules::default();
        rules.bypass_to.insert("192.0.2.1/32".parse().unwrap(), BypassRule::Intercept);
        rules.bypass_to_each(&["192.0.2.1", "2001:db8::1"].map(|address| address.parse().unwrap()));
        let expect = [("192.0.2.1/32", BypassRule::Intercept), ("2001:db8::1/128", BypassRule::Bypass)];
        assert_eq!(rules.bypass_to, expect.map(|(net, rule)| (net.parse().unwrap(), rule)).into());
    }

    #[test]
    fn each_action_has_its_rule() {
        let black = nets("192.0.2.0/24");
        let of = |action| client_rules(action, &black, &[]).into_values().collect::<Vec<_>>();
        assert_eq!(of(BlacklistAction::Drop), [ClientRule::Drop]);
        assert_eq!(of(BlacklistAction::Reset), [ClientRule::Reset]);
        assert_eq!(of(BlacklistAction::Reject), []);
        let white = client_rules(BlacklistAction::Reject, &black, &nets("192.0.2.1/32 2001:db8::1/128"));
        assert_eq!(
            white.into_iter().collect::<Vec<_>>(),
            [("2001:db8::1/128".parse().unwrap(), ClientRule::Allow)]
        );
    }

    #[test]
    fn who_may_send_is_named_and_everybody_else_is_refused() {
        use SenderRule::{Allow, Drop, Reset};
        let rules = |allowed: Option<&str>, mode: &str, action| {
            let allowed = allowed.map(|nets| nets.split_whitespace().collect::<Vec<_>>());
            let allowed = allowed.map_or(String::new(), |nets| format!(", allow_clients = {nets:?}"));
            let zone = format!(
                "zone = [{{ name = \"lan\", kind = \"green\", interfaces = [\"lan\"], mode = \"{mode}\"{allowed} }}]"
            );
            let rules = sender_rules(&crate::testing::config(&zone).zones[0], action)?.1.into_iter();
            Some(rules.map(|(net, rule)| (net.to_string(), rule)).collect::<Vec<_>>())
        };
        let expect = |rules: &[(&str, SenderRule)]| {
            Some(rules.iter().map(|(net, rule)| ((*net).to_owned(), *rule)).collect::<Vec<_>>())
        };
        let (transparent, drop) = ("transparent", BlacklistAction::Drop);
        assert_eq!(rules(None, transparent, drop), None);
        assert_eq!(rules(Some("10.0.0.1/32"), "inactive", drop), None);
        assert_eq!(rules(Some(""), transparent, drop), expect(&[("0.0.0.0/0", Drop), ("::/0", Drop)]));
        let one = [("0.0.0.0/0", Reset), ("10.0.0.1/32", Allow), ("::/0", Reset)];
        assert_eq!(rules(Some("10.0.0.1/32"), "active", BlacklistAction::Reset), expect(&one));
        let all = [("0.0.0.0/0", Allow), ("::/0", Drop)];
        assert_eq!(rules(Some("0.0.0.0/0"), transparent, BlacklistAction::Reject), expect(&all));
    }

    proptest! {
        /// Whatever overlaps: an address is dropped if it is blacklisted and not whitelisted.
        #[test]
        fn the_longest_prefix_says_what_the_lists_mean(
            black in prop::collection::vec((any::<[u8; 2]>(), 0u8..=16), 0..12),
            white in prop::collection::vec((any::<[u8; 2]>(), 0u8..=16), 0..12),
            probes in prop::collection::vec(any::<[u8; 2]>(), 16),
        ) {
            // Few leading bits, so that networks overlap.
            let net = |(bits, length): &([u8; 2], u8)| {
                let address = IpAddr::from([bits[0] & 0xc3, bits[1] & 0xc3, 0, 0]);
                IpNet::new(address, *length).unwrap().trunc()
            };
            let (black, white) = (black.iter().map(net).collect(), white.iter().map(net).collect::<Vec<_>>());
            let rules = lists(Vec::clone(&black), white.clone());
            for probe in probes {
                let address = IpAddr::from([probe[0] & 0xc3, probe[1] & 0xc3, 0, 1]);
                let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
                let longest = rules.iter().filter(|(net, _)| net.contains(&address)).max_by_key(|(net, _)| net.prefix_len());
                let dropped = longest.map(|(_, rule)| *rule) == Some(ClientRule::Drop);
                prop_assert_eq!(dropped, within(&black) && !within(&white));
            }
        }
    }
}
