//! Times of day in settings: RFC 3339, as TOML writes an offset date-time.

use std::fmt;

/// Reads a time, as in `2027-01-01T00:00:00Z` or `2027-01-01 02:00:00+02:00`. Fractions of a second are left out. Gives
/// seconds of the Unix epoch.
///
/// # Errors
/// The form that it must have: it has no offset, is before 1970, or is no date.
pub fn parse(text: &str) -> Result<u64, String> {
    parsed(text).ok_or_else(|| {
        "it must be a time with its offset from UTC, as in 2027-01-01T00:00:00Z".to_owned()
    })
}

fn parsed(text: &str) -> Option<u64> {
    let (date, time) = text.split_at_checked(10)?;
    let time = time.strip_prefix(['T', 't', ' '])?;
    let mut date = date.split('-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (clock, offset) = time.split_at_checked(8)?;
    let mut clock = clock.split(':').map(number);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let digits = offset.strip_prefix('.').map_or(offset, |fraction| {
        fraction.trim_start_matches(|digit: char| digit.is_ascii_digit())
    });
    let offset_s = match digits {
        "Z" | "z" => 0,
        _ => {
            let (sign, offset) = match digits.split_at_checked(1)? {
                ("+", offset) => (1, offset),
                ("-", offset) => (-1, offset),
                _ => return None,
            };
            let (hours, minutes) = offset.split_once(':')?;
            let (hours, minutes) = (number(hours)?, number(minutes)?);
            (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))?
        }
    };
    let is_date = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day);
    if !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_since_1970(year, month) + day - 1;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second.min(59) - offset_s;
    u64::try_from(seconds).ok()
}

fn number(text: &str) -> Option<i64> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

const fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

const fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970 to the first day of a month.
fn days_since_1970(year: i64, month: i64) -> i64 {
    let leap_days = |year: i64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let years = (year - 1970) * 365 + leap_days(year) - leap_days(1970);
    years + (1..month).map(|month| days_of(year, month)).sum::<i64>()
}

/// Seconds of the Unix epoch, as text.
pub struct Timestamp(pub u64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut days, second) = ((self.0 / 86_400) as i64, self.0 % 86_400);
        let mut year = 1970;
        loop {
            let of_year = if is_leap(year) { 366 } else { 365 };
            if days < of_year || year >= 9999 {
                break;
            }
            days -= of_year;
            year += 1;
        }
        let mut month = 1;
        while month < 12 && days >= days_of(year, month) {
            days -= days_of(year, month);
            month += 1;
        }
        let (day, hour, minute) = (days + 1, second / 3600, second / 60 % 60);
        let second = second % 60;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_rfc_3339() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2027-01-15T08:00:00Z", 1_800_000_000),
            ("2027-01-15 08:00:00.999z", 1_800_000_000),
            ("2027-01-15T10:30:00+02:30", 1_800_000_000),
            ("2027-01-14T23:00:00-09:00", 1_800_000_000),
            ("2024-02-29T12:00:00Z", 1_709_208_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(parse(text), Ok(seconds), "{text}");
        }
        for seconds in [
            0,
            951_782_400,
            1_709_208_000,
            1_800_000_000,
            253_402_300_799,
        ] {
            assert_eq!(parse(&Timestamp(seconds).to_string()), Ok(seconds));
        }
    }

    #[test]
    fn texts_that_are_no_times() {
        for text in [
            "",
            "2027-01-15",
            "2027-01-15T08:00:00",
            "2027-01-15T08:00Z",
            "2027-13-15T08:00:00Z",
            "2027-02-29T08:00:00Z",
            "2027-01-15T24:00:00Z",
            "2027-01-15T08:00:00+2:00x",
            "1969-12-31T23:59:59Z",
            "+027-01-15T08:00:00Z",
            "2027-01-1\u{e9}T08:00:00Z",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
