//! The read buffer: lines and pieces of content are consumed from its front.

use crate::smtp::line::{Line, Splitter};

/// Octets that arrived. Consumed ones stay in place until more arrive: actions borrow them.
#[derive(Default)]
pub(super) struct Input {
    octets: Vec<u8>,
    /// So many of them are consumed.
    used: usize,
    splitter: Splitter,
}

impl Input {
    /// Appends what was read; what is consumed is dropped.
    pub(super) fn push(&mut self, octets: &[u8]) {
        self.octets.drain(..self.used);
        self.used = 0;
        self.octets.extend_from_slice(octets);
    }

    /// What isn't consumed.
    pub(super) fn rest(&self) -> &[u8] {
        &self.octets[self.used..]
    }

    /// Consumes so many octets from the front.
    pub(super) fn advance(&mut self, octets: usize) {
        self.used += octets;
    }

    /// Consumes everything.
    pub(super) fn discard(&mut self) {
        self.used = self.octets.len();
    }

    /// Takes the next line, if it is complete.
    pub(super) fn next_line(&mut self) -> Option<Line<'_>> {
        let (done, line) = self.splitter.next_line(&self.octets[self.used..]);
        self.used += done;
        line
    }

    /// Where the last `octets` that were consumed are.
    pub(super) fn last_used(&self, octets: usize) -> std::ops::Range<usize> {
        self.used - octets..self.used
    }

    /// The octets there.
    pub(super) fn at(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.octets[range]
    }
}
