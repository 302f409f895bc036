//! `mailguard rbl`: the known block lists, which of them are asked, and what those say of one client or
//! domain. The DNS is asked from here, with or without a daemon.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, bail};
use mailguard_core::config::Config;
use mailguard_core::mail::{Domain, ReversePath};
use mailguard_core::policy::NO_ANSWER_IN_TIME;
use mailguard_core::policy::check::rbl::{RblQuery, queries};
use mailguard_core::rbl::{CATALOGUE, Kind, List, Listing, query_for_domain};
use serde::Serialize;

use super::Printed;
use super::args::{Kind as _, Output, RblCommand, RblLists};
use super::daemon::Daemon;
use super::lists::{edit, notes};
use super::terminal::Table;
use crate::admin::Edited;
use crate::config::{self, Change, Edit};
use crate::lookup::dns::Dns;
use crate::session::facts::ask_list;

/// Answers about block lists, and changes which are asked.
pub(super) fn rbl(
    path: &Path,
    connect: impl FnOnce() -> anyhow::Result<Daemon>,
    command: RblCommand,
) -> anyhow::Result<Printed> {
    let config = || anyhow::Ok(config::parse_and_validate(&config::load(path)?)?);
    match command {
        RblCommand::Enable(RblLists { kind, lists, output }) => {
            let printed = edit(
                &mut connect()?,
                Edit { list: kind.list(), change: Change::Add, values: lists, all: false },
                output,
                print_edited,
            )?;
            Ok(with_asked(printed, output, config().ok().as_ref()))
        }
        RblCommand::Disable(RblLists { kind, lists, output }) => {
            let printed = edit(
                &mut connect()?,
                Edit { list: kind.list(), change: Change::Remove, values: lists, all: false },
                output,
                print_edited,
            )?;
            Ok(with_asked(printed, output, config().ok().as_ref()))
        }
        RblCommand::List { output } => {
            let config = config()?;
            let rows: Vec<Row> = CATALOGUE.iter().map(|list| Row::of(&config, list)).collect();
            let rows: Vec<Row> = rows.into_iter().chain(own(&config)).collect();
            Printed::result(output, &rows, || print(&rows))
        }
        RblCommand::Check { subject, output } => {
            let answers = check(&config()?, &subject)?;
            let failed = answers.iter().any(|answer| answer.listed.is_some());
            let printed = Printed::result(output, &answers, || print_answers(&answers))?;
            Ok(Printed { failed, ..printed })
        }
    }
}

fn print_edited(edited: &Edited) -> String {
    let done = match edited.change {
        Change::Add => "enabled",
        Change::Remove => "disabled",
    };
    let (lists, config) = (edited.values.join(", "), edited.config.display());
    let mut text = format!("{done}: {lists}\nin force, and written into {config}\n");
    notes(&mut text, &edited.notes);
    text
}

/// Names all that is asked now: what was switched on brought more with it, if more was written there.
fn with_asked(printed: Printed, output: Output, config: Option<&Config>) -> Printed {
    let Some(rbl) = config.filter(|_| !output.json).and_then(|config| config.rbl.as_ref()) else {
        return printed;
    };
    let asked: Vec<&str> = rbl.ip_lists.iter().chain(&rbl.domain_lists).map(String::as_str).collect();
    let asked = if asked.is_empty() { "none".to_owned() } else { asked.join(", ") };
    Printed { text: format!("{}asked now: {asked}\n", printed.text), ..printed }
}

/// A list, as it is shown.
#[derive(Debug, Serialize)]
struct Row {
    list: String,
    kind: &'static str,
    family: &'static str,
    /// Whether the configuration has it asked.
    asked: bool,
    /// How it ended, if it did.
    retired: Option<&'static str>,
    homepage: &'static str,
}

impl Row {
    fn of(config: &Config, list: &'static List) -> Self {
        let List { zone, family, kind, homepage, retired, .. } = *list;
        Self {
            list: zone.to_owned(),
            kind: word(kind),
            family,
            asked: is_asked(config, zone),
            retired,
            homepage,
        }
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Ip => "ip",
        Kind::Domain => "domain",
    }
}

fn is_asked(config: &Config, zone: &str) -> bool {
    config.rbl.iter().flat_map(|rbl| rbl.ip_lists.iter().chain(&rbl.domain_lists)).any(|asked| asked == zone)
}

/// Lists that are asked and that the catalogue doesn't know.
fn own(config: &Config) -> Vec<Row> {
    let Some(rbl) = &config.rbl else { return Vec::new() };
    let kinds = [(Kind::Ip, &rbl.ip_lists), (Kind::Domain, &rbl.domain_lists)];
    let named = kinds.into_iter().flat_map(|(kind, zones)| zones.iter().map(move |zone| (kind, zone)));
    named
        .filter(|(_, zone)| mailguard_core::rbl::find(zone).is_none())
        .map(|(kind, zone)| Row {
            list: zone.clone(),
            kind: word(kind),
            family: "-",
            asked: true,
            retired: None,
            homepage: "-",
        })
        .collect()
}

fn print(rows: &[Row]) -> String {
    let mut table = Table::whole(&["LIST", "KIND", "FAMILY", "ASKED", "HOMEPAGE OR END"]);
    for Row { list, kind, family, asked, retired, homepage } in rows {
        let asked = if *asked { "yes" } else { "no" };
        let words = [list, *kind, *family, asked, retired.unwrap_or(homepage)];
        table.row(words.map(str::to_owned));
    }
    let mut text = String::new();
    table.print(&mut text, "");
    text
}

/// What one list said.
#[derive(Debug, Serialize)]
struct AnswerRow {
    list: String,
    /// What its listing means, if it has one.
    listed: Option<String>,
    /// Why its answer can't be used, if so.
    unusable: Option<String>,
}

fn check(config: &Config, subject: &str) -> anyhow::Result<Vec<AnswerRow>> {
    let Some(rbl) = &config.rbl else {
        bail!("no list is asked: set rbl.enabled = true in the configuration")
    };
    let asked: Vec<RblQuery> = match subject.parse::<IpAddr>() {
        Ok(client) => queries(rbl, client, &ReversePath::Null, None, &[]),
        Err(_) => {
            let domain = Domain::parse(subject)
                .with_context(|| format!("{subject} is neither an address nor a domain"))?;
            let of = |zone: &String| {
                Some(RblQuery {
                    zone: zone.clone(),
                    subject: subject.to_owned(),
                    query: query_for_domain(&domain, zone)?,
                })
            };
            rbl.domain_lists.iter().filter_map(of).collect()
        }
    };
    let dns = Dns::new(&config.dns);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listings = runtime.block_on(futures::future::join_all(asked.iter().map(async |query| {
        let answer = tokio::time::timeout(rbl.timeout, ask_list(&dns, query)).await;
        answer.unwrap_or_else(|_| Listing::Unusable(NO_ANSWER_IN_TIME.to_owned()))
    })));
    let rows = asked.into_iter().zip(listings).map(|(RblQuery { zone, .. }, listing)| match listing {
        Listing::NotListed => AnswerRow { list: zone, listed: None, unusable: None },
        Listing::Listed(meaning) => AnswerRow { list: zone, listed: Some(meaning), unusable: None },
        Listing::Unusable(why) => AnswerRow { list: zone, listed: None, unusable: Some(why) },
    });
    Ok(rows.collect())
}

fn print_answers(answers: &[AnswerRow]) -> String {
    let mut table = Table::whole(&["LIST", "ANSWER"]);
    for AnswerRow { list, listed, unusable } in answers {
        let answer = match (listed, unusable) {
            (Some(meaning), _) => format!("listed: {meaning}"),
            (None, Some(why)) => format!("no answer: {why}"),
            (None, None) => "not listed".to_owned(),
        };
        table.row([list.clone(), answer]);
    }
    let mut text = String::new();
    table.print(&mut text, "");
    text
}
