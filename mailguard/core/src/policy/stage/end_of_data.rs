//! End of data: what the header says against mail loops (S13) and the sender blacklist (S8).

use crate::config::model::Access;
use crate::finding::{Check, Finding, Opinion};
use crate::mail::header::{MAX_HEADER_OCTETS, Summary};
use crate::policy::check;
use crate::smtp::Refusal;

/// More Received fields than this are a loop (RFC 5321 §6.3 asks for at least 100 where nothing better is
/// known; S13 knows better: no honest path through one appliance is half as long).
pub const MAX_RECEIVED_FIELDS: usize = 50;

/// The header of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// Read to its end.
    Read(Summary),
    /// Longer than [`MAX_HEADER_OCTETS`].
    TooLong,
}

/// Judges the header. `whitelisted`: every recipient was taken because a whitelist said so, which ends the
/// sender checks; a loop is a loop all the same.
pub fn judge(access: &Access, header: &Header, whitelisted: bool) -> Vec<Finding> {
    let summary = match header {
        Header::Read(summary) => summary,
        Header::TooLong => {
            let refusal = Refusal::HeaderTooLarge(MAX_HEADER_OCTETS);
            let reason = format!("the header is longer than {MAX_HEADER_OCTETS} octets");
            return vec![Finding::new(Check::MessageSize, Opinion::Refuse(refusal), reason)];
        }
    };
    let received = summary.received;
    let outcome =
        if received > MAX_RECEIVED_FIELDS { Opinion::Refuse(Refusal::MailLoop) } else { Opinion::Pass };
    let mut findings = vec![Finding::new(Check::Loop, outcome, format!("{received} Received fields"))];
    findings.extend(check::access::authors(access, &summary.from).filter(|_| !whitelisted));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Mailbox;
    use crate::testing::config;

    #[test]
    fn the_header_at_end_of_data() {
        let access = config("access.blacklist_senders = [\"black.example\"]").access;
        let check = |received, from: &str, whitelisted, expect: Option<Refusal>| {
            let from = vec![Mailbox::parse("me@y.example").unwrap(), Mailbox::parse(from).unwrap()];
            let summary = Summary { received, from, ..Summary::default() };
            let findings = judge(&access, &Header::Read(summary), whitelisted);
            let seen = findings.iter().find_map(Finding::objection);
            assert_eq!(seen, expect.as_ref(), "{received} Received fields, whitelisted: {whitelisted}");
        };
        check(50, "x@y.example", false, None);
        check(51, "x@y.example", false, Some(Refusal::MailLoop));
        check(51, "x@y.example", true, Some(Refusal::MailLoop));
        check(1, "x@a.black.example", false, Some(Refusal::SenderListed));
        check(1, "x@a.black.example", true, None);
        let findings = judge(&access, &Header::TooLong, true);
        assert_eq!(findings[0].objection(), Some(&Refusal::HeaderTooLarge(MAX_HEADER_OCTETS)));
    }
}
