//! Next hops that are dead, slow or nameless, and those that wait beside them.

use mailguard_core::config::model::DefaultRoute;

use super::*;

#[tokio::test]
async fn what_a_dead_next_hop_never_takes_expires() {
    let directory = TempDir::new().unwrap();
    let script = |_: &str, address: &str, _| {
        if address.ends_with("@dead.test>") { unreachable() } else { delivered() }
    };
    let house = House::open(directory.path(), 0, script);
    for number in 0..60 {
        house.commit(&[&format!("r{number}@dead.test")], |_| {}).await;
    }
    house.drain().await;
    let sent = house.deliver.sent.lock().unwrap().clone();
    let failed = |sent: &&Sent| String::from_utf8_lossy(&sent.octets).contains("Action: failed\r\n");
    let reports = sent.iter().filter(|sent| sent.message.origin == Origin::Internal).filter(failed).count();
    assert_eq!(reports, 60, "each sender is told, though one attempt at a time was made");
    house.close().await;
}

#[tokio::test]
async fn a_slow_next_hop_holds_up_nobody_and_has_its_limit() {
    let directory = TempDir::new().unwrap();
    let mut house = House::open(directory.path(), 0, |_, _, _| delivered());
    for number in 0..50 {
        house.commit(&[&format!("r{number}@slow.test")], |_| {}).await;
    }
    while house.deliver.running.load(Ordering::SeqCst) < MAX_ATTEMPTS_PER_HOP {
        tokio::task::yield_now().await;
    }
    house.commit(&["a@fast.test"], |_| {}).await;
    assert_eq!(house.next().await.next_hop.unwrap().to_string(), "mx:fast.test");
    house.deliver.gate.add_permits(50);
    for _ in 0..50 {
        assert_eq!(house.next().await.consequence, Consequence::Done);
    }
    assert_eq!(house.deliver.most.load(Ordering::SeqCst), MAX_ATTEMPTS_PER_HOP + 1);
    house.close().await;
}

/// Whatever else is tried: next hops that don't answer, and some that do and take no message, keep nobody
/// waiting.
#[tokio::test]
async fn an_outage_holds_up_no_mail_for_those_who_are_up() {
    let directory = TempDir::new().unwrap();
    let mut house = House::open(directory.path(), 0, |_, _, _| delivered());
    house.reroute("in.test");
    for number in 0..1_000 {
        let server = if number % 2 == 0 { "dead-end" } else { "nameless" };
        house.commit(&[&format!("a@d{number}.{server}.test")], |_| {}).await;
    }
    while house.deliver.dialling.load(Ordering::SeqCst) < MAX_TRANSFERS_A_STANDING {
        tokio::task::yield_now().await;
    }
    for (recipient, next_hop) in [("a@new.test", "mx:new.test"), ("a@in.test", "10.0.0.25:25")] {
        house.commit(&[recipient], |_| {}).await;
        let next = tokio::time::timeout(Duration::from_secs(60), house.next()).await;
        assert_eq!(next.expect("it goes").next_hop.unwrap().to_string(), next_hop);
    }
    assert_eq!(house.deliver.most.load(Ordering::SeqCst), 1, "no message is in memory for the others");
    // Its attempts never end.
    house.queue.stop().await;
}

/// New next hops have room for so many messages of theirs, and take nobody else's.
#[tokio::test]
async fn servers_that_greet_and_take_nothing_hold_up_nobody_who_is_known() {
    let directory = TempDir::new().unwrap();
    let mut house = House::open(directory.path(), 0, |_, _, _| delivered());
    house.reroute("in.test");
    house.commit(&["a@known.test"], |_| {}).await;
    house.next().await;
    for number in 0..MAX_TRANSFERS_A_STANDING + 10 {
        house.commit(&[&format!("a@d{number}.tarpit.test")], |_| {}).await;
    }
    while house.deliver.running.load(Ordering::SeqCst) < MAX_TRANSFERS_A_STANDING {
        tokio::task::yield_now().await;
    }
    for (recipient, next_hop) in [("a@known.test", "mx:known.test"), ("a@in.test", "10.0.0.25:25")] {
        house.commit(&[recipient], |_| {}).await;
        assert_eq!(house.next().await.next_hop.unwrap().to_string(), next_hop);
    }
    assert_eq!(house.deliver.most.load(Ordering::SeqCst), MAX_TRANSFERS_A_STANDING + 1);
    house.queue.shared.stopping.send_replace(true);
}

/// All of it, though the dead server rests and is tried with one message at a time.
#[tokio::test]
async fn a_dead_original_destination_strands_no_mail_that_exchangers_take() {
    let directory = TempDir::new().unwrap();
    let script = |hop: &str, _: &str, _| if hop.starts_with("mx:") { delivered() } else { unreachable() };
    let mut house = House::open(directory.path(), 0, script);
    house.configure(|config| config.delivery.default = DefaultRoute::OriginalDestination);
    for number in 0..60 {
        let elsewhere = |new: &mut NewMessage| {
            let Origin::Client(client) = &mut new.origin else { panic!("a client") };
            client.destination = "198.51.100.7:25".parse().unwrap();
            client.destination_is_local = false;
        };
        house.commit(&[&format!("r{number}@d.test")], elsewhere).await;
    }
    for _ in 0..60 {
        let attempted = house.next().await;
        assert_eq!(attempted.next_hop.unwrap().to_string(), "198.51.100.7:25");
        assert_eq!(attempted.consequence, Consequence::Retry(UnixTime(5 * MINUTE)));
    }
    house.pass(5 * MINUTE);
    for _ in 0..60 {
        let attempted = house.next().await;
        assert_eq!(attempted.next_hop.unwrap().to_string(), "mx:d.test");
        assert_eq!(attempted.consequence, Consequence::Done);
    }
    house.close().await;
}
