//! When may a rollout begin, by the calendar of a place?
//!
//! Windows are written in the local time of a time zone. Its rules come with the program, not from the machine. A local
//! time that the clocks skip is the moment at which they jump; one that comes twice is the first of the two.

use std::collections::BTreeSet;
use std::fmt;

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Timestamp as Instant, ToSpan};
use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;

/// Minutes of a day.
const DAY: u16 = 24 * 60;
/// How far ahead an opening is looked for, in days: more than a year of exceptions is a mistake.
const AHEAD_DAYS: i32 = 400;
/// Pieces of windows that may follow one another without a gap before the end of them is no longer looked for.
const PIECES_MAX: usize = 64;

/// Times at which rollouts may begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    /// Open while any of them is; never empty.
    pub windows: Vec<Window>,
    /// Days on which none of them is.
    pub except: Vec<Dates>,
    /// What happens outside of them.
    pub outside: Outside,
}

/// A time of day on some days of the week, in a time zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The days on which it begins.
    pub days: BTreeSet<Day>,
    /// When it begins, in minutes after midnight: 0 to 1 439.
    pub from: u16,
    /// When it ends, in minutes after midnight: 1 to 1 440; not after `from`: on the next day.
    pub to: u16,
    /// Name of the time zone: `Europe/Berlin`.
    pub time_zone: String,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Day {
    /// The week, from Monday.
    pub const WEEK: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// As it is written in a spec.
    #[must_use]
    pub fn name(self) -> &'static str {
        ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][self as usize]
    }

    fn of(date: Date) -> Self {
        match date.weekday() {
            Weekday::Monday => Self::Mon,
            Weekday::Tuesday => Self::Tue,
            Weekday::Wednesday => Self::Wed,
            Weekday::Thursday => Self::Thu,
            Weekday::Friday => Self::Fri,
            Weekday::Saturday => Self::Sat,
            Weekday::Sunday => Self::Sun,
        }
    }
}

/// Days of the calendar, first and last included, as `YYYY-MM-DD`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dates {
    /// The first.
    pub first: String,
    /// The last; not before the first.
    pub last: String,
}

impl Dates {
    /// Reads `2026-12-24` or `2026-12-24..2027-01-02`; `None` when it is neither, or ends before it begins.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let plain = |text: &str| text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        let date = |text: &str| text.parse::<Date>().ok().filter(|_| plain(text));
        let (from, to) = (date(first)?, date(last)?);
        (from <= to).then(|| Self { first: first.to_owned(), last: last.to_owned() })
    }

    /// Dates of this form order as text does.
    fn hold(&self, date: &str) -> bool {
        self.first.as_str() <= date && date <= self.last.as_str()
    }
}

/// What happens to a deploy outside of the windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outside {
    /// It waits for the next one.
    #[default]
    Wait,
    /// It is refused.
    Refuse,
}

/// What the calendar says at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "window", rename_all = "snake_case")]
pub enum Opening {
    /// A window is open.
    Open {
        /// When it closes; `None`: not within two months.
        until: Option<Timestamp>,
    },
    /// No window is open.
    Closed {
        /// When the next one opens; `None`: not within a year.
        opens: Option<Timestamp>,
    },
}

impl Opening {
    /// Whether it says the same of a later moment.
    fn still_holds(self, at: Timestamp) -> bool {
        match self {
            Self::Open { until: change } | Self::Closed { opens: change } => change.is_none_or(|change| at < change),
        }
    }
}

/// Whether there is a time zone of this name.
#[must_use]
pub fn is_time_zone(name: &str) -> bool {
    zone(name).is_some()
}

/// From the rules that come with the program: nothing of the machine is read.
fn zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

impl Calendar {
    /// What it says at a moment; `earlier` is what it said before, which saves looking it up while that still holds.
    #[must_use]
    pub fn at(&self, at: Timestamp, earlier: Option<Opening>) -> Opening {
        if let Some(same) = earlier.filter(|opening| opening.still_holds(at)) {
            return same;
        }
        let Some(now) = i64::try_from(at.0).ok().and_then(|us| Instant::from_microsecond(us).ok()) else {
            return Opening::Closed { opens: None };
        };
        match self.open_until(now) {
            Some(until) => Opening::Open { until: until.and_then(timestamp) },
            None => Opening::Closed { opens: self.opens_after(now).and_then(timestamp) },
        }
    }

    /// When the window that is open closes; `None`: none is open.
    fn open_until(&self, now: Instant) -> Option<Option<Instant>> {
        let end = |now: Instant| {
            let around = self.windows.iter().flat_map(|window| window.pieces(&self.except, now, -2..=1));
            around.filter(|(start, end)| *start <= now && now < *end).map(|(_, end)| end).max()
        };
        let mut until = end(now)?;
        for _ in 0..PIECES_MAX {
            match end(until) {
                Some(later) => until = later,
                None => return Some(Some(until)),
            }
        }
        Some(None)
    }

    fn opens_after(&self, now: Instant) -> Option<Instant> {
        let next = |window: &Window| {
            let mut ahead = window.pieces(&self.except, now, -2..=AHEAD_DAYS);
            ahead.find(|(start, end)| *start > now && start < end).map(|(start, _)| start)
        };
        self.windows.iter().filter_map(next).min()
    }
}

fn timestamp(instant: Instant) -> Option<Timestamp> {
    u64::try_from(instant.as_microsecond()).ok().map(Timestamp)
}

impl Window {
    /// When it is open on the days around a moment, in order: from the first instant to before the second.
    ///
    /// A window that goes on after midnight is two pieces, since either day may be an exception.
    fn pieces<'a>(
        &'a self,
        except: &'a [Dates],
        now: Instant,
        days: std::ops::RangeInclusive<i32>,
    ) -> impl Iterator<Item = (Instant, Instant)> + 'a {
        let zone = zone(&self.time_zone);
        let today = zone.as_ref().map(|zone| zone.to_datetime(now).date());
        let dates = days.filter_map(move |n| today?.checked_add(n.days()).ok());
        let on = move |date: Date, from: u16, to: u16| {
            let is_excepted = except.iter().any(|dates| dates.hold(&date.to_string()));
            let zone = zone.as_ref().filter(|_| !is_excepted && from < to)?;
            Some((instant(zone, date, from)?, instant(zone, date, to)?))
        };
        dates
            .filter(|date| self.days.contains(&Day::of(*date)))
            .flat_map(move |date| {
                if self.from < self.to {
                    return [on(date, self.from, self.to), None];
                }
                [on(date, self.from, DAY), date.tomorrow().ok().and_then(|next| on(next, 0, self.to))]
            })
            .flatten()
    }
}

/// The moment of a local time: of one that comes twice the first, of one that is skipped the jump.
fn instant(zone: &TimeZone, date: Date, minutes: u16) -> Option<Instant> {
    let (date, minutes) = if minutes == DAY { (date.tomorrow().ok()?, 0) } else { (date, minutes) };
    let time = Time::new((minutes / 60) as i8, (minutes % 60) as i8, 0, 0).ok()?;
    let local = DateTime::from_parts(date, time);
    let ambiguous = zone.to_ambiguous_timestamp(local);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok(),
        // By the clocks of before the jump it is at or after it: the jump is the last change up to there.
        AmbiguousOffset::Gap { before, .. } => {
            let beyond = before.to_timestamp(local).ok()?.checked_add(1.nanosecond()).ok()?;
            zone.preceding(beyond).next().map(|jump| jump.timestamp())
        }
    }
}

impl fmt::Display for Window {
    /// `mon-thu 09:00-16:00 Europe/Berlin`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = runs(&self.days);
        if self.days.len() < 7 {
            write!(f, "{} ", runs.join(", "))?;
        }
        let clock = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        write!(f, "{}-{} {}", clock(self.from), clock(self.to), self.time_zone)
    }
}

/// `mon-thu`, `sat`.
fn runs(days: &BTreeSet<Day>) -> Vec<String> {
    let is_in = |n: usize| Day::WEEK.get(n).is_some_and(|day| days.contains(day));
    let starts = (0..7).filter(|n| is_in(*n) && (*n == 0 || !is_in(n - 1)));
    let run = |start: usize| {
        let end = (start..7).take_while(|n| is_in(*n)).last().unwrap_or(start);
        let (first, last) = (Day::WEEK[start].name(), Day::WEEK[end].name());
        if start == end { first.to_owned() } else { format!("{first}-{last}") }
    };
    starts.map(run).collect()
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let windows: Vec<String> = self.windows.iter().map(ToString::to_string).collect();
        f.write_str(&windows.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[Day], from: u16, to: u16) -> Window {
        Window { days: days.iter().copied().collect(), from, to, time_zone: "Europe/Berlin".into() }
    }

    fn calendar(window: Window, except: &[&str]) -> Calendar {
        let except = except.iter().map(|dates| Dates::parse(dates).unwrap()).collect();
        Calendar { windows: vec![window], except, outside: Outside::Wait }
    }

    fn at(text: &str) -> Timestamp {
        timestamp(text.parse().unwrap()).unwrap()
    }

    fn utc(at: Option<Timestamp>) -> String {
        at.map_or("never".into(), |at| Instant::from_microsecond(at.0 as i64).unwrap().to_string())
    }

    /// `open until …` or `closed, opens …`, in UTC.
    fn told(calendar: &Calendar, moment: &str) -> String {
        match calendar.at(at(moment), None) {
            Opening::Open { until } => format!("open until {}", utc(until)),
            Opening::Closed { opens } => format!("closed, opens {}", utc(opens)),
        }
    }

    const WORKDAYS: [Day; 4] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu];

    #[test]
    fn a_window_is_open_from_its_beginning_to_before_its_end() {
        let office = calendar(window(&WORKDAYS, 9 * 60, 16 * 60), &[]);
        // 2026-11-19 is a Thursday; Berlin is an hour ahead of UTC.
        assert_eq!(told(&office, "2026-11-19T07:59:59Z"), "closed, opens 2026-11-19T08:00:00Z");
        assert_eq!(told(&office, "2026-11-19T08:00:00Z"), "open until 2026-11-19T15:00:00Z");
        assert_eq!(told(&office, "2026-11-19T14:59:59Z"), "open until 2026-11-19T15:00:00Z");
        assert_eq!(told(&office, "2026-11-19T15:00:00Z"), "closed, opens 2026-11-23T08:00:00Z");
    }

    #[test]
    fn the_same_local_time_is_another_moment_in_summer() {
        let office = calendar(window(&WORKDAYS, 9 * 60, 16 * 60), &[]);
        assert_eq!(told(&office, "2026-06-01T06:59:00Z"), "closed, opens 2026-06-01T07:00:00Z");
        assert_eq!(told(&office, "2026-03-27T12:00:00Z"), "closed, opens 2026-03-30T07:00:00Z");
    }

    #[test]
    fn a_beginning_that_the_clocks_skip_is_the_moment_of_the_jump() {
        // 2026-03-29: 02:00 is followed by 03:00, which is 01:00 UTC.
        let night = calendar(window(&[Day::Sun], 150, 240), &[]);
        assert_eq!(told(&night, "2026-03-29T00:59:59Z"), "closed, opens 2026-03-29T01:00:00Z");
        assert_eq!(told(&night, "2026-03-29T01:00:00Z"), "open until 2026-03-29T02:00:00Z");
        let exactly = calendar(window(&[Day::Sun], 120, 240), &[]);
        assert_eq!(told(&exactly, "2026-03-29T00:59:59Z"), "closed, opens 2026-03-29T01:00:00Z");
    }

    #[test]
    fn an_end_that_the_clocks_skip_is_the_moment_of_the_jump() {
        let night = calendar(window(&[Day::Sun], 60, 150), &[]);
        assert_eq!(told(&night, "2026-03-29T00:30:00Z"), "open until 2026-03-29T01:00:00Z");
        // All of it is skipped: that day has no such window.
        let skipped = calendar(window(&[Day::Sun], 130, 170), &[]);
        assert_eq!(told(&skipped, "2026-03-29T00:30:00Z"), "closed, opens 2026-04-05T00:10:00Z");
    }

    #[test]
    fn a_time_that_comes_twice_is_the_first_of_the_two() {
        // 2026-10-25: 03:00 is followed by 02:00; 02:30 is 00:30 UTC and again 01:30 UTC.
        let night = calendar(window(&[Day::Sun], 150, 240), &[]);
        assert_eq!(told(&night, "2026-10-25T00:29:00Z"), "closed, opens 2026-10-25T00:30:00Z");
        assert_eq!(told(&night, "2026-10-25T00:30:00Z"), "open until 2026-10-25T03:00:00Z");
        let evening = calendar(window(&[Day::Sun], 60, 150), &[]);
        assert_eq!(told(&evening, "2026-10-24T23:30:00Z"), "open until 2026-10-25T00:30:00Z");
        assert_eq!(told(&evening, "2026-10-25T01:00:00Z"), "closed, opens 2026-11-01T00:00:00Z");
    }

    #[test]
    fn an_end_before_the_beginning_is_on_the_next_day() {
        let night = calendar(window(&[Day::Fri], 22 * 60, 2 * 60), &[]);
        assert_eq!(told(&night, "2026-11-20T20:00:00Z"), "closed, opens 2026-11-20T21:00:00Z");
        assert_eq!(told(&night, "2026-11-20T21:30:00Z"), "open until 2026-11-21T01:00:00Z");
        assert_eq!(told(&night, "2026-11-21T00:30:00Z"), "open until 2026-11-21T01:00:00Z");
        assert_eq!(told(&night, "2026-11-21T01:00:00Z"), "closed, opens 2026-11-27T21:00:00Z");
    }

    #[test]
    fn no_window_is_open_on_a_day_that_is_excepted() {
        let office = calendar(window(&WORKDAYS, 9 * 60, 16 * 60), &["2026-12-24..2027-01-03"]);
        assert_eq!(told(&office, "2026-12-24T10:00:00Z"), "closed, opens 2027-01-04T08:00:00Z");
        let night = calendar(window(&[Day::Fri], 22 * 60, 2 * 60), &["2026-11-21"]);
        assert_eq!(told(&night, "2026-11-20T21:30:00Z"), "open until 2026-11-20T23:00:00Z");
        assert_eq!(told(&night, "2026-11-20T23:00:00Z"), "closed, opens 2026-11-27T21:00:00Z");
        let never = calendar(window(&WORKDAYS, 9 * 60, 16 * 60), &["2026-01-01..2029-01-01"]);
        assert_eq!(told(&never, "2026-12-24T10:00:00Z"), "closed, opens never");
    }

    #[test]
    fn windows_that_follow_one_another_without_a_gap_are_one() {
        let days = Day::WEEK;
        let always = Calendar {
            windows: vec![window(&days, 0, 12 * 60), window(&days[..5], 12 * 60, DAY)],
            except: Vec::new(),
            outside: Outside::Wait,
        };
        assert_eq!(told(&always, "2026-11-18T10:00:00Z"), "open until 2026-11-21T11:00:00Z");
        let ever = calendar(window(&days, 0, DAY), &[]);
        assert_eq!(told(&ever, "2026-11-18T10:00:00Z"), "open until never");
    }

    #[test]
    fn what_was_said_before_stands_until_it_ends() {
        let office = calendar(window(&WORKDAYS, 9 * 60, 16 * 60), &[]);
        let morning = office.at(at("2026-11-19T07:00:00Z"), None);
        assert_eq!(office.at(at("2026-11-19T07:30:00Z"), Some(morning)), morning);
        assert!(matches!(office.at(at("2026-11-19T08:00:00Z"), Some(morning)), Opening::Open { .. }));
    }

    #[test]
    fn dates_and_windows_read_and_print_as_people_write_them() {
        for bad in ["", "2026-13-01", "2026-2-1", "2026-12-24..", "2027-01-02..2026-12-24", "20261224", "x..y"] {
            assert_eq!(Dates::parse(bad), None, "{bad}");
        }
        assert_eq!(window(&WORKDAYS, 540, 960).to_string(), "mon-thu 09:00-16:00 Europe/Berlin");
        assert_eq!(
            window(&[Day::Mon, Day::Sat, Day::Sun], 0, DAY).to_string(),
            "mon, sat-sun 00:00-24:00 Europe/Berlin"
        );
        assert!(is_time_zone("Europe/Berlin") && is_time_zone("UTC") && !is_time_zone("Europe/Bielefeld"));
    }
}
