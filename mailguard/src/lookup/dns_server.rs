//! A DNS server for tests, on loopback: answers from a list of records.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, PTR};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use mailguard_core::config::model::Dns as DnsConfig;
use tokio::net::UdpSocket;

/// Seconds that answers are valid.
const TTL: u32 = 60;

/// The server; it ends with the test's runtime.
pub(crate) struct DnsServer(SocketAddr);

#[derive(Clone)]
enum Answer {
    Data(RData),
    Failure,
}

impl DnsServer {
    /// Serves `zone`: lines of name, type and data; data SERVFAIL makes the query fail.
    pub(crate) async fn start(zone: &[&str]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone: Vec<_> = zone.iter().map(|line| parse(line)).collect();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((octets, peer)) = socket.recv_from(&mut buffer).await {
                let reply = answer(&zone, &Message::from_vec(&buffer[..octets]).unwrap());
                socket.send_to(&reply.to_vec().unwrap(), peer).await.unwrap();
            }
        });
        Self(address)
    }

    /// A `[dns]` section that asks this server.
    pub(crate) fn config(&self) -> DnsConfig {
        DnsConfig { servers: vec![self.0], timeout: Duration::from_secs(5) }
    }
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

fn parse(line: &str) -> (Name, RecordType, Answer) {
    let words: Vec<&str> = line.split(' ').collect();
    let record_type: RecordType = words[1].parse().unwrap();
    let answer = match (words[1], &words[2..]) {
        (_, ["SERVFAIL"]) => Answer::Failure,
        ("A", [address]) => Answer::Data(RData::A(A(address.parse().unwrap()))),
        ("AAAA", [address]) => Answer::Data(RData::AAAA(AAAA(address.parse().unwrap()))),
        ("PTR", [target]) => Answer::Data(RData::PTR(PTR(name(target)))),
        ("CNAME", [target]) => Answer::Data(RData::CNAME(CNAME(name(target)))),
        ("MX", [preference, host]) => {
            Answer::Data(RData::MX(MX::new(preference.parse().unwrap(), name(host))))
        }
        _ => panic!("no such record: {line}"),
    };
    (name(words[0]), record_type, answer)
}

fn answer(zone: &[(Name, RecordType, Answer)], request: &Message) -> Message {
    let query = request.queries[0].clone();
    let mut reply = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata.recursion_desired = true;
    reply.metadata.recursion_available = true;
    let mut wanted = query.name().clone();
    reply.add_query(query.clone());
    let exists = zone.iter().any(|(owner, ..)| *owner == wanted);
    if !exists {
        reply.metadata.response_code = ResponseCode::NXDomain;
    }
    while let Some((owner, _, Answer::Data(RData::CNAME(target)))) =
        zone.iter().find(|(owner, kind, _)| *owner == wanted && *kind == RecordType::CNAME)
    {
        reply.add_answer(Record::from_rdata(owner.clone(), TTL, RData::CNAME(target.clone())));
        wanted = target.0.clone();
    }
    for (owner, kind, answer) in zone {
        if *owner == wanted && *kind == query.query_type() {
            match answer {
                Answer::Failure => reply.metadata.response_code = ResponseCode::ServFail,
                Answer::Data(data) => {
                    reply.add_answer(Record::from_rdata(owner.clone(), TTL, data.clone()));
                }
            }
        }
    }
    reply
}
