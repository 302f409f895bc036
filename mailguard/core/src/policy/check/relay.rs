//! Relay control (S3): whether a client may have mail carried to a recipient.

use crate::config::model::IncomingDomain;
use crate::finding::{Check, Finding, Opinion};
use crate::mail::ForwardPath;
use crate::policy::Trust;
use crate::smtp::Refusal;

/// Judges whether this client may have mail carried to this recipient. From a stranger only what stays here:
/// the bare postmaster, and mailboxes of incoming domains. A local part that names a further way
/// (`user%other@here`, `other!user@here`, `"user@other"@here`) would make the server behind us the relay.
pub(in crate::policy) fn judge(
    incoming: &[IncomingDomain],
    trust: Trust,
    forward_path: &ForwardPath,
) -> Finding {
    let finding = |opinion, reason: String| Finding::new(Check::RelayControl, opinion, reason);
    let ForwardPath::Mailbox(mailbox) = forward_path else {
        return finding(Opinion::Pass, "the postmaster is always here".to_owned());
    };
    if trust == Trust::Trusted {
        return finding(Opinion::Pass, "this client may send anywhere".to_owned());
    }
    let here =
        mailbox.domain().is_some_and(|domain| incoming.iter().any(|incoming| incoming.matches(domain)));
    if !here {
        let reason = format!("{} is no incoming domain", mailbox.host);
        finding(Opinion::Refuse(Refusal::RelayDenied), reason)
    } else if mailbox.local_part.as_str().contains(['%', '!', '@']) {
        let reason = "the local part names a further route".to_owned();
        finding(Opinion::Refuse(Refusal::RelayDenied), reason)
    } else {
        finding(Opinion::Pass, format!("{} is an incoming domain", mailbox.host))
    }
}
