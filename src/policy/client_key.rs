//! Who the client is, for limits and the log: the peer, whom the PROXY protocol names, or whom a
//! trusted proxy names in a field.
//!
//! A list such as `X-Forwarded-For` is written from left to right, each proxy adding whom it saw.
//! So it is read from right to left, and only as far as the writers are trusted: the first address
//! that is not a trusted proxy's is the client, and what stands left of it is its own say-so
//! (RFC 7239 §8.1). Absent on purpose: `Forwarded`, whose elements are pairs; the configuration
//! refuses it as a key.

use std::net::IpAddr;
use std::net::SocketAddr;

use crate::h1::fields::FieldSection;
use crate::h1::octets;
use crate::policy::forwarded::Trust;

/// What clients are told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientKey {
    /// The address of the connection's peer.
    Peer,
    /// The address that the PROXY protocol header gives; the peer's where it gives none.
    ProxyProtocol,
    /// The address that this field gives, if the one who sends it is trusted.
    Field(Vec<u8>),
}

/// The client that the field `name` gives, as `peer` sent it; `peer` itself where the field gives
/// none. A member that is no address ends the walk: whoever wrote it is the last who is known.
pub fn named_by(
    name: &[u8],
    (fields, octets): (&FieldSection, &[u8]),
    peer: SocketAddr,
    trust: impl Fn(IpAddr) -> Trust,
) -> SocketAddr {
    let mut last = peer;
    if trust(peer.ip()) == Trust::Untrusted {
        return last;
    }
    let lines = fields.lines().iter().rev();
    let values = lines
        .filter(|line| octets::eq_ignore_case(line.name.of(octets), name))
        .map(|line| line.value.of(octets));
    let members = values.flat_map(|value| value.rsplit(|octet| *octet == b','));
    // RFC 9110 §5.6.1: empty members of a list are skipped.
    for member in members.map(octets::trim_ows).filter(|m| !m.is_empty()) {
        let Some(address) = address(member) else {
            return last;
        };
        last = address;
        if trust(address.ip()) == Trust::Untrusted {
            return last;
        }
    }
    last
}

/// An address with or without a port; without one the port is 0, which no connection has. The
/// library's readers take no sign, no space and no zone.
fn address(member: &[u8]) -> Option<SocketAddr> {
    // The longest is an IPv6 address in brackets with a port: 47 and 6 octets.
    let text = std::str::from_utf8(member).ok().filter(|t| t.len() <= 53)?;
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let host: Option<IpAddr> = match bare {
        Some(inside) => inside.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    };
    match host {
        Some(host) => Some(SocketAddr::new(host.to_canonical(), 0)),
        None => {
            let full: SocketAddr = text.parse().ok()?;
            Some(SocketAddr::new(full.ip().to_canonical(), full.port()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::fields::Field;
    use crate::h1::fields::FieldLine;
    use crate::h1::fields::Span;

    /// Trusted are 10.0.0.0/8 and 2001:db8::1; the peer is 10.0.0.9:99.
    fn trust(address: IpAddr) -> Trust {
        match address {
            IpAddr::V4(address) if address.octets()[0] == 10 => Trust::Trusted,
            IpAddr::V6(address) if address.to_string() == "2001:db8::1" => Trust::Trusted,
            IpAddr::V4(_) | IpAddr::V6(_) => Trust::Untrusted,
        }
    }

    fn named(peer: &str, lines: &[(&str, &str)]) -> String {
        let (mut fields, mut octets) = (FieldSection::new(), Vec::new());
        for (name, value) in lines {
            let at = octets.len();
            octets.extend_from_slice(name.as_bytes());
            let middle = octets.len();
            octets.extend_from_slice(value.as_bytes());
            fields.push(FieldLine {
                field: Field::of(name.as_bytes()),
                name: Span::new(at, middle),
                value: Span::new(middle, octets.len()),
            });
        }
        let peer = peer.parse().unwrap();
        named_by(b"X-Forwarded-For", (&fields, &octets), peer, trust).to_string()
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_of_ours_is_the_client() {
        let cases = [
            ("192.0.2.1", "192.0.2.1:0"),
            ("192.0.2.1, 10.0.0.1", "192.0.2.1:0"),
            ("6.6.6.6, 192.0.2.1 ,\t10.0.0.1,10.0.0.2", "192.0.2.1:0"),
            ("192.0.2.1:4711, 10.0.0.1:80", "192.0.2.1:4711"),
            ("2001:db8::7, 2001:db8::1", "[2001:db8::7]:0"),
            ("[2001:db8::7], 10.0.0.1", "[2001:db8::7]:0"),
            ("[2001:db8::7]:5, 10.0.0.1", "[2001:db8::7]:5"),
            ("::ffff:192.0.2.1", "192.0.2.1:0"),
            ("192.0.2.1, , 10.0.0.1,", "192.0.2.1:0"),
        ];
        for (value, client) in cases {
            assert_eq!(
                named("10.0.0.9:99", &[("x-forwarded-for", value)]),
                client,
                "{value}"
            );
        }
    }

    #[test]
    fn where_all_are_trusted_the_leftmost_is_the_client() {
        let lines = [("X-Forwarded-For", "10.0.0.3, 10.0.0.2")];
        assert_eq!(named("10.0.0.9:99", &lines), "10.0.0.3:0");
    }

    #[test]
    fn lines_of_the_field_are_one_list() {
        let lines = [
            ("X-Forwarded-For", "6.6.6.6"),
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Other", "7.7.7.7"),
            ("X-FORWARDED-FOR", "10.0.0.1"),
        ];
        assert_eq!(named("10.0.0.9:99", &lines), "192.0.2.1:0");
    }

    #[test]
    fn whoever_wrote_what_is_no_address_is_the_last_who_is_known() {
        for unread in [
            "unknown",
            "192.0.2.1 ",
            "_hidden",
            "1.2.3",
            "01.2.3.4",
            "+1.2.3.4",
            "192.0.2.1:99999",
            "192.0.2.1:",
            "[192.0.2.1]",
            "[2001:db8::7",
            "fe80::1%eth0",
            "\"192.0.2.1\"",
            "for=192.0.2.1",
        ] {
            let list = format!("192.0.2.1, {unread}x, 10.0.0.1");
            assert_eq!(
                named("10.0.0.9:99", &[("X-Forwarded-For", &list)]),
                "10.0.0.1:0",
                "{unread}"
            );
        }
    }

    #[test]
    fn a_field_that_is_not_there_leaves_the_peer() {
        assert_eq!(named("10.0.0.9:99", &[]), "10.0.0.9:99");
        assert_eq!(
            named("10.0.0.9:99", &[("X-Forwarded-For", "")]),
            "10.0.0.9:99"
        );
    }

    #[test]
    fn an_untrusted_peer_speaks_for_itself_only() {
        let lines = [("X-Forwarded-For", "192.0.2.1")];
        assert_eq!(named("11.0.0.1:5", &lines), "11.0.0.1:5");
    }
}
