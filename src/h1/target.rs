//! The request target: its four forms (RFC 9112 §3.2) and the host it is for.
//!
//! The octets of path and query are never decoded, resolved or encoded anew: what a decoder makes
//! of `%0d%0a` or `/../` must not differ between us and the origin. Absent on purpose: user
//! information (RFC 9110 §4.2.4), and schemes other than `http` and `https`.

use std::borrow::Cow;
use std::net::Ipv6Addr;
use std::str;

use crate::h1::error::MessageError;
use crate::h1::fields::Field;
use crate::h1::fields::FieldSection;
use crate::h1::fields::Span;
use crate::h1::octets;

/// Which form a target has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetForm {
    /// `/where?q=now`
    Origin,
    /// `http://www.example.org/pub`
    Absolute,
    /// `www.example.com:80`, for CONNECT only.
    Authority,
    /// `*`, for OPTIONS only.
    Asterisk,
}

/// A target that is legal for its method.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its form.
    pub form: TargetForm,
    /// All of it, as sent.
    pub whole: Span,
    /// Path and query as sent; empty where there are none. [`Target::to_origin`] says what to forward.
    pub path_and_query: Span,
    /// The authority, in absolute-form and authority-form.
    pub authority: Option<Span>,
    path: Path,
}

/// What stands for the path of a target.
#[derive(Clone, Copy, Debug)]
enum Path {
    Sent,
    Root,
    /// There is only a query.
    RootAndQuery,
    Asterisk,
}

/// What the form of a target depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetOf {
    Connect,
    Options,
    Any,
}

impl Target {
    /// The target of a request that has not arrived.
    pub(super) const EMPTY: Self = Self {
        form: TargetForm::Origin,
        whole: Span::EMPTY,
        path_and_query: Span::EMPTY,
        authority: None,
        path: Path::Root,
    };

    /// Reads a target whose octets are all legal.
    pub(super) fn parse(octets: &[u8], start: usize, of: TargetOf) -> Result<Self, MessageError> {
        let whole = Span::new(start, start + octets.len());
        let plain = Self {
            whole,
            ..Self::EMPTY
        };
        match (of, octets) {
            // RFC 9112 §3.2.3: authority-form, its port included, is CONNECT's and only CONNECT's.
            (TargetOf::Connect, _) => match authority(octets)?.port {
                Some([_, ..]) => Ok(Self {
                    form: TargetForm::Authority,
                    authority: Some(whole),
                    ..plain
                }),
                Some([]) | None => Err(MessageError::TargetForm),
            },
            // RFC 9112 §3.2.4: asterisk-form is OPTIONS' and only OPTIONS'.
            (TargetOf::Options, b"*") => Ok(Self {
                form: TargetForm::Asterisk,
                path: Path::Asterisk,
                ..plain
            }),
            // RFC 9112 §3.2.1.
            (TargetOf::Options | TargetOf::Any, [b'/', ..]) => Ok(Self {
                path_and_query: whole,
                path: Path::Sent,
                ..plain
            }),
            // RFC 9112 §3.2.2: a server accepts absolute-form, whatever the method.
            (TargetOf::Options | TargetOf::Any, _) => Self::absolute(octets, plain, of),
        }
    }

    fn absolute(octets: &[u8], plain: Self, of: TargetOf) -> Result<Self, MessageError> {
        let start = plain.whole.start();
        let prefix = scheme(octets)
            .ok_or(MessageError::TargetForm)?
            .prefix()
            .len();
        let rest = octets.get(prefix..).unwrap_or_default();
        let end = rest
            .iter()
            .position(|octet| matches!(octet, b'/' | b'?'))
            .unwrap_or(rest.len());
        let (named, path) = rest.split_at_checked(end).unwrap_or_default();
        authority(named)?;
        let path = match (path, of) {
            // RFC 9112 §3.2.4: OPTIONS for an empty path asks about the server as a whole.
            ([], TargetOf::Options) => Path::Asterisk,
            ([], TargetOf::Any | TargetOf::Connect) => Path::Root,
            ([b'/', ..], _) => Path::Sent,
            (_, _) => Path::RootAndQuery,
        };
        let middle = start + prefix + named.len();
        Ok(Self {
            form: TargetForm::Absolute,
            path_and_query: Span::new(middle, plain.whole.end()),
            authority: Some(Span::new(start + prefix, middle)),
            path,
            ..plain
        })
    }

    /// The path, `/` where none was sent, with a query behind a path; or `*`.
    #[must_use]
    pub fn path<'a>(&self, octets: &'a [u8]) -> &'a [u8] {
        match self.path {
            Path::Sent => self.path_and_query.of(octets),
            Path::Root | Path::RootAndQuery => b"/",
            Path::Asterisk => b"*",
        }
    }

    /// Path and query to forward in origin-form (RFC 9112 §3.2.1), or `*`. A query without a path
    /// gets one (RFC 9110 §4.2.3).
    #[must_use]
    pub fn to_origin<'a>(&self, octets: &'a [u8]) -> Cow<'a, [u8]> {
        match self.path {
            Path::RootAndQuery => [b"/", self.path_and_query.of(octets)].concat().into(),
            Path::Sent | Path::Root | Path::Asterisk => self.path(octets).into(),
        }
    }

    /// The host the request is for: the target's own authority (RFC 9112 §3.2.2), else `Host`.
    /// Empty only where an HTTP/1.0 request named none.
    #[must_use]
    pub fn host<'a>(&self, fields: &FieldSection, octets: &'a [u8]) -> &'a [u8] {
        match self.authority {
            Some(authority) => authority.of(octets),
            None => fields.first(Field::Host, octets).unwrap_or_default(),
        }
    }

    /// Holds the rules on `Host`: exactly one in HTTP/1.1, at most one in HTTP/1.0, well formed,
    /// and the same as the target's authority. RFC 9112 §3.2.2 would have us ignore a `Host` that
    /// differs; whoever sends one means two recipients to see two hosts, so it is refused.
    pub(super) fn check_host(
        &self,
        fields: &FieldSection,
        octets: &[u8],
        need: HostNeed,
    ) -> Result<(), MessageError> {
        let mut hosts = fields.all(Field::Host, octets);
        let host = match (hosts.next(), need) {
            (Some(host), _) => host,
            (None, HostNeed::Required) => return Err(MessageError::HostMissing),
            (None, HostNeed::Optional) => return Ok(()),
        };
        if hosts.next().is_some() {
            return Err(MessageError::HostRepeated);
        }
        let host = authority(host)?;
        let (TargetForm::Absolute, Some(named)) = (self.form, self.authority) else {
            return Ok(());
        };
        let named = authority(named.of(octets))?;
        let default = scheme(self.whole.of(octets)).map_or(80, Scheme::port);
        let same = octets::eq_ignore_case(host.host, named.host)
            && host.port_or(default) == named.port_or(default);
        if same {
            Ok(())
        } else {
            Err(MessageError::HostMismatch)
        }
    }
}

/// Whether `Host` may be missing (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostNeed {
    Required,
    Optional,
}

/// A host with its port, as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The host; an IPv6 literal with its brackets.
    pub host: &'a [u8],
    /// The digits after the colon, if there is a colon.
    pub port: Option<&'a [u8]>,
}

impl Authority<'_> {
    /// The port's number, or `default` where none is named.
    #[must_use]
    pub fn port_or(&self, default: u64) -> u64 {
        self.port.and_then(octets::decimal).unwrap_or(default)
    }
}

/// Reads `uri-host [ ":" port ]` (RFC 9110 §7.2, RFC 3986 §3.2). An empty host is refused: only a
/// target without authority could mean it, and an `http` target always has one (RFC 9110 §4.2.1).
///
/// # Errors
/// [`MessageError::UserInfo`] or [`MessageError::HostMalformed`].
pub fn authority(octets: &[u8]) -> Result<Authority<'_>, MessageError> {
    let parsed = match octets {
        [b'[', ..] => literal(octets),
        _ => named(octets),
    };
    // Told apart only when something is wrong, since `@` is no octet of a host.
    parsed.ok_or_else(|| match octets.contains(&b'@') {
        true => MessageError::UserInfo,
        false => MessageError::HostMalformed,
    })
}

fn named(octets: &[u8]) -> Option<Authority<'_>> {
    let (mut host, mut rest) = octets::split_class(octets, octets::is_reg_name_char);
    if let [b'%', ..] = rest {
        // A rare way to write a host; the escapes are kept as they are.
        let class = |octet| octets::is_reg_name_char(octet) || octet == b'%';
        (host, rest) = octets::split_class(octets, class);
        if !escapes_are_whole(host) {
            return None;
        }
    }
    if host.is_empty() {
        return None;
    }
    Some(Authority {
        host,
        port: port(rest)?,
    })
}

fn literal(octets: &[u8]) -> Option<Authority<'_>> {
    let close = octets.iter().position(|octet| *octet == b']')?;
    let (host, rest) = octets.split_at_checked(close + 1)?;
    let address = host.get(1..close)?;
    // Rust's reader of addresses takes neither sign, space nor zone: it is RFC 4291 §2.2.
    str::from_utf8(address).ok()?.parse::<Ipv6Addr>().ok()?;
    Some(Authority {
        host,
        port: port(rest)?,
    })
}

/// The port after a host: nothing, a colon alone, or a colon and 1 to 65535.
fn port(rest: &[u8]) -> Option<Option<&[u8]>> {
    match rest {
        [] => Some(None),
        [b':'] => Some(Some(&[])),
        [b':', digits @ ..] => {
            let number = octets::decimal(digits)?;
            (1..=65_535).contains(&number).then_some(Some(digits))
        }
        _ => None,
    }
}

/// Whether each `%` is followed by two hexadecimal digits (RFC 3986 §2.1).
#[cold]
fn escapes_are_whole(host: &[u8]) -> bool {
    host.split(|octet| *octet == b'%')
        .skip(1)
        .all(|after| match after {
            [high, low, ..] => {
                octets::hex_digit(*high).is_some() && octets::hex_digit(*low).is_some()
            }
            _ => false,
        })
}

#[derive(Clone, Copy)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Http => b"http://",
            Self::Https => b"https://",
        }
    }

    const fn port(self) -> u64 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

fn scheme(octets: &[u8]) -> Option<Scheme> {
    [Scheme::Http, Scheme::Https].into_iter().find(|scheme| {
        let start = octets.get(..scheme.prefix().len()).unwrap_or_default();
        octets::eq_ignore_case(start, scheme.prefix())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_an_address_or_a_literal() {
        for host in [
            "a",
            "a.b:80",
            "127.0.0.1:1",
            "[::1]",
            "[::ffff:1.2.3.4]:65535",
            "a%41",
            "a:",
        ] {
            assert!(authority(host.as_bytes()).is_ok(), "{host}");
        }
        for host in [
            "",
            ":80",
            "a:0",
            "a:65536",
            "a:+1",
            "a:b",
            "a/b",
            "a,b",
            "a b",
            "[::1",
            "[::1]x",
            "[]",
            "[v1.a]",
            "[fe80::1%25eth0]",
            "::1",
            "a%4",
            "a%zz",
            "a\\b",
            "a?b",
            "\u{e9}",
        ] {
            assert_eq!(
                authority(host.as_bytes()),
                Err(MessageError::HostMalformed),
                "{host}"
            );
        }
        assert_eq!(authority(b"user@a"), Err(MessageError::UserInfo));
    }

    #[test]
    fn options_for_an_empty_path_is_forwarded_as_an_asterisk() {
        let target = Target::parse(b"http://a", 0, TargetOf::Options).unwrap();
        assert_eq!(target.path(b"http://a"), b"*");
        let target = Target::parse(b"http://a", 0, TargetOf::Any).unwrap();
        assert_eq!(target.path(b"http://a"), b"/");
    }

    #[test]
    fn a_query_without_a_path_is_forwarded_behind_a_slash() {
        let octets = b"http://a?b=/c";
        for of in [TargetOf::Any, TargetOf::Options] {
            let target = Target::parse(octets, 0, of).unwrap();
            assert_eq!(target.path(octets), b"/");
            assert_eq!(&*target.to_origin(octets), b"/?b=/c");
        }
    }

    #[test]
    fn an_absolute_target_forwards_its_path_and_query() {
        let octets = b"HTTPS://[::1]:8443/a/../b?c=%0d";
        let target = Target::parse(octets, 0, TargetOf::Any).unwrap();
        assert_eq!(target.path(octets), b"/a/../b?c=%0d");
        assert_eq!(target.host(&FieldSection::new(), octets), b"[::1]:8443");
    }

    #[test]
    fn a_form_that_the_method_does_not_have_is_refused() {
        for (octets, of) in [
            (&b"*"[..], TargetOf::Any),
            (b"a:80", TargetOf::Any),
            (b"a", TargetOf::Connect),
            (b"a:", TargetOf::Connect),
            (b"ftp://a/", TargetOf::Any),
        ] {
            let error = Target::parse(octets, 0, of).unwrap_err();
            assert_eq!(error, MessageError::TargetForm);
        }
    }
}
