//! What the client sent, as far as it isn't done with: lines and pieces are taken from its front.

use crate::smtp::line::{Line, Splitter};

/// Octets that arrived. Those that are done with stay where they lie until more arrive, for actions that point at them.
#[derive(Default)]
pub(super) struct Input {
    octets: Vec<u8>,
    /// So many of them are done with.
    used: usize,
    splitter: Splitter,
}

impl Input {
    /// More has arrived: what is done with goes.
    pub(super) fn push(&mut self, octets: &[u8]) {
        self.octets.drain(..self.used);
        self.used = 0;
        self.octets.extend_from_slice(octets);
    }

    /// What isn't done with.
    pub(super) fn rest(&self) -> &[u8] {
        &self.octets[self.used..]
    }

    /// So many octets from the front of the rest are done with.
    pub(super) fn advance(&mut self, octets: usize) {
        self.used += octets;
    }

    /// Everything is done with.
    pub(super) fn discard(&mut self) {
        self.used = self.octets.len();
    }

    /// Takes the next line, if it is complete.
    pub(super) fn next_line(&mut self) -> Option<Line<'_>> {
        let (done, line) = self.splitter.next_line(&self.octets[self.used..]);
        self.used += done;
        line
    }

    /// Where the last `octets` that are done with lie.
    pub(super) fn last_used(&self, octets: usize) -> std::ops::Range<usize> {
        self.used - octets..self.used
    }

    /// What lies there.
    pub(super) fn at(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.octets[range]
    }
}
