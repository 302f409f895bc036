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
    let reports = sent.iter().filter(|sent| sent.message.origin == Origin::Own).filter(failed).count();
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

/// Places are left to the server inside, and to its address when the name servers are silent, whatever else is tried.
#[tokio::test]
async fn an_outage_holds_up_no_mail_for_those_who_are_up() {
    let directory = TempDir::new().unwrap();
    let mut house = House::open(directory.path(), 0, |_, _, _| delivered());
    house.reroute("in.test");
    for number in 0..1_000 {
        let server = if number < 500 { "dead-end" } else { "nameless" };
        house.commit(&[&format!("a@d{number}.{server}.test")], |_| {}).await;
    }
    while house.deliver.running.load(Ordering::SeqCst) < MAX_ATTEMPTS_A_STANDING {
        tokio::task::yield_now().await;
    }
    house.commit(&["a@in.test"], |_| {}).await;
    assert_eq!(house.next().await.next_hop.unwrap().to_string(), "10.0.0.25:25");
    assert_eq!(house.deliver.most.load(Ordering::SeqCst), MAX_ATTEMPTS_A_STANDING + 1);
    // Its attempts never end.
    house.queue.shared.stopping.send_replace(true);
}

/// All of it, though the dead server rests and is tried with one message at a time.
#[tokio::test]
async fn a_dead_dialled_server_strands_no_mail_that_exchangers_take() {
    let directory = TempDir::new().unwrap();
    let script = |hop: &str, _: &str, _| if hop.starts_with("mx:") { delivered() } else { unreachable() };
    let mut house = House::open(directory.path(), 0, script);
    house.configure(|config| config.delivery.default = DefaultRoute::OriginalDestination);
    for number in 0..60 {
        let elsewhere = |new: &mut NewMessage| {
            let Origin::Client(client) = &mut new.origin else { panic!("a client") };
            client.destination = "198.51.100.7:25".parse().unwrap();
            client.destination_is_ours = false;
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
