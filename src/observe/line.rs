//! One log line of keys and values, as JSON or as logfmt.
//!
//! Keys and words come from code and need no escaping; text comes from peers and always gets it.

use std::fmt::Display;
use std::io::Write;
use std::time::SystemTime;

use crate::observe::escape;
use crate::observe::escape::Quoting;
use crate::observe::stamp;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One JSON object a line.
    Json,
    /// `key=value` pairs.
    Logfmt,
}

/// A line being written at the end of a buffer.
#[derive(Debug)]
pub struct Line<'a> {
    out: &'a mut Vec<u8>,
    style: Style,
    separator: &'static str,
}

impl<'a> Line<'a> {
    /// Begins a line.
    pub fn begin(out: &'a mut Vec<u8>, style: Style) -> Self {
        let separator = match style {
            Style::Json => "{",
            Style::Logfmt => "",
        };
        Self {
            out,
            style,
            separator,
        }
    }

    /// Ends it.
    pub fn end(self) {
        let end: &[u8] = match self.style {
            Style::Json => b"}\n",
            Style::Logfmt => b"\n",
        };
        self.out.extend_from_slice(end);
    }

    /// A number.
    pub fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        self.out
            .extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A word of ours.
    pub fn word(&mut self, key: &'static str, value: &str) {
        self.shown(key, value);
    }

    /// Something whose text needs no escaping: a name, an address.
    pub fn shown(&mut self, key: &'static str, value: impl Display) {
        self.key(key);
        match self.style {
            // Writing to a vector cannot fail.
            Style::Json => write!(self.out, "\"{value}\"").ok(),
            Style::Logfmt => write!(self.out, "{value}").ok(),
        };
    }

    /// True or false.
    pub fn truth(&mut self, key: &'static str, value: impl Into<bool>) {
        self.key(key);
        self.out
            .extend_from_slice(if value.into() { b"true" } else { b"false" });
    }

    /// What a peer sent, or any text that is not known to be harmless.
    pub fn text(&mut self, key: &'static str, octets: &[u8]) {
        self.key(key);
        match self.style {
            Style::Json => escape::quoted(self.out, octets, Quoting::Json),
            Style::Logfmt if is_bare(octets) => self.out.extend_from_slice(octets),
            Style::Logfmt => escape::quoted(self.out, octets, Quoting::Backslash),
        }
    }

    /// A moment.
    pub fn time(&mut self, key: &'static str, at: SystemTime) {
        self.key(key);
        match self.style {
            Style::Json => {
                self.out.push(b'"');
                stamp::rfc3339(self.out, at);
                self.out.push(b'"');
            }
            Style::Logfmt => stamp::rfc3339(self.out, at),
        }
    }

    fn key(&mut self, key: &'static str) {
        self.out.extend_from_slice(self.separator.as_bytes());
        match self.style {
            Style::Json => {
                self.separator = ",";
                self.out.push(b'"');
                self.out.extend_from_slice(key.as_bytes());
                self.out.extend_from_slice(b"\":");
            }
            Style::Logfmt => {
                self.separator = " ";
                self.out.extend_from_slice(key.as_bytes());
                self.out.push(b'=');
            }
        }
    }
}

/// Whether logfmt may write it without quotes: neither empty nor with space, `=`, `"` or `\`.
fn is_bare(octets: &[u8]) -> bool {
    let bare = |octet: &u8| octet.is_ascii_graphic() && !matches!(octet, b'=' | b'"' | b'\\');
    !octets.is_empty() && octets.iter().all(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(style: Style, text: &[u8]) -> String {
        let mut out = Vec::new();
        let mut line = Line::begin(&mut out, style);
        line.number("n", 7);
        line.text("t", text);
        line.truth("b", true);
        line.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_is_one_object_a_line() {
        assert_eq!(
            line(Style::Json, b"a b"),
            "{\"n\":7,\"t\":\"a b\",\"b\":true}\n"
        );
    }

    #[test]
    fn logfmt_quotes_only_what_needs_it() {
        assert_eq!(line(Style::Logfmt, b"/a?b"), "n=7 t=/a?b b=true\n");
        assert_eq!(line(Style::Logfmt, b"a b"), "n=7 t=\"a b\" b=true\n");
        assert_eq!(
            line(Style::Logfmt, b"x y=\"z\""),
            "n=7 t=\"x y=\\\"z\\\"\" b=true\n"
        );
        assert_eq!(line(Style::Logfmt, b""), "n=7 t=\"\" b=true\n");
    }
}
