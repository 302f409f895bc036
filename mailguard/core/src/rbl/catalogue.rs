//! The lists that are known by name: who runs them, what their codes mean, and which have ended. A list that has ended is kept
//! here, so that a configuration that still names it is told; asked all the same, it may list everybody.

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
    /// The list that holds all its entries.
    pub part_of: Option<&'static str>,
    /// What its answers mean.
    pub codes: Codes,
}

const fn ip(zone: &'static str, family: &'static str, homepage: &'static str) -> List {
    List { zone, family, kind: Kind::Ip, homepage, retired: None, part_of: None, codes: Codes::Any }
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

const fn coded(list: List, codes: Codes) -> List {
    List { codes, ..list }
}

const SPAMHAUS: &str = "https://www.spamhaus.org/";
const SORBS: &str = "http://www.sorbs.net/";
const SORBS_ENDED: &str = "SORBS ended in June 2024";
const UCEPROTECT: &str = "https://www.uceprotect.net/";
const SPAMHAUS_CODES: Codes = Codes::Values(&[
    (2, 2, "spam source (SBL)"),
    (3, 3, "snowshoe spam source (CSS)"),
    (4, 7, "exploited host (XBL)"),
    (9, 9, "hijacked network (DROP)"),
    (10, 11, "address that isn't meant to send mail (PBL)"),
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
const SURBL_CODES: Codes =
    Codes::Bits(&[(8, "phishing"), (16, "malware"), (64, "abuse"), (128, "cracked site")]);
const URIBL_CODES: Codes = Codes::Bits(&[(2, "black"), (4, "grey"), (8, "red")]);

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
    ip("bl.mailspike.net", "mailspike", "https://mailspike.org/"),
    ip("dnsbl.dronebl.org", "dronebl", "https://dronebl.org/"),
    ip("bl.blocklist.de", "blocklist-de", "https://www.blocklist.de/"),
    ip("truncate.gbudb.net", "gbudb", "http://www.gbudb.com/truncate/"),
    ip("all.s5h.net", "s5h", "https://www.usenix.org.uk/content/rbl.html"),
    ip("dnsbl.spfbl.net", "spfbl", "https://spfbl.net/en/dnsbl/"),
    ip("ips.backscatterer.org", "backscatterer", "https://www.backscatterer.org/"),
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
    ended(ip("dul.dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(ip("zombie.dnsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(domain("rhsbl.sorbs.net", "sorbs", SORBS), SORBS_ENDED),
    ended(ip("ix.dnsbl.manitu.net", "nixspam", "https://www.nixspam.net/"), "NiX Spam ended in January 2025"),
    ended(ip("dnsbl.njabl.org", "njabl", "http://www.njabl.org/"), "NJABL ended in 2013"),
    ended(ip("dnsbl.ahbl.org", "ahbl", "http://www.ahbl.org/"), "AHBL ended in 2015 and lists everybody"),
    ended(domain("rhsbl.ahbl.org", "ahbl", "http://www.ahbl.org/"), "AHBL ended in 2015 and lists everybody"),
    ended(ip("list.dsbl.org", "dsbl", "http://dsbl.org/"), "DSBL ended in 2008"),
    ended(ip("relays.ordb.org", "ordb", "http://www.ordb.org/"), "ORDB ended in 2006 and listed everybody"),
];
