//! What `balance = "hash"` hashes: who asks, a field, a cookie, or what is asked for.
//!
//! A request without the field or the cookie has no key; it is balanced by its load, so that all
//! such requests are not one endpoint's.

use std::net::IpAddr;

use crate::h1::head::RequestHead;
use crate::h1::octets;

use super::hash::hash;

/// Where the key of a request is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address, without its port.
    Client,
    /// The first field of this name.
    Field(Vec<u8>),
    /// The first cookie of this name (RFC 6265 §5.4).
    Cookie(Vec<u8>),
    /// The path, without the query: what a cache keeps.
    Path,
}

impl HashKey {
    /// The key of a request, if it has one.
    #[must_use]
    pub fn of(&self, (head, octets): (&RequestHead, &[u8]), client: IpAddr) -> Option<u64> {
        match self {
            Self::Client => Some(match client.to_canonical() {
                IpAddr::V4(address) => hash(&address.octets()),
                IpAddr::V6(address) => hash(&address.octets()),
            }),
            Self::Field(name) => first_of(head, octets, name).map(hash),
            Self::Cookie(name) => {
                let lines = head.fields.lines().iter();
                let cookies = lines
                    .filter(|line| octets::eq_ignore_case(line.name.of(octets), b"cookie"))
                    .flat_map(|line| line.value.of(octets).split(|octet| *octet == b';'));
                cookies
                    .map(octets::trim_ows)
                    .find_map(|pair| pair.strip_prefix(name.as_slice())?.strip_prefix(b"="))
                    .map(hash)
            }
            Self::Path => {
                let target = head.target.path(octets);
                target.split(|octet| *octet == b'?').next().map(hash)
            }
        }
    }
}

fn first_of<'a>(head: &RequestHead, octets: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut lines = head.fields.lines().iter();
    lines
        .find(|line| octets::eq_ignore_case(line.name.of(octets), name))
        .map(|line| line.value.of(octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::ByteCount;
    use crate::h1::head::HeadLimits;
    use crate::h1::head::Parsed;

    fn key(of: &HashKey, fields: &str) -> Option<u64> {
        let octets = format!("GET /a/b?c=d HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes();
        let mut head = RequestHead::new();
        let limits = HeadLimits {
            octets: ByteCount(4096),
            target: ByteCount(1024),
            fields: 32,
        };
        assert_eq!(head.parse(&octets, &limits).unwrap(), Parsed::Complete);
        of.of((&head, &octets), "::ffff:10.0.0.1".parse().unwrap())
    }

    #[test]
    fn each_kind_of_key_is_found_where_it_stands() {
        let fields = "X-Tenant: seven\r\nCookie: a=1; sid=abc\r\nCookie: sid=second\r\n";
        assert_eq!(key(&HashKey::Client, fields), Some(hash(&[10, 0, 0, 1])));
        let field = HashKey::Field(b"x-tenant".to_vec());
        assert_eq!(key(&field, fields), Some(hash(b"seven")));
        let cookie = HashKey::Cookie(b"sid".to_vec());
        assert_eq!(key(&cookie, fields), Some(hash(b"abc")));
        assert_eq!(key(&HashKey::Path, fields), Some(hash(b"/a/b")));
    }

    #[test]
    fn a_request_without_the_field_or_the_cookie_has_no_key() {
        for of in [
            HashKey::Field(b"x-tenant".to_vec()),
            HashKey::Cookie(b"sid".to_vec()),
        ] {
            assert_eq!(key(&of, "Cookie: xsid=1; sidx=2\r\n"), None);
        }
    }
}
