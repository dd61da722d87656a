//! `NumericDate` of RFC 7519: seconds since 1970, with a fraction or without.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Largest value that is taken: the last second of the year 9999.
pub const SECONDS_MAX: u64 = 253_402_300_799;

/// A time in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumericDate {
    seconds: u64,
    has_fraction: bool,
}

impl NumericDate {
    /// The second that it lies in.
    #[must_use]
    pub fn floor(self) -> u64 {
        self.seconds
    }

    /// The second that it lies in, or the next behind a fraction.
    #[must_use]
    pub fn ceil(self) -> u64 {
        self.seconds + u64::from(self.has_fraction)
    }
}

impl<'de> Deserialize<'de> for NumericDate {
    /// Reads a JSON number, never a string.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NumericDate, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)
            .map_err(|_| D::Error::custom("it must be a number"))?;
        let out_of_range = || D::Error::custom("it is no time between 1970 and 9999");
        if let Some(seconds) = number.as_u64() {
            return (seconds <= SECONDS_MAX)
                .then_some(NumericDate {
                    seconds,
                    has_fraction: false,
                })
                .ok_or_else(out_of_range);
        }
        let value = number.as_f64().filter(|value| *value >= 0.0);
        let value = value.filter(|value| *value <= SECONDS_MAX as f64);
        let value = value.ok_or_else(out_of_range)?;
        // In range, so that the conversion is exact.
        Ok(NumericDate {
            seconds: value.trunc() as u64,
            has_fraction: value.fract() > 0.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_range_are_times() {
        for (text, floor, ceil) in [
            ("0", 0, 0),
            ("1800003600", 1_800_003_600, 1_800_003_600),
            ("1800003600.0", 1_800_003_600, 1_800_003_600),
            ("1800003600.7", 1_800_003_600, 1_800_003_601),
            ("1.8e9", 1_800_000_000, 1_800_000_000),
            ("253402300799", SECONDS_MAX, SECONDS_MAX),
            ("-0", 0, 0),
        ] {
            let date: NumericDate = serde_json::from_str(text).expect(text);
            assert_eq!((date.floor(), date.ceil()), (floor, ceil), "{text}");
        }
    }

    #[test]
    fn all_else_is_refused() {
        for text in [
            "\"1800003600\"",
            "[1800003600]",
            "{}",
            "null",
            "true",
            "1e300",
            "1e400",
            "-1",
            "-0.5",
            "18446744073709551616",
            "1e19",
            "1e18",
            "253402300800",
            "253402300799.5",
        ] {
            assert!(serde_json::from_str::<NumericDate>(text).is_err(), "{text}");
        }
    }
}
