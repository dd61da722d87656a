//! Numbers with units, such as `64KiB` and `30s`: parsing, and tips for malformed ones.

/// Unit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Millis,
}

/// A unit's name, and how many of the smallest it is.
type Named = (&'static str, u64);

const SIZES: &[Named] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

const TIMES: &[Named] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Words that people write for units, in small letters.
const ALIASES: &[(&str, &str)] = &[
    ("ki", "KiB"),
    ("mi", "MiB"),
    ("gi", "GiB"),
    ("ti", "TiB"),
    ("byte", "B"),
    ("bytes", "B"),
    ("millis", "ms"),
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("min", "m"),
    ("mins", "m"),
    ("minute", "m"),
    ("minutes", "m"),
    ("hour", "h"),
    ("hours", "h"),
    ("day", "d"),
    ("days", "d"),
];

/// Letters that mean one of two sizes, and a number of things.
const LETTERS: &[(&str, &str, &str, u64)] = &[
    ("k", "KiB", "kB", 1_000),
    ("m", "MiB", "MB", 1_000_000),
    ("g", "GiB", "GB", 1_000_000_000),
    ("t", "TiB", "TB", 1_000_000_000_000),
];

/// Digits behind a decimal point that are looked at.
const FRACTION_DIGITS_MAX: usize = 9;

impl Unit {
    /// The unit of a setting: it stands in its name, as in `outbox_bytes_max`.
    #[must_use]
    pub fn of_setting(name: &str) -> Unit {
        let mut words = name.rsplit('_');
        match words.find(|word| matches!(*word, "ms" | "bytes")) {
            Some("ms") => Unit::Millis,
            Some(_) => Unit::Bytes,
            None => Unit::Count,
        }
    }

    fn units(self) -> &'static [Named] {
        match self {
            Unit::Count => &[],
            Unit::Bytes => SIZES,
            Unit::Millis => TIMES,
        }
    }

    /// Names of the units that a number may have.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.units().iter().map(|(name, _)| *name)
    }

    /// The number as a TOML file writes it: a string in the largest unit that leaves it whole, else a plain number.
    #[must_use]
    pub fn write(self, number: u64) -> String {
        // A size is written in powers of two.
        let units = self.units().iter().filter(|(name, scale)| {
            let is_usual = self == Unit::Millis || name.ends_with("iB");
            is_usual && *scale > 1 && number > 0 && number.is_multiple_of(*scale)
        });
        match units.max_by_key(|(_, scale)| *scale) {
            Some((name, scale)) => format!("\"{}{name}\"", number / scale),
            None => number.to_string(),
        }
    }

    /// Reads a number, with a unit or without. None: it is no whole number, has another unit, or fits no `u64`.
    #[must_use]
    pub fn parse(self, text: &str) -> Option<u64> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, name) = text.split_at(digits);
        let scale = match name {
            "" => 1,
            _ => self.units().iter().find(|(unit, _)| *unit == name)?.1,
        };
        number.parse::<u64>().ok()?.checked_mul(scale)
    }

    /// Suggestion for a text that [`parse`](Unit::parse) refuses, if its meaning can be told.
    #[must_use]
    pub fn tip(self, text: &str) -> Option<String> {
        if self.parse(text).is_some() {
            return None;
        }
        let is_of_number = |letter: char| letter.is_ascii_digit() || ".,_".contains(letter);
        let end = text
            .find(|letter| !is_of_number(letter))
            .unwrap_or(text.len());
        let (number, name) = text.split_at(end);
        let (number, name) = (&*number.replace([',', '_'], ""), name.trim());
        let plain = |scale| Some(format!("write {}", scaled(number, scale)?));
        if let Some(exponent) = name.strip_prefix(['e', 'E'])
            && let Ok(exponent) = exponent.parse()
        {
            return plain(10_u64.checked_pow(exponent)?);
        }
        let lower = name.to_ascii_lowercase();
        let letter = LETTERS.iter().find(|(letter, ..)| *letter == lower);
        match (self, letter) {
            _ if name.is_empty() => plain(1),
            (Unit::Count, Some((.., scale))) => plain(*scale),
            (Unit::Bytes, Some((_, binary, decimal, _))) => {
                let [binary, decimal] = [binary, decimal].map(|unit| self.with_unit(number, unit));
                Some(format!("write {} or {}", binary?, decimal?))
            }
            _ => match self.named(name) {
                Some((unit, scale)) if number.contains('.') => {
                    let value = scaled(number, scale)?;
                    Some(format!("write {value}, for a number of {unit} is whole"))
                }
                Some((unit, _)) => Some(format!("write {}", self.with_unit(number, unit)?)),
                None => self.mistaken(name),
            },
        }
    }

    /// What to say of a unit that is not one of these: it may be one of another kind.
    fn mistaken(self, name: &str) -> Option<String> {
        let mut others = [Unit::Bytes, Unit::Millis].into_iter();
        let is_other = others.any(|other| other != self && other.named(name).is_some());
        let kind = match self {
            Unit::Count => "it is a count, and has no unit",
            Unit::Bytes => "it is a size, in bytes, KiB, MiB, GiB, kB, MB or GB",
            Unit::Millis => "it is a time, in ms, s, m, h or d, as in 30s",
        };
        is_other.then(|| kind.to_owned())
    }

    /// The unit that a word means, whatever its letters' case.
    fn named(self, name: &str) -> Option<Named> {
        let mut aliases = ALIASES.iter();
        let alias = aliases.find(|(alias, _)| alias.eq_ignore_ascii_case(name));
        let name = alias.map_or(name, |(_, unit)| unit);
        let mut units = self.units().iter();
        units
            .find(|(unit, _)| unit.eq_ignore_ascii_case(name))
            .copied()
    }

    /// A number with a unit, and what it comes to.
    fn with_unit(self, number: &str, name: &str) -> Option<String> {
        let (unit, scale) = self.named(name)?;
        Some(format!("{number}{unit} ({})", scaled(number, scale)?))
    }
}

/// A decimal number, perhaps with a fraction, times a scale. None where that is not whole.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > FRACTION_DIGITS_MAX {
        return None;
    }
    let base = 10_u128.pow(fraction.len() as u32);
    let fraction: u128 = match fraction {
        "" => 0,
        _ => fraction.parse().ok()?,
    };
    let whole: u64 = whole.parse().ok()?;
    let scaled = (u128::from(whole) * base + fraction).checked_mul(u128::from(scale))?;
    let is_whole = scaled.is_multiple_of(base);
    u64::try_from(scaled / base).ok().filter(|_| is_whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_with_units() {
        for (unit, text, value) in [
            (Unit::Count, "10", Some(10)),
            (Unit::Count, "10k", None),
            (Unit::Bytes, "64KiB", Some(65_536)),
            (Unit::Bytes, "3MB", Some(3_000_000)),
            (Unit::Bytes, "7B", Some(7)),
            (Unit::Bytes, "7b", None),
            (Unit::Bytes, "2M", None),
            (Unit::Bytes, "30s", None),
            (Unit::Bytes, "18446744073709551615", Some(u64::MAX)),
            (Unit::Bytes, "18446744073709551616", None),
            (Unit::Bytes, "99999999TiB", None),
            (Unit::Millis, "250ms", Some(250)),
            (Unit::Millis, "30s", Some(30_000)),
            (Unit::Millis, "2h", Some(7_200_000)),
            (Unit::Millis, "1d", Some(86_400_000)),
            (Unit::Millis, "1.5s", None),
            (Unit::Millis, "-1s", None),
            (Unit::Millis, "+1", None),
            (Unit::Millis, "", None),
            (Unit::Millis, "s", None),
        ] {
            assert_eq!(unit.parse(text), value, "{text}");
        }
    }

    #[test]
    fn suggestions() {
        for (unit, text, tip) in [
            (Unit::Bytes, "2M", "write 2MiB (2097152) or 2MB (2000000)"),
            (Unit::Bytes, "2mb", "write 2MB (2000000)"),
            (Unit::Bytes, "2 MiB", "write 2MiB (2097152)"),
            (
                Unit::Bytes,
                "1.5GiB",
                "write 1610612736, for a number of GiB is whole",
            ),
            (
                Unit::Bytes,
                "5s",
                "it is a size, in bytes, KiB, MiB, GiB, kB, MB or GB",
            ),
            (Unit::Millis, "30sec", "write 30s (30000)"),
            (
                Unit::Millis,
                "0.5s",
                "write 500, for a number of s is whole",
            ),
            (
                Unit::Millis,
                "1kB",
                "it is a time, in ms, s, m, h or d, as in 30s",
            ),
            (Unit::Count, "10k", "write 10000"),
            (Unit::Count, "1_000,000", "write 1000000"),
            (Unit::Count, "1e3", "write 1000"),
            (Unit::Count, "1.5M", "write 1500000"),
            (Unit::Count, "10s", "it is a count, and has no unit"),
        ] {
            assert_eq!(unit.tip(text).as_deref(), Some(tip), "{text}");
        }
        for text in [
            "5", "5KiB", "", "auto", "-1", "1.5", "1e99", "5 apples", ".", "1.2.3", "0.1B",
        ] {
            assert_eq!(Unit::Bytes.tip(text), None, "{text}");
        }
    }

    #[test]
    fn written_in_the_largest_unit() {
        for (unit, number, text) in [
            (Unit::Bytes, 65_536, "\"64KiB\""),
            (Unit::Bytes, 1 << 30, "\"1GiB\""),
            (Unit::Bytes, 1025, "1025"),
            (Unit::Bytes, 3_000_000, "3000000"),
            (Unit::Millis, 75_000, "\"75s\""),
            (Unit::Millis, 300_000, "\"5m\""),
            (Unit::Millis, 100, "100"),
            (Unit::Millis, 0, "0"),
            (Unit::Count, 4096, "4096"),
        ] {
            assert_eq!(unit.write(number), text);
            assert_eq!(unit.parse(text.trim_matches('"')), Some(number));
        }
    }

    #[test]
    fn unit_of_setting() {
        for (name, unit) in [
            ("outbox_bytes_max", Unit::Bytes),
            ("outbox_age_max_ms", Unit::Millis),
            ("connections_max", Unit::Count),
        ] {
            assert_eq!(Unit::of_setting(name), unit);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*|[0-9]{1,25}[.][0-9]{0,12}[kmgKMGiBs]{0,3}|[0-9]e[0-9]{1,9}") {
            for unit in [Unit::Count, Unit::Bytes, Unit::Millis] {
                let _ = (unit.parse(&text), unit.tip(&text));
            }
        }
    }
}
