//! Who is told what: warnings of delay, the administrator, and the copies of which nobody is told.

use super::*;

/// The notices that went out, whole.
fn notices(house: &House) -> Vec<(String, String)> {
    let sent = house.deliver.sent.lock().unwrap();
    let own = sent.iter().filter(|sent| sent.message.origin == Origin::Internal);
    own.map(|sent| {
        let to = sent.message.envelope.recipients[0].forward_path.to_string();
        (to, String::from_utf8(sent.octets.to_vec()).unwrap())
    })
    .collect()
}

fn to_sender(_: &str, address: &str, _: usize) -> Outcome {
    if address.ends_with("@dead.test>") { unreachable() } else { delivered() }
}

/// Sixty messages to a next hop that is tried with one of them at a time.
#[tokio::test]
async fn every_sender_is_warned_once_though_a_dead_next_hop_is_tried_with_one() {
    let directory = TempDir::new().unwrap();
    let house = House::open(directory.path(), 0, to_sender);
    for number in 0..60 {
        house.commit(&[&format!("r{number}@dead.test")], |_| {}).await;
    }
    // An hour at a time, and no more than two days.
    for _ in 0..48 {
        if notices(&house).len() >= 60 {
            break;
        }
        house.pass(60 * MINUTE);
        house.settle().await;
    }
    let told = notices(&house);
    assert_eq!(told.len(), 60);
    assert!(told.iter().all(|(_, text)| text.contains("Action: delayed\r\n")), "{told:?}");
    assert_eq!(house.db.queue_stock().messages, 60, "all of them wait on");
    house.close().await;
}

#[tokio::test]
async fn the_administrator_is_told_of_what_nobody_else_hears() {
    let directory = TempDir::new().unwrap();
    let script = |_: &str, address: &str, _| if address == "<bad@x.test>" { failed() } else { delivered() };
    let mut house = House::open(directory.path(), 0, script);
    house.configure(|config| config.postmaster = Some(mailbox("boss@green.test")));
    let id = house.commit(&["bad@x.test"], |new| new.origin = client("red")).await;
    // The notice may have gone before we hear of what it is about.
    let mut seen = BTreeMap::new();
    for _ in 0..2 {
        let attempted = house.next().await;
        seen.insert(attempted.recipient.to_string(), attempted.consequence);
    }
    let expect = [("<bad@x.test>", Consequence::Quarantine), ("<boss@green.test>", Consequence::Done)];
    assert_eq!(seen, expect.map(|(address, consequence)| (address.to_owned(), consequence)).into());
    let told = notices(&house);
    let text = told[0].1.replace("\r\n", " ");
    assert!(text.contains(&format!("mailguard quarantine release {id}")), "{text}");
    assert!(text.contains("no such user") && text.contains("Subject: Withheld:"), "{text}");
    assert!(text.contains(&format!("Subject: {id}")) && !text.contains("message/rfc822"), "{text}");
    house.close().await;
}

#[tokio::test]
async fn a_flood_of_undeliverable_mail_is_no_flood_of_notices() {
    let directory = TempDir::new().unwrap();
    let script = |_: &str, address: &str, _| if address == "<bad@x.test>" { failed() } else { delivered() };
    let mut house = House::open(directory.path(), 0, script);
    house.configure(|config| config.postmaster = Some(mailbox("boss@green.test")));
    for _ in 0..100 {
        house.commit(&["bad@x.test"], |new| new.origin = client("red")).await;
    }
    for _ in 0..160 {
        house.next().await;
    }
    assert_eq!((notices(&house).len(), house.db.quarantine_stock().messages), (60, 100));
    house.close().await;
}

fn with_copies(config: &mut Config) {
    let text = r#"
        delivery.always_bcc = "all@archive.test"
        mail_route = [
            { direction = "recipient", address = "boss@x.test", bcc = "bcc@archive.test" },
            { direction = "sender", address = "sender@green.test", bcc = "bcc@archive.test" },
            { direction = "recipient", address = "other@x.test", bcc = "never@archive.test" },
        ]
    "#;
    let said = mailguard_core::testing::config(text);
    (config.delivery.always_bcc, config.mail_routes) = (said.delivery.always_bcc, said.mail_routes);
}

/// Who got what so far, each time.
fn recipients(house: &House) -> Vec<String> {
    let sent = house.deliver.sent.lock().unwrap();
    let paths = sent.iter().flat_map(|sent| &sent.message.envelope.recipients);
    let mut paths: Vec<_> = paths.map(|recipient| recipient.forward_path.to_string()).collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn each_copy_is_sent_once_and_nobody_hears_of_it() {
    let directory = TempDir::new().unwrap();
    let script =
        |_: &str, address: &str, _| if address.ends_with("@archive.test>") { failed() } else { delivered() };
    let mut house = House::open(directory.path(), 0, script);
    house.configure(with_copies);
    house.commit(&["boss@x.test", "a@x.test"], |_| {}).await;
    let mut consequences = Vec::new();
    for _ in 0..4 {
        let attempted = house.next().await;
        consequences.push((attempted.recipient.to_string(), attempted.consequence));
    }
    consequences.sort_by(|a, b| a.0.cmp(&b.0));
    let expect = [
        ("<a@x.test>", Consequence::Done),
        ("<all@archive.test>", Consequence::Drop),
        ("<bcc@archive.test>", Consequence::Drop),
        ("<boss@x.test>", Consequence::Done),
    ];
    assert_eq!(consequences, expect.map(|(address, consequence)| (address.to_owned(), consequence)));
    assert!(notices(&house).is_empty());
    let tells = |sent: &Sent| String::from_utf8_lossy(&sent.octets).contains("archive.test");
    assert!(!house.deliver.sent.lock().unwrap().iter().any(tells));
    house.close().await;
}

#[tokio::test]
async fn a_quarantined_message_is_copied_when_it_is_released_and_never_twice() {
    let directory = TempDir::new().unwrap();
    let now = UnixTime::from(SystemTime::now()).plus(Duration::from_secs(60));
    let mut house = House::open(directory.path(), now.0, |_, _, _| delivered());
    house.configure(with_copies);
    let quarantined = |index: usize| {
        move |new: &mut NewMessage| {
            new.dispositions[index] = Disposition::Quarantine(Threat::File("a.exe".to_owned()));
        }
    };
    // All of it.
    let id = house.commit(&["boss@x.test"], quarantined(0)).await;
    assert!(recipients(&house).is_empty());
    house.quarantine().release(&[id], None, true).await.unwrap();
    for _ in 0..3 {
        house.next().await;
    }
    assert_eq!(recipients(&house), ["<all@archive.test>", "<bcc@archive.test>", "<boss@x.test>"]);
    // One of two: the copies went with the other one.
    house.deliver.sent.lock().unwrap().clear();
    let id = house.commit(&["a@x.test", "boss@x.test"], quarantined(1)).await;
    for _ in 0..3 {
        house.next().await;
    }
    house.quarantine().release(&[id], None, true).await.unwrap();
    house.next().await;
    assert_eq!(
        recipients(&house),
        ["<a@x.test>", "<all@archive.test>", "<bcc@archive.test>", "<boss@x.test>"]
    );
    // To somebody else: no delivery, no copy.
    house.deliver.sent.lock().unwrap().clear();
    let id = house.commit(&["boss@x.test"], quarantined(0)).await;
    house.quarantine().release(&[id], Some(&mailbox("admin@y.test")), true).await.unwrap();
    house.next().await;
    assert_eq!(recipients(&house), ["<admin@y.test>"]);
    house.close().await;
}

/// The original destination is the way of what the client had written, not of our copies and redirections.
#[tokio::test]
async fn a_copy_does_not_go_to_the_original_destination() {
    let directory = TempDir::new().unwrap();
    let mut house = House::open(directory.path(), 0, |_, _, _| delivered());
    house.configure(|config| {
        with_copies(config);
        config.delivery.default = DefaultRoute::OriginalDestination;
    });
    house
        .commit(&["a@x.test"], |new| {
            let Origin::Client(client) = &mut new.origin else { panic!("a client") };
            client.destination_is_local = false;
        })
        .await;
    let mut hops = BTreeMap::new();
    for _ in 0..3 {
        let attempted = house.next().await;
        hops.insert(attempted.recipient.to_string(), attempted.next_hop.unwrap().to_string());
    }
    let expect = [
        ("<a@x.test>", "192.0.2.2:25"),
        ("<all@archive.test>", "mx:archive.test"),
        ("<bcc@archive.test>", "mx:archive.test"),
    ];
    assert_eq!(hops, expect.map(|(to, hop)| (to.to_owned(), hop.to_owned())).into());
    house.close().await;
}

#[tokio::test]
async fn who_has_the_message_quarantined_or_redirected_gets_no_copy_of_it() {
    let directory = TempDir::new().unwrap();
    let mut house = House::open(directory.path(), 0, |_, _, _| delivered());
    house.configure(|config| {
        with_copies(config);
        config.delivery.always_bcc = Some(mailbox("admin@y.test"));
        config.mail_routes[1].bcc = mailbox("boss@x.test");
    });
    house
        .commit(&["a@x.test", "boss@x.test", "c@x.test"], |new| {
            new.dispositions[1] = Disposition::Quarantine(Threat::File("a.exe".to_owned()));
            new.dispositions[2] = Disposition::Redirect(mailbox("admin@y.test"));
        })
        .await;
    house.next().await;
    house.next().await;
    assert_eq!(recipients(&house), ["<a@x.test>", "<admin@y.test>"]);
    house.close().await;
}
