//! Other people's programs and marks on the same interfaces: theirs run, ours work, and their bits of the
//! mark stay.

use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions, TcAttachType};
use aya::programs::{SchedClassifier, loaded_programs};
use aya::sys::{Stats, enable_stats};
use aya::{Ebpf, EbpfLoader};
use mailguard_tests::netns::{BRIDGE, CLIENT4, CLIENT6, LAN, SERVER4, SERVER6};
use mailguard_tests::peers::wait_until;
use mailguard_tests::programs::{EMPTY_TC, object};

use crate::firewall::{Answer, Firewall, Session, ZONES};

/// A program that isn't mailguard's, attached as a TCX link until dropped.
struct Foreign {
    id: u32,
    _ebpf: Ebpf,
    _link: FdLink,
}

impl Foreign {
    fn attach(firewall: &Firewall, order: LinkOrder) -> Self {
        let attach = || {
            let mut ebpf = EbpfLoader::new().load(&std::fs::read(object())?)?;
            let program: &mut SchedClassifier = ebpf.program_mut(EMPTY_TC).expect("it").try_into()?;
            program.load()?;
            let order = TcAttachOptions::TcxOrder(order);
            let link = program.attach_with_options(LAN, TcAttachType::Ingress, order)?;
            let link: SchedClassifierLink = program.take_link(link)?;
            let id = program.info()?.id();
            Ok(Self { id, _link: link.try_into()?, _ebpf: ebpf })
        };
        firewall.topology.firewall.within(attach).unwrap()
    }

    /// How often it ran; counted only while statistics are on.
    fn runs(&self) -> u64 {
        let mut programs = loaded_programs().map(Result::unwrap);
        programs.find(|program| program.id() == self.id).expect("it is loaded").run_count()
    }
}

/// The TCX programs of the client's interface, in the order in which they run.
fn chain(firewall: &Firewall) -> Vec<u32> {
    let query = || Ok(SchedClassifier::query_tcx(LAN, TcAttachType::Ingress)?);
    let (_, programs) = firewall.topology.firewall.within(query).unwrap();
    programs.iter().map(|program| program.id()).collect()
}

#[test]
fn other_programs_before_and_after_ours_see_their_packets() {
    let _statistics = enable_stats(Stats::RunTime).unwrap();
    let mut firewall = Firewall::new("[bypass]\nfrom_ips = [\"2001:db8:1::2\"]\n");
    let first = Foreign::attach(&firewall, LinkOrder::first());
    let last = Foreign::attach(&firewall, LinkOrder::last());
    let ours = chain(&firewall)[1];
    assert_eq!(chain(&firewall), [first.id, ours, last.id]);

    let before = (first.runs(), last.runs());
    assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
    assert!(first.runs() >= before.0 + 3, "a handshake and a greeting");
    // What is left alone is left to whoever comes after: a bypassed client, another port.
    let before = last.runs();
    assert_eq!(firewall.dial(SERVER6), Answer::server(CLIENT6));
    assert!(last.runs() >= before + 3);
    let before = last.runs();
    let other_port = Session::open(&firewall.topology.client, None, (SERVER4, 2525).into());
    assert_eq!(other_port.map(|session| session.answer), Ok(Answer::server(CLIENT4)));
    assert!(last.runs() >= before + 3);

    // A restart puts ours before all others again: whoever stands there could keep packets from it.
    firewall.stop();
    firewall.start();
    let after = chain(&firewall);
    assert_eq!((after.len(), after[1], after[2]), (3, first.id, last.id));
    assert_ne!(after[0], ours, "the new program");
    firewall.unload();
    assert_eq!(chain(&firewall), [first.id, last.id], "theirs stay");
}

/// Loads these lines into the firewall's packet filter.
fn nft(firewall: &Firewall, lines: &[String]) {
    for line in lines {
        let output = firewall.topology.firewall.command("nft").arg(line).output().expect("nftables");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Packets of the counter `name`.
fn counted(firewall: &Firewall, name: &str) -> u64 {
    let mut command = firewall.topology.firewall.command("nft");
    let output = command.args(["list", "counter", "inet", "look", name]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let packets = text.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
    packets.unwrap_or_else(|| panic!("no counter {name}: {text}")).parse().unwrap()
}

#[test]
fn bits_of_the_mark_that_others_set_are_kept() {
    // A port of a bridge marks what comes in; our program on the bridge itself sees the mark.
    let mut firewall = Firewall::idle(&ZONES.replace(LAN, BRIDGE));
    firewall.topology.bridge_client().unwrap();
    let count = |name: &str, family: &str, mark: &str| {
        [
            format!("add counter inet look {name}"),
            format!(
                "add rule inet look input meta nfproto {family} tcp dport 25 meta mark {mark} counter name {name}"
            ),
        ]
    };
    let mut lines = vec![
        "add table netdev marks".to_owned(),
        format!("add chain netdev marks in {{ type filter hook ingress device {LAN} priority 0; }}"),
        "add rule netdev marks in meta mark set 0xff".to_owned(),
        "add table inet look".to_owned(),
        "add chain inet look input { type filter hook input priority 0; }".to_owned(),
    ];
    lines.extend(count("both4", "ipv4", "0x100000ff"));
    lines.extend(count("both6", "ipv6", "0x100000ff"));
    lines.extend(count("other", "ipv4", "!= 0x100000ff"));
    nft(&firewall, &lines);
    firewall.start();
    wait_until("the bridge forwards", || firewall.dial(SERVER4) != Answer::Nobody).unwrap();
    assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
    assert_eq!(firewall.dial(SERVER6), Answer::intercepted(CLIENT6, SERVER6));
    assert!(counted(&firewall, "both4") >= 3, "a handshake and a greeting");
    assert!(counted(&firewall, "both6") >= 3, "a handshake and a greeting");
    assert_eq!(counted(&firewall, "other"), 0);
}

#[test]
fn bits_that_are_added_after_us_do_no_harm() {
    let firewall = Firewall::new("");
    let lines = [
        "add table inet after",
        "add chain inet after pre { type filter hook prerouting priority -150; }",
        "add rule inet after pre meta mark set meta mark or 0xff",
    ];
    nft(&firewall, &lines.map(str::to_owned));
    assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
    assert_eq!(firewall.dial(SERVER6), Answer::intercepted(CLIENT6, SERVER6));
}
