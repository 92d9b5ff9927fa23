//! Lines: cutting a head or a trailer section into lines, and a line into name and value.
//!
//! A line is cut when it is there whole, or when an octet is there that no line holds: a peer that
//! stops behind it is answered at once and not when its time is over. The search goes on where it
//! stopped: fed octet by octet, the work stays linear and the outcome the same. Absent on purpose:
//! leniency. RFC 9112 §2.2 lets a recipient take LF for CRLF; two recipients that differ in it see
//! two messages, so only CRLF ends a line here.

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
    /// Up to where no control octet was found.
    searched: usize,
}

/// What comes next.
pub(super) enum NextLine<'a> {
    /// A line, without its CRLF, and where it begins. It holds no control octet but tabs.
    Line { start: usize, line: &'a [u8] },
    /// A line up to the first octet that makes it illegal: a control octet, or CR without LF.
    Broken { start: usize, line: &'a [u8] },
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

    /// The octets from the next line on, where none of it was looked at before.
    #[inline]
    pub(super) fn fresh<'a>(&self, octets: &'a [u8]) -> Option<&'a [u8]> {
        let rest = octets.get(self.at..)?;
        (self.searched == self.at).then_some(rest)
    }

    /// The next line begins there.
    #[inline]
    pub(super) fn next_at(&mut self, at: usize) {
        self.at = at;
        self.searched = at;
    }

    /// The next field line, where it is legal, whole and not looked at before: what nearly every one
    /// is. It is read in one pass, where [`Lines::next`] and [`field_line`] take two. None: these
    /// say what it is instead, and nothing has changed. CRLF must lie before `end_max`.
    ///
    /// Inlined always: it is the body of the one loop that reads heads, and a line is read back from
    /// memory otherwise, at a twentieth of the whole.
    #[inline(always)]
    pub(super) fn next_plain(&mut self, octets: &[u8], end_max: usize) -> Option<FieldLine> {
        let start = self.at;
        let octets = octets.get(..end_max).unwrap_or(octets);
        let line = octets.get(start..)?;
        // Behind the empty line there may be content, which no colon is searched in.
        if self.searched != start || line.first() == Some(&b'\r') {
            return None;
        }
        let (name, value) = line.split_at_checked(octets::position_of(line, b':')?)?;
        let field = known_or_token(name)?;
        let value = octets::trim_ows_start(value.get(1..)?);
        let (value, end) = value.split_at_checked(octets::first_control(value)?)?;
        let [b'\r', b'\n', next @ ..] = end else {
            return None;
        };
        let value_start = octets.len() - end.len() - value.len();
        let value_end = value_start + octets::trim_ows_end(value).len();
        self.next_at(octets.len() - next.len());
        Some(FieldLine {
            field,
            name: Span::new(start, start + name.len()),
            value: Span::new(value_start, value_end),
        })
    }

    /// Whether the next line is the empty one, there whole and not looked at before; then it is read.
    #[inline]
    pub(super) fn next_is_empty(&mut self, octets: &[u8], end_max: usize) -> bool {
        let octets = octets.get(..end_max).unwrap_or(octets);
        let is_empty = matches!(self.fresh(octets), Some([b'\r', b'\n', ..]));
        if is_empty {
            self.next_at(self.at + 2);
        }
        is_empty
    }

    /// The next line, whose CRLF must lie before `end_max`. What lies behind that is not looked at,
    /// because it might not be there yet.
    ///
    /// # Errors
    /// When LF stands without CR.
    #[inline]
    pub(super) fn next<'a>(
        &mut self,
        octets: &'a [u8],
        end_max: usize,
    ) -> Result<NextLine<'a>, MessageError> {
        let octets = octets.get(..end_max).unwrap_or(octets);
        let start = self.at;
        let rest = octets.get(self.searched..).unwrap_or_default();
        let found = octets::first_control(rest);
        let end = self.searched + found.unwrap_or(rest.len());
        self.searched = end;
        match octets.get(end..).unwrap_or_default() {
            [b'\r', b'\n', ..] => {
                self.next_at(end + 2);
                let line = octets.get(start..end).unwrap_or_default();
                Ok(NextLine::Line { start, line })
            }
            [b'\n', ..] => Err(MessageError::BareLineFeed),
            [] | [b'\r'] if octets.len() >= end_max => Ok(NextLine::Overrun),
            [] | [b'\r'] => Ok(NextLine::Partial),
            [_, ..] => {
                let line = octets.get(start..=end).unwrap_or_default();
                Ok(NextLine::Broken { start, line })
            }
        }
    }
}

/// Cuts a field line in two (RFC 9112 §5). The line holds no control octet, as [`Lines`] cuts it.
///
/// # Errors
/// The rule it breaks.
pub(super) fn field_line(line: &[u8], start: usize) -> Result<FieldLine, MessageError> {
    let Some((name, [_, value @ ..])) =
        octets::position_of(line, b':').and_then(|colon| line.split_at_checked(colon))
    else {
        return Err(name_error(line));
    };
    let field = known_or_token(name).ok_or_else(|| name_error(line))?;
    let value = octets::trim_ows_start(value);
    let value_start = start + line.len() - value.len();
    let value_end = value_start + octets::trim_ows_end(value).len();
    Ok(FieldLine {
        field,
        name: Span::new(start, start + name.len()),
        value: Span::new(value_start, value_end),
    })
}

/// Which field a name is, if it is a token; one that we know is.
#[inline]
fn known_or_token(name: &[u8]) -> Option<Field> {
    let field = Field::of(name);
    (field != Field::Other || octets::is_token(name)).then_some(field)
}

/// Which rule a field line breaks that is [`NextLine::Broken`].
#[cold]
pub(super) fn broken_field_line(line: &[u8], start: usize) -> MessageError {
    match (field_line(line, start), line.last()) {
        (Err(error), _) => error,
        (Ok(_), Some(b'\r') | None) => MessageError::BareCarriageReturn,
        (Ok(_), Some(octet)) => MessageError::ValueOctet { octet: *octet },
    }
}

/// Which rule a line breaks that does not begin with a name and a colon.
#[cold]
fn name_error(line: &[u8]) -> MessageError {
    let (name, rest) = octets::split_class(line, octets::is_tchar);
    match (name, rest) {
        // RFC 9112 §5.2: obsolete folding; before the first line, §2.2: a line some would not see.
        ([], [b' ' | b'\t', ..]) => MessageError::Folded,
        ([], [b':', ..]) => MessageError::NameMissing,
        (_, []) => MessageError::ColonMissing,
        (_, [b'\r', ..]) => MessageError::BareCarriageReturn,
        // RFC 9112 §5.1: no white space before the colon; a server answers 400.
        (_, rest) if octets::trim_ows_start(rest).first() == Some(&b':') => {
            MessageError::SpaceBeforeColon
        }
        (_, [octet, ..]) => MessageError::NameOctet { octet: *octet },
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
    fn a_line_is_the_same_whether_it_is_read_plain_or_cut_first() {
        for text in [
            "A: b",
            "A:b",
            "Host: \t x ",
            "A:",
            "A: ",
            "A: b:c\td",
            "Accept-Language: en",
        ] {
            let octets = format!("{text}\r\n");
            let plain = Lines::default().next_plain(octets.as_bytes(), octets.len());
            assert_eq!(plain, field_line(text.as_bytes(), 0).ok(), "{text}");
            assert!(plain.is_some(), "{text}");
            for short in 0..octets.len() {
                let plain = Lines::default().next_plain(octets.as_bytes(), short);
                assert_eq!(plain, None, "{text} up to {short}");
            }
        }
    }

    #[test]
    fn what_is_not_a_plain_line_changes_nothing() {
        for text in [
            "\r\n",
            ":",
            "A\r\nB: c\r\n",
            "A b: c\r\n",
            " A: b\r\n",
            "A: b\n",
            "A: \0\r\n",
        ] {
            let mut lines = Lines::default();
            assert_eq!(lines.next_plain(text.as_bytes(), 100), None, "{text:?}");
            assert_eq!((lines.at, lines.searched), (0, 0));
        }
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
