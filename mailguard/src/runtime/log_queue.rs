//! Lines of the mail log that wait to be written. Their number is a peer's choice: whoever reads the log and is slow, or
//! stands still, makes no client wait and no memory grow. What finds no room is counted, and the log says so.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Most octets that wait: some ten thousand lines.
const MAX_WAITING_OCTETS: usize = 4 << 20;
/// Most octets of one write, in whole lines: others write to the same place, in between.
const WRITE_OCTETS: usize = 64 << 10;
/// How long the end of the process waits for what is left.
const LAST_LINES_TIME: Duration = Duration::from_secs(2);

/// The lines.
#[derive(Debug, Default)]
pub(super) struct LogQueue {
    waiting: Mutex<Waiting>,
    news: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Lines that found no room since that was last said.
    lost: u64,
    /// Some are being written.
    busy: bool,
}

impl LogQueue {
    /// A queue that a thread of its own writes to standard error.
    pub(super) fn start() -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self::default());
        let writer = queue.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            loop {
                writer.write_next(&mut io::stderr());
            }
        })?;
        Ok(queue)
    }

    /// Takes a line, if there is room for it.
    pub(super) fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.lines.len() + line.len() > MAX_WAITING_OCTETS {
            waiting.lost += 1;
        } else {
            waiting.lines.extend_from_slice(line);
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// Waits for lines and writes them.
    fn write_next(&self, to: &mut impl Write) {
        let mut waiting = self.lock();
        while waiting.lines.is_empty() {
            waiting = self.news.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.busy = true;
        let (lines, lost) = (std::mem::take(&mut waiting.lines), std::mem::take(&mut waiting.lost));
        drop(waiting);
        let mut left = &lines[..];
        while !left.is_empty() {
            let (piece, rest) = left.split_at(piece(left));
            // Nobody is left to be told if this fails.
            let _ = to.write_all(piece);
            left = rest;
        }
        if lost > 0 {
            tracing::warn!(
                lines = lost,
                "the mail log has gaps: lines came faster than they could be written"
            );
        }
        self.lock().busy = false;
        self.written.notify_all();
    }

    /// Waits a while until all is written.
    pub(super) fn finish(&self) {
        let waiting = self.lock();
        let unwritten = |waiting: &mut Waiting| waiting.busy || !waiting.lines.is_empty();
        // Past that time nobody reads.
        let _ = self.written.wait_timeout_while(waiting, LAST_LINES_TIME, unwritten);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Octets of the next write: whole lines, as far as they fit.
fn piece(lines: &[u8]) -> usize {
    let fits = &lines[..lines.len().min(WRITE_OCTETS)];
    fits.iter().rposition(|octet| *octet == b'\n').map_or(fits.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_in_order() {
        let queue = LogQueue::default();
        let line = |number: usize| format!("{number} {}\n", "x".repeat(number % 700));
        let all: String = (0..1000).map(line).collect();
        all.split_inclusive('\n').for_each(|line| queue.push(line.as_bytes()));
        let mut pieces = Pieces::default();
        queue.write_next(&mut pieces);
        assert_eq!(pieces.0.concat(), all.as_bytes());
        assert!(pieces.0.len() > 1);
        assert!(pieces.0.iter().all(|piece| piece.len() <= WRITE_OCTETS && piece.ends_with(b"\n")));
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_no_memory() {
        let queue = LogQueue::default();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..3 * MAX_WAITING_OCTETS / 1024 {
            queue.push(&line);
        }
        let waiting = queue.lock();
        assert_eq!(waiting.lines.len(), MAX_WAITING_OCTETS);
        assert_eq!(waiting.lost as usize, 2 * MAX_WAITING_OCTETS / 1024);
        drop(waiting);
        queue.write_next(&mut io::sink());
        queue.push(&line);
        let waiting = queue.lock();
        assert_eq!((waiting.lines.len(), waiting.lost), (1024, 0), "there is room again");
    }

    /// What was written, write by write.
    #[derive(Default)]
    struct Pieces(Vec<Vec<u8>>);

    impl Write for Pieces {
        fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
            self.0.push(piece.to_vec());
            Ok(piece.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
