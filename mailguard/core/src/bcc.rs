//! Copies for somebody else (`delivery.always_bcc`, `[[mail_route]]`): who gets one. Neither the sender nor
//! the recipients hear of them.

use crate::config::Config;
use crate::config::model::{Direction, MailRoute};
use crate::mail::{ForwardPath, Mailbox, Notify, Recipient, ReversePath};

/// Who gets a copy of a message from `sender` that goes to `recipients` now, each once. Who is `served`
/// without one gets none: a recipient, or somebody who has had a copy. Nothing is looked at where the
/// configuration names nobody.
pub fn copies<'a>(
    config: &Config,
    sender: &ReversePath,
    recipients: impl Iterator<Item = &'a ForwardPath> + Clone,
    served: impl Fn(&Mailbox) -> bool,
) -> Vec<Mailbox> {
    let mailboxes = || recipients.clone().filter_map(ForwardPath::mailbox);
    let concerns = |MailRoute { direction, address, .. }: &&MailRoute| match direction {
        Direction::Sender => sender.mailbox().is_some_and(|mailbox| mailbox.same_as(address)),
        Direction::Recipient => mailboxes().any(|to| to.same_as(address)),
    };
    let routes = config.mail_routes.iter().filter(concerns).map(|route| &route.bcc);
    let mut copies: Vec<Mailbox> = Vec::new();
    for bcc in config.delivery.always_bcc.iter().chain(routes) {
        let goes_out = recipients.clone().next().is_some();
        let has_it = mailboxes().any(|to| to.same_as(bcc)) || served(bcc);
        if goes_out && !has_it && !copies.iter().any(|other| other.same_as(bcc)) {
            copies.push(bcc.clone());
        }
    }
    copies
}

/// The recipient of a copy: nobody is told what becomes of it.
pub fn recipient(bcc: Mailbox) -> Recipient {
    Recipient { notify: Some(Notify::NEVER), ..Recipient::new(ForwardPath::Mailbox(bcc)) }
}
