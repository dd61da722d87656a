//! Connections whose openings and ends are logged.

use std::fmt;

/// Connections that the log tells of at the level info.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessLog {
    /// None.
    #[default]
    Off,
    /// Ends of those that the server ended for a fault of their peers.
    Errors,
    /// Those, and openings and ends of a sample.
    All,
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AccessLog::Off => "off",
            AccessLog::Errors => "errors",
            AccessLog::All => "all",
        })
    }
}

/// A share of all, from 0 to 1, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    /// Nothing.
    pub const NONE: Share = Share(0);
    /// All.
    pub const ALL: Share = Share(1_000_000);
    /// Share of connections in the access log where nothing is set.
    pub const SAMPLE: Share = Share(10_000);

    /// Reads a decimal number from 0 to 1.
    ///
    /// # Errors
    /// It is none, or has more than six digits behind the point.
    pub fn parse(text: &str) -> Result<Share, String> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_digits = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
        let is_number = is_digits(whole) && is_digits(fraction) && !whole.is_empty();
        let fits = is_number && whole.len() == 1 && (1..=6).contains(&fraction.len());
        let millionths = format!("{whole}{fraction:0<6}").parse().ok();
        millionths
            .filter(|millionths| fits && *millionths <= Share::ALL.0)
            .map(Share)
            .ok_or_else(|| "it must be a number from 0 to 1, such as 0.01".to_owned())
    }

    /// Whether the thing with this number is among them. The numbers need not be spread.
    pub fn takes(self, number: u64) -> bool {
        // The finisher of splitmix64: each bit of the number counts in each bit of the outcome.
        let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 32) * u64::from(Share::ALL.0) < u64::from(self.0) << 32
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / Share::ALL.0, self.0 % Share::ALL.0);
        let fraction = format!("{fraction:06}");
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{whole}"),
            digits => write!(f, "{whole}.{digits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_decimal_numbers() {
        for (text, shown) in [
            ("0", "0"),
            ("1", "1"),
            ("1.0", "1"),
            ("0.01", "0.01"),
            ("0.000001", "0.000001"),
        ] {
            let share = Share::parse(text).expect("a share");
            assert_eq!(share.to_string(), shown);
        }
        for text in [
            "",
            "1.1",
            "2",
            "-0",
            ".5",
            "0.",
            "0.0000001",
            "1e-2",
            "00",
            "0.5 ",
            "+1",
            "0,1",
        ] {
            assert!(Share::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn so_many_of_a_hundred_thousand() {
        let taken = |share: Share| (0..100_000).filter(|&number| share.takes(number)).count();
        assert_eq!((taken(Share::NONE), taken(Share::ALL)), (0, 100_000));
        assert!((900..1100).contains(&taken(Share::SAMPLE)));
    }
}
