//! A DNS server for tests, on loopback: answers from a list of records.

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, NS, PTR};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use mailguard_core::config::model::Dns as DnsConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// Seconds that answers are valid.
const TTL: u32 = 60;

/// The server; it ends with the test's runtime.
pub(crate) struct DnsServer(SocketAddr);

#[derive(Clone)]
enum Answer {
    Data(RData),
    Code(ResponseCode),
    /// No answer but the name of a server that may know (RFC 1034 §4.3.1).
    Referral,
    /// Too large for a datagram.
    Truncated(RData),
}

impl DnsServer {
    /// Serves `zone`: lines of name, type and data. For data, SERVFAIL and REFUSED make the query fail, LAME
    /// answers with a referral, and LARGE before an address has it given over TCP only.
    pub(crate) async fn start(zone: &[&str]) -> Self {
        let (socket, listener) = both_transports().await;
        let address = socket.local_addr().unwrap();
        let zone: Arc<[_]> = zone.iter().map(|line| parse(line)).collect();
        let stream_zone = zone.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((octets, peer)) = socket.recv_from(&mut buffer).await {
                let reply = answer(&zone, &Message::from_vec(&buffer[..octets]).unwrap(), true);
                socket.send_to(&reply.to_vec().unwrap(), peer).await.unwrap();
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let zone = stream_zone.clone();
                tokio::spawn(async move {
                    while let Ok(octets) = stream.read_u16().await {
                        let mut request = vec![0; usize::from(octets)];
                        stream.read_exact(&mut request).await.unwrap();
                        let reply =
                            answer(&zone, &Message::from_vec(&request).unwrap(), false).to_vec().unwrap();
                        stream.write_u16(reply.len() as u16).await.unwrap();
                        stream.write_all(&reply).await.unwrap();
                    }
                });
            }
        });
        Self(address)
    }

    /// A `[dns]` section that asks this server.
    pub(crate) fn config(&self) -> DnsConfig {
        mailguard_core::testing::config(&format!("dns.servers = [\"{}\"]", self.0)).dns
    }
}

/// A port that is free for both.
async fn both_transports() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(listener) = TcpListener::bind(socket.local_addr().unwrap()).await {
            return (socket, listener);
        }
    }
    panic!("no port is free for both")
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
        (_, ["SERVFAIL"]) => Answer::Code(ResponseCode::ServFail),
        (_, ["REFUSED"]) => Answer::Code(ResponseCode::Refused),
        (_, ["LAME"]) => Answer::Referral,
        ("A", ["LARGE", address]) => Answer::Truncated(RData::A(A(address.parse().unwrap()))),
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

fn answer(zone: &[(Name, RecordType, Answer)], request: &Message, datagram: bool) -> Message {
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
                Answer::Code(code) => reply.metadata.response_code = *code,
                Answer::Referral => {
                    reply.metadata.recursion_available = false;
                    let elsewhere = RData::NS(NS(name("ns.elsewhere.test")));
                    reply.add_authority(Record::from_rdata(name("test"), TTL, elsewhere));
                }
                Answer::Truncated(_) if datagram => reply.metadata.truncation = true,
                Answer::Data(data) | Answer::Truncated(data) => {
                    reply.add_answer(Record::from_rdata(owner.clone(), TTL, data.clone()));
                }
            }
        }
    }
    reply
}
