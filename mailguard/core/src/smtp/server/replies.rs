//! The write buffer: replies to pipelined commands are gathered and written together (RFC 2920 §3.2).

use crate::smtp::reply::Reply;

/// The replies that the driver hasn't written yet.
#[derive(Default)]
pub(super) struct Replies {
    octets: Vec<u8>,
    urgency: Urgency,
}

/// How long they may wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Urgency {
    /// For those to later commands of the same group.
    #[default]
    Gathered,
    /// For nothing: the client may wait for the last of them.
    Due,
    /// Not at all: the driver is writing them. They are dropped at its next call.
    HandedOut,
}

impl Replies {
    /// Appends a reply.
    pub(super) fn push(&mut self, reply: &Reply) {
        self.forget_written();
        reply.encode(&mut self.octets);
    }

    /// The reply to the command at hand must not wait for those to later ones.
    pub(super) fn flush(&mut self) {
        self.forget_written();
        self.urgency = Urgency::Due;
    }

    /// Whether there are some that must be written before anything else happens.
    pub(super) fn are_due(&self) -> bool {
        self.urgency == Urgency::Due && !self.octets.is_empty()
    }

    /// Whether there are any.
    pub(super) fn wait(&self) -> bool {
        self.urgency != Urgency::HandedOut && !self.octets.is_empty()
    }

    /// For the driver, to be written.
    pub(super) fn hand_out(&mut self) -> &[u8] {
        self.urgency = Urgency::HandedOut;
        &self.octets
    }

    /// The driver's next call: what it was handed is written.
    pub(super) fn forget_written(&mut self) {
        if self.urgency == Urgency::HandedOut {
            self.octets.clear();
            self.urgency = Urgency::Gathered;
        }
    }

    /// As [`Replies::hand_out`], for good.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.forget_written();
        std::mem::take(&mut self.octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::ReplyCode;

    fn reply(text: &str) -> Reply {
        Reply::bare(ReplyCode::OK, vec![text.to_owned()])
    }

    #[test]
    fn no_reply_goes_with_those_that_are_written() {
        let mut replies = Replies::default();
        replies.push(&reply("a"));
        assert!(replies.wait() && !replies.are_due());
        replies.push(&reply("b"));
        replies.flush();
        assert!(replies.are_due());
        assert_eq!(replies.hand_out(), b"250 a\r\n250 b\r\n");
        assert!(!replies.wait() && !replies.are_due());
        // Before the driver's next call.
        replies.push(&reply("c"));
        replies.forget_written();
        assert_eq!(replies.take(), b"250 c\r\n");
        assert!(!replies.wait());
    }
}
