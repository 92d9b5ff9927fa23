//! Reading one value: a number in its range, a duration, a size, a word.
//!
//! Each function gives the value or says what is wrong and what is allowed; where it stands and
//! what it is called is the reader's knowledge.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::base::units::ByteCount;
use crate::base::units::Limit;
use crate::base::units::parse_duration;
use crate::base::units::show_duration;

use super::raw::Node;
use super::raw::Raw;
use super::settings::values::Ratio;
use super::settings::words::Word;

/// What is wrong with a value, and what would not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// A clause that holds the value.
    pub clause: String,
    /// What is allowed.
    pub allowed: String,
}

impl Wrong {
    /// A clause that begins with the value.
    #[must_use]
    pub fn value(node: &Node, clause: &str, allowed: impl Into<String>) -> Self {
        Self {
            clause: format!("`{}` {clause}", node.shown()),
            allowed: allowed.into(),
        }
    }

    /// As a complaint says it.
    #[must_use]
    pub fn says(&self) -> String {
        format!("{} ({})", self.clause, self.allowed)
    }
}

/// What reading one value comes to.
pub type Read<T> = Result<T, Wrong>;

/// `true` or `false`.
///
/// # Errors
/// For anything else.
pub fn switch(node: &Node) -> Read<bool> {
    match node.value {
        Raw::Switch(on) => Ok(on),
        _ => Err(Wrong::value(node, "is no switch", "true or false")),
    }
}

/// A whole number.
///
/// # Errors
/// For anything else, and outside of the range.
pub fn count<N>(node: &Node, range: &RangeInclusive<N>) -> Read<N>
where
    N: Copy + Display + PartialOrd + TryFrom<i64>,
{
    let allowed = format!("{} to {}", range.start(), range.end());
    let Raw::Whole(number) = node.value else {
        return Err(Wrong::value(node, "is no whole number", allowed));
    };
    match N::try_from(number) {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(Wrong::value(node, "is out of range", allowed)),
    }
}

/// A share.
///
/// # Errors
/// For anything else, and outside of the range.
pub fn ratio(node: &Node, range: &RangeInclusive<f64>) -> Read<Ratio> {
    let allowed = format!("{} to {}", range.start(), range.end());
    let number = match node.value {
        Raw::Decimal(number) => number,
        Raw::Whole(0) => 0.0,
        Raw::Whole(1) => 1.0,
        Raw::Whole(_) => return Err(Wrong::value(node, "is out of range", allowed)),
        _ => return Err(Wrong::value(node, "is no number", allowed)),
    };
    match Ratio::new(number) {
        Some(ratio) if range.contains(&number) => Ok(ratio),
        _ => Err(Wrong::value(node, "is out of range", allowed)),
    }
}

/// A time with its unit.
///
/// # Errors
/// For anything else, and outside of the range.
pub fn duration(node: &Node, range: &RangeInclusive<Duration>) -> Read<Duration> {
    let allowed = format!(
        "{} to {}",
        show_duration(*range.start()),
        show_duration(*range.end())
    );
    let duration = with_unit(node, "is no time", &allowed, parse_duration)?;
    if range.contains(&duration) {
        Ok(duration)
    } else {
        Err(Wrong::value(node, "is out of range", allowed))
    }
}

/// A time in whole seconds, for what the kernel or a field counts in them.
///
/// # Errors
/// For anything else, and outside of the range.
pub fn seconds(node: &Node, range: &RangeInclusive<Duration>) -> Read<Duration> {
    match duration(node, range)? {
        duration if duration.subsec_nanos() == 0 => Ok(duration),
        _ => Err(Wrong::value(
            node,
            "is no whole number of seconds",
            "whole seconds",
        )),
    }
}

/// A size with its unit.
///
/// # Errors
/// For anything else, and outside of the range.
pub fn size(node: &Node, range: &RangeInclusive<ByteCount>) -> Read<ByteCount> {
    let allowed = format!("{} to {}", range.start(), range.end());
    let size = with_unit(node, "is no size", &allowed, ByteCount::parse)?;
    if range.contains(&size) {
        Ok(size)
    } else {
        Err(Wrong::value(node, "is out of range", allowed))
    }
}

/// One of a few words. Words that look like numbers (`429`, `503`) may be written as such.
///
/// # Errors
/// For anything else.
pub fn word<W: Word>(node: &Node) -> Read<W> {
    let word = match &node.value {
        Raw::Text(text) => W::from_word(text),
        Raw::Whole(number) => W::from_word(&number.to_string()),
        _ => None,
    };
    word.ok_or_else(|| {
        let words: Vec<_> = W::WORDS.iter().map(|(word, _)| *word).collect();
        Wrong::value(node, "is not known here", words.join(", "))
    })
}

/// Text that `parse` accepts.
///
/// # Errors
/// For anything but text, and what `parse` says.
pub fn parsed<T, E: Display>(
    node: &Node,
    allowed: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Read<T> {
    let Raw::Text(text) = &node.value else {
        return Err(Wrong::value(node, "is no text", allowed));
    };
    parse(text).map_err(|clause| Wrong::value(node, &clause.to_string(), allowed))
}

/// A list whose every item `read` accepts.
///
/// # Errors
/// For anything but a list. What is wrong with items is collected by the reader.
pub fn list<'t>(node: &'t Node, allowed: &str) -> Read<&'t [Node]> {
    match &node.value {
        Raw::List(nodes) => Ok(nodes),
        _ => Err(Wrong::value(
            node,
            "is no list",
            format!("a list of {allowed}"),
        )),
    }
}

/// A value or `"off"`.
///
/// # Errors
/// What `read` says, with `"off"` among what is allowed.
pub fn limit<T>(node: &Node, read: impl FnOnce(&Node) -> Read<T>) -> Read<Limit<T>> {
    if node.value == Raw::Text("off".to_owned()) {
        return Ok(Limit::Off);
    }
    read(node).map(Limit::At).map_err(|wrong| Wrong {
        allowed: format!("{}, or \"off\"", wrong.allowed),
        ..wrong
    })
}

fn with_unit<T>(
    node: &Node,
    kind: &str,
    allowed: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Read<T> {
    // The unit's own words quote the text, so it is made fit to show first; that changes no legal one.
    let text = match &node.value {
        Raw::Text(_) => node.shown(),
        Raw::Whole(number) if *number >= 0 => number.to_string(),
        _ => return Err(Wrong::value(node, kind, allowed)),
    };
    parse(&text).map_err(|says| {
        let value = format!("`{}`", node.shown());
        let clause = if says.starts_with(&value) {
            says
        } else {
            format!("{value}: {says}")
        };
        Wrong {
            clause,
            allowed: allowed.to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::complaint::Place;
    use crate::config::settings::words::ClientLimitAction;

    fn node(value: Raw) -> Node {
        Node {
            key: "k".to_owned(),
            place: Place::Whole,
            value,
        }
    }

    fn text(text: &str) -> Node {
        node(Raw::Text(text.to_owned()))
    }

    const SECONDS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

    #[test]
    fn a_time_without_a_unit_is_refused_with_the_unit_to_write() {
        for node in [text("5"), node(Raw::Whole(5))] {
            let wrong = duration(&node, &SECONDS).unwrap_err();
            assert_eq!(wrong.says(), "`5` has no unit; say `5s` (1s to 10m)");
        }
    }

    #[test]
    fn a_time_is_within_its_range() {
        assert!(duration(&text("1s"), &SECONDS).is_ok());
        assert!(duration(&text("10m"), &SECONDS).is_ok());
        let wrong = duration(&text("0s"), &SECONDS).unwrap_err();
        assert_eq!(wrong.says(), "`0s` is out of range (1s to 10m)");
        assert!(duration(&text("601s"), &SECONDS).is_err());
    }

    #[test]
    fn an_unknown_unit_is_shown_with_its_value() {
        let wrong = duration(&text("5d"), &SECONDS).unwrap_err();
        assert_eq!(
            wrong.clause,
            "`5d`: `d` is no unit of time; use ms, s, m or h"
        );
    }

    #[test]
    fn off_is_allowed_where_a_limit_may_be_absent() {
        let read = |node: &Node| count(node, &(1..=9_u32));
        assert_eq!(limit(&text("off"), read), Ok(Limit::Off));
        assert_eq!(limit(&node(Raw::Whole(9)), read), Ok(Limit::At(9)));
        let wrong = limit(&node(Raw::Whole(0)), read).unwrap_err();
        assert_eq!(wrong.says(), "`0` is out of range (1 to 9, or \"off\")");
    }

    #[test]
    fn negative_and_enormous_counts_are_out_of_range() {
        for number in [-1, 10, i64::MAX, i64::MIN] {
            assert!(
                count(&node(Raw::Whole(number)), &(0..=9_u32)).is_err(),
                "{number}"
            );
        }
    }

    #[test]
    fn a_share_is_no_nan() {
        assert!(ratio(&node(Raw::Decimal(f64::NAN)), &(0.0..=1.0)).is_err());
        assert!(ratio(&node(Raw::Whole(1)), &(0.0..=1.0)).is_ok());
        assert!(ratio(&node(Raw::Whole(2)), &(0.0..=1.0)).is_err());
    }

    #[test]
    fn a_word_that_looks_like_a_number_may_be_written_as_one() {
        let expected = ClientLimitAction::TooManyRequests;
        assert_eq!(
            word::<ClientLimitAction>(&node(Raw::Whole(429))),
            Ok(expected)
        );
        assert_eq!(word::<ClientLimitAction>(&text("429")), Ok(expected));
    }

    #[test]
    fn an_unknown_word_is_answered_with_the_known_ones() {
        let wrong = word::<ClientLimitAction>(&text("drop")).unwrap_err();
        assert_eq!(
            wrong.says(),
            "`drop` is not known here (429, close, reset, hold)"
        );
    }
}
