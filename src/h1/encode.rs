//! Encoding: the one place where octets become a message. What is written reads one way only.
//!
//! Always HTTP/1.1 (RFC 9110 §2.5), always single spaces and CRLF. This is also the one place that
//! stands between a decoded or configured string and the wire: CR, LF, NUL and the other control
//! octets are refused here, whoever hands them in, so that no head can be split (RFC 9110 §5.5).
//! Absent on purpose: percent-decoding, case changes, ordering.

use std::fmt;
use std::io::Write;
use std::net::IpAddr;

use crate::h1::fields::Field;
use crate::h1::fields::FieldLine;
use crate::h1::octets;

/// An octet that would make the message read otherwise. The head is not to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwritable {
    /// The octet; 0 stands for a missing one where the grammar needs one.
    pub octet: u8,
}

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "octet {:#04x} cannot be written there", self.octet)
    }
}

impl std::error::Error for Unwritable {}

/// `method SP target SP HTTP/1.1 CRLF`
///
/// # Errors
/// When the method is no token or the target holds what no target has.
pub fn request_line(out: &mut Vec<u8>, method: &[u8], target: &[u8]) -> Result<(), Unwritable> {
    whole(octets::split_class(method, octets::is_tchar))?;
    whole(octets::split_target(target))?;
    append(out, [method, b" ", target, b" HTTP/1.1\r\n"]);
    Ok(())
}

/// `HTTP/1.1 SP status SP reason CRLF`. The space stands even before an empty reason
/// (RFC 9112 §4).
///
/// # Errors
/// When the reason holds a control octet, or the status has not three digits.
pub fn status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) -> Result<(), Unwritable> {
    if !(100..=999).contains(&status) {
        return Err(Unwritable { octet: 0 });
    }
    value_octets(reason)?;
    let mut digits = itoa::Buffer::new();
    let status = digits.format(status).as_bytes();
    append(out, [b"HTTP/1.1 ", status, b" ", reason, b"\r\n"]);
    Ok(())
}

/// `name: value CRLF`
///
/// # Errors
/// When the name is no token or the value holds a control octet.
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), Unwritable> {
    whole(octets::split_class(name, octets::is_tchar))?;
    value_octets(value)?;
    append(out, [name, b": ", value, b"\r\n"]);
    Ok(())
}

/// `name: value CRLF` of a field that we know, whose name needs no look.
///
/// # Errors
/// When the value holds a control octet, or the field is [`Field::Other`].
pub fn known_field(out: &mut Vec<u8>, field: Field, value: &[u8]) -> Result<(), Unwritable> {
    if field == Field::Other {
        return Err(Unwritable { octet: 0 });
    }
    value_octets(value)?;
    append(out, [field.name().as_bytes(), b": ", value, b"\r\n"]);
    Ok(())
}

/// A field line as it was received, its name's case included.
///
/// # Errors
/// As [`field`]: when `octets` is not what the line was read from.
pub fn field_line(out: &mut Vec<u8>, line: &FieldLine, octets: &[u8]) -> Result<(), Unwritable> {
    field(out, line.name.of(octets), line.value.of(octets))
}

/// `Content-Length: n CRLF`
pub fn content_length(out: &mut Vec<u8>, length: u64) {
    append(
        out,
        [
            b"Content-Length: ",
            itoa::Buffer::new().format(length).as_bytes(),
            b"\r\n",
        ],
    );
}

/// An IP address as text. It is in every request and every log line, so the usual kind goes without the formatter's
/// machinery, which costs ten times as much.
pub fn address(out: &mut Vec<u8>, address: IpAddr) {
    let IpAddr::V4(address) = address else {
        // Writing into memory cannot fail.
        return write!(out, "{address}").unwrap_or(());
    };
    let mut text = [0; "255.255.255.255.".len()];
    let mut end = 0;
    for number in address.octets() {
        let (decimal, len) = DECIMALS[usize::from(number)];
        if let Some(place) = text.get_mut(end..end + decimal.len()) {
            place.copy_from_slice(&decimal);
        }
        end += len;
    }
    // Without the last dot.
    out.extend_from_slice(text.get(..end - 1).unwrap_or_default());
}

/// `Transfer-Encoding: chunked CRLF`
pub fn chunked_coding(out: &mut Vec<u8>) {
    append(out, [b"Transfer-Encoding: chunked\r\n"]);
}

/// The empty line after a field section.
pub fn end_of_head(out: &mut Vec<u8>) {
    append(out, [b"\r\n"]);
}

/// The chunk-size line before `len` octets of data. Nothing for no data: a chunk of size 0 would be
/// the last one.
pub fn chunk_head(out: &mut Vec<u8>, len: usize) {
    if len == 0 {
        return;
    }
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        let nibble = (len >> (place * 4)) & 0xF;
        out.extend(HEX.get(nibble));
    }
    append(out, [b"\r\n"]);
}

/// The line end after `len` octets of a chunk's data.
pub fn chunk_end(out: &mut Vec<u8>, len: usize) {
    if len > 0 {
        append(out, [b"\r\n"]);
    }
}

/// The last chunk. A trailer section, if only its empty line, follows ([`end_of_head`]).
pub fn last_chunk(out: &mut Vec<u8>) {
    append(out, [b"0\r\n"]);
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Each number of an IPv4 address with the dot behind it, and how many octets these are.
static DECIMALS: [([u8; 4], usize); 256] = decimals();

const fn decimals() -> [([u8; 4], usize); 256] {
    let mut decimals = [([b'.'; 4], 0); 256];
    let mut number = 0;
    while number < decimals.len() {
        let units = number as u8; // below 256
        let [a, b, c] = [
            b'0' + units / 100,
            b'0' + units / 10 % 10,
            b'0' + units % 10,
        ];
        decimals[number] = match units {
            ..10 => ([c, b'.', b'.', b'.'], 2),
            10..100 => ([b, c, b'.', b'.'], 3),
            100.. => ([a, b, c, b'.'], 4),
        };
        number += 1;
    }
    decimals
}

/// One reservation for all parts. Inlined always: then the parts of known length are stores and not
/// calls.
#[inline(always)]
fn append<const N: usize>(out: &mut Vec<u8>, parts: [&[u8]; N]) {
    out.reserve(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Of octets split before the first illegal one: none must be left, and some must be there.
fn whole(split: (&[u8], &[u8])) -> Result<(), Unwritable> {
    match split {
        ([], []) => Err(Unwritable { octet: 0 }),
        (_, [octet, ..]) => Err(Unwritable { octet: *octet }),
        (_, []) => Ok(()),
    }
}

fn value_octets(octets: &[u8]) -> Result<(), Unwritable> {
    match octets::first_control(octets).and_then(|at| octets.get(at)) {
        Some(octet) => Err(Unwritable { octet: *octet }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_split_a_head_is_not_written() {
        let mut out = Vec::new();
        for octet in [b'\r', b'\n', 0, 0x7F, 0x0B] {
            let evil = [b'a', octet, b'b'];
            assert_eq!(
                request_line(&mut out, &evil, b"/"),
                Err(Unwritable { octet })
            );
            assert_eq!(
                request_line(&mut out, b"GET", &evil),
                Err(Unwritable { octet })
            );
            assert_eq!(status_line(&mut out, 200, &evil), Err(Unwritable { octet }));
            assert_eq!(field(&mut out, &evil, b"v"), Err(Unwritable { octet }));
            assert_eq!(field(&mut out, b"n", &evil), Err(Unwritable { octet }));
        }
        assert!(field(&mut out, b"", b"v").is_err());
        assert!(known_field(&mut out, Field::Other, b"v").is_err());
        assert!(known_field(&mut out, Field::Host, b"a\r\nb").is_err());
        assert!(field(&mut out, b"a:", b"v").is_err());
        assert!(request_line(&mut out, b"GET", b"/ HTTP/1.1").is_err());
        assert!(status_line(&mut out, 99, b"").is_err());
        assert!(out.is_empty());
    }

    #[test]
    fn an_address_reads_as_everybody_writes_it() {
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "10.20.30.99",
            "255.100.9.200",
            "2001:db8::7",
        ] {
            let mut out = Vec::new();
            address(&mut out, text.parse().unwrap());
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn a_chunk_is_its_size_its_data_and_a_line_end() {
        for (len, head) in [
            (1, "1"),
            (15, "f"),
            (16, "10"),
            (0xabc, "abc"),
            (1 << 20, "100000"),
        ] {
            let mut out = Vec::new();
            chunk_head(&mut out, len);
            chunk_end(&mut out, len);
            assert_eq!(out, format!("{head}\r\n\r\n").as_bytes());
        }
    }

    #[test]
    fn no_data_makes_no_chunk() {
        let mut out = Vec::new();
        chunk_head(&mut out, 0);
        chunk_end(&mut out, 0);
        assert!(out.is_empty());
    }

    #[test]
    fn a_head_is_written_canonically() {
        let mut out = Vec::new();
        request_line(&mut out, b"GET", b"/").unwrap();
        field(&mut out, b"hOsT", b"a").unwrap();
        known_field(&mut out, Field::UserAgent, b"b").unwrap();
        content_length(&mut out, 5);
        chunked_coding(&mut out);
        end_of_head(&mut out);
        let text = "GET / HTTP/1.1\r\nhOsT: a\r\nUser-Agent: b\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(out, text.as_bytes());
        out.clear();
        status_line(&mut out, 204, b"").unwrap();
        assert_eq!(out, b"HTTP/1.1 204 \r\n");
    }
}
