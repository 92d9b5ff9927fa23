//! Lines: cutting a head or a trailer section into lines, and a line into name and value.
//!
//! A line is looked at only when it is there whole, and the search for its end goes on where it
//! stopped: fed octet by octet, the work stays linear and the outcome the same. Absent on purpose:
//! leniency. RFC 9112 §2.2 lets a recipient take LF for CRLF; two recipients that differ in it see
//! two messages, so only CRLF ends a line here.

use memchr::memchr;

use crate::h1::error::MessageError;
use crate::h1::fields::Field;
use crate::h1::fields::FieldLine;
use crate::h1::fields::Span;
use crate::h1::octets;

/// How far the lines of one buffer have been read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lines {
    /// Where the next line begins.
    at: usize,
    /// Up to where no LF was found.
    searched: usize,
}

/// What comes next.
pub(super) enum NextLine<'a> {
    /// A line, without its CRLF, and where it begins.
    Line { start: usize, line: &'a [u8] },
    /// The line's end has not arrived.
    Partial,
    /// The line does not end before `end_max`.
    Overrun,
}

impl Lines {
    /// Where the next line begins, which is also how much is read.
    pub(super) fn at(self) -> usize {
        self.at
    }

    /// The next line, whose CRLF must lie before `end_max`.
    ///
    /// # Errors
    /// When LF stands without CR.
    pub(super) fn next<'a>(
        &mut self,
        octets: &'a [u8],
        end_max: usize,
    ) -> Result<NextLine<'a>, MessageError> {
        let rest = octets.get(self.searched..).unwrap_or_default();
        let Some(found) = memchr(b'\n', rest) else {
            self.searched = self.searched.max(octets.len());
            return Ok(if self.searched >= end_max {
                NextLine::Overrun
            } else {
                NextLine::Partial
            });
        };
        let end = self.searched + found;
        if end >= end_max {
            return Ok(NextLine::Overrun);
        }
        let start = self.at;
        let Some((b'\r', line)) = octets.get(start..end).and_then(<[u8]>::split_last) else {
            return Err(MessageError::BareLineFeed);
        };
        self.at = end + 1;
        self.searched = self.at;
        Ok(NextLine::Line { start, line })
    }
}

/// Cuts a field line in two (RFC 9112 §5).
///
/// # Errors
/// The rule it breaks.
pub(super) fn field_line(line: &[u8], start: usize) -> Result<FieldLine, MessageError> {
    let (name, [b':', value @ ..]) = octets::split_class(line, octets::is_tchar) else {
        return Err(name_error(line));
    };
    if name.is_empty() {
        return Err(MessageError::NameMissing);
    }
    if !octets::is_field_value(value) {
        return Err(value_error(value));
    }
    let name_end = start + name.len();
    let trimmed = octets::trim_ows(value);
    // One space, nearly always.
    let leading = match value {
        [b' ', next, ..] if !matches!(next, b' ' | b'\t') => 1,
        _ => value
            .iter()
            .take_while(|octet| matches!(octet, b' ' | b'\t'))
            .count(),
    };
    let value_start = name_end + 1 + if trimmed.is_empty() { 0 } else { leading };
    Ok(FieldLine {
        field: Field::of(name),
        name: Span::new(start, name_end),
        value: Span::new(value_start, value_start + trimmed.len()),
    })
}

/// Which rule a value breaks that holds a control octet.
#[cold]
fn value_error(value: &[u8]) -> MessageError {
    match octets::first_not_field_vchar(value) {
        Some(b'\r') => MessageError::BareCarriageReturn,
        octet => MessageError::ValueOctet {
            octet: octet.unwrap_or_default(),
        },
    }
}

/// Which rule a line breaks that does not begin with a name and a colon.
#[cold]
fn name_error(line: &[u8]) -> MessageError {
    // RFC 9112 §5.2: obsolete folding; before the first line, §2.2: a line some would not see.
    if matches!(line, [b' ' | b'\t', ..]) {
        return MessageError::Folded;
    }
    let after = line
        .iter()
        .position(|octet| !octets::is_tchar(*octet))
        .unwrap_or(line.len());
    match line.get(after..).unwrap_or_default() {
        [] => MessageError::ColonMissing,
        [b'\r', ..] => MessageError::BareCarriageReturn,
        // RFC 9112 §5.1: no white space before the colon; a server answers 400.
        rest if octets::trim_ows(rest).first() == Some(&b':') => MessageError::SpaceBeforeColon,
        [octet, ..] => MessageError::NameOctet { octet: *octet },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(String, String), MessageError> {
        let text = |span: Span| String::from_utf8_lossy(span.of(line.as_bytes())).into_owned();
        field_line(line.as_bytes(), 0).map(|line| (text(line.name), text(line.value)))
    }

    #[test]
    fn a_value_is_trimmed_and_a_name_is_not() {
        let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(parse("A: \tb c\t "), pair("A", "b c"));
        assert_eq!(parse("A:"), pair("A", ""));
        assert_eq!(parse("A: \t "), pair("A", ""));
        assert_eq!(parse("a_b:x:y"), pair("a_b", "x:y"));
        assert_eq!(parse("A : b"), Err(MessageError::SpaceBeforeColon));
        assert_eq!(parse(": b"), Err(MessageError::NameMissing));
        assert_eq!(
            parse("A b: c"),
            Err(MessageError::NameOctet { octet: b' ' })
        );
        assert_eq!(
            parse("\u{e9}: c"),
            Err(MessageError::NameOctet { octet: 0xC3 })
        );
    }

    #[test]
    fn the_search_for_a_lines_end_does_not_begin_again() {
        let mut lines = Lines::default();
        assert!(matches!(lines.next(b"abc", 100), Ok(NextLine::Partial)));
        assert_eq!(lines.searched, 3);
        let Ok(NextLine::Line {
            start: 0,
            line: b"abcd",
        }) = lines.next(b"abcd\r\nx", 100)
        else {
            panic!("no line");
        };
        assert_eq!(lines.at(), 6);
    }

    #[test]
    fn a_line_must_end_before_the_limit() {
        assert!(matches!(
            Lines::default().next(b"ab\r\n", 4),
            Ok(NextLine::Line { .. })
        ));
        assert!(matches!(
            Lines::default().next(b"abc\r\n", 4),
            Ok(NextLine::Overrun)
        ));
        assert!(matches!(
            Lines::default().next(b"abcd", 4),
            Ok(NextLine::Overrun)
        ));
        assert!(matches!(
            Lines::default().next(b"abc", 4),
            Ok(NextLine::Partial)
        ));
    }
}
