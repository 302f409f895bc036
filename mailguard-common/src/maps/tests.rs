//! The layouts' own meaning.

use super::*;

#[test]
fn reasons_are_numbered_as_listed() {
    for (index, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, index);
    }
    let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Reason::ALL.len());
}

#[test]
fn the_proxy_is_alive_for_three_seconds() {
    let settings = Settings { heartbeat_ns: 10_000_000_000, ..Settings::default() };
    assert!(settings.proxy_alive(9_999_999_999), "clocks of two CPUs may differ a little");
    assert!(settings.proxy_alive(13_000_000_000));
    assert!(!settings.proxy_alive(13_000_000_001));
    assert!(!Settings::default().proxy_alive(1), "0 is down, however early it is");
}

#[test]
fn a_bucket_says_what_was_said_of_each_address() {
    let value = RuleValue { rule: MAX_RULES - 1, action: ACTION_INTERCEPT };
    let other = RuleValue { rule: 0, action: ACTION_ALLOW };
    let mut bucket = HostBucket::default();
    bucket.hosts[3] = Host::new([192, 0, 2, 1], value);
    bucket.hosts[7] = Host::new([0, 0, 0, 1], other);
    assert_eq!(bucket.get([192, 0, 2, 1]), value);
    assert_eq!(bucket.get([0, 0, 0, 1]), other);
    assert_eq!(bucket.get([1, 2, 0, 192]), RuleValue::NONE);
    assert_eq!(bucket.get([0; 4]), RuleValue::NONE, "an empty place is nobody's");
}

#[test]
fn addresses_of_one_network_are_spread_over_the_buckets() {
    for stride in [1, 256, 65_536] {
        let mut places = [0u8; HOST_BUCKETS as usize];
        for number in 0..MAX_BLACKLIST {
            places[host_bucket(0x0a00_0000u32.wrapping_add(number.wrapping_mul(stride)).to_be_bytes())
                as usize] += 1;
        }
        let homeless: usize =
            places.iter().map(|&count| usize::from(count).saturating_sub(HOSTS_A_BUCKET)).sum();
        assert!(homeless < 100, "{homeless} without a place at a stride of {stride}");
    }
}

#[test]
fn an_ipv6_client_is_banned_with_its_network() {
    let client = core::array::from_fn(|at| at as u8 + 1);
    assert_eq!(ban_key(client, true), [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mapped = crate::packet::mapped([192, 0, 2, 7]);
    assert_eq!(ban_key(mapped, false), mapped);
}

#[test]
fn a_ban_ends_at_its_hour() {
    let ban = Ban { until_ns: 1_000, value: RuleValue { rule: 7, action: ACTION_RESET } };
    assert_eq!(ban.at(999), ban.value);
    assert_eq!(ban.at(1_000), RuleValue::NONE);
}

#[test]
fn a_bypassed_reconnection_counts_as_long_as_time_wait_lasts() {
    let note = Reconnection { at_ns: 5, listener: BYPASSED, padding: 0 };
    assert!(note.bypassed_at(5 + RECONNECTION_NS - 1));
    assert!(!note.bypassed_at(5 + RECONNECTION_NS));
    assert!(!Reconnection { listener: 3, ..note }.bypassed_at(6), "it is a listener's");
}

#[test]
fn a_zone_is_known_by_its_name() {
    assert_eq!(zone_number(""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(zone_number("a"), 0xaf63_dc4c_8601_ec8c, "as FNV-1a has it");
    let key = zone_key6(0x0102_0304_0506_0708, [9; 16]);
    assert_eq!((&key[..8], &key[8..]), (&[1, 2, 3, 4, 5, 6, 7, 8][..], &[9; 16][..]));
    assert_eq!(zone_key4(0x0102_0304_0506_0708, [9; 4])[..], key[..12]);
}
