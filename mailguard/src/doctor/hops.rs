//! Whether a next hop that the administrator named is this mailguard: each is greeted, all at one time. An
//! inside server that is called as we are can't be told from ourselves by its address, only by what it says.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use futures::future::join_all;
use mailguard_core::config::Config;
use mailguard_core::named_hop::named_hops;
use mailguard_core::route::Route;

use super::Finding;
use crate::delivery::{Delivery, Greeted};
use crate::intercept;
use crate::routing::OwnListeners;

/// Next hops that are greeted: one socket each.
const MAX_GREETED_HOPS: usize = 64;
/// How long each has to greet; its name is looked up in the same time.
const GREETING_PATIENCE: Duration = Duration::from_secs(5);

const CHECK: &str = "next-hop";

/// A next hop and who it is.
pub(super) struct Asked {
    /// `incoming_domain[0].server: 10.1.0.25:25`
    pub(super) what: String,
    pub(super) who: Greeted,
}

/// What became of asking.
pub(super) struct Hops {
    pub(super) asked: Vec<Asked>,
    /// Beyond [`MAX_GREETED_HOPS`].
    pub(super) left_out: usize,
}

/// Greets the next hops of `config`: those with the same way once.
pub(super) fn ask(config: &Config) -> io::Result<Hops> {
    let mut places: HashMap<Route, usize> = HashMap::new();
    let mut hops: Vec<(String, Route, usize)> = Vec::new();
    for (naming, route) in named_hops(config) {
        match places.get(&route) {
            Some(&place) => hops[place].2 += 1,
            None => {
                places.insert(route.clone(), hops.len());
                hops.push((naming.to_string(), route, 0));
            }
        }
    }
    let left_out = hops.len().saturating_sub(MAX_GREETED_HOPS);
    hops.truncate(MAX_GREETED_HOPS);
    let delivery = Delivery::new(OwnListeners::new(intercept::wanted(config)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let greeted = hops.iter().map(|(_, route, _)| delivery.greet(config, route, GREETING_PATIENCE));
    let greeted = runtime.block_on(join_all(greeted));
    let asked = hops.into_iter().zip(greeted).map(|((key, route, others), who)| {
        let others = if others > 0 { format!(" and {others} more") } else { String::new() };
        Asked { what: format!("{key}{others}: {}", route.next_hop), who }
    });
    Ok(Hops { asked: asked.collect(), left_out })
}

/// Judges who they are.
pub(super) fn judge(hops: &io::Result<Hops>) -> Vec<Finding> {
    let Hops { asked, left_out } = match hops {
        Ok(hops) => hops,
        Err(error) => {
            let what = format!("next hops can't be asked who they are: {error}");
            return vec![Finding::warning(CHECK, what, "One that is this mailguard isn't found.")];
        }
    };
    let mut findings: Vec<Finding> = asked.iter().filter_map(judge_one).collect();
    let others = asked.iter().filter(|hop| hop.who == Greeted::Another).count();
    if others > 0 {
        findings.push(Finding::ok(
            CHECK,
            format!("{others} of {} next hops answer, and are others", asked.len()),
        ));
    }
    if *left_out > 0 {
        let what = format!(
            "{left_out} more next hops weren't asked: the first {MAX_GREETED_HOPS} are; mailguard check looks at every address"
        );
        findings.push(Finding::ok(CHECK, what));
    }
    findings
}

fn judge_one(Asked { what, who }: &Asked) -> Option<Finding> {
    match who {
        Greeted::Another => None,
        Greeted::Ourselves(how) => Some(Finding::error(
            CHECK,
            format!("{what} is ourselves, or is called as we are: {how}"),
            "Its mail waits, and goes back to its senders after delivery.max_queue_time. Write the server that takes it on; \
             where that greets by our own name, give one of the two another one: hostname and delivery.helo_name are ours.",
        )),
        Greeted::Nobody(why) => Some(Finding::warning(
            CHECK,
            format!("{what} doesn't say who it is: {why}"),
            "Its mail waits until it answers. Start that server, or correct its address; a firewall that keeps root from it \
             but not the mail user may stay as it is.",
        )),
    }
}
