//! The PROXY protocol, versions 1 and 2: who stands behind a load balancer that passes octets on.
//!
//! Octets in, a decision out, asked again with more until it is made: at most [`HEADER_OCTETS_MAX`]
//! octets are looked at, and a decision does not change when more come. Strict, since what is read
//! here becomes the client's address: one way to write an address or a number, nothing skipped
//! before the header. Absent on purpose: whether the peer is to be believed, which is the caller's
//! to decide, and what the other extensions (TLVs) of version 2 say, which nobody here asks.
//!
//! Cited as "PROXY §2.1" and so on: *The PROXY protocol, versions 1 & 2* (2020-03-05).

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use crate::h1::octets;

/// What the first octets of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preamble {
    /// Not known before more come.
    NeedMore,
    /// A header, whole.
    Header {
        /// Who began the connection. `None`: the peer itself (a health check of the balancer), or
        /// somebody who cannot be said in an IP address.
        source: Option<SocketAddr>,
        /// How many octets it is; what follows is the client's.
        consumed: usize,
    },
    /// No header that can be believed.
    Refused(Refusal),
}

/// Why the first octets of a connection are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// They begin as neither version does: the client speaks for itself.
    Absent,
    /// A line of version 1 is longer than it may be.
    LineTooLong,
    /// A line of version 1 ends in a bare LF.
    BareLf,
    /// Version 1 says neither TCP4, TCP6 nor UNKNOWN.
    Protocol,
    /// A line of version 1 has a part too few, or too many.
    Parts,
    /// What stands for an address is none of the family that was said.
    Address,
    /// What stands for a port is none.
    Port,
    /// The binary form in another version than 2.
    Version,
    /// Version 2 says neither LOCAL nor PROXY.
    Command,
    /// Version 2 names a family or a transport that there is not.
    Family,
    /// A header of version 2 is longer than is accepted.
    TooLong {
        /// As long as it says.
        length: u16,
    },
    /// A header of version 2 ends within its addresses.
    CutShort,
    /// An extension of version 2 is longer than what is left of the header.
    Extension,
    /// The checksum of version 2 is that of another header.
    Checksum,
}

impl Refusal {
    /// A clause for the log.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Absent => "there is no header",
            Self::LineTooLong => "a v1 line has no end within 107 octets",
            Self::BareLf => "a v1 line ends in a bare LF",
            Self::Protocol => "v1 says neither TCP4, TCP6 nor UNKNOWN",
            Self::Parts => "a v1 line has a part too few or too many",
            Self::Address => "an address of v1 is none of its family",
            Self::Port => "a port of v1 is none",
            Self::Version => "the binary form is not of version 2",
            Self::Command => "v2 says neither LOCAL nor PROXY",
            Self::Family => "v2 names an unknown family or transport",
            Self::TooLong { .. } => "a v2 header is longer than 4096 octets",
            Self::CutShort => "a v2 header ends within its addresses",
            Self::Extension => "an extension of v2 does not fit its header",
            Self::Checksum => "the CRC32C of a v2 header is wrong",
        }
    }
}

/// Reads the header that a connection begins with. `octets` are all that came so far.
#[must_use]
pub fn read(octets: &[u8]) -> Preamble {
    let decided = if begins_as(octets, SIGNATURE_V2) {
        version_2(octets)
    } else if begins_as(octets, SIGNATURE_V1) {
        version_1(octets)
    } else {
        Err(Refusal::Absent)
    };
    decided.unwrap_or_else(Preamble::Refused)
}

/// Whether the octets, as far as they came, are those of the signature.
fn begins_as(octets: &[u8], signature: &[u8]) -> bool {
    octets.iter().zip(signature).all(|(came, due)| came == due)
}

/// PROXY §2.1: `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 CRLF`.
fn version_1(all: &[u8]) -> Result<Preamble, Refusal> {
    let looked_at = all.get(..LINE_OCTETS_MAX).unwrap_or(all);
    let Some(end) = octets::position_of(looked_at, b'\n') else {
        return match all.len() < LINE_OCTETS_MAX {
            true => Ok(Preamble::NeedMore),
            false => Err(Refusal::LineTooLong),
        };
    };
    let line = looked_at.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").ok_or(Refusal::BareLf)?;
    let mut parts = line.split(|octet| *octet == b' ').skip(1);
    let source = match parts.next() {
        // "the receiver must ignore anything presented before the CRLF is found".
        Some(b"UNKNOWN") => None,
        Some(b"TCP4") => Some(endpoints(parts, Family::V4)?),
        Some(b"TCP6") => Some(endpoints(parts, Family::V6)?),
        _ => return Err(Refusal::Protocol),
    };
    let consumed = end + 1;
    Ok(Preamble::Header { source, consumed })
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

/// The source of a line: both ends are read, so that a line is wrong if either is.
fn endpoints<'a>(
    mut parts: impl Iterator<Item = &'a [u8]>,
    family: Family,
) -> Result<SocketAddr, Refusal> {
    let mut next = || parts.next().ok_or(Refusal::Parts);
    let (source, destination) = (next()?, next()?);
    let (source_port, destination_port) = (next()?, next()?);
    if parts.next().is_some() {
        return Err(Refusal::Parts);
    }
    address(destination, family)?;
    port(destination_port)?;
    Ok(SocketAddr::new(
        address(source, family)?,
        port(source_port)?,
    ))
}

/// An address as text. The library's readers are strict enough for octets of a peer: digits, dots
/// and colons only, no sign, no space, no zone, no octal.
fn address(octets: &[u8], family: Family) -> Result<IpAddr, Refusal> {
    let text = std::str::from_utf8(octets).map_err(|_| Refusal::Address)?;
    let address = match family {
        Family::V4 => text.parse().map(IpAddr::V4),
        Family::V6 => text.parse().map(IpAddr::V6),
    };
    address.map_err(|_| Refusal::Address)
}

/// A decimal without zeros in front, up to 65535.
fn port(digits: &[u8]) -> Result<u16, Refusal> {
    if matches!(digits, [b'0', _, ..]) {
        return Err(Refusal::Port);
    }
    let number = octets::decimal(digits).ok_or(Refusal::Port)?;
    u16::try_from(number).map_err(|_| Refusal::Port)
}

/// PROXY §2.2: the signature, version and command, family and transport, a length, and as many
/// octets.
fn version_2(all: &[u8]) -> Result<Preamble, Refusal> {
    let fixed = all.get(SIGNATURE_V2.len()..).unwrap_or_default();
    if let Some(version_and_command) = fixed.first() {
        check_command(*version_and_command)?;
    }
    if let Some(family) = fixed.get(1) {
        // "other values … must be rejected as invalid by receivers".
        if family >> 4 > 3 || family & 0x0f > 2 {
            return Err(Refusal::Family);
        }
    }
    let [version_and_command, family, high, low, rest @ ..] = fixed else {
        return Ok(Preamble::NeedMore);
    };
    let length = u16::from_be_bytes([*high, *low]);
    if length > LENGTH_MAX {
        return Err(Refusal::TooLong { length });
    }
    let Some(body) = rest.get(..usize::from(length)) else {
        return Ok(Preamble::NeedMore);
    };
    let consumed = FIXED_OCTETS_V2 + body.len();
    let is_local = version_and_command & 0x0f == COMMAND_LOCAL;
    let header = all.get(..consumed).unwrap_or_default();
    let source = match *family {
        // "the receiver must … use the real connection endpoints and must discard the protocol
        // block including the family".
        _ if is_local => None,
        STREAM_V4 => Some(source_v4(body, header)?),
        STREAM_V6 => Some(source_v6(body, header)?),
        // Unix sockets, datagrams and the unsaid have no address that would mean something here.
        _ => None,
    };
    Ok(Preamble::Header { source, consumed })
}

fn check_command(version_and_command: u8) -> Result<(), Refusal> {
    match (version_and_command >> 4, version_and_command & 0x0f) {
        (2, COMMAND_LOCAL | COMMAND_PROXY) => Ok(()),
        (2, _) => Err(Refusal::Command),
        _ => Err(Refusal::Version),
    }
}

fn source_v4(body: &[u8], header: &[u8]) -> Result<SocketAddr, Refusal> {
    let (source, rest) = body.split_first_chunk::<4>().ok_or(Refusal::CutShort)?;
    let (_destination, rest) = rest.split_first_chunk::<4>().ok_or(Refusal::CutShort)?;
    let port = ports(rest, header)?;
    Ok(SocketAddr::from((Ipv4Addr::from(*source), port)))
}

fn source_v6(body: &[u8], header: &[u8]) -> Result<SocketAddr, Refusal> {
    let (source, rest) = body.split_first_chunk::<16>().ok_or(Refusal::CutShort)?;
    let (_destination, rest) = rest.split_first_chunk::<16>().ok_or(Refusal::CutShort)?;
    let port = ports(rest, header)?;
    Ok(SocketAddr::from((Ipv6Addr::from(*source), port)))
}

/// The source's port; behind the ports come the extensions.
fn ports(octets: &[u8], header: &[u8]) -> Result<u16, Refusal> {
    let (ports, extensions) = octets.split_first_chunk::<4>().ok_or(Refusal::CutShort)?;
    let [high, low, ..] = *ports;
    check_extensions(extensions, header)?;
    Ok(u16::from_be_bytes([high, low]))
}

/// PROXY §2.2: extensions are a type, a length and as many octets. They are skipped, but a checksum
/// that is there is checked: "the receiver MUST calculate the checksum … and abort the connection
/// if they do not match".
fn check_extensions(extensions: &[u8], header: &[u8]) -> Result<(), Refusal> {
    let mut left = extensions;
    while let [kind, high, low, rest @ ..] = left {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, after) = rest.split_at_checked(length).ok_or(Refusal::Extension)?;
        if *kind == TYPE_CRC32C {
            let said = value.try_into().map_err(|_| Refusal::Extension)?;
            let at = header.len() - after.len() - value.len();
            // The sum is taken with zeros where it stands.
            let (before, _) = header.split_at_checked(at).ok_or(Refusal::Extension)?;
            let sum = crc32c([before, &[0; 4], after]);
            if sum != u32::from_be_bytes(said) {
                return Err(Refusal::Checksum);
            }
        }
        left = after;
    }
    match left.is_empty() {
        true => Ok(()),
        false => Err(Refusal::Extension),
    }
}

/// CRC-32C (RFC 3720 §B.4), bit by bit: a header is short, comes once a connection, and a table
/// would be one more thing to be wrong.
fn crc32c(parts: [&[u8]; 3]) -> u32 {
    let sum = parts
        .into_iter()
        .flatten()
        .fold(u32::MAX, |mut sum, octet| {
            sum ^= u32::from(*octet);
            for _ in 0..8 {
                let carry = if sum & 1 == 1 { CASTAGNOLI } else { 0 };
                sum = (sum >> 1) ^ carry;
            }
            sum
        });
    !sum
}

const SIGNATURE_V1: &[u8] = b"PROXY ";

/// Chosen so that no text protocol takes it for one of its own.
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family and transport, length.
const FIXED_OCTETS_V2: usize = 16;

/// Longest line of version 1 with its CRLF: an UNKNOWN with two full IPv6 addresses (PROXY §2.1).
const LINE_OCTETS_MAX: usize = 107;

/// Longest rest of a header of version 2: with it the header has 4096 octets, as many as nginx takes.
/// Room for the extensions that carry a client's certificate; longer: `TooLong`.
const LENGTH_MAX: u16 = 4096 - FIXED_OCTETS_V2 as u16;

/// Most octets that are looked at.
pub const HEADER_OCTETS_MAX: usize = FIXED_OCTETS_V2 + LENGTH_MAX as usize;

const COMMAND_LOCAL: u8 = 0;
const COMMAND_PROXY: u8 = 1;
const STREAM_V4: u8 = 0x11;
const STREAM_V6: u8 = 0x21;
const TYPE_CRC32C: u8 = 0x03;

/// The polynomial of CRC-32C, its bits turned round.
const CASTAGNOLI: u32 = 0x82f6_3b78;

#[cfg(test)]
mod tests {
    use super::*;

    fn header(source: Option<&str>, consumed: usize) -> Preamble {
        let source = source.map(|source| source.parse().unwrap());
        Preamble::Header { source, consumed }
    }

    /// The binary form of these parts.
    fn v2(version_and_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [
            SIGNATURE_V2,
            &[version_and_command, family],
            &length[..],
            body,
        ]
        .concat()
    }

    const PAIR_V4: &[u8] = &[192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 0x04, 0x01, 0xbb];

    fn pair_v6() -> Vec<u8> {
        let one: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let two: Ipv6Addr = "2001:db8::2".parse().unwrap();
        [&one.octets()[..], &two.octets(), &[0xdc, 0x04, 0x01, 0xbb]].concat()
    }

    fn extension(kind: u8, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap().to_be_bytes();
        [&[kind], &length[..], value].concat()
    }

    /// Headers that are accepted, and whom they name.
    fn accepted() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let longest = "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                       ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        assert_eq!(longest.len(), LINE_OCTETS_MAX);
        let text = |line: &str| line.as_bytes().to_vec();
        let noop = extension(0x04, &[0; 7]);
        let with_noop = [PAIR_V4, &noop].concat();
        let mut fullest = PAIR_V4.to_vec();
        fullest.extend(extension(0x04, &vec![0; LENGTH_MAX as usize - 12 - 3]));
        vec![
            (
                text("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"),
                Some("192.0.2.1:56324"),
            ),
            (
                text("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n"),
                Some("255.255.255.255:65535"),
            ),
            (
                text("PROXY TCP6 2001:db8::1 ::1 1 2\r\n"),
                Some("[2001:db8::1]:1"),
            ),
            (
                text("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"),
                Some("[::ffff:192.0.2.1]:1"),
            ),
            (text("PROXY UNKNOWN\r\n"), None),
            (text("PROXY UNKNOWN any thing\r at all\r\n"), None),
            (text(longest), None),
            (v2(0x21, 0x11, PAIR_V4), Some("192.0.2.1:56324")),
            (v2(0x21, 0x21, &pair_v6()), Some("[2001:db8::1]:56324")),
            (v2(0x21, 0x11, &with_noop), Some("192.0.2.1:56324")),
            (v2(0x21, 0x11, &fullest), Some("192.0.2.1:56324")),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, PAIR_V4), None),
            (v2(0x20, 0x11, b"junk"), None),
            (v2(0x21, 0x00, &[]), None),
            (v2(0x21, 0x12, PAIR_V4), None),
            (v2(0x21, 0x31, &[b'/'; 216]), None),
        ]
    }

    /// Octets that are refused, and why.
    fn refused() -> Vec<(Vec<u8>, Refusal)> {
        let v1 = |rest: &str, why| (format!("PROXY {rest}").into_bytes(), why);
        let mut version_3 = v2(0x31, 0x11, PAIR_V4);
        version_3.extend(b"more");
        vec![
            (b"GET / HTTP/1.1\r\n".to_vec(), Refusal::Absent),
            (b"proxy TCP4 ".to_vec(), Refusal::Absent),
            (b" PROXY TCP4 ".to_vec(), Refusal::Absent),
            (b"PROXYTCP4".to_vec(), Refusal::Absent),
            (b"\r\nGET / HTTP/1.1\r\n".to_vec(), Refusal::Absent),
            (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), Refusal::Absent),
            (
                [b"PROXY UNKNOWN ", &[b'a'; 93][..]].concat(),
                Refusal::LineTooLong,
            ),
            v1("TCP4 1.1.1.1 2.2.2.2 1 2\n", Refusal::BareLf),
            v1("UNKNOWN\n", Refusal::BareLf),
            v1("tcp4 1.1.1.1 2.2.2.2 1 2\r\n", Refusal::Protocol),
            v1("UDP4 1.1.1.1 2.2.2.2 1 2\r\n", Refusal::Protocol),
            v1("\r\n", Refusal::Protocol),
            v1(" TCP4 1.1.1.1 2.2.2.2 1 2\r\n", Refusal::Protocol),
            v1("TCP4\r\n", Refusal::Parts),
            v1("TCP4 1.1.1.1 2.2.2.2 1\r\n", Refusal::Parts),
            v1("TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", Refusal::Parts),
            v1("TCP4 1.1.1.1 2.2.2.2 1 2 \r\n", Refusal::Parts),
            v1("TCP4 1.1.1.1  2.2.2.2 1 2\r\n", Refusal::Parts),
            v1("TCP4 ::1 ::1 1 2\r\n", Refusal::Address),
            v1("TCP6 1.1.1.1 1.1.1.1 1 2\r\n", Refusal::Address),
            v1("TCP4 1.1.1.01 2.2.2.2 1 2\r\n", Refusal::Address),
            v1("TCP4 1.1.1 2.2.2.2 1 2\r\n", Refusal::Address),
            v1("TCP4 256.1.1.1 2.2.2.2 1 2\r\n", Refusal::Address),
            v1("TCP4 1.1.1.1 host 1 2\r\n", Refusal::Address),
            v1("TCP6 fe80::1%eth0 ::1 1 2\r\n", Refusal::Address),
            v1("TCP4 +1.1.1.1 2.2.2.2 1 2\r\n", Refusal::Address),
            v1("TCP4 1.1.1.1 2.2.2.2 65536 2\r\n", Refusal::Port),
            v1("TCP4 1.1.1.1 2.2.2.2 1 65536\r\n", Refusal::Port),
            v1("TCP4 1.1.1.1 2.2.2.2 +1 2\r\n", Refusal::Port),
            v1("TCP4 1.1.1.1 2.2.2.2 01 2\r\n", Refusal::Port),
            v1("TCP4 1.1.1.1 2.2.2.2 1 2\r\r\n", Refusal::Port),
            (version_3, Refusal::Version),
            (v2(0x11, 0x11, PAIR_V4), Refusal::Version),
            (v2(0x22, 0x11, PAIR_V4), Refusal::Command),
            (v2(0x21, 0x41, PAIR_V4), Refusal::Family),
            (v2(0x21, 0x13, PAIR_V4), Refusal::Family),
            (
                v2(0x21, 0x11, &[0; 4081]),
                Refusal::TooLong { length: 4081 },
            ),
            (v2(0x21, 0x11, &PAIR_V4[..11]), Refusal::CutShort),
            (v2(0x21, 0x21, PAIR_V4), Refusal::CutShort),
            (
                v2(0x21, 0x11, &[PAIR_V4, &[0x04, 0, 9]].concat()),
                Refusal::Extension,
            ),
            (
                v2(0x21, 0x11, &[PAIR_V4, &[0x04]].concat()),
                Refusal::Extension,
            ),
            (
                v2(0x21, 0x11, &[PAIR_V4, &extension(0x03, &[1, 2])].concat()),
                Refusal::Extension,
            ),
            (
                v2(0x21, 0x11, &[PAIR_V4, &extension(0x03, &[0; 4])].concat()),
                Refusal::Checksum,
            ),
        ]
    }

    #[test]
    fn a_header_names_who_began_the_connection() {
        for (octets, source) in accepted() {
            let shown = octets.escape_ascii();
            assert_eq!(read(&octets), header(source, octets.len()), "{shown}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused_with_the_reason() {
        for (octets, why) in refused() {
            let shown = octets.escape_ascii();
            assert_eq!(read(&octets), Preamble::Refused(why), "{shown}");
        }
    }

    #[test]
    fn a_header_that_came_in_part_is_waited_for_wherever_it_was_split() {
        for (octets, _) in accepted() {
            for at in 0..octets.len() {
                let came = &octets[..at];
                assert_eq!(read(came), Preamble::NeedMore, "{}", came.escape_ascii());
            }
        }
    }

    #[test]
    fn what_follows_a_header_is_not_part_of_it() {
        for (mut octets, source) in accepted() {
            let length = octets.len();
            octets.extend(b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n\r\n");
            assert_eq!(read(&octets), header(source, length));
        }
    }

    #[test]
    fn a_refusal_comes_once_and_more_octets_do_not_change_it() {
        for (mut octets, why) in refused() {
            let first = (0..=octets.len()).find(|at| read(&octets[..*at]) != Preamble::NeedMore);
            octets.extend([b'a'; 600]);
            for at in first.unwrap()..octets.len() {
                assert_eq!(read(&octets[..at]), Preamble::Refused(why));
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_decided_within_the_limit_and_no_octet_beyond_it_is_asked_for(
            begins in proptest::sample::select(vec![SIGNATURE_V1, SIGNATURE_V2, b""]),
            rest in proptest::collection::vec(proptest::num::u8::ANY, HEADER_OCTETS_MAX),
        ) {
            let octets = [begins, &rest[..]].concat();
            let decided = read(&octets);
            proptest::prop_assert_ne!(decided, Preamble::NeedMore);
            proptest::prop_assert_eq!(read(&octets[..HEADER_OCTETS_MAX]), decided);
            if let Preamble::Header { consumed, .. } = decided {
                proptest::prop_assert!(consumed <= HEADER_OCTETS_MAX);
            }
        }
    }

    #[test]
    fn a_right_checksum_is_accepted_and_one_wrong_bit_is_not() {
        let unsummed = extension(0x03, &[0; 4]);
        let behind = extension(0x02, b"it.test");
        let mut octets = v2(0x21, 0x11, &[PAIR_V4, &unsummed, &behind].concat());
        let sum = crc32c([&octets, &[], &[]]).to_be_bytes();
        let at = FIXED_OCTETS_V2 + PAIR_V4.len() + 3;
        octets[at..at + 4].copy_from_slice(&sum);
        assert_eq!(read(&octets), header(Some("192.0.2.1:56324"), octets.len()));
        *octets.last_mut().unwrap() ^= 1;
        assert_eq!(read(&octets), Preamble::Refused(Refusal::Checksum));
    }

    #[test]
    fn the_checksum_is_crc_32c() {
        // RFC 3720 §B.4, and the usual check value.
        assert_eq!(crc32c([&[0; 32], &[], &[]]), 0x8a91_36aa);
        assert_eq!(crc32c([b"123", b"456", b"789"]), 0xe306_9283);
    }
}
