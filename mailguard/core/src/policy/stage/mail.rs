//! MAIL: HELO, the reverse-path against the sender lists (S8) and its domain (S4), and what is over the
//! limits already (S6, R1).

use crate::config::Config;
use crate::config::model::Server;
use crate::finding::{Check, Finding, Opinion};
use crate::mail::ReversePath;
use crate::policy::check;
use crate::smtp::{HeloName, Refusal};

/// Judges what the client called itself and the reverse-path; the answer is given at RCPT.
pub fn judge(config: &Config, name: Option<&HeloName>, reverse_path: &ReversePath) -> Vec<Finding> {
    let mut findings = vec![
        super::helo::judge(&config.server, &config.spam_prevention, name),
        check::access::sender(&config.access, reverse_path),
    ];
    findings.extend(check::domain::sender(config, reverse_path));
    findings
}

/// Judges what no list can change; a refusal is answered at once. `size` is what MAIL declared, `storage`
/// what the spool says about taking a message now.
pub fn limits(server: &Server, size: Option<u64>, storage: Result<(), Refusal>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let limit = server.max_message_size;
    if let Some(declared) = size.filter(|&declared| declared > limit) {
        let reason = format!("declares {declared} octets, the limit is {limit}");
        findings.push(Finding::new(Check::MessageSize, Opinion::Refuse(Refusal::TooLarge(limit)), reason));
    }
    if let Err(refusal) = storage {
        let reason = format!("no message can be stored: {refusal}");
        findings.push(Finding::new(Check::Limits, Opinion::Defer(refusal), reason));
    }
    findings
}

/// The first refusal or deferral among the limits.
pub fn verdict(limits: &[Finding]) -> Result<(), Refusal> {
    limits.iter().find_map(Finding::objection).map_or(Ok(()), |refusal| Err(refusal.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_message_size_and_storage_are_answered_at_mail() {
        let server = crate::testing::config("").server;
        let limit = server.max_message_size;
        let check = |size, storage, expect| {
            assert_eq!(verdict(&limits(&server, size, storage)), expect, "{size:?}");
        };
        check(None, Ok(()), Ok(()));
        check(Some(limit), Ok(()), Ok(()));
        check(Some(limit + 1), Ok(()), Err(Refusal::TooLarge(limit)));
        check(Some(u64::MAX), Err(Refusal::StorageFull), Err(Refusal::TooLarge(limit)));
        check(Some(1), Err(Refusal::StorageFull), Err(Refusal::StorageFull));
        check(None, Err(Refusal::StorageFailed), Err(Refusal::StorageFailed));
    }
}
