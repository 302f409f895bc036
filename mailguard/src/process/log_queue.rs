//! Lines of the log that wait to be written. How many there are, and when, may be a stranger's choice:
//! whoever reads the log and is slow, or stands still, keeps nobody who has something to say, and makes no
//! memory grow. What finds no room, or can't be written, is counted; the log says so once it is read again,
//! and `status` says so meanwhile.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::error;

use crate::admin::SYSTEM_PROBLEM;

/// Most octets that wait: some ten thousand lines. As many more may be under way.
const MAX_WAITING_OCTETS: usize = 4 << 20;
/// Beyond it only lines of this process find room: a mail process that was taken over leaves no line out that
/// root has to say.
const MAX_PASSED_ON_OCTETS: usize = MAX_WAITING_OCTETS / 2;
/// Most octets of one write, in whole lines: others may write to the same place, in between.
const WRITE_OCTETS: usize = 64 << 10;
/// How long the end of the process, or a thread that panics, waits for what is left.
const LAST_LINES_TIME: Duration = Duration::from_secs(2);
/// Pause before it is tried again to write where somebody has made that return at once.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// How long `status` tells of lines that were lost, after the last of them.
const PROBLEM_TIME: Duration = Duration::from_secs(60);
/// How long a write may last before `status` says that nobody reads.
const STALLED_AFTER: Duration = Duration::from_secs(10);

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
    /// Since when some are being written.
    writing: Option<Instant>,
    /// Lines that were lost since the start, and when the last one was.
    lost: Option<(u64, Instant)>,
    /// Those of them of which the log doesn't tell yet.
    untold: u64,
    /// The last attempt to write failed.
    failed: bool,
}

impl LogQueue {
    /// A queue that a thread of its own writes to standard error.
    pub(super) fn start() -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self::default());
        let writer = queue.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            loop {
                writer.write_next(&mut io::stderr());
                let lines = writer.untold();
                if lines > 0 {
                    error!(
                        lines,
                        "the log has gaps: lines came faster than they were read, or couldn't be written"
                    );
                }
            }
        })?;
        Ok(queue)
    }

    /// Takes a line, if there is room for it. Never waits for its reader.
    pub(super) fn push(&self, line: &[u8]) {
        self.push_within(line, MAX_WAITING_OCTETS);
    }

    /// Takes a line of another process in the same way.
    pub(super) fn pass_on(&self, line: &[u8]) {
        self.push_within(line, MAX_PASSED_ON_OCTETS);
    }

    fn push_within(&self, line: &[u8], octets: usize) {
        let mut waiting = self.lock();
        if waiting.lines.len() + line.len() > octets {
            waiting.lose(1);
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
        waiting.writing = Some(Instant::now());
        let lines = std::mem::take(&mut waiting.lines);
        drop(waiting);
        let lost = write(to, &lines);
        let mut waiting = self.lock();
        (waiting.writing, waiting.failed) = (None, lost > 0);
        waiting.lose(lost);
        drop(waiting);
        self.written.notify_all();
    }

    /// How many lost lines the log doesn't tell of yet; it must now. None while there is hardly room to say
    /// so, or where the last attempt to write failed: that would be lost, too.
    fn untold(&self) -> u64 {
        let mut waiting = self.lock();
        match waiting.lines.len() < MAX_WAITING_OCTETS / 2 && !waiting.failed {
            true => std::mem::take(&mut waiting.untold),
            false => 0,
        }
    }

    /// Waits a while until all is written.
    pub(super) fn finish(&self) {
        let waiting = self.lock();
        let unwritten = |waiting: &mut Waiting| waiting.writing.is_some() || !waiting.lines.is_empty();
        // Past that time nobody reads.
        let _ = self.written.wait_timeout_while(waiting, LAST_LINES_TIME, unwritten);
    }

    /// What `status` says while the log isn't read as fast as it is written.
    pub(super) fn problem(&self) -> Option<String> {
        let waiting = self.lock();
        let lost = waiting.lost.filter(|(_, last)| last.elapsed() < PROBLEM_TIME);
        let is_stalled = waiting.writing.is_some_and(|since| since.elapsed() >= STALLED_AFTER);
        let lines = match lost {
            Some((lines, _)) => format!("{lines} lines were left out since the start"),
            None if is_stalled => "lines wait, and are left out once they are too many".to_owned(),
            None => return None,
        };
        Some(format!(
            "{SYSTEM_PROBLEM}the log isn't read, or can't be written: {lines}. Look at what is behind standard error: journald, the program that \
             it goes to, or a disk that is full"
        ))
    }

    /// What waits.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> Vec<u8> {
        self.lock().lines.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn lose(&mut self, lines: u64) {
        if lines > 0 {
            let before = self.lost.map_or(0, |(before, _)| before);
            self.lost = Some((before + lines, Instant::now()));
            self.untold += lines;
        }
    }
}

/// Writes lines, and returns how many of them couldn't be.
fn write(to: &mut impl Write, lines: &[u8]) -> u64 {
    let (mut left, mut lost) = (lines, 0);
    while !left.is_empty() {
        let (piece, rest) = left.split_at(piece(left));
        lost += write_piece(to, piece);
        left = rest;
    }
    lost
}

fn write_piece(to: &mut impl Write, mut piece: &[u8]) -> u64 {
    while !piece.is_empty() {
        match to.write(piece) {
            Ok(written) if written > 0 => piece = &piece[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
            Ok(_) | Err(_) => return memchr::memchr_iter(b'\n', piece).count() as u64,
        }
    }
    0
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
        assert_eq!((queue.untold(), queue.problem()), (0, None));
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_no_memory() {
        let queue = LogQueue::default();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let fits = MAX_WAITING_OCTETS / 1024;
        for _ in 0..3 * fits {
            queue.push(&line);
        }
        assert_eq!(queue.lock().lines.len(), MAX_WAITING_OCTETS);
        let problem = queue.problem().unwrap();
        assert!(problem.contains(&format!("{} lines were left out", 2 * fits)), "{problem}");
        assert_eq!(queue.untold(), 0, "there is no room to say so");
        queue.write_next(&mut io::sink());
        assert_eq!(queue.untold() as usize, 2 * fits, "once the reader is back");
        assert_eq!(queue.untold(), 0, "and once only");
        queue.push(&line);
        assert_eq!(queue.lock().lines.len(), 1024, "there is room again");
    }

    #[test]
    fn what_a_mail_process_says_takes_no_room_from_what_root_says() {
        let queue = LogQueue::default();
        let line = vec![b'x'; 1024];
        (0..2 * MAX_WAITING_OCTETS / line.len()).for_each(|_| queue.pass_on(&line));
        queue.push(b"audit: who opened what\n");
        assert!(queue.waiting().ends_with(b"audit: who opened what\n"));
    }

    #[test]
    fn lines_that_can_not_be_written_are_counted_and_told_when_that_is_over() {
        let queue = LogQueue::default();
        queue.push(b"one\n");
        queue.push(b"two\nand its end\n");
        queue.write_next(&mut Full { room: 6 });
        assert_eq!(queue.untold(), 0, "that could not be written either");
        assert!(queue.problem().unwrap().contains("2 lines were left out"));
        queue.push(b"three\n");
        queue.write_next(&mut io::sink());
        assert_eq!(queue.untold(), 2);
    }

    #[test]
    fn the_end_waits_for_what_is_left_and_for_no_reader() {
        let queue = Arc::new(LogQueue::default());
        queue.push(b"last\n");
        let mut pieces = Pieces::default();
        thread::scope(|scope| {
            scope.spawn(|| queue.write_next(&mut pieces));
            queue.finish();
            assert!(queue.lock().lines.is_empty() && queue.lock().writing.is_none());
        });
        assert_eq!(pieces.0.concat(), b"last\n");
        queue.push(b"for nobody\n");
        let begun = Instant::now();
        queue.finish();
        assert!(begun.elapsed() >= LAST_LINES_TIME);
    }

    /// A disk with so much room.
    struct Full {
        room: usize,
    }

    impl Write for Full {
        fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
            let fits = piece.len().min(std::mem::take(&mut self.room));
            if fits > 0 { Ok(fits) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
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
