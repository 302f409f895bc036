//! What the kernel programs have to say to an administrator, in the log: a thread reads the ring of events
//! and paces them. Every packet is in the counters; the log shows which client, and that it happens at all.

use std::ffi::CString;
use std::io::{self, PipeReader, PipeWriter, pipe};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use mailguard_common::maps::{Event, Reason, SMTP_PORT, map};
use nix::net::if_::if_indextoname;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{error, info, warn};

use super::object::take_map;
use super::{DatapathError, now_ns};

/// How long the thread waits for an event before it looks whether a minute is over, milliseconds.
const WAIT_MS: u16 = 500;
/// Events that are read before it looks again.
const MAX_EVENTS_A_TURN: usize = 4_096;
/// Lines for one reason in one [`WINDOW`]; events beyond are counted and said in one line at its end.
const MAX_LINES: u32 = 10;
/// Begins with the first line of a reason.
const WINDOW: Duration = Duration::from_secs(60);
/// An event that waited longer than this, as those of a time without a daemon do, is logged with its age.
const LATE: Duration = Duration::from_secs(2);

/// The thread that logs events; it ends when this is dropped.
pub(super) struct EventLog {
    thread: Option<JoinHandle<()>>,
    /// Closed to end the thread.
    stop: Option<PipeWriter>,
}

impl EventLog {
    /// Logs what the programs of the loaded object put into the ring, and what still stands there.
    pub(super) fn start(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let ring: RingBuf<MapData> = take_map(ebpf, map::EVENTS)?;
        let (stopped, stop) = pipe().map_err(DatapathError::EventThread)?;
        let thread = thread::Builder::new()
            .name("kernel-events".to_owned())
            .spawn(move || follow(ring, &stopped))
            .map_err(DatapathError::EventThread)?;
        Ok(Self { thread: Some(thread), stop: Some(stop) })
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("the thread that logs kernel events panicked");
        }
    }
}

fn follow(mut ring: RingBuf<MapData>, stopped: &PipeReader) {
    let mut pace = Pace::default();
    loop {
        match wait(&ring, stopped) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                error!(%error, "kernel events are no longer logged until a restart; the counters go on");
                return;
            }
        }
        for (reason, events) in pace.ended(Instant::now()) {
            say_suppressed(reason, events);
        }
        for _ in 0..MAX_EVENTS_A_TURN {
            let Some(item) = ring.next() else { break };
            let Some((event, reason)) = read(&item) else { continue };
            if pace.admits(reason, Instant::now()) {
                say(&event, reason);
            }
        }
    }
    for (reason, events) in pace.rest() {
        say_suppressed(reason, events);
    }
}

/// Waits for an event or [`WAIT_MS`]; false when the thread shall end.
fn wait(ring: &RingBuf<MapData>, stopped: &PipeReader) -> io::Result<bool> {
    let mut fds = [ring.as_fd(), stopped.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match poll(&mut fds, PollTimeout::from(WAIT_MS)) {
        Err(nix::errno::Errno::EINTR) => Ok(true),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(fds[1].revents().is_none_or(|events| events.is_empty())),
    }
}

/// The event in these octets, laid out as [`Event`], if its reason is known.
fn read(octets: &[u8]) -> Option<(Event, Reason)> {
    let (at_ns, rest) = octets.split_first_chunk()?;
    let (source, rest) = rest.split_first_chunk()?;
    let (destination, rest) = rest.split_first_chunk()?;
    let (reason, rest) = rest.split_first_chunk()?;
    let (interface, rest) = rest.split_first_chunk()?;
    let (source_port, _) = rest.split_first_chunk()?;
    let event = Event {
        at_ns: u64::from_ne_bytes(*at_ns),
        source: *source,
        destination: *destination,
        reason: u32::from_ne_bytes(*reason),
        interface: u32::from_ne_bytes(*interface),
        source_port: *source_port,
        padding: [0; 6],
    };
    let reason = Reason::ALL.get(event.reason as usize)?;
    Some((event, *reason))
}

fn say(event: &Event, reason: Reason) {
    let address = |octets, port| SocketAddr::new(Ipv6Addr::from_octets(octets).to_canonical(), port);
    let client = address(event.source, u16::from_be_bytes(event.source_port));
    let destination = address(event.destination, SMTP_PORT);
    let interface = interface_name(event.interface);
    let age = Duration::from_nanos(now_ns().saturating_sub(event.at_ns));
    let seconds_ago = (age > LATE).then_some(age.as_secs());
    let what = words(reason);
    if is_trouble(reason) {
        warn!(%client, %destination, interface, seconds_ago, "kernel: {what}");
    } else {
        info!(%client, %destination, interface, seconds_ago, "kernel: {what}");
    }
}

/// The kernel leaves events out when they come thick: there were at least so many packets.
fn say_suppressed(reason: Reason, events: u64) {
    let what = words(reason);
    let text = format!(
        "kernel: {what}: at least {events} packets more, without a line; `mailguard status` counts all"
    );
    if is_trouble(reason) {
        warn!("{text}");
    } else {
        info!("{text}");
    }
}

/// Whether mail suffers; a ban that is kept, or a zone's list, is what was asked for.
fn is_trouble(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::BanDropped
            | Reason::BanDroppedEarly
            | Reason::BanReset
            | Reason::NotAllowedDropped
            | Reason::NotAllowedReset
    )
}

fn words(reason: Reason) -> String {
    reason.name().replace('-', " ")
}

/// Its name, or its index when it is gone.
fn interface_name(index: u32) -> String {
    if_indextoname(index)
        .ok()
        .and_then(|name: CString| name.into_string().ok())
        .unwrap_or_else(|| format!("number {index}"))
}

/// How many lines of each reason the log gets.
#[derive(Default)]
struct Pace {
    windows: [Option<Window>; Reason::ALL.len()],
}

#[derive(Clone, Copy)]
struct Window {
    began: Instant,
    lines: u32,
    suppressed: u64,
}

impl Pace {
    /// Whether an event of `reason` that is read at `now` gets a line; else it is counted.
    fn admits(&mut self, reason: Reason, now: Instant) -> bool {
        let window =
            self.windows[reason as usize].get_or_insert(Window { began: now, lines: 0, suppressed: 0 });
        let admitted = window.lines < MAX_LINES;
        if admitted {
            window.lines += 1;
        } else {
            window.suppressed += 1;
        }
        admitted
    }

    /// The reasons whose window is over at `now` and had more events than lines, with the number without a
    /// line. They begin anew.
    fn ended(&mut self, now: Instant) -> Vec<(Reason, u64)> {
        self.close(|window| now.saturating_duration_since(window.began) >= WINDOW)
    }

    /// The same for all, at the end.
    fn rest(&mut self) -> Vec<(Reason, u64)> {
        self.close(|_| true)
    }

    fn close(&mut self, over: impl Fn(&Window) -> bool) -> Vec<(Reason, u64)> {
        let windows = Reason::ALL.into_iter().zip(&mut self.windows);
        let ended =
            windows.filter_map(|(reason, window)| Some((reason, window.take_if(|window| over(window))?)));
        ended.map(|(reason, window)| (reason, window.suppressed)).filter(|(_, events)| *events > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_its_lines_and_the_rest_is_counted() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let lines = (0..100).filter(|_| pace.admits(Reason::ProxyDownBlocked, start)).count();
        assert_eq!(lines, MAX_LINES as usize);
        assert!(pace.admits(Reason::BanReset, start), "another reason has lines of its own");
        assert_eq!(pace.ended(start + WINDOW - Duration::from_millis(1)), [], "the minute isn't over");
        assert_eq!(pace.ended(start + WINDOW), [(Reason::ProxyDownBlocked, 100 - u64::from(MAX_LINES))]);
        assert!(pace.admits(Reason::ProxyDownBlocked, start + WINDOW), "a new minute");
        assert_eq!(pace.ended(start + 3 * WINDOW), [], "nothing was left out");
    }

    #[test]
    fn at_the_end_nothing_stays_unsaid() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for _ in 0..=MAX_LINES {
            pace.admits(Reason::AssignFailed, now);
        }
        assert_eq!(pace.rest(), [(Reason::AssignFailed, 1)]);
        assert_eq!(pace.rest(), []);
    }

    #[test]
    fn events_are_read_as_the_programs_write_them() {
        let mut octets = Vec::new();
        octets.extend(7u64.to_ne_bytes());
        octets.extend([1; 16]);
        octets.extend([2; 16]);
        octets.extend((Reason::BanDropped as u32).to_ne_bytes());
        octets.extend(3u32.to_ne_bytes());
        octets.extend([0x12, 0x34, 0, 0, 0, 0, 0, 0]);
        assert_eq!(octets.len(), size_of::<Event>());
        let expect = Event {
            at_ns: 7,
            source: [1; 16],
            destination: [2; 16],
            reason: Reason::BanDropped as u32,
            interface: 3,
            source_port: [0x12, 0x34],
            padding: [0; 6],
        };
        assert_eq!(read(&octets), Some((expect, Reason::BanDropped)));
        octets[40..44].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(read(&octets), None, "a reason of another version");
        assert_eq!(read(&octets[..40]), None);
    }
}
