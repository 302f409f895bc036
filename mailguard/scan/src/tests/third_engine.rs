//! An engine as somebody would add one: points for each named part of a forwarded message, and where readers
//! differ.

use mailguard_core::finding::{Check, Finding, Opinion};
use mailguard_core::mime::{Part, Summary};
use mailguard_core::points::Points;

use crate::{PartEngine, Tally};

pub(super) struct Forwarded;

struct ForwardedTally(Vec<Finding>);

fn score(hundredths: i32, reason: String) -> Finding {
    Finding::new(Check::Files, Opinion::Score(Points::from_hundredths(hundredths)), reason)
}

impl PartEngine for Forwarded {
    fn check(&self) -> Check {
        Check::Files
    }

    fn begin(&self) -> Box<dyn Tally + '_> {
        Box::new(ForwardedTally(Vec::new()))
    }
}

impl Tally for ForwardedTally {
    fn part(&mut self, part: &Part<'_>) {
        if part.path.depth() > 0 && part.path.name().is_some() {
            self.0.push(score(150, part.path.to_string()));
        }
    }

    fn finish(mut self: Box<Self>, walk: &Summary) -> Vec<Finding> {
        if !walk.ambiguities.is_empty() {
            self.0.push(score(25, "readers differ".to_owned()));
        }
        if self.0.is_empty() {
            self.0.push(Finding::new(Check::Files, Opinion::Pass, "nothing forwarded"));
        }
        self.0
    }
}
