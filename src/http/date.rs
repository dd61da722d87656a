//! Dates as HTTP writes them (RFC 9110 section 5.6.7), and the one that answers bear.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a date.
const DATE_BYTES: usize = 29;

const SECONDS_A_DAY: u64 = 86_400;
/// Days of 400 years, after which the calendar repeats.
const DAYS_AN_ERA: u64 = 146_097;
/// The last second that has four digits for its year.
const SECONDS_MAX: u64 = 253_402_300_799;

/// A moment as a header's value: `Sun, 06 Nov 1994 08:49:37 GMT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date([u8; DATE_BYTES]);

impl Date {
    /// That of a second since 1970. What comes after the year 9999 is its end.
    #[must_use]
    pub fn of(seconds: u64) -> Date {
        let seconds = seconds.min(SECONDS_MAX);
        let (days, second) = (seconds / SECONDS_A_DAY, seconds % SECONDS_A_DAY);
        let (year, month, day) = civil(days);
        let name = |names: &'static [u8], index: u64| &names[index as usize * 3..][..3];
        let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
        text[..3].copy_from_slice(name(b"ThuFriSatSunMonTueWed", days % 7));
        text[5..7].copy_from_slice(&two_digits(day));
        let months = b"JanFebMarAprMayJunJulAugSepOctNovDec";
        text[8..11].copy_from_slice(name(months, month - 1));
        text[12..14].copy_from_slice(&two_digits(year / 100));
        text[14..16].copy_from_slice(&two_digits(year % 100));
        text[17..19].copy_from_slice(&two_digits(second / 3600));
        text[20..22].copy_from_slice(&two_digits(second / 60 % 60));
        text[23..25].copy_from_slice(&two_digits(second % 60));
        Date(text)
    }

    /// The value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

fn two_digits(number: u64) -> [u8; 2] {
    [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]
}

/// Year, month and day of a day since 1970. Years begin in March here, so that a leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    // From the 1st of March of the year 0.
    let days = days + 719_468;
    let (era, day) = (days / DAYS_AN_ERA, days % DAYS_AN_ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    (year, month, day)
}

thread_local! {
    /// The date that was formatted last, and its second.
    static LAST: Cell<(u64, Date)> = const { Cell::new((u64::MAX, Date([b' '; DATE_BYTES]))) };
}

/// The second that answers are dated with. The reactors set it by the machine's clock, once a second.
#[derive(Debug, Default)]
pub struct AnswerDate(AtomicU64);

impl AnswerDate {
    /// From here on answers are dated with this second since 1970; 0: with none.
    pub fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::Relaxed);
    }

    /// The date of an answer. None while no clock was read: RFC 9110 section 6.6.1 lets the date out then.
    #[must_use]
    pub fn get(&self) -> Option<Date> {
        let seconds = self.0.load(Ordering::Relaxed);
        if seconds == 0 {
            return None;
        }
        let (last, date) = LAST.get();
        if last == seconds {
            return Some(date);
        }
        let date = Date::of(seconds);
        LAST.set((seconds, date));
        Some(date)
    }
}

impl Clone for AnswerDate {
    fn clone(&self) -> AnswerDate {
        AnswerDate(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(Date::of(seconds).as_str(), text);
        }
    }

    /// Each day has the date after the day before.
    #[test]
    fn days_follow_each_other() {
        let mut before = civil(0);
        for days in 1..400_000 {
            let (year, month, day) = civil(days);
            let is_next = match before {
                (y, m, d) if d + 1 == day => (y, m) == (year, month),
                (y, m, d) if m + 1 == month => y == year && day == 1 && d >= 28,
                (y, m, d) => (y + 1, m, d) == (year, 12, 31) && (month, day) == (1, 1),
            };
            assert!(is_next, "{before:?} {year} {month} {day}");
            before = (year, month, day);
        }
    }

    #[test]
    fn answers_are_dated_once_a_clock_was_read() {
        let date = AnswerDate::default();
        assert_eq!(date.get(), None);
        for seconds in [1, 1, 2, 1] {
            date.set(seconds);
            assert_eq!(date.get(), Some(Date::of(seconds)));
        }
    }
}
