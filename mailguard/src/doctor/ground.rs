//! Which addresses are whose: this machine's own, and those that are reached by each interface. Pure; reads
//! `ip -j address show` and `ip -j route show`.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use mailguard_core::config::Config;
use mailguard_core::config::model::ZoneKind;
use serde_json::Value;

use super::facts;
use super::ranges::{Ranges, network, special};
use super::tool::{Said, Unread};
use crate::intercept::Family;

/// What is known of the addresses.
#[derive(Debug, Default)]
pub(super) struct Ground {
    /// Interface and family ▶ its own addresses.
    own: HashMap<(String, Family), Ranges>,
    /// Interface and family ▶ what is routed there, the rest of the world apart.
    routed: HashMap<(String, Family), Ranges>,
    /// Another name of an interface ▶ the one that rules see.
    names: HashMap<String, String>,
    /// Interfaces that the rest of the world is reached by.
    pub(super) uplinks: Vec<String>,
}

/// The addresses around one interface, in one family.
#[derive(Debug, Clone, Default)]
pub(super) struct Surroundings {
    /// Its own.
    pub(super) own: Ranges,
    /// Its networks and those behind them.
    pub(super) networks: Ranges,
    /// The hosts there that may be clients.
    pub(super) clients: Ranges,
    /// Where a client of it can dial that the way leads through this machine.
    pub(super) beyond: Ranges,
    /// Who may dial it from anywhere.
    pub(super) strangers: Ranges,
}

impl Ground {
    /// Reads all that can be read; says what can't.
    pub(super) fn read(config: &Config, firewall: &facts::Firewall) -> (Self, Vec<Unread>) {
        let (mut ground, mut unread) = (Self::default(), Vec::new());
        match list(&firewall.addresses, "ip -j address show") {
            Ok(interfaces) => interfaces.iter().for_each(|interface| ground.interface(interface)),
            Err(reason) => unread.push(reason),
        }
        for (family, said) in &firewall.routes {
            match list(said, "ip -j route show") {
                Ok(routes) => routes.iter().for_each(|route| ground.route(*family, route)),
                Err(reason) => unread.push(reason),
            }
        }
        let red = config.zones.iter().filter(|zone| zone.kind == ZoneKind::Red);
        for name in red.flat_map(|zone| &zone.interfaces) {
            let name = ground.real_name(name).to_owned();
            ground.uplink(&name);
        }
        (ground, unread)
    }

    fn uplink(&mut self, name: &str) {
        if !self.uplinks.iter().any(|known| known == name) {
            self.uplinks.push(name.to_owned());
        }
    }

    /// The name that rules see of an interface.
    pub(super) fn real_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.names.get(name).map_or(name, String::as_str)
    }

    fn interface(&mut self, interface: &Value) {
        let Some(name) = interface["ifname"].as_str() else { return };
        let others = interface["altnames"].as_array().map(Vec::as_slice).unwrap_or_default();
        self.names
            .extend(others.iter().filter_map(|other| Some((other.as_str()?.to_owned(), name.to_owned()))));
        let addresses = interface["addr_info"].as_array().map(Vec::as_slice).unwrap_or_default();
        for address in addresses.iter().filter_map(|info| info["local"].as_str()?.parse::<IpAddr>().ok()) {
            let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
            add(&mut self.own, name, family, IpNet::from(address));
        }
    }

    fn route(&mut self, family: Family, route: &Value) {
        let hops = route["nexthops"].as_array().map(Vec::as_slice).unwrap_or_default();
        let devices = hops.iter().chain([route]).filter_map(|hop| hop["dev"].as_str());
        let to = route["dst"].as_str().unwrap_or_default();
        for device in devices {
            match network(to) {
                Some(net) if net.prefix_len() > 0 => add(&mut self.routed, device, family, net),
                _ => self.uplink(device),
            }
        }
    }

    /// Around this interface.
    pub(super) fn around(&self, interface: &str, family: Family) -> Surroundings {
        let of = |map: &HashMap<(String, Family), Ranges>| {
            map.get(&(interface.to_owned(), family)).cloned().unwrap_or_default()
        };
        let own_anywhere = self.own.iter().filter(|((_, other), _)| *other == family);
        let own_anywhere = own_anywhere.fold(Ranges::default(), |all, (_, own)| all.union(own));
        let strangers = Ranges::all(family).without(&special(family)).without(&own_anywhere);
        let networks = of(&self.routed).without(&special(family));
        let clients = networks.without(&own_anywhere);
        Surroundings { own: of(&self.own), networks, beyond: strangers.without(&clients), clients, strangers }
    }

    /// The families that an interface speaks; all where nothing is known.
    pub(super) fn families(&self, interface: &str) -> Vec<Family> {
        let speaks = |family: &Family| {
            let around = self.around(interface, *family);
            !around.clients.is_empty() || !around.own.without(&special(*family)).is_empty()
        };
        let all = [Family::V4, Family::V6];
        let spoken: Vec<Family> = all.into_iter().filter(speaks).collect();
        if spoken.is_empty() { all.into() } else { spoken }
    }

    /// The interfaces that lead away from this one: to the rest of the world, or else to anywhere.
    pub(super) fn ways_out(&self, interface: &str) -> Vec<&str> {
        let other = |name: &&str| *name != interface && *name != "lo";
        let uplinks: Vec<&str> = self.uplinks.iter().map(String::as_str).filter(other).collect();
        if !uplinks.is_empty() {
            return uplinks;
        }
        let mut ways: Vec<&str> = self.routed.keys().map(|(name, _)| name.as_str()).filter(other).collect();
        ways.sort_unstable();
        ways.dedup();
        ways
    }
}

fn add(map: &mut HashMap<(String, Family), Ranges>, name: &str, family: Family, net: IpNet) {
    let known = map.entry((name.to_owned(), family)).or_default();
    *known = known.union(&Ranges::of_networks([&net]));
}

fn list(said: &Said, command: &str) -> Result<Vec<Value>, Unread> {
    let text = said.clone()?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&text)
        .map_err(|error| Unread::Failed { command: command.to_owned(), reason: error.to_string() })
}
