//! The engines of a configuration, and the one walk over a message that shows its parts to all of them.

use std::time::Duration;

use mailguard_core::config::Config;
use mailguard_core::finding::{Check, Family, Finding, Opinion, Threat};
use mailguard_core::mime::{self, Budget, Limit, Limits, Part, PartKind, PartPath};

use crate::engine::{PartEngine, Tally};
use crate::files::BlockedFiles;
use crate::signatures::Signatures;

/// Longest time in which new parts of one message are still shown to virus engines. The others go on.
pub const SCAN_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest time for one message, all engines together: then the walk ends.
pub const WALK_TIMEOUT: Duration = Duration::from_secs(120);

/// The default of `files.limits.max_ratio`, which can't be set to anything else.
const MAX_RATIO: u64 = 250;

/// What the parts of messages are shown to, within which limits.
pub struct Engines {
    engines: Vec<Box<dyn PartEngine>>,
    limits: Limits,
}

impl Engines {
    /// The engines that the configuration asks for, a line each. Their findings come in this order.
    /// `signatures` are compiled by whoever knows whether they changed.
    pub fn new(config: &Config, signatures: Option<&Signatures>) -> Self {
        let files = &config.files;
        let mut engines: Vec<Box<dyn PartEngine>> = Vec::new();
        engines.extend(files.enabled.then(|| Box::new(BlockedFiles::new(&files.extensions)) as _));
        engines.extend(signatures.map(|signatures| Box::new(signatures.clone()) as _));
        let limits = Limits {
            max_depth: files.max_depth,
            max_entries: files.max_entries,
            max_unpacked: files.max_unpacked,
            max_ratio: MAX_RATIO,
        };
        Self::of(engines, limits)
    }

    /// These engines.
    pub fn of(engines: Vec<Box<dyn PartEngine>>, limits: Limits) -> Self {
        Self { engines, limits }
    }

    /// Whose findings a message has.
    pub fn checks(&self) -> impl Iterator<Item = Check> {
        self.engines.iter().map(|engine| engine.check())
    }

    /// Walks a message: at least one finding of each engine. `has_taken` says whether so much time has gone
    /// by since.
    pub fn scan(&self, message: &[u8], has_taken: &dyn Fn(Duration) -> bool) -> Vec<Finding> {
        let mut tallies: Vec<(Check, Box<dyn Tally + '_>)> =
            self.engines.iter().map(|engine| (engine.check(), engine.begin())).collect();
        let mut is_late = false;
        let mut show = |part: &Part<'_>| {
            is_late |= has_taken(SCAN_TIMEOUT);
            for (check, tally) in &mut tallies {
                if !is_late || check.family() != Family::Virus {
                    tally.part(part);
                }
            }
        };
        let walk_is_late = || has_taken(WALK_TIMEOUT);
        let budget = Budget::new(self.limits, &walk_is_late);
        let walk = mime::walk(message, &budget, &mut |part| {
            show(part);
            Ok(())
        });
        show(&as_it_stands(message));
        let mut all = Vec::with_capacity(tallies.len());
        for (check, tally) in tallies {
            let mut findings = tally.finish(&walk);
            if let Some(unfinished) = self.unfinished(check, walk.exceeded, is_late) {
                // What wasn't seen to its end didn't pass; and a cause that stands there came first.
                findings.retain(|finding| finding.opinion != Opinion::Pass);
                let is_told = matches!(unfinished.opinion, Opinion::Unavailable(_))
                    && findings.iter().any(|finding| matches!(finding.opinion, Opinion::Unavailable(_)));
                findings.extend((!is_told).then_some(unfinished));
            }
            all.append(&mut findings);
        }
        all
    }

    /// What a check says of a message that it wasn't shown to its end, by its family. File checks answer for
    /// the limits; where there is none, a virus scan isn't complete. A spam engine judges by what it saw.
    fn unfinished(&self, check: Check, exceeded: Option<Limit>, is_late: bool) -> Option<Finding> {
        let unavailable =
            |cause: String| Some(Finding::new(check, Opinion::Unavailable(cause.clone()), cause));
        let took_longer = |time: Duration| format!("the message took longer than {} s", time.as_secs());
        match (check.family(), exceeded) {
            // What it looks at are parts, and those it has seen.
            (Family::Files, None) => None,
            (Family::Files, Some(limit)) if limit != Limit::Time => {
                let threat = Threat::File("(beyond the limits)".to_owned());
                Some(Finding::new(check, Opinion::Found(threat), format!("handled as blocked: {limit}")))
            }
            (Family::Virus, _) if is_late => unavailable(took_longer(SCAN_TIMEOUT)),
            (_, Some(Limit::Time)) => unavailable(took_longer(WALK_TIMEOUT)),
            (Family::Virus, Some(limit)) if self.checks().all(|check| check.family() != Family::Files) => {
                unavailable(format!("not scanned to its end: {limit}"))
            }
            _ => None,
        }
    }
}

/// Whatever readers make of it: what no reading takes for a part is found here.
fn as_it_stands(message: &[u8]) -> Part<'_> {
    Part {
        header: &[],
        names: &[],
        content: message,
        kind: PartKind::Message,
        path: PartPath::new(None, None),
    }
}
