//! One log line of keys and values, as JSON or as logfmt.
//!
//! Keys and words come from code and need no escaping; text comes from peers and always gets it.

use std::io::Write;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::SystemTime;

use crate::h1::encode;
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

/// A line being written at the end of a buffer. What writes to it is inlined always, so that its style
/// is known there and is not asked at each of a line's hundred and fifty pieces.
#[derive(Debug)]
pub struct Line<'a> {
    out: &'a mut Vec<u8>,
    style: Style,
}

impl<'a> Line<'a> {
    /// Begins a line.
    pub fn begin(out: &'a mut Vec<u8>, style: Style) -> Self {
        if style == Style::Json {
            out.push(b'{');
        }
        Self { out, style }
    }

    /// Ends it.
    pub fn end(self) {
        // Each value is followed by what separates it from the next; the last has none.
        if matches!(self.out.last(), Some(b',' | b' ')) {
            self.out.pop();
        }
        let end: &[u8] = match self.style {
            Style::Json => b"}\n",
            Style::Logfmt => b"\n",
        };
        self.out.extend_from_slice(end);
    }

    /// A number.
    #[inline(always)]
    pub fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        self.value(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A word of ours.
    #[inline(always)]
    pub fn word(&mut self, key: &'static str, value: &str) {
        self.key(key);
        self.quote();
        self.out.extend_from_slice(value.as_bytes());
        self.quote();
        self.separate();
    }

    /// An address, without a port where it is 0.
    #[inline(always)]
    pub fn address(&mut self, key: &'static str, address: SocketAddr) {
        self.key(key);
        self.quote();
        // An IPv6 address stands in brackets before a port.
        match (address.ip(), address.port()) {
            (ip, 0) => encode::address(self.out, ip),
            (IpAddr::V4(ip), port) => {
                encode::address(self.out, IpAddr::V4(ip));
                self.out.push(b':');
                self.value_of(port.into());
            }
            // Writing to a vector cannot fail.
            (IpAddr::V6(_), _) => write!(self.out, "{address}").unwrap_or(()),
        }
        self.quote();
        self.separate();
    }

    /// True or false.
    #[inline(always)]
    pub fn truth(&mut self, key: &'static str, value: impl Into<bool>) {
        self.key(key);
        self.value(if value.into() { b"true" } else { b"false" });
    }

    /// What a peer sent, or any text that is not known to be harmless.
    #[inline(always)]
    pub fn text(&mut self, key: &'static str, octets: &[u8]) {
        self.key(key);
        match self.style {
            Style::Json => escape::quoted(self.out, octets, Quoting::Json),
            Style::Logfmt if is_bare(octets) => self.out.extend_from_slice(octets),
            Style::Logfmt => escape::quoted(self.out, octets, Quoting::Backslash),
        }
        self.separate();
    }

    /// A moment.
    #[inline(always)]
    pub fn time(&mut self, key: &'static str, at: SystemTime) {
        self.key(key);
        self.quote();
        stamp::rfc3339(self.out, at);
        self.quote();
        self.separate();
    }

    /// Inlined always: keys are known where they are written, so that one is a few stores. A line has
    /// thirty of them.
    #[inline(always)]
    fn key(&mut self, key: &'static str) {
        self.quote();
        self.out.extend_from_slice(key.as_bytes());
        match self.style {
            Style::Json => self.out.extend_from_slice(b"\":"),
            Style::Logfmt => self.out.push(b'='),
        }
    }

    #[inline(always)]
    fn value(&mut self, text: &[u8]) {
        self.out.extend_from_slice(text);
        self.separate();
    }

    #[inline(always)]
    fn value_of(&mut self, number: u64) {
        self.out
            .extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    #[inline(always)]
    fn quote(&mut self) {
        if self.style == Style::Json {
            self.out.push(b'"');
        }
    }

    #[inline(always)]
    fn separate(&mut self) {
        self.out.push(match self.style {
            Style::Json => b',',
            Style::Logfmt => b' ',
        });
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
