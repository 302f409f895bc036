//! Points in time and their form in a header (RFC 5322 §3.3).

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// The end of the year 9999: later times have no form in RFC 3339.
const LAST_WRITTEN: UnixTime = UnixTime(253_402_300_799_999_999);

/// Microseconds since 1970-01-01 00:00:00 UTC. Stored as that number; for people and other programs see
/// [`rfc3339`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// Later than any other.
    pub const NEVER: UnixTime = UnixTime(u64::MAX);

    /// Whole seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.0 / 1_000_000
    }

    /// This time and `span` later.
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }

    /// This time and `span` earlier; not before 1970.
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Reads `2026-11-24` (its midnight), `2026-11-24T05:29:36Z` and `2026-11-24T05:29:36.123456Z`, in UTC
    /// (RFC 3339).
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let (date, time) = match text.split_once('T') {
            Some((date, time)) => (date, time.strip_suffix('Z')?),
            None => (text, "00:00:00"),
        };
        let (time, microseconds) = match time.split_once('.') {
            Some((time, fraction)) => (time, microseconds(fraction)?),
            None => (time, 0),
        };
        let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
        let in_range =
            year >= 1970 && (1..=12).contains(&month) && day >= 1 && hour < 24 && minute < 60 && second < 60;
        if !in_range {
            return None;
        }
        // Counted from March, as `civil` does: the leap day comes last.
        let (shifted_year, from_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let leap_days = shifted_year / 4 - shifted_year / 100 + shifted_year / 400;
        let days = 365 * shifted_year + leap_days + (153 * from_march + 2) / 5 + day - 1 - 719_468;
        let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
        let time = Self(seconds * 1_000_000 + microseconds);
        // A day that the month doesn't have comes out as another.
        let c = civil(time);
        ((c.year, c.month as u64, c.day) == (year, month, day)).then_some(time)
    }

    /// How long after `earlier` this is; zero when it is before.
    pub fn since(self, earlier: UnixTime) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// `Tue, 24 Nov 2026 05:29:36 +0000`.
    pub fn rfc5322(self) -> impl fmt::Display {
        Rfc5322(self)
    }

    /// `2026-11-24T05:29:36Z` (RFC 3339).
    pub fn rfc3339(self) -> impl fmt::Display {
        Rfc3339(self)
    }
}

impl From<SystemTime> for UnixTime {
    /// A clock before 1970 counts as 1970.
    fn from(time: SystemTime) -> Self {
        let span = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
    }
}

/// A fraction of a second of 1 to 6 digits.
fn microseconds(fraction: &str) -> Option<u64> {
    let is_fraction =
        (1..=6).contains(&fraction.len()) && fraction.bytes().all(|digit| digit.is_ascii_digit());
    is_fraction.then(|| format!("{fraction:0<6}").parse().ok()).flatten()
}

/// Three decimal numbers of exactly so many digits.
fn numbers(text: &str, separator: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; 3];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        let fits = part.len() == digits && part.bytes().all(|digit| digit.is_ascii_digit());
        *number = if fits { part.parse().ok()? } else { return None };
    }
    parts.next().is_none().then_some(numbers)
}

struct Civil {
    year: u64,
    month: usize,
    day: u64,
    weekday: usize,
    hour: u64,
    minute: u64,
    second: u64,
}

/// The proleptic Gregorian calendar, by counting years from 1 March so that the leap day comes last.
fn civil(time: UnixTime) -> Civil {
    let days = time.seconds() / 86_400;
    let seconds = time.seconds() % 86_400;
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    Civil {
        year: year_of_era + era * 400 + u64::from(month <= 2),
        month: month as usize,
        day: day_of_year - (153 * from_march + 2) / 5 + 1,
        weekday: ((days + 4) % 7) as usize,
        hour: seconds / 3_600,
        minute: seconds / 60 % 60,
        second: seconds % 60,
    }
}

struct Rfc5322(UnixTime);

impl fmt::Display for Rfc5322 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let c = civil(self.0);
        let (weekday, month) = (DAYS[c.weekday], MONTHS[c.month - 1]);
        let Civil { year, day, hour, minute, second, .. } = c;
        write!(f, "{weekday}, {day} {month} {year:04} {hour:02}:{minute:02}:{second:02} +0000")
    }
}

struct Rfc3339(UnixTime);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Civil { year, month, day, hour, minute, second, .. } = civil(self.0);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Times as others read them, `2026-11-24T05:29:36.123456Z`: a form for serde's `with`.
pub mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use super::{LAST_WRITTEN, Rfc3339, UnixTime};

    fn written(time: UnixTime) -> String {
        let time = time.min(LAST_WRITTEN);
        let seconds = Rfc3339(time).to_string();
        format!("{}.{:06}Z", seconds.trim_end_matches('Z'), time.0 % 1_000_000)
    }

    /// Writes a time.
    pub fn serialize<S: Serializer>(time: &UnixTime, to: S) -> Result<S::Ok, S::Error> {
        written(*time).serialize(to)
    }

    /// Reads a time.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<UnixTime, D::Error> {
        let text = String::deserialize(from)?;
        UnixTime::parse_rfc3339(&text)
            .ok_or_else(|| de::Error::custom(format!("{text:?} is no time of RFC 3339 in UTC")))
    }

    /// The same where there may be none.
    pub mod option {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        use super::UnixTime;

        #[derive(Deserialize)]
        struct Time(#[serde(with = "super")] UnixTime);

        /// Writes a time, or null.
        pub fn serialize<S: Serializer>(time: &Option<UnixTime>, to: S) -> Result<S::Ok, S::Error> {
            time.map(super::written).serialize(to)
        }

        /// Reads a time, or null.
        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<UnixTime>, D::Error> {
            Ok(Option::<Time>::deserialize(from)?.map(|time| time.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: u64, expect: &str) {
        assert_eq!(UnixTime(seconds * 1_000_000).rfc5322().to_string(), expect);
    }

    #[test]
    fn dates() {
        check(0, "Thu, 1 Jan 1970 00:00:00 +0000");
        check(951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000");
        check(1_795_498_176, "Tue, 24 Nov 2026 05:29:36 +0000");
        check(4_107_542_399, "Sun, 28 Feb 2100 23:59:59 +0000");
        check(4_107_542_400, "Mon, 1 Mar 2100 00:00:00 +0000");
    }

    #[test]
    fn rfc3339_comes_back() {
        for seconds in [0, 951_782_400, 1_795_498_176, 4_107_542_399, 4_107_542_400] {
            let time = UnixTime(seconds * 1_000_000);
            assert_eq!(UnixTime::parse_rfc3339(&time.rfc3339().to_string()), Some(time));
        }
        assert_eq!(UnixTime::parse_rfc3339("2000-02-29"), Some(UnixTime(951_782_400_000_000)));
        for text in [
            "",
            "2026",
            "2026-2-1",
            "2025-02-29",
            "2026-13-01",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00",
            "1969-12-31",
        ] {
            assert_eq!(UnixTime::parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn times_for_others_are_those_of_rfc_3339_and_lose_nothing() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Row {
            #[serde(with = "rfc3339")]
            at: UnixTime,
            #[serde(default, with = "rfc3339::option")]
            last: Option<UnixTime>,
        }
        let row = Row { at: UnixTime(1_795_498_176_000_042), last: None };
        let json = serde_json::to_string(&row).unwrap();
        assert_eq!(json, "{\"at\":\"2026-11-24T05:29:36.000042Z\",\"last\":null}");
        for time in [
            UnixTime(0),
            UnixTime(1),
            UnixTime(951_868_799_999_999),
            UnixTime(1_795_498_176_123_456),
            LAST_WRITTEN,
        ] {
            let row = Row { at: time, last: Some(time) };
            let json = serde_json::to_string(&row).unwrap();
            assert_eq!(serde_json::from_str::<Row>(&json).unwrap(), row, "{json}");
        }
        let never = serde_json::to_string(&Row { at: UnixTime::NEVER, last: None }).unwrap();
        assert!(never.contains("9999-12-31T23:59:59.999999Z"), "{never}");
        for text in [
            "1795498176000042",
            "\"2026-11-24T05:29:36.Z\"",
            "\"2026-11-24T05:29:36.1234567Z\"",
            "\"2026-11-24T05:29:36.+1Z\"",
        ] {
            assert!(serde_json::from_str::<Row>(&format!("{{\"at\":{text}}}")).is_err(), "{text}");
        }
    }
}
