//! Times of certificates (RFC 5280 section 4.1.2.5).

use super::der::{DerError, Elements, tag};

/// Reads a UTCTime or a GeneralizedTime, in seconds since 1970. One before 1970 is 0.
///
/// # Errors
/// It is of another form than `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, or no date.
pub(super) fn take_time(elements: &mut Elements<'_>) -> Result<u64, DerError> {
    let (tag, text) = elements.take()?;
    let (year, rest) = match (tag, text.len()) {
        (tag::UTC_TIME, 13) => {
            let year = number(&text[..2])?;
            (
                if year < 50 { 2000 + year } else { 1900 + year },
                &text[2..],
            )
        }
        (tag::GENERALIZED_TIME, 15) => {
            (number(&text[..2])? * 100 + number(&text[2..4])?, &text[4..])
        }
        (tag::UTC_TIME | tag::GENERALIZED_TIME, _) => return Err(DerError::Time),
        _ => return Err(DerError::Unexpected),
    };
    if rest[10] != b'Z' {
        return Err(DerError::Time);
    }
    let part = |at: usize| number(&rest[2 * at..2 * at + 2]);
    let (month, day) = (part(0)?, part(1)?);
    let (hour, minute, second) = (part(2)?, part(3)?, part(4)?);
    let is_time = hour < 24 && minute < 60 && second < 60;
    if !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) || !is_time {
        return Err(DerError::Time);
    }
    let days = days_since_1970(year, month) + day - 1;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    Ok(u64::try_from(seconds).unwrap_or(0))
}

fn number(digits: &[u8]) -> Result<i64, DerError> {
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Ok(number * 10 + i64::from(digit - b'0')),
        _ => Err(DerError::Time),
    })
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

/// Days from the first of January 1970 to the first day of a month, which may lie before it.
fn days_since_1970(year: i64, month: i64) -> i64 {
    // Leap days are counted up to the end of the year before.
    let before = year - 1;
    let leap_days = before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
    let leap_days_1970 = 1969 / 4 - 1969 / 100 + 1969 / 400;
    let months: i64 = (1..month).map(|month| days_of(year, month)).sum();
    (year - 1970) * 365 + leap_days - leap_days_1970 + months
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tag: u8, text: &str) -> Result<u64, DerError> {
        let mut bytes = vec![tag, u8::try_from(text.len()).expect("short")];
        bytes.extend(text.as_bytes());
        take_time(&mut Elements::of(&bytes))
    }

    #[test]
    fn times_of_both_forms() {
        for (tag, text, seconds) in [
            (tag::UTC_TIME, "700101000000Z", 0),
            (tag::UTC_TIME, "000229235959Z", 951_868_799),
            (tag::UTC_TIME, "261128163000Z", 1_795_883_400),
            (tag::UTC_TIME, "491231235959Z", 2_524_607_999),
            // 1950.
            (tag::UTC_TIME, "500101000000Z", 0),
            (tag::GENERALIZED_TIME, "20500101000000Z", 2_524_608_000),
            (tag::GENERALIZED_TIME, "99991231235959Z", 253_402_300_799),
            (tag::GENERALIZED_TIME, "00000101000000Z", 0),
        ] {
            assert_eq!(read(tag, text), Ok(seconds), "{text}");
        }
        for text in [
            "",
            "260230000000Z",
            "261301000000Z",
            "260100000000Z",
            "260101240000Z",
            "260101006000Z",
            "260101000060Z",
            "26010100000Z",
            "260101000000+0000",
            "260101000000z",
            "2601010000 0Z",
        ] {
            assert_eq!(read(tag::UTC_TIME, text), Err(DerError::Time), "{text}");
        }
        assert_eq!(
            read(tag::GENERALIZED_TIME, "21000229000000Z"),
            Err(DerError::Time)
        );
        assert_eq!(
            read(tag::INTEGER, "260101000000Z"),
            Err(DerError::Unexpected)
        );
    }
}
