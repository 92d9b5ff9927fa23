//! What the origin hears of the client: `X-Forwarded-For`, `-Proto`, `-Host`, and `Forwarded`.
//!
//! What anybody can write, nobody should believe (RFC 7239 §8.1): a list that came with the
//! request is continued only if the peer that sent it is trusted. Absent on purpose: deciding who
//! is, and dropping what is not believed, which `hops` does.

use std::net::IpAddr;

use crate::h1::encode;
use crate::h1::encode::Unwritable;
use crate::h1::fields::Field;
use crate::h1::fields::FieldSection;
use crate::h1::octets;
use crate::policy::header_rules::HeaderRules;

/// Whether the peer's word about who was before it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It does: its lists are kept and continued.
    Trusted,
    /// It does not: its lists are dropped.
    Untrusted,
}

/// How the client came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// As a field line of its own.
    const fn line(self) -> &'static [u8] {
        match self {
            Self::Http => b"X-Forwarded-Proto: http\r\n",
            Self::Https => b"X-Forwarded-Proto: https\r\n",
        }
    }

    const fn name(self) -> &'static [u8] {
        match self {
            Self::Http => b"http",
            Self::Https => b"https",
        }
    }
}

/// In which fields we tell the origin about the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedStyle {
    /// `X-Forwarded-For`, `-Proto`, `-Host`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// Both.
    Both,
    /// None. What an untrusted peer says is dropped all the same.
    Off,
}

impl ForwardedStyle {
    /// Whether `X-Forwarded-*` is written.
    pub(super) const fn says_x(self) -> bool {
        matches!(self, Self::XForwarded | Self::Both)
    }

    /// Whether `Forwarded` is written.
    pub(super) const fn says_standard(self) -> bool {
        matches!(self, Self::Forwarded | Self::Both)
    }
}

/// What the origin hears of one client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Introduction<'a> {
    pub(super) style: ForwardedStyle,
    pub(super) trust: Trust,
    pub(super) client: IpAddr,
    pub(super) scheme: Scheme,
    pub(super) host: &'a [u8],
}

impl Introduction<'_> {
    /// Writes our fields. `fields` are the client's, of which a trusted one's lists are continued.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        fields: &FieldSection,
        octets: &[u8],
        headers: &HeaderRules,
    ) -> Result<(), Unwritable> {
        // What configuration sets or removes by name is not written a second time.
        let is_ours = |field: Field| headers.is_empty() || !headers.drops(field.name().as_bytes());
        let is_kept = |field| self.trust == Trust::Trusted && fields.has(field);
        if self.style.says_x() {
            if is_ours(Field::XForwardedFor) {
                begin_list(out, fields, octets, Field::XForwardedFor, self.trust);
                encode::address(out, self.client.to_canonical());
                out.extend_from_slice(b"\r\n");
            }
            if is_ours(Field::XForwardedProto) && !is_kept(Field::XForwardedProto) {
                out.extend_from_slice(self.scheme.line());
            }
            let has_host = !self.host.is_empty();
            if has_host && is_ours(Field::XForwardedHost) && !is_kept(Field::XForwardedHost) {
                encode::known_field(out, Field::XForwardedHost, self.host)?;
            }
        }
        if self.style.says_standard() && is_ours(Field::Forwarded) {
            begin_list(out, fields, octets, Field::Forwarded, self.trust);
            self.write_element(out);
        }
        Ok(())
    }

    /// RFC 7239 §4: one element of `Forwarded`.
    fn write_element(&self, out: &mut Vec<u8>) {
        // RFC 7239 §6: an IPv6 address is in brackets, and brackets need quotes.
        match self.client.to_canonical() {
            IpAddr::V4(client) => {
                out.extend_from_slice(b"for=");
                encode::address(out, IpAddr::V4(client));
            }
            IpAddr::V6(client) => {
                out.extend_from_slice(b"for=\"[");
                encode::address(out, IpAddr::V6(client));
                out.extend_from_slice(b"]\"");
            }
        }
        out.extend_from_slice(b";proto=");
        out.extend_from_slice(self.scheme.name());
        if !self.host.is_empty() {
            out.extend_from_slice(b";host=");
            write_token_or_quoted(out, self.host);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// The name, and what a trusted peer had said, as one list to be continued.
fn begin_list(out: &mut Vec<u8>, fields: &FieldSection, octets: &[u8], field: Field, trust: Trust) {
    out.extend_from_slice(field.name().as_bytes());
    out.extend_from_slice(b": ");
    if trust == Trust::Trusted {
        for value in fields.all(field, octets).filter(|value| !value.is_empty()) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }
}

/// RFC 7239 §4: a value is a token or a quoted string. A host with a port is no token.
fn write_token_or_quoted(out: &mut Vec<u8>, value: &[u8]) {
    if octets::is_token(value) {
        return out.extend_from_slice(value);
    }
    out.push(b'"');
    for octet in value {
        if matches!(octet, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*octet);
    }
    out.push(b'"');
}
