//! Whether what a running daemon set up is still there: rules, routes, programs. It puts back what others
//! remove; what is missing here is missing all the same, or again. Pure.

use std::collections::HashMap;

use mailguard_common::maps::PACKET_MARK;
use mailguard_core::config::Config;
use mailguard_core::config::model::ZoneMode;

use super::daemon::Daemon;
use super::facts::Routing;
use super::{Finding, interfaces_in};
use crate::datapath::{KERNEL_PROBLEM, PRIORITY, STEER, TABLE};
use crate::intercept::Family;

const WHY: &str = "Connections to port 25 get stuck, or pass unfiltered. The daemon puts back what others remove, every few seconds: \
                   find who removes it (`mailguard status` counts, its log says when; systemd-networkd needs \
                   ManageForeignRoutingPolicyRules=no and ManageForeignRoutes=no).";

/// Judges what belongs to the interfaces that are `present`. `programs`: those at the TCX hooks, where the
/// kernel has them.
pub(super) fn judge(
    config: &Config,
    daemon: &Daemon,
    present: &[String],
    routing: &[Routing],
    programs: Option<&HashMap<String, Vec<String>>>,
) -> Vec<Finding> {
    let (problems, serves) = match daemon {
        Daemon::Down { .. } => return Vec::new(),
        Daemon::Runs { problems, serves, .. } => (problems.as_slice(), Some(serves)),
        Daemon::Odd(_) => (&[][..], None),
    };
    let mut findings: Vec<Finding> = problems
        .iter()
        .filter(|problem| problem.starts_with(KERNEL_PROBLEM))
        .map(|problem| {
            Finding::error("daemon-problem", problem, "The daemon says so: see `mailguard status`.")
        })
        .collect();
    if !config.enabled {
        return findings;
    }
    let there = |name: &&str| {
        present.iter().any(|present| present == name)
            && serves.is_none_or(|serves| serves.iter().any(|serves| serves == name))
    };
    let transparent: Vec<&str> =
        interfaces_in(config, ZoneMode::Transparent).into_iter().filter(there).collect();
    if !transparent.is_empty() {
        findings.extend(routing.iter().flat_map(|family| routing_of(family, &transparent)));
    }
    let active = interfaces_in(config, ZoneMode::Active).into_iter().filter(there);
    for name in transparent.into_iter().chain(active) {
        let programs = programs.and_then(|programs| programs.get(name));
        if programs.is_some_and(|programs| !programs.iter().any(|program| program == STEER)) {
            let what = format!("{name}: the TC program isn't attached");
            findings.push(Finding::error("program-missing", what, WHY).command("mailguard reload"));
        }
    }
    findings
}

fn routing_of(family: &Routing, interfaces: &[&str]) -> Vec<Finding> {
    let ip = if family.family == Family::V4 { "ip -4" } else { "ip -6" };
    let mut findings = Vec::new();
    if let Ok(text) = &family.rules {
        let ours: Vec<_> =
            text.lines().filter_map(super::routing::rule).filter(super::routing::Rule::is_ours).collect();
        let missing =
            interfaces.iter().filter(|name| !ours.iter().any(|rule| rule.value("iif") == Some(**name)));
        findings.extend(missing.map(|name| {
            let rule = format!(
                "iif {name} fwmark {PACKET_MARK:#x}/{PACKET_MARK:#x} lookup {TABLE} priority {PRIORITY}"
            );
            Finding::error("policy-rule-missing", format!("{ip}: our rule for {name} is missing"), WHY)
                .command(format!("{ip} rule add {rule}"))
        }));
    }
    if let Ok(text) = &family.routes
        && !text.lines().any(|line| line.trim_start().starts_with("local default dev lo"))
    {
        let what = format!("{ip}: our route in table {TABLE} is missing");
        let finding = Finding::error("policy-route-missing", what, WHY);
        findings.push(finding.command(format!("{ip} route add local default dev lo table {TABLE}")));
    }
    findings
}
