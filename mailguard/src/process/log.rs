//! Where log lines go: standard error, in the form and from the level that `[log]` says.
//!
//! The mail log (`log.mail`) and the audit don't ask for the level: whoever wants quiet still wants to know
//! what became of a message, and who did what. Lines of text are made by `core::log_value`, so that nothing
//! in them is taken for another line or key, whichever module says it. Whoever logs never waits for who
//! reads: `log_queue` holds the lines meanwhile.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use mailguard_core::config::model::{Log, LogFormat, LogLevel};
use mailguard_core::log_value;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{Handle, Layer};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt as lines};

use super::log_queue::LogQueue;
use crate::{admin, mail_log};

/// The log of this process.
#[derive(Debug, Clone)]
pub(super) struct Logging {
    level: Handle<Targets, Registry>,
    lines: Arc<LogQueue>,
}

/// Waits, when it is dropped, until what was logged is written, or nobody reads: what follows on standard
/// error comes after it.
pub(super) struct Finish(Arc<LogQueue>);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Starts logging in this process, panics included. The format stays until it ends.
pub(super) fn start(log: &Log) -> io::Result<(Logging, Finish)> {
    let queue = LogQueue::start()?;
    let (level, handle) = Layer::new(filter(log));
    let logged = tracing_subscriber::registry().with(level);
    let lines =
        lines::layer().with_writer(Lines { queue: queue.clone(), format: log.format }).with_ansi(false);
    match log.format {
        LogFormat::Text => logged.with(lines.fmt_fields(TextFields)).init(),
        LogFormat::Json => logged.with(lines.json()).init(),
    }
    panics(queue.clone());
    Ok((Logging { level: handle, lines: queue.clone() }, Finish(queue)))
}

/// Has every panic logged, with its place, as an error of the log's own form, and written before the thread
/// goes on to its end: perhaps that of the process.
fn panics(lines: Arc<LogQueue>) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let text = panic.payload_as_str().unwrap_or("without a text");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            thread = thread.name().unwrap_or_default(),
            place,
            "a fault of the program (a panic): {text}"
        );
        lines.finish();
    }));
}

impl Logging {
    /// Logs from another level on.
    pub(super) fn set(&self, log: &Log) {
        // It fails only if nothing is logged at all.
        let _ = self.level.reload(filter(log));
    }

    /// Takes a whole line that is in the log's form already.
    pub(super) fn pass_on(&self, line: &[u8]) {
        self.lines.pass_on(line);
    }

    /// What `status` says while the log isn't read as fast as it is written.
    pub(super) fn problem(&self) -> Option<String> {
        self.lines.problem()
    }
}

fn filter(log: &Log) -> Targets {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // A target holds for all that begin with it, unless a longer one does: "mail" is the beginning of our
    // modules' names.
    Targets::new()
        .with_default(level)
        .with_target("mailguard", level)
        .with_target(mail_log::TARGET, if log.mail { LevelFilter::INFO } else { LevelFilter::OFF })
        .with_target(admin::AUDIT, LevelFilter::INFO)
}

/// Where lines go.
struct Lines {
    queue: Arc<LogQueue>,
    format: LogFormat,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> &'a Lines {
        self
    }
}

/// Each write is a whole line.
impl io::Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(&finished(self.format, line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line as it is to be read: the makers of text have seen to that, those of JSON leave what turns the
/// direction of writing.
fn finished(format: LogFormat, line: &[u8]) -> Cow<'_, [u8]> {
    let json = std::str::from_utf8(line).ok().filter(|_| format == LogFormat::Json);
    match json.map(log_value::json) {
        None => Cow::Borrowed(line),
        Some(Cow::Borrowed(line)) => Cow::Borrowed(line.as_bytes()),
        Some(Cow::Owned(line)) => Cow::Owned(line.into_bytes()),
    }
}

/// The message, then `key=value`, with a space between them.
struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut text = Text { writer, is_first: true, result: Ok(()) };
        fields.record(&mut text);
        text.result
    }
}

struct Text<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    result: fmt::Result,
}

impl Text<'_> {
    fn put(&mut self, key: &str, text: &str) {
        let space = if std::mem::take(&mut self.is_first) { "" } else { " " };
        let written = match key {
            "message" => write!(self.writer, "{space}{}", log_value::message(text)),
            key => write!(self.writer, "{space}{key}={}", log_value::value(text)),
        };
        self.result = self.result.and(written);
    }
}

impl Visit for Text<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), &format!("{value:?}"));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;

    use tracing::subscriber::DefaultGuard;

    use super::*;

    /// What was logged, for tests: in this thread, until the guard is dropped.
    pub(crate) fn heard(log: &Log) -> (Arc<Mutex<Vec<u8>>>, DefaultGuard) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let logged = tracing_subscriber::registry().with(filter(log));
        let lines = lines::layer().with_writer(Kept(heard.clone(), log.format)).with_ansi(false);
        let guard = match log.format {
            LogFormat::Text => logged.with(lines.fmt_fields(TextFields)).set_default(),
            LogFormat::Json => logged.with(lines.json()).set_default(),
        };
        (heard, guard)
    }

    struct Kept(Arc<Mutex<Vec<u8>>>, LogFormat);

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = &'a Kept;

        fn make_writer(&'a self) -> &'a Kept {
            self
        }
    }

    impl io::Write for &Kept {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(&finished(self.1, line));
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(format: LogFormat, level: LogLevel, mail: bool) -> Log {
        Log { level, format, mail }
    }

    /// What one line says, after its time.
    fn line(format: LogFormat, say: impl Fn()) -> String {
        let (heard, _guard) = heard(&log(format, LogLevel::Info, true));
        say();
        let text = String::from_utf8(heard.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        text.trim_end().to_owned()
    }

    #[test]
    fn no_text_of_a_peer_passes_for_a_line_or_a_key() {
        let evil =
            "x\n2026-11-28T08:00:00.000001Z  INFO mail: id=Y event=login client=192.0.2.1 \u{1b}[2J\u{202e}";
        let shown = r#""x\n2026-11-28T08:00:00.000001Z  INFO mail: id\u003dY event\u003dlogin client\u003d192.0.2.1 \u001b[2J\u202e""#;
        let said = line(LogFormat::Text, || tracing::info!(evil, number = 7, "no: {}", "a b"));
        assert!(said.ends_with(&format!(" no: a b evil={shown} number=7")), "{said}");
        // Displayed or debugged, it is the same.
        let said = line(LogFormat::Text, || tracing::info!(error = %evil, "no"));
        assert!(said.ends_with(&format!(" no error={shown}")), "{said}");
        let said = line(LogFormat::Text, || tracing::info!(list = ?[evil]));
        assert!(!said.contains("client=") && !said.contains('\u{1b}'), "{said}");
        let said = line(LogFormat::Json, || tracing::info!(evil));
        let json: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(json["fields"]["evil"], evil);
        assert!(!said.contains('\u{202e}') && said.contains("\\u202e"), "{said}");
    }

    #[test]
    fn whoever_logs_leaves_the_line_to_the_queue() {
        let queue = Arc::new(LogQueue::default());
        let lines = Lines { queue: queue.clone(), format: LogFormat::Text };
        let lines = lines::layer().with_writer(lines).with_ansi(false).fmt_fields(TextFields);
        let logged = tracing_subscriber::registry().with(filter(&log(LogFormat::Text, LogLevel::Info, true)));
        let _guard = logged.with(lines).set_default();
        tracing::error!("it fails");
        tracing::info!(target: mail_log::TARGET, id = "X");
        tracing::info!(target: admin::AUDIT, verb = "reload");
        assert_eq!(String::from_utf8(queue.waiting()).unwrap().lines().count(), 3);
    }

    #[test]
    fn a_message_of_several_lines_goes_on_indented() {
        let (heard, _guard) = heard(&log(LogFormat::Text, LogLevel::Info, true));
        tracing::error!("refused:\nline 3: no\nline 4: no");
        let text = String::from_utf8(heard.lock().unwrap().clone()).unwrap();
        assert!(text.ends_with(" refused:\n    line 3: no\n    line 4: no\n"), "{text}");
    }

    #[test]
    fn mail_and_audit_dont_ask_for_the_level() {
        for (mail, expect) in [(true, 3), (false, 2)] {
            let (heard, _guard) = heard(&log(LogFormat::Text, LogLevel::Error, mail));
            tracing::info!(target: mail_log::TARGET, id = "X");
            tracing::info!(target: admin::AUDIT, verb = "reload");
            tracing::info!("of no weight");
            tracing::warn!("of little weight");
            tracing::error!("this");
            let text = String::from_utf8(heard.lock().unwrap().clone()).unwrap();
            assert_eq!(text.matches('\n').count(), expect, "{text}");
            assert!(text.contains(" audit: verb=reload\n") && text.contains("this"), "{text}");
        }
    }
}
