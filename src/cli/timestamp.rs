//! The time of day as RFC 3339 writes it, in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECONDS_PER_DAY: u64 = 86_400;

/// Now, with milliseconds: `2026-11-21T09:30:00.125Z`.
pub fn now() -> String {
    // A clock before 1970 is shown as 1970.
    format(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

fn format(since_epoch: Duration) -> String {
    let (days, seconds) = (
        since_epoch.as_secs() / SECONDS_PER_DAY,
        since_epoch.as_secs() % SECONDS_PER_DAY,
    );
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let millis = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day in the Gregorian calendar, from days since 1970-01-01.
///
/// Years are counted from March, so that a leap day is the last of its year; 400 of them have 146,097 days.
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_400_YEARS: u64 = 146_097;
    const DAYS_FROM_MARCH_OF_YEAR_0: u64 = 719_468;
    let days = days + DAYS_FROM_MARCH_OF_YEAR_0;
    let (cycle, day_of_cycle) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    let leap_days = day_of_cycle / 1_460 - day_of_cycle / 36_524 + day_of_cycle / 146_096;
    let year_of_cycle = (day_of_cycle - leap_days) / 365;
    let day_of_year =
        day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    // From March on, months are 31, 30, 31, 30, 31 days long, again and again.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = 400 * cycle + year_of_cycle + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (seconds, millis, text) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000Z"),
            (951_868_800, 0, "2000-03-01T00:00:00.000Z"),
            (1_709_251_199, 999, "2024-02-29T23:59:59.999Z"),
            (1_767_225_599, 5, "2025-12-31T23:59:59.005Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000Z"),
        ] {
            let moment = Duration::from_millis(seconds * 1000 + millis);
            assert_eq!(format(moment), text);
        }
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut before = civil_date(0);
        for days in 1..=146_097 {
            let (year, month, day) = civil_date(days);
            let is_next = (year, month) == (before.0, before.1) && day == before.2 + 1;
            let is_next_month = (year, month, day) == (before.0, before.1 + 1, 1);
            let is_next_year = (year, month, day) == (before.0 + 1, 1, 1) && before.1 == 12;
            assert!(
                is_next || is_next_month || is_next_year,
                "{before:?} {year} {month} {day}"
            );
            before = (year, month, day);
        }
        assert_eq!(before, (2370, 1, 1));
    }
}
