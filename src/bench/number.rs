//! Numbers in command lines and tables, as people write them.

use std::time::Duration;

/// The longest time that may be asked for.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
/// The highest rate, one in each tick of the stamp.
const RATE_MAX: f64 = 1e7;

/// Reads a count such as `1000`, `1_000`, `10k` or `1.5M`.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let digits = text.replace('_', "");
    let (digits, factor) = match digits.char_indices().next_back() {
        Some((end, 'k' | 'K')) => (&digits[..end], 1e3),
        Some((end, 'm' | 'M')) => (&digits[..end], 1e6),
        _ => (&digits[..], 1.0),
    };
    let is_plain = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: Option<f64> = digits.parse().ok().filter(|_| is_plain);
    let number = number.map(|number| number * factor);
    match number {
        Some(number) if number.fract() == 0.0 && (1.0..=1e15).contains(&number) => {
            Ok(number as u64)
        }
        _ => Err("it must be a whole number from 1, such as 1000, 10k or 1M".to_owned()),
    }
}

/// Reads a time such as `10`, `10s`, `500ms` or `2m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text {
        _ if text.ends_with("ms") => (text.trim_end_matches("ms"), 1e-3),
        _ if text.ends_with('s') => (text.trim_end_matches('s'), 1.0),
        _ if text.ends_with('m') => (text.trim_end_matches('m'), 60.0),
        _ => (text, 1.0),
    };
    let is_plain = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds: Option<f64> = digits.parse().ok().filter(|_| is_plain);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds * unit).ok())
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(|| "it must be a time of at most a day, such as 10s, 500ms or 2m".to_owned())
}

/// Reads a rate in events a second, such as `0.5` or `10k`.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = match parse_count(text) {
        Ok(count) => Some(count as f64),
        Err(_) => text.parse().ok(),
    };
    rate.filter(|rate| *rate > 0.0 && *rate <= RATE_MAX)
        .ok_or_else(|| {
            "it must be a number above 0 and up to 10M, such as 0.5, 1000 or 10k".to_owned()
        })
}

/// Reads a share from 0 to 1, such as `0.1`, or `10%`.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().ok().map(|percent| percent / 100.0),
        None => text.parse().ok(),
    };
    share
        .filter(|share| *share > 0.0 && *share < 1.0)
        .ok_or_else(|| "it must be above 0 and under 1, such as 0.1 or 10%".to_owned())
}

/// Groups the digits: 1234567 is 1,234,567.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// At least three digits of a number: 0.1234 is 0.123, 12.34 is 12.3, 1234.5 is 1,234 (or 1,235).
pub fn brief(number: f64) -> String {
    match number.abs() {
        size if size >= 99.95 => grouped(number.round() as u64),
        size if size >= 9.995 => format!("{number:.1}"),
        size if size >= 0.9995 => format!("{number:.2}"),
        size if size > 0.0 => format!("{number:.3}"),
        _ => "0".to_owned(),
    }
}

/// A time in microseconds with a fitting unit.
pub fn time(us: f64) -> String {
    match us {
        us if us >= 999_500.0 => format!("{} s", brief(us / 1e6)),
        us if us >= 999.5 => format!("{} ms", brief(us / 1e3)),
        us => format!("{} us", brief(us)),
    }
}

/// A number of bytes with a fitting unit.
pub fn bytes(bytes: f64) -> String {
    match bytes.abs() {
        size if size >= 1_048_576.0 * 9.995 => format!("{} MiB", brief(bytes / 1_048_576.0)),
        size if size >= 1024.0 * 9.995 => format!("{} KiB", brief(bytes / 1024.0)),
        _ => format!("{} B", grouped(bytes.max(0.0).round() as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        for (text, count) in [
            ("1", 1),
            ("1_000", 1000),
            ("10k", 10_000),
            ("1.5M", 1_500_000),
        ] {
            assert_eq!(parse_count(text), Ok(count));
        }
        for text in [
            "",
            "0",
            "-1",
            "1.5",
            "k",
            "1e3",
            "inf",
            "1kk",
            "99999999999999999999",
        ] {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("10", 10_000),
            ("0.5s", 500),
            ("20ms", 20),
            ("2m", 120_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)));
        }
        for text in ["", "s", "-1", "1h", "1e9", "90000", "nan", "1msms s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_and_shares() {
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        assert_eq!(parse_rate("10k"), Ok(10_000.0));
        for text in ["", "0", "-1", "NaN", "inf", "11M"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        assert_eq!(parse_share("10%"), Ok(0.1));
        assert_eq!(parse_share("0.5"), Ok(0.5));
        for text in ["0", "1", "100%", "NaN", "x"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(999), "999");
        let shown = [0.0, 0.1234, 1.0, 9.996, 99.96, 1234.5].map(brief);
        assert_eq!(shown, ["0", "0.123", "1.00", "10.0", "100", "1,235"]);
        assert_eq!(
            [5.0, 1500.0, 2e6].map(time),
            ["5.00 us", "1.50 ms", "2.00 s"]
        );
        assert_eq!(
            [400.0, 1e4, 2e5, 2e7].map(bytes),
            ["400 B", "10,000 B", "195 KiB", "19.1 MiB"]
        );
    }
}
