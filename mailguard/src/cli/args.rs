//! What can be typed.

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use mailguard_core::config::syntax::DURATION;
use mailguard_core::mail::{Mailbox, QueueId};
use mailguard_core::subscriber::{NoSubscriber, Subscriber};

use super::values::Values;
use crate::admin::Which;
use crate::config::{DEFAULT_PATH, EditList};
use crate::trace::SYNTAX;

const EXAMPLES: &str = "\
Examples:
  mailguard check                              is the configuration right?
  mailguard doctor                             will interception work on this machine?
  mailguard status                             what runs, and which protections don't yet
  mailguard bypass add from-ip 192.168.5.7     leave a host alone, at once and from now on
  mailguard trace to:boss@example.com          what happened to his mail

Exit codes: 0 done, 1 failed, 2 not understood, 78 the configuration or this machine must be changed first.";

/// Transparent SMTP filter for Linux firewalls.
#[derive(Debug, Parser)]
#[command(name = "mailguard", version, after_help = EXAMPLES, max_term_width = 100)]
pub(super) struct Args {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub(super) config: PathBuf,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon: steer packets, filter and deliver mail.
    #[command(after_help = "\
Needs root. Loads the kernel programs, opens the listeners and starts the mail process as `user`.
SIGHUP reloads the configuration. SIGTERM ends the daemon; kernel rules stay in force (`on_proxy_down`
decides on new connections) until `mailguard unload` removes them.

With a file that is missing or doesn't check it starts with the configuration that was in force last: the
log, `mailguard status` and `mailguard doctor` say so until the file is mended and `mailguard reload` done.
With `enabled = false` it removes what is in the kernel, and ends.

Exit codes: 0 told to end, or not enabled; 1 failed, another try may help; 78 the configuration or this
machine must be changed first (the file doesn't check, and no earlier version can be used).")]
    Run,
    /// The unprivileged half of `run`, which starts it.
    #[command(hide = true)]
    Mail {
        /// The end of the socket pair to the datapath process.
        #[arg(long)]
        channel: RawFd,
    },
    /// The part of `run` that asks the DNS for `bypass.to_names`; `run` starts it.
    #[command(hide = true)]
    Names,
    /// Tries what the mail process will do, as the mail user; the datapath process starts it.
    #[command(hide = true)]
    Trial,
    /// Check a configuration: every error with its line and what is accepted.
    #[command(after_help = "\
Warns of next hops that are this mailguard: called by our name, or where we listen. `mailguard doctor`
also asks each who it is.

Examples:
  mailguard check                      the file in use
  mailguard check new.toml && echo ok  another one")]
    Check {
        /// Another file than --config.
        file: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Find what would break interception on this machine, and the command that mends it.
    #[command(after_help = "\
Needs root. Works with and without the daemon and changes nothing: programs are loaded and attached for a
trial only, in a network namespace of its own. Looks at kernel, capabilities, interfaces, settings,
policy routing, nftables, iptables and ports, and asks the next hops of the configuration who they are.

Examples:
  mailguard doctor           what is wrong, why it matters, what to do
  mailguard doctor --json    the same for programs

Exit codes: 0 no error (there may be warnings), 1 errors.")]
    Doctor {
        #[command(flatten)]
        output: Output,
    },
    /// Show what runs: zones, sessions, queue, kernel counters, and protections that aren't active.
    Status {
        #[command(flatten)]
        output: Output,
    },
    /// Apply the configuration file: all of it, or nothing if it has an error.
    Reload {
        #[command(flatten)]
        output: Output,
    },
    /// Remove everything from the kernel: programs, maps, rules, routes. Works without the daemon.
    Unload {
        #[command(flatten)]
        output: Output,
    },
    /// Sources and destinations that are left alone.
    #[command(
        subcommand,
        after_help = "\
Changes take effect at once, break no session and are written into the configuration file.

Examples:
  mailguard bypass list
  mailguard bypass add from-subnet 192.168.5.0/24 2001:db8:5::/64
  mailguard bypass remove to-ip 203.0.113.9
  mailguard bypass add to-name mail.example.net
  mailguard bypass add to-ip --from-file partners.txt"
    )]
    Bypass(ListCommand<BypassKind>),
    /// Clients, senders and recipients whose mail is refused.
    #[command(
        subcommand,
        after_help = "\
Changes take effect at once, break no session and are written into the configuration file.

Examples:
  mailguard blacklist add client 198.51.100.0/24
  mailguard blacklist add client --from-file spammers.txt
  mailguard blacklist add sender spam@example.com example.net
  mailguard blacklist remove recipient old@example.org"
    )]
    Blacklist(ListCommand<BlacklistKind>),
    /// Sets of file name extensions, as `files.extensions` names them.
    #[command(subcommand)]
    Files(FilesCommand),
    /// Clients that the kernel keeps out for a time.
    #[command(
        subcommand,
        after_help = "\
A client of a red zone that makes too many errors in a session is banned for `kernel.ban_after_abuse`.
An IPv6 client is banned with its whole network of 64 bits: whoever has one address there has them all.
Bans end by themselves and outlive restarts; open sessions go on; bypassed clients pass, and clients on
`access.whitelist_clients` are never banned, nor kept out by the ban of a network that they are in.

Examples:
  mailguard ban list
  mailguard ban add 203.0.113.9 2001:db8:5::9 --for 2d --reason \"tries passwords\"
  mailguard ban lift 203.0.113.9"
    )]
    Ban(BanCommand),
    /// DNS block lists: which are known and asked, and what they say.
    #[command(
        subcommand,
        after_help = "\
Lists are chosen by name, by family, or \"all\"; what is enabled or disabled takes effect at once and is
written into the configuration file. list and check work without the daemon, too.

Examples:
  mailguard rbl list
  mailguard rbl enable ip psbl.surriel.com uceprotect
  mailguard rbl disable domain dbl.spamhaus.org
  mailguard rbl check 203.0.113.9
  mailguard rbl check example.com

Exit codes of check: 0 not listed, 1 listed or failed."
    )]
    Rbl(RblCommand),
    /// Messages that wait for delivery.
    #[command(
        subcommand,
        after_help = "\
Examples:
  mailguard queue list
  mailguard queue show 1PAV3QX7K2M
  mailguard queue retry --to example.com
  mailguard queue hold 1PAV3QX7K2M
  mailguard queue pause 10.0.0.25

A destination is a domain (recipients in it and its subdomains), an address, a next hop as lists show it
(10.0.0.25:25, relay.example.net:587, mx:example.com), or \"all\"."
    )]
    Queue(QueueCommand),
    /// Messages that are quarantined.
    #[command(
        subcommand,
        after_help = "\
Examples:
  mailguard quarantine list
  mailguard quarantine release 1PAV3QX7K2M
  mailguard quarantine delete --all"
    )]
    Quarantine(QuarantineCommand),
    /// Show where mail for an address goes, and by which rules.
    #[command(after_help = "\
Says what the configuration in force says now: incoming domains, domain routes, smarthost, delivery.default,
and the servers in the order in which they would be tried.

Examples:
  mailguard route boss@example.com
  mailguard route boss@example.com --sender me@example.org")]
    Route {
        /// For whom.
        #[arg(value_parser = mailbox, value_name = "ADDRESS")]
        recipient: Mailbox,
        /// From whom; otherwise a notice, which has no sender.
        #[arg(long, value_parser = mailbox, value_name = "ADDRESS")]
        sender: Option<Mailbox>,
        #[command(flatten)]
        output: Output,
    },
    /// The store on disk, while the daemon doesn't run: is everything there, and everything as files.
    #[command(
        subcommand,
        after_help = "\
Finishes what an unclean end left undone, as the next start would; check repairs a database that fails its
checksums, so copy state_dir first if the disk is broken. Needs the rights of `user` or root, and a daemon
that is stopped.

Examples:
  mailguard store check
  mailguard store export rescued

Exit codes: 0 all is well, 1 something is missing or failed."
    )]
    Store(StoreCommand),
    /// What happened to messages: checks, disposition, attempts; newest first.
    #[command(after_help = "\
Examples:
  mailguard trace                          the latest
  mailguard trace 1PAV3QX7K2M              one message, in full
  mailguard trace to:boss@example.com result:quarantined since:1d --full",
        long_about = SYNTAX)]
    Trace {
        /// What to look for; nothing: the latest.
        query: Vec<String>,
        /// All that is known of each message, not only of a single one.
        #[arg(long)]
        full: bool,
        #[command(flatten)]
        output: Output,
    },
}

/// How results are printed.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub(super) struct Output {
    /// Print JSON: times by RFC 3339 in UTC, numbers in the unit that their field names (octets, seconds,
    /// milliseconds).
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum FilesCommand {
    /// Show what is in each set.
    Sets {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum RblCommand {
    /// Show the known lists, those that have ended too, and which of them are asked.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Have lists asked: by name, by family, or "all". Written into the configuration.
    Enable(RblLists),
    /// Have lists asked no longer: what was enabled, by the same names.
    Disable(RblLists),
    /// Ask the configured lists about a client's address or a domain, now.
    Check {
        /// The address or domain.
        subject: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ListCommand<K: ValueEnum + Send + Sync + 'static> {
    /// Show what is on the lists, and where it is written.
    List {
        /// One kind only.
        #[arg(value_enum)]
        kind: Option<K>,
        #[command(flatten)]
        output: Output,
    },
    /// Put values on a list: all of them, or none if one is wrong.
    Add {
        /// Which list.
        #[arg(value_enum)]
        kind: K,
        #[command(flatten)]
        values: Values,
        /// Also where the list then holds every host there is, by 0.0.0.0/0 or by pieces that add up to it.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Take values off a list: all of them, or none if one isn't there.
    Remove {
        /// Which list.
        #[arg(value_enum)]
        kind: K,
        #[command(flatten)]
        values: Values,
        #[command(flatten)]
        output: Output,
    },
}

/// A kind of value that the command line names.
pub(super) trait Kind: ValueEnum + Send + Sync + 'static {
    /// The list of these.
    fn list(&self) -> EditList;
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum BypassKind {
    /// Clients in a network
    FromSubnet,
    /// One client
    FromIp,
    /// Clients by hardware address, on the local network
    FromMac,
    /// Servers in a network
    ToSubnet,
    /// One server
    ToIp,
    /// One server by its host name, at the addresses that the DNS gives
    ToName,
}

impl Kind for BypassKind {
    fn list(&self) -> EditList {
        match self {
            BypassKind::FromSubnet => EditList::BypassFromSubnet,
            BypassKind::FromIp => EditList::BypassFromIp,
            BypassKind::FromMac => EditList::BypassFromMac,
            BypassKind::ToSubnet => EditList::BypassToSubnet,
            BypassKind::ToIp => EditList::BypassToIp,
            BypassKind::ToName => EditList::BypassToName,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum BlacklistKind {
    /// Addresses and networks of clients
    Client,
    /// Mail addresses and domains of senders
    Sender,
    /// Mail addresses and domains of recipients
    Recipient,
}

impl Kind for BlacklistKind {
    fn list(&self) -> EditList {
        match self {
            BlacklistKind::Client => EditList::BlacklistClient,
            BlacklistKind::Sender => EditList::BlacklistSender,
            BlacklistKind::Recipient => EditList::BlacklistRecipient,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct RblLists {
    /// What they list.
    #[arg(value_enum)]
    pub(super) kind: RblKind,
    /// The lists.
    #[arg(required = true, value_name = "LIST")]
    pub(super) lists: Vec<String>,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum RblKind {
    /// Lists of clients' addresses
    Ip,
    /// Lists of domains
    Domain,
}

impl Kind for RblKind {
    fn list(&self) -> EditList {
        match self {
            RblKind::Ip => EditList::RblIp,
            RblKind::Domain => EditList::RblDomain,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum BanCommand {
    /// Show who is banned, why, and for how long.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Ban clients: all of them, or none if one can't be. A ban that is there is never shortened.
    Add {
        /// Their addresses; of IPv6 the network of 64 bits that each is in.
        #[arg(required = true, value_name = "ADDRESS", value_parser = client)]
        clients: Vec<IpAddr>,
        /// For how long: 30s, 5m, 4h, 2d; otherwise `kernel.ban_after_abuse`, or 1h if that is 0s.
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        time: Option<Duration>,
        /// Why, for the list.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Let clients in again: all of them, or none if one isn't banned.
    Lift {
        /// Their addresses, or their networks as the list shows them.
        #[arg(required_unless_present = "all", value_name = "ADDRESS", value_parser = client)]
        clients: Vec<IpAddr>,
        /// All that are banned.
        #[arg(long, conflicts_with = "clients")]
        all: bool,
        #[command(flatten)]
        output: Output,
    },
}

/// An address as it is written, or the first of a network that `ban list` shows.
fn client(text: &str) -> Result<IpAddr, NoSubscriber> {
    text.parse().or_else(|_| text.parse().map(Subscriber::first))
}

fn mailbox(text: &str) -> Result<Mailbox, String> {
    Mailbox::parse(text).map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    (DURATION.parse)(text).map_err(|_| format!("expected {}", DURATION.accepted))
}

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Look at every row and body.
    Check {
        #[command(flatten)]
        output: Output,
    },
    /// Write every message as ID.eml, with its envelope in ID.json.
    Export {
        /// A new folder, or an empty one.
        folder: PathBuf,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// Show the messages that wait, oldest first.
    List(Listed),
    /// Show one message: recipients, attempts, header.
    Show(One),
    /// Make an attempt now.
    Retry(QueueChosen),
    /// Make no attempt from now on, also after a restart.
    Hold(QueueChosen),
    /// Make attempts at messages that are held again.
    Release(QueueChosen),
    /// Give messages up; nobody is notified.
    Remove(QueueChosen),
    /// Make no attempt at a destination from now on, also after a restart. Mail is taken, and waits.
    Pause(Paused),
    /// Make attempts at a destination again.
    Resume(Paused),
}

#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Paused {
    /// The destination.
    pub(super) destination: String,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(Debug, Clone, ClapArgs)]
pub(super) struct QueueChosen {
    /// The messages, as `list` names them.
    #[arg(required_unless_present_any = ["all", "to"], value_name = "ID")]
    ids: Vec<QueueId>,
    /// All that are there.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Those of which a recipient is at this destination.
    #[arg(long, value_name = "DESTINATION", conflicts_with_all = ["ids", "all"])]
    to: Option<String>,
    #[command(flatten)]
    pub(super) output: Output,
}

impl QueueChosen {
    /// The choice as the daemon takes it.
    pub(super) fn which(&self) -> Which {
        match &self.to {
            Some(destination) => Which::To(destination.clone()),
            None if self.all => Which::All,
            None => Which::Ids(self.ids.clone()),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum QuarantineCommand {
    /// Show the messages that are quarantined, oldest first.
    List(Listed),
    /// Show one message: recipients, reasons, header.
    Show(One),
    /// Deliver messages to their recipients after all.
    Release {
        #[command(flatten)]
        chosen: Chosen,
        /// To this address instead of the recipients.
        #[arg(long, value_name = "ADDRESS")]
        to: Option<String>,
        /// Also messages in which a virus was found.
        #[arg(long)]
        with_virus: bool,
    },
    /// Delete messages for good.
    Delete(Chosen),
}

#[derive(Debug, Clone, Copy, ClapArgs)]
pub(super) struct Listed {
    /// At most so many messages.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) limit: u32,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(Debug, Clone, Copy, ClapArgs)]
pub(super) struct One {
    /// The message, as `list` names it.
    pub(super) id: QueueId,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Chosen {
    /// The messages, as `list` names them.
    #[arg(required_unless_present = "all", value_name = "ID")]
    ids: Vec<QueueId>,
    /// All that are there.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

impl Chosen {
    /// The choice as the daemon takes it.
    pub(super) fn which(&self) -> Which {
        if self.all { Which::All } else { Which::Ids(self.ids.clone()) }
    }
}
