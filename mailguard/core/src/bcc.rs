//! Copies for somebody else (`delivery.always_bcc`, `[[mail_route]]`): who gets one. Neither the sender nor the recipients
//! hear of them.

use crate::config::Config;
use crate::config::model::{Direction, MailRoute};
use crate::mail::{ForwardPath, Mailbox, Notify, Recipient, ReversePath};

/// Who gets a copy of a message from `sender` that goes to `recipients` now, each once. Who is a recipient, or has had a copy
/// (`served`), gets none.
pub fn copies(
    config: &Config,
    sender: &ReversePath,
    recipients: &[&ForwardPath],
    served: &[Mailbox],
) -> Vec<Mailbox> {
    let mut copies: Vec<Mailbox> = Vec::new();
    if recipients.is_empty() {
        return copies;
    }
    let concerns = |MailRoute { direction, address, .. }: &&MailRoute| match direction {
        Direction::Sender => sender.mailbox().is_some_and(|mailbox| mailbox.same_as(address)),
        Direction::Recipient => {
            recipients.iter().filter_map(|path| path.mailbox()).any(|to| to.same_as(address))
        }
    };
    let routes = config.mail_routes.iter().filter(concerns).map(|route| &route.bcc);
    for bcc in config.delivery.always_bcc.iter().chain(routes) {
        let is_recipient = recipients.iter().filter_map(|path| path.mailbox()).any(|to| to.same_as(bcc));
        if !is_recipient && !copies.iter().chain(served).any(|other| other.same_as(bcc)) {
            copies.push(bcc.clone());
        }
    }
    copies
}

/// The recipient of a copy: nobody is told what becomes of it.
pub fn recipient(bcc: Mailbox) -> Recipient {
    Recipient { notify: Some(Notify::NEVER), ..Recipient::new(ForwardPath::Mailbox(bcc)) }
}
