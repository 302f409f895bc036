//! Where log lines go: standard error, in the form and from the level that `[log]` says.

use mailguard_core::config::model::{Log, LogFormat, LogLevel};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{Handle, Layer};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

/// From which level on is logged.
#[derive(Debug, Clone)]
pub(super) struct Level(Handle<LevelFilter, Registry>);

/// Starts logging in this process. The format stays until it ends.
pub(super) fn start(log: &Log) -> Level {
    let (level, handle) = Layer::new(filter(log));
    let logged = tracing_subscriber::registry().with(level);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    match log.format {
        LogFormat::Text => logged.with(lines).init(),
        LogFormat::Json => logged.with(lines.json()).init(),
    }
    Level(handle)
}

/// Has every panic logged, with its place, as an error of the log's own form.
pub(super) fn panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let text = panic.payload_as_str().unwrap_or("without a text");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            thread = thread.name().unwrap_or_default(),
            place,
            "a fault of the program (a panic): {text}"
        );
    }));
}

impl Level {
    /// Logs from another level on.
    pub(super) fn set(&self, log: &Log) {
        // It fails only if nothing is logged at all.
        let _ = self.0.reload(filter(log));
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
