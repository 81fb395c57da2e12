//! Points in time, in words and in the practice's zone.

use jiff::{Zoned, civil::Date, tz::TimeZone};

use super::When;
use crate::model::time::Timestamp;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// The practice's clock at one moment.
pub struct Times {
    pub zone: TimeZone,
    pub now: Timestamp,
}

impl Times {
    fn local(&self, at: Timestamp) -> Zoned {
        at.to_jiff().to_zoned(self.zone.clone())
    }

    pub fn date(&self, at: Timestamp) -> Date {
        self.local(at).date()
    }

    /// Days from `date` to today.
    fn days_ago(&self, date: Date) -> i32 {
        self.date(self.now).since(date).map_or(i32::MAX, |span| span.get_days())
    }

    fn worded(&self, at: Timestamp, short: impl FnOnce(&Zoned) -> String) -> When {
        let local = self.local(at);
        When {
            short: short(&local),
            full: local.strftime("%A %-d %B %Y, %H:%M:%S").to_string(),
            iso: local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        }
    }

    /// `10:42` today, `yesterday`, `Tue` within a week, `3 Nov`, `3 Nov 2024`; `3 Nov 10:42` for what is to come.
    pub fn when(&self, at: Timestamp) -> When {
        self.worded(at, |local| {
            let format = match self.days_ago(local.date()) {
                0 => "%H:%M",
                1 => return "yesterday".to_owned(),
                2..=6 => "%a",
                ..0 => "%-d %b %H:%M",
                _ if local.year() == self.local(self.now).year() => "%-d %b",
                _ => "%-d %b %Y",
            };
            local.strftime(format).to_string()
        })
    }

    /// The time of day: the day stands above it.
    pub fn clock(&self, at: Timestamp) -> When {
        self.worded(at, |local| local.strftime("%H:%M").to_string())
    }

    /// `3 Nov 2024`.
    pub fn day(&self, at: Timestamp) -> When {
        self.worded(at, |local| local.strftime("%-d %b %Y").to_string())
    }

    /// How long somebody waits: `1 min`, `42 min`, `1 h 27 min`, `19 h`, `3 d`.
    pub fn waiting(&self, since: Timestamp) -> When {
        let ms = self.now.ms_since(since).max(0);
        let (minutes, hours) = (ms / MINUTE_MS, ms / HOUR_MS);
        let short = match hours {
            0 => format!("{} min", minutes.max(1)),
            1 | 2 if minutes % 60 != 0 => format!("{hours} h {} min", minutes % 60),
            1..48 => format!("{hours} h"),
            _ => format!("{} d", hours / 24),
        };
        self.worded(since, |_| short)
    }

    /// `just now`, `12 s ago`, `4 min ago`, else as [`Times::when`].
    pub fn ago(&self, at: Timestamp) -> When {
        match self.now.ms_since(at) {
            ..5_000 => self.worded(at, |_| "just now".to_owned()),
            ms @ ..MINUTE_MS => self.worded(at, |_| format!("{} s ago", ms / 1000)),
            ms @ ..HOUR_MS => self.worded(at, |_| format!("{} min ago", ms / MINUTE_MS)),
            _ => self.when(at),
        }
    }

    /// `Today`, `Yesterday`, `Friday 20 November`, with the year where it is another one.
    pub fn day_words(&self, date: Date) -> String {
        let format = match self.days_ago(date) {
            0 => return "Today".to_owned(),
            1 => return "Yesterday".to_owned(),
            _ if date.year() == self.date(self.now).year() => "%A %-d %B",
            _ => "%A %-d %B %Y",
        };
        date.strftime(format).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    fn times() -> Times {
        // 02:30 on Sunday 22 November in New York.
        Times { zone: TimeZone::get("America/New_York").unwrap(), now: at("2026-11-22T07:30:00Z") }
    }

    #[test]
    fn days_are_those_of_the_practice() {
        let cases = [
            ("2026-11-22T07:29:58Z", "02:29", "2026-11-22T02:29:58-05:00"),
            ("2026-11-22T04:59:00Z", "yesterday", "2026-11-21T23:59:00-05:00"),
            ("2026-11-17T12:00:00Z", "Tue", "2026-11-17T07:00:00-05:00"),
            ("2026-11-15T12:00:00Z", "15 Nov", "2026-11-15T07:00:00-05:00"),
            ("2026-07-01T12:00:00Z", "1 Jul", "2026-07-01T08:00:00-04:00"),
            ("2025-12-31T12:00:00Z", "31 Dec 2025", "2025-12-31T07:00:00-05:00"),
            ("2026-11-23T13:00:00Z", "23 Nov 08:00", "2026-11-23T08:00:00-05:00"),
        ];
        for (instant, short, iso) in cases {
            let when = times().when(at(instant));
            assert_eq!((when.short.as_str(), when.iso.as_str()), (short, iso), "{instant}");
        }
        assert_eq!(times().when(at("2026-11-20T17:42:07Z")).full, "Friday 20 November 2026, 12:42:07");
    }

    #[test]
    fn waiting_is_told_as_exactly_as_it_matters() {
        let minutes = |n: i64| times().waiting(times().now.plus_ms(-n * MINUTE_MS)).short;
        let cases = [
            (0, "1 min"),
            (59, "59 min"),
            (60, "1 h"),
            (87, "1 h 27 min"),
            (180, "3 h"),
            (1_200, "20 h"),
            (2_880, "2 d"),
        ];
        for (passed, words) in cases {
            assert_eq!(minutes(passed), words);
        }
        let ago = |ms: i64| times().ago(times().now.plus_ms(-ms)).short;
        assert_eq!([ago(-900), ago(12_400), ago(5 * MINUTE_MS)], ["just now", "12 s ago", "5 min ago"]);
    }

    #[test]
    fn the_days_of_a_timeline_have_names() {
        let words = |instant| times().day_words(times().date(at(instant)));
        assert_eq!(words("2026-11-22T06:00:00Z"), "Today");
        assert_eq!(words("2026-11-22T04:00:00Z"), "Yesterday");
        assert_eq!(words("2026-11-20T17:00:00Z"), "Friday 20 November");
        assert_eq!(words("2024-02-29T17:00:00Z"), "Thursday 29 February 2024");
    }
}
