//! Kernel settings: which of them matter to what is bypassed, and that the rest doesn't matter. Pure.

use std::collections::HashMap;

use mailguard_core::config::Config;
use mailguard_core::config::model::ZoneMode;

use super::tool::Said;
use super::{Finding, interfaces_in};

/// Judges the settings, by their names under /proc/sys.
pub(super) fn judge(
    config: &Config,
    settings: &HashMap<String, String>,
    default_routes: &Said,
) -> Vec<Finding> {
    let transparent = interfaces_in(config, ZoneMode::Transparent);
    let mut findings = Vec::new();
    if !transparent.is_empty() {
        findings.extend(forwarding(settings));
    }
    findings.extend(reverse_path(&transparent, settings, default_routes));
    findings.push(harmless(settings));
    findings
}

fn forwarding(settings: &HashMap<String, String>) -> Vec<Finding> {
    let keys = [("net/ipv4/ip_forward", "IPv4"), ("net/ipv6/conf/all/forwarding", "IPv6")];
    let judge = |(key, family): (&str, &str)| {
        let dotted = key.replace('/', ".");
        let value = settings.get(key)?;
        Some(match value.as_str() {
            "0" => Finding::warning(
                "forwarding",
                format!("{dotted} = 0: {family} isn't forwarded"),
                "What is intercepted is served all the same, but bypassed mail, and with on_proxy_down = \"bypass\" \
                 all mail, goes nowhere. Keep the setting in /etc/sysctl.d, too.",
            )
            .command(format!("sysctl -w {dotted}=1")),
            _ => Finding::ok("forwarding", format!("{dotted} = {value}: bypassed mail is forwarded")),
        })
    };
    keys.into_iter().filter_map(judge).collect()
}

/// A strict filter drops what comes in by another way than answers would take.
fn reverse_path(
    transparent: &[&str],
    settings: &HashMap<String, String>,
    default_routes: &Said,
) -> Vec<Finding> {
    let defaults = default_routes.as_ref().map_or(0, |text| text.lines().count());
    let value = |interface: &str| {
        let key = format!("net/ipv4/conf/{interface}/rp_filter");
        settings.get(&key).and_then(|value| value.parse::<u8>().ok()).unwrap_or(0)
    };
    let judge = |name: &&str| {
        // The kernel takes the higher one.
        let value = value(name).max(value("all"));
        match value {
            0 => None,
            1 if defaults > 1 => Some(
                Finding::warning(
                    "rp-filter",
                    format!("{name}: rp_filter = 1 (strict), and there are {defaults} default routes"),
                    "Interception doesn't mind. But bypassed mail whose answers would leave by another interface \
                     is dropped, as is all other such traffic. Loose (2) lets it pass.",
                )
                .command(format!("sysctl -w net.ipv4.conf.{}.rp_filter=2", name.replace('.', "/"))),
            ),
            value => Some(Finding::ok(
                "rp-filter",
                format!("{name}: rp_filter = {value}: our routing rules, bound to the interface, pass it"),
            )),
        }
    };
    transparent.iter().filter_map(judge).collect()
}

/// The settings that disturb other transparent proxies.
fn harmless(settings: &HashMap<String, String>) -> Finding {
    let mut values: Vec<String> = settings
        .iter()
        .filter(|(key, value)| {
            key.ends_with("/src_valid_mark") && *value != "0"
                || key.ends_with("/tcp_fwmark_accept")
                || key.ends_with("/ip_early_demux")
        })
        .map(|(key, value)| format!("{} = {value}", key.replace('/', ".")))
        .collect();
    values.sort();
    Finding::ok("settings", format!("{}: interception works with each value of these", values.join(", ")))
}
