//! Where log lines go: standard error, in the form and from the level that `[log]` says.

use std::sync::OnceLock;

use mailguard_core::config::model::{Log, LogFormat, LogLevel};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{Handle, Layer};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

static LEVEL: OnceLock<Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts logging in this process. The format stays until it ends.
pub(super) fn start(log: &Log) {
    let (level, handle) = Layer::new(filter(log));
    // Once a process; a second call would change nothing.
    let _ = LEVEL.set(handle);
    let logged = tracing_subscriber::registry().with(level);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    match log.format {
        LogFormat::Text => logged.with(lines).init(),
        LogFormat::Json => logged.with(lines.json()).init(),
    }
}

/// Logs from another level on.
pub(super) fn set_level(log: &Log) {
    if let Some(level) = LEVEL.get() {
        // It fails only if nothing is logged at all.
        let _ = level.reload(filter(log));
    }
}

fn filter(log: &Log) -> LevelFilter {
    match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
