//! What an administrator orders: hold a message, pause a destination.

use super::*;

#[tokio::test]
async fn a_held_message_waits_through_a_restart_until_it_is_released() {
    let directory = TempDir::new().unwrap();
    let mut house = House::open(directory.path(), 0, |_, _, _| deferred());
    let id = house.commit(&["a@x.test"], |_| {}).await;
    house.next().await;
    assert!(house.queue.handle().hold(id, true).await.unwrap());
    house.pass(60 * MINUTE);
    let other = house.commit(&["b@x.test"], |_| {}).await;
    assert_eq!(house.next().await.id, other, "and the held one isn't tried");
    house.close().await;

    let mut house = House::open(directory.path(), 600 * MINUTE, |_, _, _| delivered());
    assert_eq!(house.next().await.id, other);
    let handle = house.queue.handle();
    assert!(handle.retry(id), "a retry doesn't release it");
    house.commit(&["c@x.test"], |_| {}).await;
    assert_ne!(house.next().await.id, id);
    assert!(handle.hold(id, false).await.unwrap());
    assert_eq!(house.next().await.id, id);
    assert!(!handle.hold(id, true).await.unwrap(), "it is gone");
    house.close().await;
}

#[tokio::test]
async fn a_paused_destination_takes_no_mail_and_holds_up_no_other() {
    let directory = TempDir::new().unwrap();
    let mut house = House::open(directory.path(), 0, |_, _, _| delivered());
    house.queue.handle().pause("paused.test".parse().unwrap()).await.unwrap();
    let id = house.commit(&["a@paused.test", "b@x.test"], |_| {}).await;
    assert_eq!(house.next().await.recipient.to_string(), "<b@x.test>");
    assert_eq!(house.queue.handle().ids_to("paused.test".parse().unwrap()).await.unwrap(), [id]);
    assert!(house.queue.handle().ids_to("x.test".parse().unwrap()).await.unwrap().is_empty());
    house.close().await;

    let mut house = House::open(directory.path(), 60 * MINUTE, |_, _, _| delivered());
    let handle = house.queue.handle();
    assert_eq!(handle.paused().iter().map(ToString::to_string).collect::<Vec<_>>(), ["paused.test"]);
    house.commit(&["c@x.test"], |_| {}).await;
    assert_eq!(house.next().await.recipient.to_string(), "<c@x.test>");
    assert!(handle.resume(&"paused.test".parse().unwrap()).await.unwrap());
    assert_eq!(house.next().await.recipient.to_string(), "<a@paused.test>");
    assert!(!handle.resume(&"paused.test".parse().unwrap()).await.unwrap());
    assert!(handle.paused().is_empty());
    house.close().await;
}

#[tokio::test]
async fn a_pause_keeps_nobody_from_a_full_list_of_them() {
    let directory = TempDir::new().unwrap();
    let house = House::open(directory.path(), 0, |_, _, _| delivered());
    let handle = house.queue.handle();
    for number in 0..MAX_PAUSED {
        handle.pause(format!("d{number}.test").parse().unwrap()).await.unwrap();
    }
    let refused = handle.pause("one-more.test".parse().unwrap()).await.unwrap_err().to_string();
    assert!(refused.starts_with("1000 destinations are paused already"), "{refused}");
    handle.pause("d7.test".parse().unwrap()).await.expect("it is");
    handle.pause("all".parse().unwrap()).await.expect("as the error says");
    house.close().await;
}

/// What is in line for a slow server isn't sent any more, held back or paused.
#[tokio::test]
async fn an_order_reaches_what_is_in_line_already() {
    let directory = TempDir::new().unwrap();
    let mut house = House::open(directory.path(), 0, |_, _, _| delivered());
    let mut ids = Vec::new();
    for number in 0..MAX_ATTEMPTS_PER_HOP + 10 {
        ids.push(house.commit(&[&format!("r{number}@slow.test")], |_| {}).await);
    }
    while house.deliver.running.load(Ordering::SeqCst) < MAX_ATTEMPTS_PER_HOP {
        tokio::task::yield_now().await;
    }
    let handle = house.queue.handle();
    let last = ids[ids.len() - 1];
    assert!(handle.hold(last, true).await.unwrap());
    handle.pause("slow.test".parse().unwrap()).await.unwrap();
    house.deliver.gate.add_permits(100);
    for _ in 0..MAX_ATTEMPTS_PER_HOP {
        house.next().await;
    }
    house.commit(&["a@fast.test"], |_| {}).await;
    assert_eq!(house.next().await.recipient.to_string(), "<a@fast.test>");
    assert_eq!(house.deliver.sent.lock().unwrap().len(), MAX_ATTEMPTS_PER_HOP + 1);
    handle.resume(&"slow.test".parse().unwrap()).await.unwrap();
    for _ in 0..9 {
        assert_ne!(house.next().await.id, last, "it is held still");
    }
    handle.hold(last, false).await.unwrap();
    assert_eq!(house.next().await.id, last);
    house.close().await;
}

#[tokio::test]
async fn paused_mail_goes_when_another_way_leads_past_the_pause() {
    let directory = TempDir::new().unwrap();
    let mut house = House::open(directory.path(), 0, |_, _, _| delivered());
    let handle = house.queue.handle();
    handle.pause("mx:x.test".parse().unwrap()).await.unwrap();
    house.commit(&["a@X.test"], |_| {}).await;
    house.commit(&["b@y.test"], |_| {}).await;
    assert_eq!(house.next().await.recipient.to_string(), "<b@y.test>");
    house.reroute("x.test");
    handle.config_changed();
    assert_eq!(house.next().await.next_hop.unwrap().to_string(), "10.0.0.25:25");
    house.close().await;
}

/// A server that had failed is repaired while its mail is paused for longer than mail may wait.
#[tokio::test]
async fn old_mail_is_tried_before_it_is_given_up() {
    let directory = TempDir::new().unwrap();
    let script = |_: &str, _: &str, before| if before == 0 { unreachable() } else { delivered() };
    let mut house = House::open(directory.path(), 0, script);
    let handle = house.queue.handle();
    house.commit(&["a@x.test"], |_| {}).await;
    assert!(matches!(house.next().await.consequence, Consequence::Retry(_)));
    handle.pause("x.test".parse().unwrap()).await.unwrap();
    house.pass(6 * 24 * 60 * MINUTE);
    handle.resume(&"x.test".parse().unwrap()).await.unwrap();
    let attempted = house.next().await;
    assert_eq!(
        (attempted.recipient.to_string().as_str(), attempted.consequence),
        ("<a@x.test>", Consequence::Done)
    );
    house.close().await;
}
