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
    let refused = handle.pause("all".parse().unwrap()).await.unwrap_err().to_string();
    assert!(refused.starts_with("1000 destinations are paused already"), "{refused}");
    house.close().await;
}
