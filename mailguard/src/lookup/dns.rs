//! The DNS: mail exchangers, addresses, names and block lists, bounded in time and number.
//!
//! Answers are kept as long as their TTL says. What they mean for a message's way is left to `core::mx`.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::lookup::Lookup as DnsAnswer;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use mailguard_core::config::model::Dns as DnsConfig;
use mailguard_core::lookup::Lookup;
use mailguard_core::mail::Domain;
use mailguard_core::mx::{self, MxRecord};
use mailguard_core::names::{Addresses, Family};
use mailguard_core::policy::check::domain::MailDomainStatus;
use tokio::sync::Semaphore;

/// Most queries of sessions under way at once, and of those to block lists; more wait.
pub const MAX_QUERIES: usize = 256;

/// Most queries for mail that is to leave under way at once. The queue's look-ups are fewer, so that none
/// waits for another.
pub const MAX_MAIL_QUERIES: usize = 16_384;

/// Most names of one address that are looked at.
const MAX_NAMES: usize = 5;

/// How often a query is sent before it counts as unanswered.
const TRIES: usize = 2;

/// Answers kept.
const CACHED_ANSWERS: u64 = 8192;

/// Longest time an answer is kept, whatever its TTL.
const MAX_CACHE_TIME: Duration = Duration::from_secs(3600);

/// Longest time that "there is none" is kept: a mistake that was mended should be seen.
const MAX_NEGATIVE_CACHE_TIME: Duration = Duration::from_secs(300);

/// On whose behalf it is asked: each has a bound of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A session, about its client and its addresses.
    Session,
    /// The queue, about next hops.
    Mail,
}

/// A resolver for one `[dns]` section.
pub struct Dns {
    /// Or why there is none.
    resolver: Result<TokioResolver, String>,
    of_sessions: Semaphore,
    /// Those for mail that is to leave: silent name servers must not keep sessions waiting, nor sessions
    /// mail.
    for_mail: Semaphore,
    /// Those to block lists, which answer at their own pace, not at that of whom they are asked about.
    at_lists: Semaphore,
    deadline: Duration,
}

impl Dns {
    /// A resolver as configured. One that can't be made answers every query with why.
    pub fn new(config: &DnsConfig) -> Self {
        Self::with_cache(config, CACHED_ANSWERS)
    }

    fn with_cache(config: &DnsConfig, cached: u64) -> Self {
        let resolver = build(config, cached).map_err(|error| format!("no DNS server is known: {error}"));
        // Each try may go over UDP and then TCP.
        let deadline = config.timeout * (2 * TRIES as u32);
        Self {
            resolver,
            of_sessions: Semaphore::new(MAX_QUERIES),
            for_mail: Semaphore::new(MAX_MAIL_QUERIES),
            at_lists: Semaphore::new(MAX_QUERIES),
            deadline,
        }
    }

    /// The MX records of `domain`, in no order.
    pub async fn mx(&self, asker: Asker, domain: &Domain) -> Lookup<Vec<MxRecord>> {
        self.query(asker, domain, RecordType::MX, |data| match data {
            RData::MX(mx) => Some(MxRecord { preference: mx.preference, exchange: mx.exchange.to_ascii() }),
            _ => None,
        })
        .await
    }

    /// The addresses of `host`, of both families, in no order.
    pub async fn addresses(&self, asker: Asker, host: &Domain) -> Lookup<Vec<IpAddr>> {
        let v4 = self.query(asker, host, RecordType::A, |data| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            _ => None,
        });
        let v6 = self.query(asker, host, RecordType::AAAA, |data| match data {
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        });
        match tokio::join!(v4, v6) {
            (Lookup::Found(mut v4), Lookup::Found(v6)) => {
                v4.extend(v6);
                Lookup::Found(v4)
            }
            // One family is enough to deliver.
            (Lookup::Found(addresses), _) | (_, Lookup::Found(addresses)) => Lookup::Found(addresses),
            (Lookup::Unavailable(cause), _) | (_, Lookup::Unavailable(cause)) => Lookup::Unavailable(cause),
            (Lookup::Absent, Lookup::Absent) => Lookup::Absent,
        }
    }

    /// The addresses of `host`, of one family, in no order, and for how long they are.
    pub async fn addresses_for_a_time(&self, host: &Domain, family: Family) -> Lookup<Addresses> {
        let record_type = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        let answer = match self.ask(&self.of_sessions, host.ascii(), record_type).await {
            Ok(answer) => answer,
            Err(lookup) => return lookup,
        };
        let address = |data: &RData| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        };
        // Aliases on the way count: who changes one changes the addresses.
        let ttl = answer.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
        let addresses: Vec<IpAddr> =
            answer.answers().iter().filter_map(|record| address(&record.data)).collect();
        if addresses.is_empty() { Lookup::Absent } else { Lookup::Found(Addresses { addresses, ttl }) }
    }

    /// Whether mail could go to `domain`.
    pub async fn standing(&self, domain: &Domain) -> MailDomainStatus {
        match self.mx(Asker::Session, domain).await {
            Lookup::Found(records) if mx::is_null(&records) => MailDomainStatus::NullMx,
            Lookup::Found(_) => MailDomainStatus::TakesMail,
            Lookup::Unavailable(cause) => MailDomainStatus::Unavailable(cause),
            Lookup::Absent => match self.addresses(Asker::Session, domain).await {
                Lookup::Found(_) => MailDomainStatus::TakesMail,
                Lookup::Absent => MailDomainStatus::Unknown,
                Lookup::Unavailable(cause) => MailDomainStatus::Unavailable(cause),
            },
        }
    }

    /// The names of `address` that lead back to it: whoever runs its reverse zone can write any name there.
    pub async fn names(&self, address: IpAddr) -> Lookup<Vec<Domain>> {
        let pointer = Name::from(address).to_ascii();
        let named = self.query_name(&self.of_sessions, &pointer, RecordType::PTR, |data| match data {
            RData::PTR(name) => Domain::parse(&name.to_ascii()).ok(),
            _ => None,
        });
        let mut names = match named.await {
            Lookup::Found(names) => names,
            other => return other,
        };
        names.truncate(MAX_NAMES);
        let checked = join_all(names.iter().map(|name| self.addresses(Asker::Session, name))).await;
        let mut outage = None;
        let mut confirmed = Vec::new();
        for (name, addresses) in names.into_iter().zip(checked) {
            match addresses {
                Lookup::Found(addresses) if addresses.contains(&address) => confirmed.push(name),
                Lookup::Found(_) | Lookup::Absent => {}
                Lookup::Unavailable(cause) => outage = Some(cause),
            }
        }
        match outage {
            _ if !confirmed.is_empty() => Lookup::Found(confirmed),
            Some(cause) => Lookup::Unavailable(cause),
            None => Lookup::Absent,
        }
    }

    /// What a block list answers: the A records of `query`.
    pub async fn codes(&self, query: &str) -> Lookup<Vec<Ipv4Addr>> {
        self.query_name(&self.at_lists, query, RecordType::A, |data| match data {
            RData::A(address) => Some(address.0),
            _ => None,
        })
        .await
    }

    async fn query<T>(
        &self,
        asker: Asker,
        name: &Domain,
        record_type: RecordType,
        take: impl Fn(&RData) -> Option<T>,
    ) -> Lookup<Vec<T>> {
        let room = match asker {
            Asker::Session => &self.of_sessions,
            Asker::Mail => &self.for_mail,
        };
        self.query_name(room, name.ascii(), record_type, take).await
    }

    async fn query_name<T>(
        &self,
        room: &Semaphore,
        name: &str,
        record_type: RecordType,
        take: impl Fn(&RData) -> Option<T>,
    ) -> Lookup<Vec<T>> {
        let records: Vec<T> = match self.ask(room, name, record_type).await {
            Ok(answer) => answer.answers().iter().filter_map(|record| take(&record.data)).collect(),
            Err(lookup) => return lookup,
        };
        if records.is_empty() { Lookup::Absent } else { Lookup::Found(records) }
    }

    /// The whole answer, or what its absence means.
    async fn ask<T>(
        &self,
        room: &Semaphore,
        name: &str,
        record_type: RecordType,
    ) -> Result<DnsAnswer, Lookup<T>> {
        let resolver = self.resolver.as_ref().map_err(|cause| Lookup::Unavailable(cause.clone()))?;
        // The final dot: the name is whole, no search domain belongs to it. As ASCII: read as a text of any
        // script, a name with '_' would be refused unheard, and there are such.
        let name = Name::from_ascii(format!("{}.", name.trim_end_matches('.')))
            .map_err(|error| Lookup::Unavailable(error.to_string()))?;
        let lookup = resolver.lookup(name, record_type);
        self.bounded(room, lookup).await.map_err(|error| match is_absent(&error) {
            true => Lookup::Absent,
            false => Lookup::Unavailable(error.to_string()),
        })
    }

    async fn bounded<T>(
        &self,
        room: &Semaphore,
        lookup: impl Future<Output = Result<T, NetError>>,
    ) -> Result<T, NetError> {
        let whole = async {
            let _permit = room.acquire().await.map_err(|_| NetError::Busy)?;
            lookup.await
        };
        tokio::time::timeout(self.deadline, whole).await.unwrap_or(Err(NetError::Timeout))
    }
}

/// A server that only says who may know has answered nothing: it isn't in charge, or doesn't look it up for
/// us.
fn is_absent(error: &NetError) -> bool {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            none.response_code == ResponseCode::NXDomain || none.soa.is_some() || none.ns.is_none()
        }
        NetError::Dns(DnsError::ResponseCode(code)) => *code == ResponseCode::NXDomain,
        _ => false,
    }
}

fn build(config: &DnsConfig, cached: u64) -> Result<TokioResolver, NetError> {
    let mut builder = if config.servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = config.servers.iter().map(|server| {
            let with_port = |mut connection: ConnectionConfig| {
                connection.port = server.port();
                connection
            };
            let connections = vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())];
            NameServerConfig::new(server.ip(), true, connections)
        });
        let servers = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.timeout = config.timeout;
    options.attempts = TRIES;
    options.edns0 = true;
    options.cache_size = cached;
    options.positive_max_ttl = (cached > 0).then_some(MAX_CACHE_TIME);
    options.negative_max_ttl = Some(MAX_NEGATIVE_CACHE_TIME);
    // Above our own bound, so that this one never turns a query away.
    options.max_active_requests = 2 * MAX_QUERIES + MAX_MAIL_QUERIES;
    builder.build()
}

/// The system's name servers: what a configuration that names none asks.
const SYSTEM_SERVERS: &str = "/etc/resolv.conf";

/// The resolver of the configuration in force: made anew when its `[dns]` section changes, or what it stands
/// on, where that is the system's (an uplink that comes back brings other name servers).
pub struct CurrentDns {
    current: Mutex<Option<Made>>,
    cached: u64,
    system: PathBuf,
}

struct Made {
    from: DnsConfig,
    /// When the system's servers were changed last, if those are asked.
    changed: Option<SystemTime>,
    dns: Arc<Dns>,
}

impl Default for CurrentDns {
    fn default() -> Self {
        Self { current: Mutex::default(), cached: CACHED_ANSWERS, system: SYSTEM_SERVERS.into() }
    }
}

impl CurrentDns {
    /// Those that keep no answer, so that each comes with the time it holds from now on.
    pub fn uncached() -> Self {
        Self { cached: 0, ..Self::default() }
    }

    /// The resolver for `config`.
    pub fn get(&self, config: &DnsConfig) -> Arc<Dns> {
        let changed = if config.servers.is_empty() { changed(&self.system) } else { None };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(made) if made.from == *config && made.changed == changed => made.dns.clone(),
            _ => {
                let dns = Arc::new(Dns::with_cache(config, self.cached));
                *current = Some(Made { from: config.clone(), changed, dns: dns.clone() });
                dns
            }
        }
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|facts| facts.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::dns_server::DnsServer;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[tokio::test]
    async fn answers() {
        let server = DnsServer::start(&[
            "d.test MX 10 mx1.d.test",
            "d.test MX 20 mx2.d.test",
            "null.test MX 0 .",
            "alias.test CNAME mx1.d.test",
            "mx1.d.test A 192.0.2.1",
            "mx1.d.test AAAA 2001:db8::1",
            "mx2.d.test A 192.0.2.2",
            "half.test A 192.0.2.3",
            "half.test AAAA SERVFAIL",
            "broken.test MX SERVFAIL",
            "broken.test A SERVFAIL",
        ])
        .await;
        let dns = Dns::new(&server.config());
        let mx = |preference, exchange: &str| MxRecord { preference, exchange: exchange.to_owned() };
        assert_eq!(
            dns.mx(Asker::Mail, &domain("d.test")).await,
            Lookup::Found(vec![mx(10, "mx1.d.test."), mx(20, "mx2.d.test.")])
        );
        assert_eq!(dns.mx(Asker::Mail, &domain("null.test")).await, Lookup::Found(vec![mx(0, ".")]));
        assert_eq!(dns.mx(Asker::Mail, &domain("mx2.d.test")).await, Lookup::Absent);
        assert_eq!(dns.mx(Asker::Mail, &domain("no.test")).await, Lookup::Absent);
        assert!(matches!(dns.mx(Asker::Mail, &domain("broken.test")).await, Lookup::Unavailable(_)));
        for (name, expect) in [
            ("mx1.d.test", &["192.0.2.1", "2001:db8::1"][..]),
            ("alias.test", &["192.0.2.1", "2001:db8::1"]),
            ("mx2.d.test", &["192.0.2.2"]),
            ("half.test", &["192.0.2.3"]),
        ] {
            let expect = expect.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(dns.addresses(Asker::Mail, &domain(name)).await, Lookup::Found(expect), "{name}");
        }
        assert_eq!(dns.addresses(Asker::Mail, &domain("d.test")).await, Lookup::Absent);
        assert_eq!(dns.addresses(Asker::Mail, &domain("no.test")).await, Lookup::Absent);
        assert!(matches!(dns.addresses(Asker::Mail, &domain("broken.test")).await, Lookup::Unavailable(_)));
    }

    #[tokio::test]
    async fn names_with_an_underscore_are_looked_up() {
        let zone = [
            "my_firm.test MX 10 mail_1.my_firm.test",
            "mail_1.my_firm.test A 192.0.2.1",
            "1.2.0.192.in-addr.arpa PTR mail_1.my_firm.test",
        ];
        let server = DnsServer::start(&zone).await;
        let dns = Dns::new(&server.config());
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let records = dns.mx(Asker::Mail, &domain("my_firm.test")).await;
        let exchange = "mail_1.my_firm.test.".to_owned();
        assert_eq!(records, Lookup::Found(vec![MxRecord { preference: 10, exchange }]));
        assert_eq!(dns.standing(&domain("my_firm.test")).await, MailDomainStatus::TakesMail);
        assert_eq!(dns.standing(&domain("no_firm.test")).await, MailDomainStatus::Unknown);
        let host = domain("mail_1.my_firm.test");
        assert_eq!(dns.addresses(Asker::Mail, &host).await, Lookup::Found(vec![address]));
        assert!(matches!(dns.addresses_for_a_time(&host, Family::V4).await, Lookup::Found(_)));
        assert_eq!(dns.names(address).await, Lookup::Found(vec![host]));
        assert_eq!(dns.codes("my_firm.test.list.test").await, Lookup::Absent);
    }

    #[tokio::test]
    async fn a_referral_is_no_answer_and_a_short_one_is_asked_for_again() {
        let zone = [
            "lame.test MX LAME",
            "lame.test A LAME",
            "refused.test A REFUSED",
            "large.test A LARGE 192.0.2.7",
        ];
        let server = DnsServer::start(&zone).await;
        let dns = Dns::new(&server.config());
        assert!(matches!(dns.mx(Asker::Mail, &domain("lame.test")).await, Lookup::Unavailable(_)));
        assert!(matches!(dns.standing(&domain("lame.test")).await, MailDomainStatus::Unavailable(_)));
        assert!(matches!(dns.codes("lame.test").await, Lookup::Unavailable(_)));
        assert!(matches!(dns.codes("refused.test").await, Lookup::Unavailable(_)));
        // An answer that fits no datagram is asked for again.
        assert_eq!(dns.codes("large.test").await, Lookup::Found(vec![[192, 0, 2, 7].into()]));
    }

    #[tokio::test]
    async fn addresses_come_with_the_time_they_are_for() {
        let server =
            DnsServer::start(&["mx.test A 192.0.2.1", "mx.test A 192.0.2.2", "alias.test CNAME mx.test"])
                .await;
        let dns = CurrentDns::uncached().get(&server.config());
        let addresses = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap()).to_vec();
        let expect = Lookup::Found(Addresses { addresses, ttl: 60 });
        for name in ["mx.test", "alias.test"] {
            assert_eq!(dns.addresses_for_a_time(&domain(name), Family::V4).await, expect);
            assert_eq!(dns.addresses_for_a_time(&domain(name), Family::V6).await, Lookup::Absent);
        }
    }

    #[tokio::test]
    async fn a_silent_server_is_an_outage() {
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = vec![silent.local_addr().unwrap()];
        let dns = Dns::new(&DnsConfig { servers, timeout: Duration::from_millis(50) });
        assert!(matches!(dns.mx(Asker::Mail, &domain("d.test")).await, Lookup::Unavailable(_)));
    }

    #[test]
    fn a_changed_section_makes_a_new_resolver() {
        let current = CurrentDns::default();
        let config =
            |port| mailguard_core::testing::config(&format!("dns.servers = [\"127.0.0.1:{port}\"]")).dns;
        let first = current.get(&config(53));
        assert!(Arc::ptr_eq(&first, &current.get(&config(53))));
        assert!(!Arc::ptr_eq(&first, &current.get(&config(54))));
    }

    #[test]
    fn other_name_servers_of_the_system_make_a_new_resolver() {
        let dir = tempfile::TempDir::new().unwrap();
        let current = CurrentDns { system: dir.path().join("resolv.conf"), ..CurrentDns::default() };
        let config = mailguard_core::testing::config("").dns;
        let none = current.get(&config);
        assert!(Arc::ptr_eq(&none, &current.get(&config)));
        std::fs::write(&current.system, "nameserver 192.0.2.1\n").unwrap();
        let first = current.get(&config);
        assert!(!Arc::ptr_eq(&none, &first) && Arc::ptr_eq(&first, &current.get(&config)));
        let file = std::fs::File::options().write(true).open(&current.system).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(!Arc::ptr_eq(&first, &current.get(&config)));
    }
}
