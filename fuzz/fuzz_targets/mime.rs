//! The walk over a message's parts keeps its bounds, whatever the message, and every engine has its say.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mailguard_core::finding::{Check, Finding, Opinion};
use mailguard_core::mime::{self, Limits, Part, PartKind, Summary};
use mailguard_scan::{BlockedFiles, Engines, MAX_THREATS, PartEngine, Signatures, Tally};

const LIMITS: Limits = Limits { max_depth: 4, max_entries: 200, max_unpacked: 1 << 20, max_ratio: 250 };

static ENGINES: LazyLock<Engines> = LazyLock::new(|| {
    let signatures = Signatures::compile(&[]).expect("the built-in rules");
    let files = BlockedFiles::new(&["exe".to_owned()]);
    Engines::of(vec![Box::new(files), Box::new(signatures), Box::new(Bounds)], LIMITS)
});

/// An engine that looks at the bounds only.
struct Bounds;

#[derive(Default)]
struct BoundsTally {
    octets: u64,
}

impl PartEngine for Bounds {
    fn check(&self) -> Check {
        Check::Limits
    }

    fn begin(&self) -> Box<dyn Tally + '_> {
        Box::new(BoundsTally::default())
    }
}

impl Tally for BoundsTally {
    fn part(&mut self, part: &Part<'_>) {
        assert!(part.path.depth() <= LIMITS.max_depth);
        assert!(part.names.iter().all(|name| !name.is_empty()));
        self.octets += if part.kind == PartKind::Content { part.content.len() as u64 } else { 0 };
    }

    fn finish(self: Box<Self>, walk: &Summary) -> Vec<Finding> {
        assert!(self.octets <= LIMITS.max_unpacked);
        assert!(walk.parts <= LIMITS.max_entries);
        vec![Finding::new(Check::Limits, Opinion::Pass, "within them")]
    }
}

fuzz_target!(|message: &[u8]| {
    let findings = ENGINES.scan(message, &|_| false);
    for check in [Check::Files, Check::Signatures, Check::Limits] {
        let of_check = findings.iter().filter(|finding| finding.check == check).count();
        assert!((1..=MAX_THREATS + 1).contains(&of_check), "{check}: {of_check} findings");
    }
    let _ = mime::subject(message);
});
