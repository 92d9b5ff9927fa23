//! Quantities with their units: how they are written in configuration and how they are shown.
//!
//! A bare number where a unit belongs is refused, and 0 never means "unlimited": what may be
//! absent is an `Option` or [`Limit`].

use std::fmt;
use std::time::Duration;

/// A number of octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteCount(pub u64);

impl ByteCount {
    /// As a length in memory; saturates on machines whose addresses are shorter.
    #[must_use]
    pub fn as_len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Reads `"512B"`, `"16KiB"`, `"1MiB"`, `"2GiB"`.
    ///
    /// # Errors
    /// A clause that says what is wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text)?;
        let scale = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "" => {
                return Err(format!(
                    "`{text}` has no unit; say `{text}B` or `{text}KiB`"
                ));
            }
            other => return Err(format!("`{other}` is no size unit; use B, KiB, MiB or GiB")),
        };
        number
            .checked_mul(scale)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is too large"))
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n != 0 && n % (1 << 30) == 0 => write!(f, "{}GiB", n >> 30),
            n if n != 0 && n % (1 << 20) == 0 => write!(f, "{}MiB", n >> 20),
            n if n != 0 && n % (1 << 10) == 0 => write!(f, "{}KiB", n >> 10),
            n => write!(f, "{n}B"),
        }
    }
}

/// Reads `"250ms"`, `"5s"`, `"1m"`, `"1h"`.
///
/// # Errors
/// A clause that says what is wrong and what would be right.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text)?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "" => return Err(format!("`{text}` has no unit; say `{text}s`")),
        other => return Err(format!("`{other}` is no unit of time; use ms, s, m or h")),
    };
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is too long"))
}

/// Shows a duration as configuration writes it, in the largest unit that divides it.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    match duration.as_millis() {
        n if n != 0 && n % 3_600_000 == 0 => format!("{}h", n / 3_600_000),
        n if n != 0 && n % 60_000 == 0 => format!("{}m", n / 60_000),
        n if n % 1_000 == 0 => format!("{}s", n / 1_000),
        n => format!("{n}ms"),
    }
}

/// A limit that an operator may switch off. `Off` is a word of its own, never a large number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit<T> {
    /// `"off"`: no limit.
    Off,
    /// At most so much.
    At(T),
}

impl<T: Copy> Limit<T> {
    /// The limit, if there is one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::At(limit) => Some(limit),
        }
    }
}

fn split_unit(text: &str) -> Result<(u64, &str), String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if digits == 0 {
        return Err(format!("`{text}` does not begin with a number"));
    }
    number
        .parse()
        .map(|number| (number, unit))
        .map_err(|_| format!("`{text}` is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_is_refused_with_the_unit_to_write() {
        assert_eq!(
            parse_duration("5").unwrap_err(),
            "`5` has no unit; say `5s`"
        );
        assert!(ByteCount::parse("16").unwrap_err().contains("16KiB"));
    }

    #[test]
    fn durations_and_sizes_are_shown_as_they_are_written() {
        for text in ["250ms", "5s", "1m", "1h", "90s", "0s"] {
            let shown = show_duration(parse_duration(text).unwrap());
            assert_eq!(
                parse_duration(&shown).unwrap(),
                parse_duration(text).unwrap()
            );
        }
        for text in ["1B", "16KiB", "3MiB", "2GiB", "0B"] {
            assert_eq!(ByteCount::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn signs_spaces_and_unknown_units_are_refused() {
        for text in ["+5s", "-5s", " 5s", "5 s", "5d", "5S", "", "s", "1.5s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(ByteCount::parse("99999999999999999999B").is_err());
        assert!(ByteCount::parse("18446744073709551615KiB").is_err());
        assert!(parse_duration("18446744073709551615h").is_err());
    }
}
