//! Files and sockets: how many the mail process may need at most, by the configuration and the limits of its
//! parts, and whether it may have them. It inherits the limit of the datapath process.

use mailguard_core::config::Config;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

use crate::delivery::MAX_IDLE_SESSIONS;
use crate::lookup::dns::{MAX_MAIL_QUERIES, MAX_QUERIES};
use crate::queue::{MAX_ATTEMPTS_IN_FLIGHT, MAX_TRANSFERS};
use crate::session::limits::{MAX_LEAVING, MAX_REJECTING};
use crate::verification::MAX_QUESTIONS_A_SERVER;

/// Most that we ask for, where the system sets no lower limit: more than any configuration needs.
const MAX_OPEN_FILES: u64 = 1 << 20;
/// Stores, control, listeners, what the runtime needs.
const OWN_FILES: usize = 512;

/// Raises the limit as far as the system lets us, and says so where that can't be enough. Files that aren't
/// open cost nothing.
pub(super) fn raise(config: &Config) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, soft.max(MAX_OPEN_FILES).min(hard), hard)
    });
    if let Err(error) = raised {
        warn!(%error, "the limit of open files stays as it was");
    }
    warn_of_shortage(config);
}

/// Logs where this configuration may need more than there can be.
pub(super) fn warn_of_shortage(config: &Config) {
    if let Some(shortage) = shortage(config) {
        warn!("{shortage}");
    }
}

/// What is to be said where this configuration may need more than there can be.
pub(super) fn shortage(config: &Config) -> Option<String> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    told(needed(config), limit)
}

/// At most, all at one time.
fn needed(config: &Config) -> u64 {
    let sessions = config.server.max_sessions + MAX_LEAVING;
    let verifying = config.incoming_domains.iter().map(|domain| domain.servers.len()).sum::<usize>();
    let verifying = (verifying * MAX_QUESTIONS_A_SERVER).min(config.server.max_sessions);
    let logins = config.imap_auth.as_ref().map_or(0, |section| section.daemons);
    let files = [
        // Each with a message in a file.
        2 * sessions,
        MAX_REJECTING,
        verifying,
        logins,
        MAX_ATTEMPTS_IN_FLIGHT,
        // What is sent, and what was made of it for servers that don't take it as it is.
        2 * MAX_TRANSFERS,
        MAX_IDLE_SESSIONS,
        // Of sessions, of mail, and to block lists.
        2 * MAX_QUERIES + MAX_MAIL_QUERIES,
        OWN_FILES,
    ];
    files.iter().sum::<usize>() as u64
}

fn told(needed: u64, limit: u64) -> Option<String> {
    (limit < needed).then(|| {
        format!(
            "{limit} files and sockets may be open, and at worst {needed} are needed (server.max_sessions, attempts, queries to \
             the DNS): past that, clients wait to be let in, and attempts and look-ups fail and are made again. Set \
             LimitNOFILE={needed} in the service unit (systemctl edit mailguard), or ulimit -Hn where it is started; or lower \
             server.max_sessions"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sessions_attempts_and_queries_need_at_worst() {
        let mut config = crate::spool::fixture::config(std::path::Path::new("/nowhere"));
        config.server.max_sessions = 10_000;
        let needed_by = needed(&config);
        // The sockets of 10,000 sessions, 4,096 attempts and 16,384 queries, and the sessions' files.
        assert!((40_480..65_536).contains(&needed_by), "{needed_by}");
        config.server.max_sessions = 100_000;
        assert_eq!(needed(&config), needed_by + 2 * 90_000);
        assert!(needed(&config) < MAX_OPEN_FILES, "the most sessions that may be configured");
    }

    #[test]
    fn a_limit_that_is_too_low_is_told_with_what_to_do() {
        assert_eq!(told(40_000, 40_000), None);
        let text = told(40_000, 20_000).unwrap();
        assert!(text.starts_with("20000 ") && text.contains("LimitNOFILE=40000 "), "{text}");
    }
}
