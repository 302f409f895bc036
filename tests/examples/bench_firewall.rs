//! mailguard's kernel side by itself, for `cargo xtask bench kernel`: listeners, the datapath in the
//! namespace that it is started in, and an acceptor that closes each connection at once. Optimised, as a
//! process of its own, so that its processor time can be told from the load's.
//!
//! `bench_firewall CONFIG [listen-only]`: without the datapath somebody else, nftables, must bring the
//! connections. It says `ready`, answers each line of input with one line of JSON (what was counted, by
//! name), and ends with its input, when it removes all that it set up.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mailguard::config::{Source, parse_and_validate};
use mailguard::datapath::{self, Datapath};
use mailguard::intercept::{Listeners, ZoneListener};
use mailguard_core::config::Config;

/// Time between two heartbeats; the kernel side misses them after three seconds.
const HEARTBEAT: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, attach) = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [path] => (*path, true),
        [path, "listen-only"] => (*path, false),
        _ => bail!("usage: bench_firewall CONFIG [listen-only]"),
    };
    let text = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
    let config =
        parse_and_validate(&Source::of_text(path, text)).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let served = serve(&config, attach);
    if attach {
        datapath::unload(Path::new(&config.kernel.pin_dir))?;
    }
    served
}

/// Until the input ends.
fn serve(config: &Config, attach: bool) -> Result<()> {
    let listeners = Listeners::default().adapted(config)?;
    let mut datapath = if attach { Some(Datapath::start(config, &listeners)?) } else { None };
    let accepted = Arc::new(AtomicU64::new(0));
    for listener in listeners.iter() {
        accept(listener, Arc::clone(&accepted))?;
    }
    let questions = questions();
    let mut output = std::io::stdout();
    writeln!(output, "ready")?;
    loop {
        match questions.recv_timeout(HEARTBEAT) {
            Ok(()) => {
                let mut counts = BTreeMap::from([("accepted".to_owned(), accepted.load(Ordering::Relaxed))]);
                if let Some(datapath) = &datapath {
                    let reasons = datapath.status()?.reasons;
                    counts.extend(
                        reasons.into_iter().map(|count| (count.reason.name().to_owned(), count.packets)),
                    );
                }
                writeln!(output, "{}", serde_json::to_string(&counts)?)?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if let Some(datapath) = &mut datapath {
            datapath.heartbeat()?;
        }
    }
}

/// A thread that takes each connection and closes it, until the process ends.
fn accept(listener: &ZoneListener, accepted: Arc<AtomicU64>) -> Result<()> {
    let listener = TcpListener::from(listener.socket.try_clone()?);
    listener.set_nonblocking(false)?;
    std::thread::spawn(move || {
        // An error is one connection's: the client may have gone.
        for _closed in listener.incoming().flatten() {
            accepted.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// One for each line of input, disconnected at its end.
fn questions() -> mpsc::Receiver<()> {
    // More than one question at a time isn't asked.
    let (sender, questions) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || sender.send(()).is_err() {
                return;
            }
        }
    });
    questions
}
