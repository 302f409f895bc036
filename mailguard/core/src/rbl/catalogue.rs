//! The lists that are known by name: who runs them, what their codes mean, and which have ended.
//!
//! A list that has ended is kept here, so that a configuration that still names it is told; asked all the
//! same, it may list everybody. Of an operator that has ended every name is over, known here or not.

/// What a list is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The client's address.
    Ip,
    /// Domains.
    Domain,
}

/// What a list's answers in 127.0.0.0/8 mean.
#[derive(Debug, Clone, Copy)]
pub enum Codes {
    /// Each is a listing.
    Any,
    /// By the last octet, from and to; others are none.
    Values(&'static [(u8, u8, &'static str)]),
    /// By the bits of the last octet.
    Bits(&'static [(u8, &'static str)]),
}

/// One list.
#[derive(Debug)]
pub struct List {
    /// Its zone in the DNS, lower case.
    pub zone: &'static str,
    /// Whose it is: one name for all lists of an operator.
    pub family: &'static str,
    /// What it is asked about.
    pub kind: Kind,
    /// Where it says what it lists and how an entry is removed.
    pub homepage: &'static str,
    /// When and how it ended.
    pub retired: Option<&'static str>,
    /// The list that stands for it where its family, or every list, is asked for.
    pub part_of: Option<&'static str>,
    /// Only asked where it is named: it lists more than senders of spam.
    pub by_name: bool,
    /// What its answers mean.
    pub codes: Codes,
}

const fn ip(zone: &'static str, family: &'static str, homepage: &'static str) -> List {
    let (retired, part_of, by_name) = (None, None, false);
    List { zone, family, kind: Kind::Ip, homepage, retired, part_of, by_name, codes: Codes::Any }
}

const fn domain(zone: &'static str, family: &'static str, homepage: &'static str) -> List {
    List { kind: Kind::Domain, ..ip(zone, family, homepage) }
}

const fn ended(list: List, how: &'static str) -> List {
    List { retired: Some(how), ..list }
}

const fn part(list: List, whole: &'static str) -> List {
    List { part_of: Some(whole), ..list }
}

const fn by_name(list: List) -> List {
    List { by_name: true, ..list }
}

const fn coded(list: List, codes: Codes) -> List {
    List { codes, ..list }
}

const SPAMEATINGMONKEY: &str = "https://spameatingmonkey.com/";
const SPAMHAUS: &str = "https://www.spamhaus.org/";
const SORBS: &str = "http://www.sorbs.net/";
const SORBS_ENDED: &str = "SORBS ended on 5 June 2024";
const NJABL: &str = "http://www.njabl.org/";
const NJABL_ENDED: &str = "NJABL ended in March 2013; others have its name and list everybody";
const AHBL: &str = "http://www.ahbl.org/";
const AHBL_ENDED: &str = "AHBL ended in January 2015 and lists everybody";
const RFC_IGNORANT: &str = "http://www.rfc-ignorant.org/";
const RFC_IGNORANT_ENDED: &str = "RFC-Ignorant ended in 2012";
const DSBL_ENDED: &str = "DSBL ended in May 2008";
const ORDB_ENDED: &str = "ORDB ended in December 2006 and lists everybody since March 2008";
const UCEPROTECT: &str = "https://www.uceprotect.net/";
const SPAMHAUS_CODES: Codes = Codes::Values(&[
    (2, 2, "spam source (SBL)"),
    (3, 3, "snowshoe spam source (CSS)"),
    (4, 7, "exploited host (XBL)"),
    (9, 9, "hijacked network (DROP)"),
    (10, 11, "address that isn't meant to send mail (PBL)"),
    (30, 30, "botnet controller (BCL)"),
]);
const DBL_CODES: Codes = Codes::Values(&[
    (2, 2, "spam domain"),
    (4, 4, "phishing domain"),
    (5, 5, "malware domain"),
    (6, 6, "botnet domain"),
    (102, 102, "abused legitimate domain, spam"),
    (103, 103, "abused redirector"),
    (104, 104, "abused legitimate domain, phishing"),
    (105, 105, "abused legitimate domain, malware"),
    (106, 106, "abused legitimate domain, botnet"),
]);
const MAILSPIKE_CODES: Codes = Codes::Values(&[
    (2, 2, "part of a wave of spam"),
    (10, 10, "worst reputation"),
    (11, 11, "very bad reputation"),
    (12, 12, "bad reputation"),
]);
/// Its further codes say that a server is suspect, or none for mail: too little to refuse by.
const SPFBL_CODES: Codes = Codes::Values(&[(2, 2, "spam source")]);
const FRESH_CODES: Codes = Codes::Values(&[
    (2, 2, "registered in the last 7 days"),
    (14, 14, "registered in the last 14 days"),
    (28, 28, "registered in the last 28 days"),
]);
const SURBL_CODES: Codes =
    Codes::Bits(&[(8, "phishing"), (16, "malware"), (64, "abuse"), (128, "cracked site")]);
/// Of its lists only the black one is meant for refusing mail.
const URIBL_CODES: Codes = Codes::Bits(&[(2, "black")]);

/// The lists, the living ones first within their family.
pub const CATALOGUE: &[List] = &[
    coded(ip("zen.spamhaus.org", "spamhaus", SPAMHAUS), SPAMHAUS_CODES),
    part(coded(ip("sbl.spamhaus.org", "spamhaus", SPAMHAUS), SPAMHAUS_CODES), "zen.spamhaus.org"),
    part(coded(ip("xbl.spamhaus.org", "spamhaus", SPAMHAUS), SPAMHAUS_CODES), "zen.spamhaus.org"),
    part(coded(ip("pbl.spamhaus.org", "spamhaus", SPAMHAUS), SPAMHAUS_CODES), "zen.spamhaus.org"),
    coded(domain("dbl.spamhaus.org", "spamhaus", SPAMHAUS), DBL_CODES),
    ended(
        ip("cbl.abuseat.org", "cbl", "https://www.abuseat.org/"),
        "the CBL became part of xbl.spamhaus.org, and so of zen.spamhaus.org",
    ),
    ip("bl.spamcop.net", "spamcop", "https://www.spamcop.net/bl.shtml"),
    ip("dnsbl-1.uceprotect.net", "uceprotect", UCEPROTECT),
    // Whole networks and providers: who asks for every list doesn't ask for these.
    part(ip("dnsbl-2.uceprotect.net", "uceprotect", UCEPROTECT), "dnsbl-1.uceprotect.net"),
    part(ip("dnsbl-3.uceprotect.net", "uceprotect", UCEPROTECT), "dnsbl-1.uceprotect.net"),
    ip("psbl.surriel.com", "psbl", "https://psbl.org/"),
    ip("b.barracudacentral.org", "barracuda", "https://www.barracudacentral.org/rbl"),
    coded(ip("bl.mailspike.net", "mailspike", "https://mailspike.org/"), MAILSPIKE_CODES),
    ip("dnsbl.dronebl.org", "dronebl", "https://dronebl.org/"),
    ip("bl.blocklist.de", "blocklist-de", "https://www.blocklist.de/"),
    ip("truncate.gbudb.net", "gbudb", "http://www.gbudb.com/truncate/"),
    ip("all.s5h.net", "s5h", "https://www.usenix.org.uk/content/rbl.html"),
    coded(ip("dnsbl.spfbl.net", "spfbl", "https://spfbl.net/en/dnsbl/"), SPFBL_CODES),
    // Servers that bounce to forged senders; most send legitimate mail, too.
    by_name(ip("ips.backscatterer.org", "backscatterer", "http://www.backscatterer.org/")),
    // Meant for scores, its operator says.
    by_name(ip("bl.spameatingmonkey.net", "spameatingmonkey", SPAMEATINGMONKEY)),
    by_name(domain("uribl.spameatingmonkey.net", "spameatingmonkey", SPAMEATINGMONKEY)),
    // A new domain is no spam by that alone.
    by_name(coded(domain("fresh.fmb.la", "fmb", "https://fmb.la/"), FRESH_CODES)),
    coded(
        ip(
            "hostkarma.junkemailfilter.com",
            "hostkarma",
            "https://wiki.junkemailfilter.com/index.php/Spam_DNS_Lists",
        ),
        Codes::Values(&[(2, 2, "black")]),
    ),
    coded(domain("multi.surbl.org", "surbl", "https://surbl.org/"), SURBL_CODES),
    coded(domain("multi.uribl.com", "uribl", "https://uribl.com/"), URIBL_CODES),
    ended(ip("dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(ip("http.dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(ip("socks.dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(ip("misc.dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(ip("smtp.dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(ip("web.dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(ip("spam.dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(ip("new.spam.dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(ip("recent.spam.dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(ip("old.spam.dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(ip("escalations.dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(ip("block.dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(ip("noserver.dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(ip("dul.dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(ip("zombie.dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(domain("rhsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(domain("badconf.rhsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(domain("nomail.rhsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(
        ip("ix.dnsbl.manitu.net", "nixspam", "http://www.dnsbl.manitu.net/"),
        "NiX Spam ended on 16 January 2025",
    ),
    ended(ip("dnsbl.inps.de", "inps", "http://dnsbl.inps.de/"), "inps.de ended in May 2020"),
    ended(ip("dnsbl.njabl.org", "njabl", NJABL), NJABL_ENDED),
    ended(ip("combined.njabl.org", "njabl", NJABL), NJABL_ENDED),
    ended(ip("dnsbl.ahbl.org", "ahbl", AHBL), AHBL_ENDED),
    ended(ip("ircbl.ahbl.org", "ahbl", AHBL), AHBL_ENDED),
    ended(domain("rhsbl.ahbl.org", "ahbl", AHBL), AHBL_ENDED),
    ended(domain("dsn.rfc-ignorant.org", "rfc-ignorant", RFC_IGNORANT), RFC_IGNORANT_ENDED),
    ended(domain("fulldom.rfc-ignorant.org", "rfc-ignorant", RFC_IGNORANT), RFC_IGNORANT_ENDED),
    ended(ip("list.dsbl.org", "dsbl", "http://dsbl.org/"), DSBL_ENDED),
    ended(ip("relays.ordb.org", "ordb", "http://www.ordb.org/"), ORDB_ENDED),
];

/// Domains of operators that have ended, and how: no list has lived below them since, under whatever name
/// manuals and other configurations know it.
pub(super) const ENDED_OPERATORS: &[(&str, &str)] = &[
    ("sorbs.net", SORBS_ENDED),
    ("njabl.org", NJABL_ENDED),
    ("ahbl.org", AHBL_ENDED),
    ("rfc-ignorant.org", RFC_IGNORANT_ENDED),
    ("dsbl.org", DSBL_ENDED),
    ("ordb.org", ORDB_ENDED),
];
