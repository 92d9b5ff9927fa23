//! What a gateway takes out of a message, and what it puts in (RFC 9110 §7.6).
//!
//! Field lines are written in their order with their names as sent. Lines that stay and lie
//! together are copied together, if each is already in the one form in which we would write it;
//! otherwise a line is written afresh. Framing (`Content-Length`, `Transfer-Encoding`) never
//! passes; the caller restates it. Absent on purpose: deciding whom to trust, whether the exchange
//! upgrades and whether connections persist; the caller says so in the context.
//!
//! The attack to know: a client names `Authorization`, `X-Forwarded-For` or `Cookie` in
//! `Connection`, so that a naive gateway strips what the origin relies on. Guarded by
//! `a_nomination_cannot_strip_what_the_origin_relies_on`.

use std::io::Write;
use std::net::IpAddr;

use crate::h1::fields::Field;
use crate::h1::fields::FieldLine;
use crate::h1::fields::FieldSection;
use crate::h1::octets;

/// The version a message came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// Whether the peer's word about who was before it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It does: its list is kept and continued.
    Trusted,
    /// It does not: its list is dropped.
    Untrusted,
}

/// Whether this exchange changes protocol (RFC 9110 §7.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrading {
    /// It stays HTTP.
    Stays,
    /// Its `Upgrade` passes.
    Upgrades,
}

/// What we say about the next hop's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// Nothing: an HTTP/1.1 connection persists by itself.
    Nothing,
    /// `close`
    Close,
    /// `keep-alive`, which HTTP/1.0 wants to hear.
    KeepAlive,
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
    const fn says_x(self) -> bool {
        matches!(self, Self::XForwarded | Self::Both)
    }

    const fn says_standard(self) -> bool {
        matches!(self, Self::Forwarded | Self::Both)
    }
}

/// Fields that configuration sets and removes.
#[derive(Clone, Debug, Default)]
pub struct HeaderRules {
    /// Names whose lines are dropped: those removed and those set.
    dropped: Vec<Box<[u8]>>,
    /// How many of `dropped`, from the front, are set and so cannot be nominated away.
    set: usize,
    /// The lines that are set, encoded.
    lines: Vec<u8>,
}

impl HeaderRules {
    /// Checks and encodes.
    ///
    /// # Errors
    /// A clause that says which name or value is not legal, or whose the field is.
    pub fn new(set: &[(String, String)], remove: &[String]) -> Result<Self, String> {
        let mut rules = Self::default();
        for (name, value) in set {
            check_name(name)?;
            let is_legal = |octet: &u8| octets::is_field_vchar(*octet);
            if !value.as_bytes().iter().all(is_legal) || value.trim_ascii() != value {
                return Err(format!("`{value}` is no field value for `{name}`"));
            }
            rules.dropped.push(name.as_bytes().into());
            write_line(&mut rules.lines, name.as_bytes(), value.as_bytes());
        }
        rules.set = rules.dropped.len();
        for name in remove {
            check_name(name)?;
            rules.dropped.push(name.as_bytes().into());
        }
        Ok(rules)
    }

    fn drops(&self, name: &[u8]) -> bool {
        self.dropped
            .iter()
            .any(|dropped| octets::eq_ignore_case(dropped, name))
    }

    fn sets(&self, name: &[u8]) -> bool {
        self.dropped
            .iter()
            .take(self.set)
            .any(|set| octets::eq_ignore_case(set, name))
    }
}

/// What a route says about the fields of requests.
#[derive(Clone, Debug)]
pub struct RequestRules {
    /// Our name in `Via` (RFC 9110 §7.6.3).
    pub via: Box<[u8]>,
    /// How the origin hears of the client.
    pub forwarded: ForwardedStyle,
    /// What is set and removed.
    pub headers: HeaderRules,
}

/// What a route says about the fields of responses.
#[derive(Clone, Debug)]
pub struct ResponseRules {
    /// Our name in `Via`.
    pub via: Box<[u8]>,
    /// What is set and removed.
    pub headers: HeaderRules,
}

/// What is known of one request.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext<'a> {
    /// The version it came in.
    pub version: Received,
    /// The client's address.
    pub client: IpAddr,
    /// Whether the client's word counts.
    pub trust: Trust,
    /// How the client came.
    pub scheme: Scheme,
    /// The host the client asked for: that of an absolute-form target, else of `Host`.
    pub host: &'a [u8],
    /// What the origin gets as `Host`: the same (`preserve_host`), or its own name.
    pub host_to_origin: &'a [u8],
    /// Whether the exchange upgrades.
    pub upgrading: Upgrading,
    /// What we say about the origin's connection.
    pub announce: Announce,
    /// What `Max-Forwards` becomes, where it counts; see [`max_forwards`].
    pub max_forwards: Option<u64>,
}

/// What is known of one response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseContext {
    /// The version it came in.
    pub version: Received,
    /// Whether the exchange upgrades: this is its 101.
    pub upgrading: Upgrading,
    /// What we say about the client's connection.
    pub announce: Announce,
}

/// How many field lines were taken out, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// `Connection`
    pub connection: u32,
    /// `Keep-Alive`
    pub keep_alive: u32,
    /// `Proxy-Connection`
    pub proxy_connection: u32,
    /// `TE`
    pub te: u32,
    /// Named in `Connection`.
    pub named: u32,
}

/// `Connection` names more fields than [`NOMINATIONS_MAX`]. The client's fault: 400; the origin's:
/// 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NominationsTooMany;

impl std::fmt::Display for NominationsTooMany {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Connection names more than {NOMINATIONS_MAX} fields (RFC 9110 §7.6.1)"
        )
    }
}

/// Writes the field lines of a request to the origin, `Host` to `Connection`, without framing and
/// without the empty line at the end.
///
/// # Errors
/// `NominationsTooMany`; what was written until then must not be sent.
pub fn request_fields(
    out: &mut Vec<u8>,
    fields: &FieldSection,
    octets: &[u8],
    rules: &RequestRules,
    context: &RequestContext<'_>,
) -> Result<Removed, NominationsTooMany> {
    let mut sieve = Sieve::new(fields, octets, &rules.headers, context.upgrading)?;
    let mut copy = Copy {
        out,
        octets,
        from: 0,
        to: 0,
    };
    // RFC 9112 §3.2: a request has a Host, and it should come first if there was none.
    if !fields.has(Field::Host) {
        write_line(copy.out, b"Host", context.host_to_origin);
    }
    let mut host = HostLine::Due;
    for line in fields.lines() {
        match line.field {
            // RFC 9112 §3.2.2: what the target says replaces what the field said; one is enough.
            Field::Host if host == HostLine::Due => {
                host = HostLine::Written;
                copy.line_with(line, context.host_to_origin);
            }
            Field::Host => {}
            // RFC 9110 §11.7.2: credentials for a proxy are not for the origin.
            Field::ProxyAuthorization => {}
            // RFC 7239 §8.1: what anybody can write, nobody should believe.
            Field::Forwarded
            | Field::XForwardedFor
            | Field::XForwardedProto
            | Field::XForwardedHost
            | Field::XForwardedPort
            | Field::XRealIp
                if context.trust == Trust::Untrusted => {}
            Field::Other
                if context.trust == Trust::Untrusted && is_x_forwarded(line.name.of(octets)) => {}
            // These two lists are continued below, in one line each.
            Field::XForwardedFor if rules.forwarded.says_x() => {}
            Field::Forwarded if rules.forwarded.says_standard() => {}
            Field::MaxForwards => match context.max_forwards {
                Some(left) => copy.line_with_number(line, left),
                None => copy.line(line),
            },
            _ if sieve.keeps(line) => copy.line(line),
            _ => {}
        }
    }
    copy.flush();
    // RFC 9110 §10.1.4 gives TE a meaning from HTTP/1.1 on.
    let trailers = match context.version {
        Received::Http10 => Trailers::Unasked,
        Received::Http11 => sieve.trailers,
    };
    let removed = sieve.removed;
    write_forwarded(out, fields, octets, rules, context);
    write_via(out, context.version, &rules.via);
    out.extend_from_slice(&rules.headers.lines);
    if trailers == Trailers::Accepted {
        // TE is this hop's, so it has to be named in Connection.
        write_line(out, b"TE", b"trailers");
    }
    write_connection(out, context.announce, trailers, context.upgrading);
    Ok(removed)
}

/// Writes the field lines of a response to the client, without framing, `Date` and the empty line
/// at the end.
///
/// # Errors
/// `NominationsTooMany`; what was written until then must not be sent.
pub fn response_fields(
    out: &mut Vec<u8>,
    fields: &FieldSection,
    octets: &[u8],
    rules: &ResponseRules,
    context: &ResponseContext,
) -> Result<Removed, NominationsTooMany> {
    let mut sieve = Sieve::new(fields, octets, &rules.headers, context.upgrading)?;
    let mut copy = Copy {
        out,
        octets,
        from: 0,
        to: 0,
    };
    for line in fields.lines() {
        match line.field {
            // RFC 9110 §11.7.1: a challenge goes to the next client only, and ours is no proxy's.
            Field::ProxyAuthenticate => {}
            _ if sieve.keeps(line) => copy.line(line),
            _ => {}
        }
    }
    copy.flush();
    let removed = sieve.removed;
    write_via(out, context.version, &rules.via);
    out.extend_from_slice(&rules.headers.lines);
    write_connection(out, context.announce, Trailers::Unasked, context.upgrading);
    Ok(removed)
}

/// What `Max-Forwards` says about a TRACE or OPTIONS request; for other methods it means nothing
/// (RFC 9110 §7.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxForwards {
    /// Nothing, or nothing legible: forward as it is.
    Unlimited,
    /// It was 0: we are the one who answers.
    AnswerHere,
    /// Forward with this number.
    Forward(u64),
}

/// Reads and decrements `Max-Forwards`.
#[must_use]
pub fn max_forwards(fields: &FieldSection, octets: &[u8]) -> MaxForwards {
    match fields
        .first(Field::MaxForwards, octets)
        .and_then(octets::decimal)
    {
        None => MaxForwards::Unlimited,
        Some(0) => MaxForwards::AnswerHere,
        Some(left) => MaxForwards::Forward(left - 1),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum HostLine {
    Due,
    Written,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trailers {
    Unasked,
    Accepted,
}

/// Tells the lines that pass from those that end at this hop, and counts the latter.
struct Sieve<'a> {
    octets: &'a [u8],
    headers: &'a HeaderRules,
    upgrading: Upgrading,
    nominated: [&'a [u8]; NOMINATIONS_MAX],
    nominations: usize,
    trailers: Trailers,
    removed: Removed,
}

impl<'a> Sieve<'a> {
    fn new(
        fields: &FieldSection,
        octets: &'a [u8],
        headers: &'a HeaderRules,
        upgrading: Upgrading,
    ) -> Result<Self, NominationsTooMany> {
        let trailers = match fields.lists(Field::Te, b"trailers", octets) {
            true => Trailers::Accepted,
            false => Trailers::Unasked,
        };
        let mut sieve = Self {
            octets,
            headers,
            upgrading,
            nominated: [&[]; NOMINATIONS_MAX],
            nominations: 0,
            trailers,
            removed: Removed::default(),
        };
        for member in fields.list(Field::Connection, octets) {
            // Those that everybody sends are dropped by their own rule, so most messages have
            // nominated nothing that needs looking for.
            if EVERYDAY_OPTIONS
                .iter()
                .any(|option| octets::eq_ignore_case(option, member))
            {
                continue;
            }
            let slot = sieve
                .nominated
                .get_mut(sieve.nominations)
                .ok_or(NominationsTooMany)?;
            *slot = member;
            sieve.nominations += 1;
        }
        Ok(sieve)
    }

    fn keeps(&mut self, line: &FieldLine) -> bool {
        let counter = match line.field {
            Field::Connection => &mut self.removed.connection,
            Field::KeepAlive => &mut self.removed.keep_alive,
            Field::ProxyConnection => &mut self.removed.proxy_connection,
            Field::Te => &mut self.removed.te,
            // Framing is ours to restate (RFC 9112 §6), and we never speak h2c (RFC 9113 §3.1).
            Field::TransferEncoding | Field::ContentLength | Field::Http2Settings => return false,
            Field::Upgrade => return self.upgrading == Upgrading::Upgrades,
            _ if self.is_nominated(line) => &mut self.removed.named,
            _ => {
                let headers = self.headers;
                return headers.dropped.is_empty() || !headers.drops(line.name.of(self.octets));
            }
        };
        *counter += 1;
        false
    }

    /// RFC 9110 §7.6.1: what `Connection` names is for this hop, whatever the version of the
    /// message: an HTTP/1.0 relay may have passed it on blindly.
    fn is_nominated(&self, line: &FieldLine) -> bool {
        if self.nominations == 0 {
            return false;
        }
        let name = line.name.of(self.octets);
        let mut nominated = self.nominated.iter().take(self.nominations);
        nominated.any(|nominated| octets::eq_ignore_case(nominated, name))
            && !is_protected(line.field, name)
            && !self.headers.sets(name)
    }
}

/// What the proxy or the origin relies on cannot be nominated away. RFC 9110 §7.6.1 forbids
/// naming fields that are for all recipients; this is the part whose loss would be an attack.
fn is_protected(field: Field, name: &[u8]) -> bool {
    match field {
        Field::Host
        | Field::Authorization
        | Field::Cookie
        | Field::SetCookie
        | Field::Forwarded
        | Field::Via
        | Field::Expect
        | Field::MaxForwards
        | Field::XRealIp => true,
        _ => is_x_forwarded(name),
    }
}

fn is_x_forwarded(name: &[u8]) -> bool {
    let start = name.get(..X_FORWARDED.len());
    start.is_some_and(|start| octets::eq_ignore_case(start, X_FORWARDED))
}

/// Copies lines that lie together at once.
struct Copy<'a> {
    out: &'a mut Vec<u8>,
    octets: &'a [u8],
    from: usize,
    to: usize,
}

impl Copy<'_> {
    fn line(&mut self, line: &FieldLine) {
        let (name, value) = (line.name, line.value);
        let between = self.octets.get(name.end()..value.start());
        let after = self.octets.get(value.end()..value.end() + 2);
        // `name: value\r\n`, to the octet, is what would be written.
        if between == Some(b": ") && after == Some(b"\r\n") {
            if name.start() != self.to {
                self.flush();
                self.from = name.start();
            }
            self.to = value.end() + 2;
        } else {
            self.flush();
            write_line(self.out, name.of(self.octets), value.of(self.octets));
        }
    }

    fn line_with(&mut self, line: &FieldLine, value: &[u8]) {
        if line.value.of(self.octets) == value {
            return self.line(line);
        }
        self.flush();
        write_line(self.out, line.name.of(self.octets), value);
    }

    fn line_with_number(&mut self, line: &FieldLine, value: u64) {
        self.flush();
        let mut buffer = itoa::Buffer::new();
        write_line(
            self.out,
            line.name.of(self.octets),
            buffer.format(value).as_bytes(),
        );
    }

    fn flush(&mut self) {
        self.out
            .extend_from_slice(self.octets.get(self.from..self.to).unwrap_or_default());
        self.from = 0;
        self.to = 0;
    }
}

fn write_forwarded(
    out: &mut Vec<u8>,
    fields: &FieldSection,
    octets: &[u8],
    rules: &RequestRules,
    context: &RequestContext<'_>,
) {
    let client = context.client.to_canonical();
    // What configuration sets or removes by name is not written a second time.
    let is_ours = |field: Field| !rules.headers.drops(field.name().as_bytes());
    let is_due = |field| is_ours(field) && !is_kept(fields, field, context.trust);
    if rules.forwarded.says_x() {
        if is_ours(Field::XForwardedFor) {
            begin_list(out, fields, octets, Field::XForwardedFor, context.trust);
            write_shown(out, client);
            out.extend_from_slice(b"\r\n");
        }
        if is_due(Field::XForwardedProto) {
            write_line(out, b"X-Forwarded-Proto", context.scheme.name());
        }
        if is_due(Field::XForwardedHost) && !context.host.is_empty() {
            write_line(out, b"X-Forwarded-Host", context.host);
        }
    }
    if rules.forwarded.says_standard() && is_ours(Field::Forwarded) {
        begin_list(out, fields, octets, Field::Forwarded, context.trust);
        // RFC 7239 §6: an IPv6 address is in brackets, and brackets need quotes.
        match client {
            IpAddr::V4(client) => {
                out.extend_from_slice(b"for=");
                write_shown(out, client);
            }
            IpAddr::V6(client) => {
                out.extend_from_slice(b"for=\"[");
                write_shown(out, client);
                out.extend_from_slice(b"]\"");
            }
        }
        out.extend_from_slice(b";proto=");
        out.extend_from_slice(context.scheme.name());
        if !context.host.is_empty() {
            out.extend_from_slice(b";host=");
            write_token_or_quoted(out, context.host);
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn is_kept(fields: &FieldSection, field: Field, trust: Trust) -> bool {
    trust == Trust::Trusted && fields.has(field)
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

/// RFC 9110 §7.6.3: a gateway adds itself, with the version it received, to requests, and may to
/// responses. A further line continues the list of those before it.
fn write_via(out: &mut Vec<u8>, version: Received, name: &[u8]) {
    out.extend_from_slice(match version {
        Received::Http10 => b"Via: 1.0 ",
        Received::Http11 => b"Via: 1.1 ",
    });
    out.extend_from_slice(name);
    out.extend_from_slice(b"\r\n");
}

fn write_connection(
    out: &mut Vec<u8>,
    announce: Announce,
    trailers: Trailers,
    upgrading: Upgrading,
) {
    let persistence: &[u8] = match announce {
        Announce::Nothing => b"",
        Announce::Close => b"close",
        Announce::KeepAlive => b"keep-alive",
    };
    let te: &[u8] = if trailers == Trailers::Accepted {
        b"TE"
    } else {
        b""
    };
    let upgrade: &[u8] = if upgrading == Upgrading::Upgrades {
        b"Upgrade"
    } else {
        b""
    };
    let mut before: &[u8] = b"Connection: ";
    for option in [persistence, te, upgrade] {
        if !option.is_empty() {
            out.extend_from_slice(before);
            out.extend_from_slice(option);
            before = b", ";
        }
    }
    if before == b", " {
        out.extend_from_slice(b"\r\n");
    }
}

fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_shown(out: &mut Vec<u8>, shown: impl std::fmt::Display) {
    // Writing into memory cannot fail.
    write!(out, "{shown}").ok();
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

/// Whether configuration may set or remove a field: its name is a token, and the field is not
/// one by which connections or messages are told apart.
fn check_name(name: &str) -> Result<(), String> {
    if !octets::is_token(name.as_bytes()) {
        return Err(format!("`{name}` is no field name"));
    }
    match Field::of(name.as_bytes()) {
        Field::Connection
        | Field::KeepAlive
        | Field::ProxyConnection
        | Field::Te
        | Field::TransferEncoding
        | Field::ContentLength
        | Field::Trailer
        | Field::Upgrade => Err(format!(
            "`{name}` belongs to the connection and is ours to write"
        )),
        Field::Host => Err("`Host` is what `preserve_host` is for".into()),
        Field::Via => Err("`Via` is what `via` is for (RFC 9110 §7.6.3)".into()),
        _ => Ok(()),
    }
}

/// Connection options that each have a rule of their own.
const EVERYDAY_OPTIONS: [&[u8]; 6] = [
    b"close",
    b"keep-alive",
    b"upgrade",
    b"te",
    b"proxy-connection",
    b"http2-settings",
];

const X_FORWARDED: &[u8] = b"x-forwarded-";

/// Most fields that `Connection` may name, beside the everyday options. Real messages name none
/// or one; without a limit, naming many would cost many times as many comparisons.
pub const NOMINATIONS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::fields::Span;

    /// Reads field lines as a peer might send them, white space and all.
    fn section(text: &str) -> (FieldSection, Vec<u8>) {
        let mut fields = FieldSection::new();
        let mut at = 0;
        for line in text.split_inclusive("\r\n") {
            let colon = line.find(':').unwrap();
            let value = line[colon + 1..].trim_matches(['\r', '\n', ' ', '\t']);
            let value_at = at + colon + 1 + line[colon + 1..].find(value).unwrap();
            fields.push(FieldLine {
                field: Field::of(&line.as_bytes()[..colon]),
                name: Span::new(at, at + colon),
                value: Span::new(value_at, value_at + value.len()),
            });
            at += line.len();
        }
        (fields, text.as_bytes().to_vec())
    }

    fn rules(forwarded: ForwardedStyle) -> RequestRules {
        RequestRules {
            via: b"holdfast".as_slice().into(),
            forwarded,
            headers: HeaderRules::default(),
        }
    }

    fn context() -> RequestContext<'static> {
        RequestContext {
            version: Received::Http11,
            client: "192.0.2.7".parse().unwrap(),
            trust: Trust::Untrusted,
            scheme: Scheme::Http,
            host: b"a.example",
            host_to_origin: b"a.example",
            upgrading: Upgrading::Stays,
            announce: Announce::Nothing,
            max_forwards: None,
        }
    }

    fn request_with(text: &str, rules: &RequestRules, context: &RequestContext<'_>) -> String {
        let (fields, octets) = section(text);
        let mut out = Vec::new();
        request_fields(&mut out, &fields, &octets, rules, context).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// A request's fields, without forwarding fields and without the `Via` that always ends them.
    fn request(text: &str) -> String {
        let out = request_with(text, &rules(ForwardedStyle::Off), &context());
        out.replace("Via: 1.1 holdfast\r\n", "")
    }

    fn removed(text: &str) -> Removed {
        let (fields, octets) = section(text);
        let rules = rules(ForwardedStyle::Off);
        request_fields(&mut Vec::new(), &fields, &octets, &rules, &context()).unwrap()
    }

    fn response(text: &str, upgrading: Upgrading, announce: Announce) -> String {
        let (fields, octets) = section(text);
        let rules = ResponseRules {
            via: b"holdfast".as_slice().into(),
            headers: HeaderRules::default(),
        };
        let context = ResponseContext {
            version: Received::Http11,
            upgrading,
            announce,
        };
        let mut out = Vec::new();
        response_fields(&mut out, &fields, &octets, &rules, &context).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn order_case_and_repetition_pass_unchanged() {
        let text = "host: a.example\r\nX-b: 1\r\nACCEPT: */*\r\nX-b: 2\r\n";
        assert_eq!(request(text), text);
    }

    #[test]
    fn odd_white_space_is_written_canonically() {
        let text = "Host: a.example\r\nA:1\r\nB: \t 2 \t\r\nC:\r\nD: 4\r\n";
        let canonical = "Host: a.example\r\nA: 1\r\nB: 2\r\nC: \r\nD: 4\r\n";
        assert_eq!(request(text), canonical);
    }

    #[test]
    fn hop_by_hop_fields_end_here_and_are_counted() {
        let text = "Host: a.example\r\nConnection: close, X-One\r\nKeep-Alive: timeout=5\r\n\
            Proxy-Connection: keep-alive\r\nTE: gzip\r\nx-one: 1\r\nX-Two: 2\r\n\
            connection: x-two\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\
            Proxy-Authorization: Basic x\r\nX: y\r\n";
        assert_eq!(request(text), "Host: a.example\r\nX: y\r\n");
        let counted = Removed {
            connection: 2,
            keep_alive: 1,
            proxy_connection: 1,
            te: 1,
            named: 2,
        };
        assert_eq!(removed(text), counted);
    }

    #[test]
    fn framing_is_never_passed_on() {
        let text = "Host: a.example\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n";
        assert_eq!(request(text), "Host: a.example\r\n");
        let told = response(text, Upgrading::Stays, Announce::Nothing);
        assert_eq!(told, "Host: a.example\r\nVia: 1.1 holdfast\r\n");
    }

    #[test]
    fn a_nomination_cannot_strip_what_the_origin_relies_on() {
        let text = "Host: a.example\r\nAuthorization: x\r\nCookie: c\r\nVia: 1.1 z\r\nExpect: 100-continue\r\n";
        let nominating = format!("{text}Connection: host, authorization, Cookie, via, expect\r\n");
        assert_eq!(request(&nominating), text);
        let trusted = RequestContext {
            trust: Trust::Trusted,
            ..context()
        };
        let text = "Host: a.example\r\nX-Forwarded-Prefix: /x\r\n\
            Connection: x-forwarded-for, x-forwarded-prefix\r\nX-Forwarded-For: 10.0.0.1\r\n";
        let out = request_with(text, &rules(ForwardedStyle::XForwarded), &trusted);
        assert!(
            out.contains("X-Forwarded-For: 10.0.0.1, 192.0.2.7\r\n"),
            "{out}"
        );
        assert!(out.contains("X-Forwarded-Prefix: /x\r\n"), "{out}");
    }

    #[test]
    fn what_configuration_sets_cannot_be_nominated_away_or_spoofed() {
        let headers = HeaderRules::new(
            &[
                ("X-Tenant".into(), "ours".into()),
                ("X-Forwarded-Proto".into(), "https".into()),
            ],
            &["Referer".into()],
        )
        .unwrap();
        let rules = RequestRules {
            headers,
            ..rules(ForwardedStyle::XForwarded)
        };
        let text = "Host: a.example\r\nx-tenant: theirs\r\nReferer: r\r\nConnection: X-Tenant\r\n";
        let expected = "Host: a.example\r\nX-Forwarded-For: 192.0.2.7\r\n\
            X-Forwarded-Host: a.example\r\nVia: 1.1 holdfast\r\n\
            X-Tenant: ours\r\nX-Forwarded-Proto: https\r\n";
        assert_eq!(request_with(text, &rules, &context()), expected);
    }

    #[test]
    fn fields_named_in_an_http10_connection_are_removed_as_well() {
        let old = RequestContext {
            version: Received::Http10,
            ..context()
        };
        let text =
            "Host: a.example\r\nConnection: keep-alive, X-Old\r\nX-Old: 1\r\nTE: trailers\r\n";
        let out = request_with(text, &rules(ForwardedStyle::Off), &old);
        assert_eq!(out, "Host: a.example\r\nVia: 1.0 holdfast\r\n");
    }

    #[test]
    fn te_trailers_is_said_again_for_the_next_hop() {
        let out = request("Host: a.example\r\nTE: gzip;q=0.5, Trailers\r\nConnection: TE\r\n");
        assert_eq!(out, "Host: a.example\r\nTE: trailers\r\nConnection: TE\r\n");
    }

    #[test]
    fn upgrade_passes_only_when_this_exchange_upgrades() {
        let text = "Host: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
        assert_eq!(request(text), "Host: a.example\r\n");
        let upgrading = RequestContext {
            upgrading: Upgrading::Upgrades,
            ..context()
        };
        let out = request_with(text, &rules(ForwardedStyle::Off), &upgrading);
        let expected = "Host: a.example\r\nUpgrade: websocket\r\nVia: 1.1 holdfast\r\n\
            Connection: Upgrade\r\n";
        assert_eq!(out, expected);
        let text = "Upgrade: websocket\r\nConnection: upgrade\r\n";
        let out = response(text, Upgrading::Upgrades, Announce::Nothing);
        assert_eq!(
            out,
            "Upgrade: websocket\r\nVia: 1.1 holdfast\r\nConnection: Upgrade\r\n"
        );
    }

    #[test]
    fn the_host_is_replaced_in_its_place_and_written_once() {
        let replaced = RequestContext {
            host_to_origin: b"10.0.0.1:80",
            ..context()
        };
        let text = "A: 1\r\nhOsT: a.example\r\nB: 2\r\nHost: again\r\n";
        let out = request_with(text, &rules(ForwardedStyle::Off), &replaced);
        assert_eq!(
            out,
            "A: 1\r\nhOsT: 10.0.0.1:80\r\nB: 2\r\nVia: 1.1 holdfast\r\n"
        );
    }

    #[test]
    fn a_request_without_a_host_gets_one_first() {
        assert_eq!(request("A: 1\r\n"), "Host: a.example\r\nA: 1\r\n");
    }

    #[test]
    fn an_untrusted_peers_word_about_the_client_is_dropped_whatever_the_style() {
        let text = "Host: a.example\r\nForwarded: for=1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\n\
            x-forwarded-proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n\
            X-Real-IP: 1.2.3.4\r\nX-Forwarded-Prefix: /evil\r\n";
        assert_eq!(request(text), "Host: a.example\r\n");
        let out = request_with(text, &rules(ForwardedStyle::XForwarded), &context());
        let expected = "Host: a.example\r\nX-Forwarded-For: 192.0.2.7\r\n\
            X-Forwarded-Proto: http\r\nX-Forwarded-Host: a.example\r\nVia: 1.1 holdfast\r\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn a_trusted_peers_lists_are_continued_and_its_other_words_kept() {
        let trusted = RequestContext {
            trust: Trust::Trusted,
            ..context()
        };
        let text = "Host: a.example\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\n\
            X-Forwarded-Proto: https\r\nForwarded: for=x\r\n";
        let out = request_with(text, &rules(ForwardedStyle::Both), &trusted);
        let expected = "Host: a.example\r\nX-Forwarded-Proto: https\r\n\
            X-Forwarded-For: 10.0.0.1, 10.0.0.2, 192.0.2.7\r\nX-Forwarded-Host: a.example\r\n\
            Forwarded: for=x, for=192.0.2.7;proto=http;host=a.example\r\nVia: 1.1 holdfast\r\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn in_forwarded_an_ipv6_address_and_a_host_with_a_port_are_quoted() {
        let six = RequestContext {
            client: "2001:db8::1".parse().unwrap(),
            scheme: Scheme::Https,
            host: b"a.example:8443",
            ..context()
        };
        let out = request_with(
            "Host: a.example\r\n",
            &rules(ForwardedStyle::Forwarded),
            &six,
        );
        let line = "Forwarded: for=\"[2001:db8::1]\";proto=https;host=\"a.example:8443\"\r\n";
        assert!(out.contains(line), "{out}");
    }

    #[test]
    fn max_forwards_is_decremented_and_at_zero_we_answer() {
        let of = |text| {
            let (fields, octets) = section(text);
            max_forwards(&fields, &octets)
        };
        assert_eq!(of("Max-Forwards: 3\r\n"), MaxForwards::Forward(2));
        assert_eq!(of("Max-Forwards: 0\r\n"), MaxForwards::AnswerHere);
        assert_eq!(of("Max-Forwards: +3\r\n"), MaxForwards::Unlimited);
        assert_eq!(of("A: 1\r\n"), MaxForwards::Unlimited);
        let left = RequestContext {
            max_forwards: Some(2),
            ..context()
        };
        let text = "Host: a.example\r\nMax-Forwards: 3\r\nB: 1\r\n";
        let out = request_with(text, &rules(ForwardedStyle::Off), &left);
        assert!(
            out.starts_with("Host: a.example\r\nMax-Forwards: 2\r\nB: 1\r\n"),
            "{out}"
        );
        assert_eq!(request(text), text);
    }

    #[test]
    fn what_we_announce_shares_one_connection_line() {
        let said = RequestContext {
            announce: Announce::Close,
            ..context()
        };
        let text = "Host: a.example\r\nTE: trailers\r\n";
        let out = request_with(text, &rules(ForwardedStyle::Off), &said);
        assert!(
            out.ends_with("TE: trailers\r\nConnection: close, TE\r\n"),
            "{out}"
        );
        let out = response(
            "A: 1\r\nTE: trailers\r\n",
            Upgrading::Stays,
            Announce::KeepAlive,
        );
        assert_eq!(
            out,
            "A: 1\r\nVia: 1.1 holdfast\r\nConnection: keep-alive\r\n"
        );
    }

    #[test]
    fn a_challenge_for_a_proxy_does_not_pass_to_the_client() {
        let text = "Proxy-Authenticate: Basic\r\nWWW-Authenticate: Basic\r\n";
        let out = response(text, Upgrading::Stays, Announce::Nothing);
        assert_eq!(out, "WWW-Authenticate: Basic\r\nVia: 1.1 holdfast\r\n");
    }

    #[test]
    fn a_connection_field_may_name_sixteen_fields_and_no_more() {
        let naming = |count: usize| {
            let names: Vec<String> = (0..count).map(|at| format!("x-{at}")).collect();
            section(&format!(
                "Host: a.example\r\nConnection: close, {}\r\n",
                names.join(",")
            ))
        };
        let rules = rules(ForwardedStyle::Off);
        let result = |count| {
            let (fields, octets) = naming(count);
            request_fields(&mut Vec::new(), &fields, &octets, &rules, &context())
        };
        assert!(result(NOMINATIONS_MAX).is_ok());
        assert_eq!(result(NOMINATIONS_MAX + 1), Err(NominationsTooMany));
        assert!(NominationsTooMany.to_string().contains("16"));
    }

    #[test]
    fn configuration_cannot_set_what_belongs_to_the_connection_nor_smuggle_a_line() {
        for name in ["Connection", "transfer-encoding", "Host", "Via", "X Y", ""] {
            assert!(
                HeaderRules::new(&[(name.into(), "x".into())], &[]).is_err(),
                "{name}"
            );
            assert!(HeaderRules::new(&[], &[name.into()]).is_err(), "{name}");
        }
        for value in ["a\r\nB: c", " a", "a\0"] {
            assert!(
                HeaderRules::new(&[("X".into(), value.into())], &[]).is_err(),
                "{value:?}"
            );
        }
    }
}
