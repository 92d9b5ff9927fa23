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

use std::net::IpAddr;

use crate::h1::encode;
use crate::h1::encode::Unwritable;
use crate::h1::fields;
use crate::h1::fields::Field;
use crate::h1::fields::FieldLine;
use crate::h1::fields::FieldSection;
use crate::h1::head::RequestHead;
use crate::h1::head::ResponseHead;
use crate::h1::head::Version;
use crate::h1::octets;
use crate::policy::forwarded::ForwardedStyle;
use crate::policy::forwarded::Introduction;
use crate::policy::forwarded::Scheme;
use crate::policy::forwarded::Trust;
use crate::policy::header_rules::HeaderRules;

/// Whether this exchange changes protocol (RFC 9110 §7.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrading {
    /// It stays HTTP.
    No,
    /// Its `Upgrade` passes.
    Yes,
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

/// Our name in `Via`, encoded for either version (RFC 9110 §7.6.3).
#[derive(Clone, Debug)]
pub struct Via {
    http10: Box<[u8]>,
    http11: Box<[u8]>,
}

impl Via {
    /// Checks and encodes a pseudonym.
    ///
    /// # Errors
    /// A clause, when it is no token.
    pub fn new(name: &str) -> Result<Self, String> {
        if !octets::is_token(name.as_bytes()) {
            return Err(format!(
                "`{name}` is no name for Via; use letters, digits, `-`, `.`, `_`"
            ));
        }
        Ok(Self {
            http10: format!("Via: 1.0 {name}\r\n").into_bytes().into(),
            http11: format!("Via: 1.1 {name}\r\n").into_bytes().into(),
        })
    }

    /// No `Via` of ours (`via = "off"`).
    #[must_use]
    pub fn off() -> Self {
        Self {
            http10: Box::default(),
            http11: Box::default(),
        }
    }

    /// A further line continues the list of those before it.
    fn line(&self, received: Version) -> &[u8] {
        match received {
            Version::Http10 => &self.http10,
            Version::Http11 => &self.http11,
        }
    }
}

/// What a route says about the fields of requests.
#[derive(Clone, Debug)]
pub struct RequestRules {
    /// Our name in `Via`.
    pub via: Via,
    /// How the origin hears of the client.
    pub forwarded: ForwardedStyle,
    /// What is set and removed.
    pub headers: HeaderRules,
}

/// What a route says about the fields of responses.
#[derive(Clone, Debug)]
pub struct ResponseRules {
    /// Our name in `Via`.
    pub via: Via,
    /// What is set and removed.
    pub headers: HeaderRules,
}

/// What is known of one request beside its head.
#[derive(Clone, Copy, Debug)]
pub struct HopContext<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// Whether the client's word counts.
    pub trust: Trust,
    /// How the client came.
    pub scheme: Scheme,
    /// What the origin gets as `Host`. None: what the client asked for (`preserve_host`).
    pub host_to_origin: Option<&'a [u8]>,
    /// Whether the exchange upgrades.
    pub upgrading: Upgrading,
    /// To which protocols it may, in lower case: others are not offered to the origin.
    pub protocols: &'a [Vec<u8>],
    /// What we say about the origin's connection.
    pub announce: Announce,
    /// What `Max-Forwards` becomes, where it counts; see [`max_forwards`].
    pub max_forwards: Option<u64>,
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

/// Writes the field lines of a request to the origin, from `Host` to `Connection`, without framing
/// and without the empty line at the end.
///
/// # Errors
/// When `Connection` names more than [`NOMINATIONS_MAX`] fields (the octet is then the comma), or
/// `octets` is not what the head was read from. What was written must not be sent: 400.
pub fn request_fields(
    out: &mut Vec<u8>,
    head: &RequestHead,
    octets: &[u8],
    rules: &RequestRules,
    context: &HopContext<'_>,
) -> Result<Removed, Unwritable> {
    let (fields, headers) = (&head.fields, &rules.headers);
    let asked_host = head.host(octets);
    let host = context.host_to_origin.unwrap_or(asked_host);
    let mut sieve = Sieve::new(fields, octets, headers, context.upgrading);
    sieve.read_connection()?;
    let mut copy = Copy {
        out,
        octets,
        from: 0,
        to: 0,
    };
    // RFC 9112 §3.2: a request has a Host, and it should come first if there was none.
    let mut host_line = HostLine::Due;
    if !fields.has(Field::Host) {
        encode::known_field(copy.out, Field::Host, host)?;
        host_line = HostLine::Written;
    }
    for line in fields.lines() {
        match line.field {
            // RFC 9112 §3.2.2: what the target says replaces what the field said; one is enough.
            Field::Host if host_line == HostLine::Due => {
                host_line = HostLine::Written;
                copy.line_with(line, host)?;
            }
            Field::Host => {}
            // RFC 9110 §11.7.2: credentials for a proxy are not for the origin.
            Field::ProxyAuthorization => {}
            // RFC 9110 §10.1.1: an HTTP/1.0 client's expectation is ignored; ours would be heeded.
            Field::Expect if head.version == Version::Http10 => {}
            // RFC 7239 §8.1: what anybody can write, nobody should believe.
            _ if context.trust == Trust::Untrusted && is_about_client(line, octets) => {}
            Field::Upgrade if context.upgrading == Upgrading::Yes => {
                offer(&mut copy, line, context.protocols)?;
            }
            // These two lists are continued below, in one line each.
            Field::XForwardedFor if rules.forwarded.says_x() => {}
            Field::Forwarded if rules.forwarded.says_standard() => {}
            Field::MaxForwards => match context.max_forwards {
                Some(left) => {
                    copy.line_with(line, itoa::Buffer::new().format(left).as_bytes())?;
                }
                None => copy.line(line)?,
            },
            _ if sieve.keeps(line) => copy.line(line)?,
            _ => {}
        }
    }
    copy.flush();
    let introduction = Introduction {
        style: rules.forwarded,
        trust: context.trust,
        client: context.client,
        scheme: context.scheme,
        host: asked_host,
    };
    introduction.write(out, fields, octets, headers)?;
    out.extend_from_slice(rules.via.line(head.version));
    out.extend_from_slice(headers.lines());
    // RFC 9110 §10.1.4: TE means something from HTTP/1.1 on. It is this hop's, so it has to be
    // named in Connection.
    let trailers = match head.version {
        Version::Http11 if fields.lists(Field::Te, b"trailers", octets) => {
            encode::known_field(out, Field::Te, b"trailers")?;
            Trailers::Accepted
        }
        Version::Http11 | Version::Http10 => Trailers::Unasked,
    };
    write_connection(out, context.announce, trailers, context.upgrading);
    Ok(sieve.removed)
}

/// Writes the field lines of a response to the client, without framing, `Date`, `Keep-Alive` and
/// the empty line at the end; `Connection` only to say `Upgrade`, with a 101 or a 426.
///
/// # Errors
/// As [`request_fields`]; the origin's fault: 502.
pub fn response_fields(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    octets: &[u8],
    rules: &ResponseRules,
    upgrading: Upgrading,
) -> Result<Removed, Unwritable> {
    // RFC 9110 §15.5.22: a 426 has to say which protocols would do.
    let upgrading = match head.status {
        426 if head.fields.has(Field::Upgrade) => Upgrading::Yes,
        _ => upgrading,
    };
    let mut sieve = Sieve::new(&head.fields, octets, &rules.headers, upgrading);
    sieve.read_connection()?;
    let mut copy = Copy {
        out,
        octets,
        from: 0,
        to: 0,
    };
    for line in head.fields.lines() {
        match line.field {
            // RFC 9110 §11.7.1: a challenge goes to the next client only, and ours is no proxy's.
            Field::ProxyAuthenticate => {}
            _ if sieve.keeps(line) => copy.line(line)?,
            _ => {}
        }
    }
    copy.flush();
    out.extend_from_slice(rules.via.line(head.version));
    out.extend_from_slice(rules.headers.lines());
    write_connection(out, Announce::Nothing, Trailers::Unasked, upgrading);
    Ok(sieve.removed)
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
    fields: &'a FieldSection,
    octets: &'a [u8],
    headers: &'a HeaderRules,
    upgrading: Upgrading,
    /// The first of them; most messages have none, so the list is short and lies here.
    nominated: [&'a [u8]; NOMINATIONS_AT_HAND],
    nominations: usize,
    removed: Removed,
}

impl<'a> Sieve<'a> {
    /// Inlined, so that it is made where it stays: it is large, and most of it stays empty.
    #[inline(always)]
    fn new(
        fields: &'a FieldSection,
        octets: &'a [u8],
        headers: &'a HeaderRules,
        upgrading: Upgrading,
    ) -> Self {
        Self {
            fields,
            octets,
            headers,
            upgrading,
            nominated: [&[]; NOMINATIONS_AT_HAND],
            nominations: 0,
            removed: Removed::default(),
        }
    }

    fn read_connection(&mut self) -> Result<(), Unwritable> {
        for value in self.fields.all(Field::Connection, self.octets) {
            // Nearly every list is one of these words.
            if !is_everyday(value) {
                self.nominate(value)?;
            }
        }
        Ok(())
    }

    fn nominate(&mut self, list: &'a [u8]) -> Result<(), Unwritable> {
        // Those that everybody sends are dropped by their own rule, so most messages have
        // nominated nothing that needs looking for.
        for member in fields::members(list).filter(|member| !is_everyday(member)) {
            if let Some(slot) = self.nominated.get_mut(self.nominations) {
                *slot = member;
            }
            self.nominations += 1;
            if self.nominations > NOMINATIONS_MAX {
                return Err(Unwritable { octet: b',' });
            }
        }
        Ok(())
    }

    /// Inlined always: for most lines it is two comparisons.
    #[inline(always)]
    fn keeps(&mut self, line: &FieldLine) -> bool {
        let counter = match line.field {
            Field::Connection => &mut self.removed.connection,
            Field::KeepAlive => &mut self.removed.keep_alive,
            Field::ProxyConnection => &mut self.removed.proxy_connection,
            Field::Te => &mut self.removed.te,
            // Framing is ours to restate (RFC 9112 §6), and we never speak h2c (RFC 9113 §3.1).
            Field::TransferEncoding | Field::ContentLength | Field::Http2Settings => return false,
            Field::Upgrade => return self.upgrading == Upgrading::Yes,
            _ if self.nominations > 0 && self.is_nominated(line) => &mut self.removed.named,
            _ => {
                let headers = self.headers;
                return headers.is_empty() || !headers.drops(line.name.of(self.octets));
            }
        };
        *counter += 1;
        false
    }

    /// Apart, so that the usual message, which nominates nothing, does not pay for it.
    /// RFC 9110 §7.6.1: what `Connection` names is for this hop, whatever the version of the
    /// message: an HTTP/1.0 relay may have passed it on blindly.
    #[inline(never)]
    fn is_nominated(&self, line: &FieldLine) -> bool {
        let name = line.name.of(self.octets);
        let is_it = |nominated: &[u8]| octets::eq_ignore_case(nominated, name);
        let mut at_hand = self.nominated.iter().take(self.nominations);
        let is_named = at_hand.any(|nominated| is_it(nominated))
            || self.nominations > NOMINATIONS_AT_HAND
                && self.fields.list(Field::Connection, self.octets).any(is_it);
        is_named && !is_protected(line.field, name) && !self.headers.sets(name)
    }
}

/// Passes on what a line of `Upgrade` asks for that may be had (RFC 9110 §7.8: a list in order of
/// preference, of which the recipient may ignore any part).
fn offer(copy: &mut Copy<'_>, line: &FieldLine, protocols: &[Vec<u8>]) -> Result<(), Unwritable> {
    let asked = line.value.of(copy.octets);
    let is_offered = |asked: &&[u8]| protocols.iter().any(|p| octets::eq_ignore_case(p, asked));
    if fields::members(asked).all(|member| is_offered(&member)) {
        return copy.line(line);
    }
    let offered: Vec<&[u8]> = fields::members(asked).filter(is_offered).collect();
    match offered.is_empty() {
        true => Ok(()),
        false => copy.line_with(line, &offered.join(&b", "[..])),
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
        | Field::Date
        | Field::Forwarded
        | Field::Via
        | Field::Expect
        | Field::MaxForwards
        | Field::XRealIp => true,
        _ => is_x_forwarded(name),
    }
}

#[inline]
fn is_x_forwarded(name: &[u8]) -> bool {
    let start = name.get(..X_FORWARDED.len());
    start.is_some_and(|start| octets::is_same_token(start, X_FORWARDED))
}

/// Whether a line says who the client is.
fn is_about_client(line: &FieldLine, octets: &[u8]) -> bool {
    match line.field {
        Field::Forwarded
        | Field::XForwardedFor
        | Field::XForwardedProto
        | Field::XForwardedHost
        | Field::XForwardedPort
        | Field::XRealIp => true,
        Field::Other => is_x_forwarded(line.name.of(octets)),
        _ => false,
    }
}

/// Copies lines that lie together at once.
struct Copy<'a> {
    out: &'a mut Vec<u8>,
    octets: &'a [u8],
    from: usize,
    to: usize,
}

impl Copy<'_> {
    #[inline]
    fn line(&mut self, line: &FieldLine) -> Result<(), Unwritable> {
        let (name, value) = (line.name, line.value);
        let between = self.octets.get(name.end()..value.start());
        let after = self.octets.get(value.end()..value.end() + 2);
        // `name: value\r\n`, to the octet, is what would be written.
        if between != Some(b": ") || after != Some(b"\r\n") {
            return self.afresh(line);
        }
        if name.start() != self.to {
            self.flush();
            self.from = name.start();
        }
        self.to = value.end() + 2;
        Ok(())
    }

    #[cold]
    fn afresh(&mut self, line: &FieldLine) -> Result<(), Unwritable> {
        self.flush();
        encode::field_line(self.out, line, self.octets)
    }

    fn line_with(&mut self, line: &FieldLine, value: &[u8]) -> Result<(), Unwritable> {
        if line.value.of(self.octets) == value {
            return self.line(line);
        }
        self.flush();
        encode::field(self.out, line.name.of(self.octets), value)
    }

    #[inline]
    fn flush(&mut self) {
        if self.from < self.to {
            self.write();
        }
    }

    #[inline(never)]
    fn write(&mut self) {
        self.out
            .extend_from_slice(self.octets.get(self.from..self.to).unwrap_or_default());
        self.from = 0;
        self.to = 0;
    }
}

/// Writes what we say of the connection, which is nearly always nothing.
#[inline(always)]
fn write_connection(
    out: &mut Vec<u8>,
    announce: Announce,
    trailers: Trailers,
    upgrading: Upgrading,
) {
    match (announce, trailers, upgrading) {
        (Announce::Nothing, Trailers::Unasked, Upgrading::No) => {}
        _ => write_options(out, announce, trailers, upgrading),
    }
}

#[cold]
fn write_options(out: &mut Vec<u8>, announce: Announce, trailers: Trailers, upgrading: Upgrading) {
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
    let upgrade: &[u8] = if upgrading == Upgrading::Yes {
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

fn is_everyday(option: &[u8]) -> bool {
    EVERYDAY_OPTIONS
        .iter()
        .any(|everyday| octets::is_same_token(option, everyday))
}

/// Connection options that each have a rule of their own.
const EVERYDAY_OPTIONS: [&[u8]; 6] = [
    b"keep-alive",
    b"close",
    b"upgrade",
    b"te",
    b"proxy-connection",
    b"http2-settings",
];

const X_FORWARDED: &[u8] = b"x-forwarded-";

/// Nominations that are kept at hand. Real messages name none or one; for more, the lists of
/// `Connection` are read again for each line.
const NOMINATIONS_AT_HAND: usize = 4;

/// Most fields that `Connection` may name, beside the everyday options: as many as a request may
/// have by default (`max_headers`). Without a limit, naming many would cost many times as many
/// comparisons.
pub const NOMINATIONS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::ByteCount;
    use crate::h1::head::HeadLimits;
    use crate::h1::head::Parsed;

    const LIMITS: HeadLimits = HeadLimits {
        octets: ByteCount(65_536),
        fields: 128,
        target: ByteCount(8192),
    };

    fn request_head(version: &str, text: &str) -> (RequestHead, Vec<u8>) {
        let octets = format!("GET / HTTP/{version}\r\n{text}\r\n").into_bytes();
        let mut head = RequestHead::new();
        assert_eq!(head.parse(&octets, &LIMITS), Ok(Parsed::Complete), "{text}");
        (head, octets)
    }

    fn via() -> Via {
        Via::new("holdfast").unwrap()
    }

    fn rules(forwarded: ForwardedStyle) -> RequestRules {
        RequestRules {
            via: via(),
            forwarded,
            headers: HeaderRules::default(),
        }
    }

    fn context() -> HopContext<'static> {
        HopContext {
            client: "192.0.2.7".parse().unwrap(),
            trust: Trust::Untrusted,
            scheme: Scheme::Http,
            host_to_origin: None,
            upgrading: Upgrading::No,
            protocols: &[],
            announce: Announce::Nothing,
            max_forwards: None,
        }
    }

    fn encoded(
        version: &str,
        text: &str,
        rules: &RequestRules,
        context: &HopContext<'_>,
    ) -> String {
        let (head, octets) = request_head(version, text);
        let mut out = Vec::new();
        request_fields(&mut out, &head, &octets, rules, context).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn request_with(text: &str, rules: &RequestRules, context: &HopContext<'_>) -> String {
        encoded("1.1", text, rules, context)
    }

    /// A request's fields, without forwarding fields and without the `Via` that always ends them.
    fn request(text: &str) -> String {
        let out = request_with(text, &rules(ForwardedStyle::Off), &context());
        out.replace("Via: 1.1 holdfast\r\n", "")
    }

    fn removed(text: &str) -> Removed {
        let (head, octets) = request_head("1.1", text);
        let rules = rules(ForwardedStyle::Off);
        request_fields(&mut Vec::new(), &head, &octets, &rules, &context()).unwrap()
    }

    fn response(text: &str, upgrading: Upgrading) -> String {
        let octets = format!("HTTP/1.1 200 OK\r\n{text}\r\n").into_bytes();
        let mut head = ResponseHead::new();
        assert_eq!(head.parse(&octets, &LIMITS), Ok(Parsed::Complete), "{text}");
        let rules = ResponseRules {
            via: via(),
            headers: HeaderRules::default(),
        };
        let mut out = Vec::new();
        response_fields(&mut out, &head, &octets, &rules, upgrading).unwrap();
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
        let told = response(text, Upgrading::No);
        assert_eq!(told, "Host: a.example\r\nVia: 1.1 holdfast\r\n");
    }

    #[test]
    fn a_nomination_cannot_strip_what_the_origin_relies_on() {
        let text = "Host: a.example\r\nAuthorization: x\r\nCookie: c\r\nVia: 1.1 z\r\nExpect: 100-continue\r\n";
        let nominating = format!("{text}Connection: host, authorization, Cookie, via, expect\r\n");
        assert_eq!(request(&nominating), text);
        let trusted = HopContext {
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
        let text =
            "Host: a.example\r\nConnection: keep-alive, X-Old\r\nX-Old: 1\r\nTE: trailers\r\n";
        let out = encoded("1.0", text, &rules(ForwardedStyle::Off), &context());
        assert_eq!(out, "Host: a.example\r\nVia: 1.0 holdfast\r\n");
    }

    #[test]
    fn an_expectation_in_http10_ends_here() {
        let text = "Host: a.example\r\nExpect: 100-continue\r\n";
        let off = rules(ForwardedStyle::Off);
        let old = encoded("1.0", text, &off, &context());
        assert_eq!(old, "Host: a.example\r\nVia: 1.0 holdfast\r\n");
        assert!(encoded("1.1", text, &off, &context()).contains("Expect: 100-continue\r\n"));
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
        let protocols = [b"websocket".to_vec()];
        let upgrading = HopContext {
            protocols: &protocols,
            upgrading: Upgrading::Yes,
            ..context()
        };
        let out = request_with(text, &rules(ForwardedStyle::Off), &upgrading);
        let expected = "Host: a.example\r\nUpgrade: websocket\r\nVia: 1.1 holdfast\r\n\
            Connection: Upgrade\r\n";
        assert_eq!(out, expected);
        let text = "Upgrade: websocket\r\nConnection: upgrade\r\n";
        let out = response(text, Upgrading::Yes);
        assert_eq!(
            out,
            "Upgrade: websocket\r\nVia: 1.1 holdfast\r\nConnection: Upgrade\r\n"
        );
    }

    #[test]
    fn the_host_is_replaced_in_its_place_and_written_once() {
        let replaced = HopContext {
            host_to_origin: Some(b"10.0.0.1:80"),
            ..context()
        };
        let text = "A: 1\r\nhOsT: a.example\r\nB: 2\r\n";
        let out = request_with(text, &rules(ForwardedStyle::Off), &replaced);
        assert_eq!(
            out,
            "A: 1\r\nhOsT: 10.0.0.1:80\r\nB: 2\r\nVia: 1.1 holdfast\r\n"
        );
    }

    #[test]
    fn a_request_without_a_host_gets_one_first() {
        let replaced = HopContext {
            host_to_origin: Some(b"10.0.0.1"),
            ..context()
        };
        let out = encoded("1.0", "A: 1\r\n", &rules(ForwardedStyle::Off), &replaced);
        assert_eq!(out, "Host: 10.0.0.1\r\nA: 1\r\nVia: 1.0 holdfast\r\n");
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
        let trusted = HopContext {
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
        let six = HopContext {
            client: "2001:db8::1".parse().unwrap(),
            scheme: Scheme::Https,
            ..context()
        };
        let text = "Host: a.example:8443\r\n";
        let out = request_with(text, &rules(ForwardedStyle::Forwarded), &six);
        let line = "Forwarded: for=\"[2001:db8::1]\";proto=https;host=\"a.example:8443\"\r\n";
        assert!(out.contains(line), "{out}");
    }

    #[test]
    fn max_forwards_is_decremented_and_at_zero_we_answer() {
        let of = |text: &str| {
            let (head, octets) = request_head("1.1", &format!("Host: a.example\r\n{text}"));
            max_forwards(&head.fields, &octets)
        };
        assert_eq!(of("Max-Forwards: 3\r\n"), MaxForwards::Forward(2));
        assert_eq!(of("Max-Forwards: 0\r\n"), MaxForwards::AnswerHere);
        assert_eq!(of("Max-Forwards: +3\r\n"), MaxForwards::Unlimited);
        assert_eq!(of("A: 1\r\n"), MaxForwards::Unlimited);
        let left = HopContext {
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
        let said = HopContext {
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
            "A: 1\r\nTE: trailers\r\nConnection: close\r\n",
            Upgrading::No,
        );
        assert_eq!(out, "A: 1\r\nVia: 1.1 holdfast\r\n");
    }

    #[test]
    fn a_challenge_for_a_proxy_does_not_pass_to_the_client() {
        let text = "Proxy-Authenticate: Basic\r\nWWW-Authenticate: Basic\r\n";
        let out = response(text, Upgrading::No);
        assert_eq!(out, "WWW-Authenticate: Basic\r\nVia: 1.1 holdfast\r\n");
    }

    #[test]
    fn a_connection_field_may_name_as_many_fields_as_a_request_has_and_no_more() {
        let rules = rules(ForwardedStyle::Off);
        let result = |count: usize| {
            let names: Vec<String> = (0..count).map(|at| format!("x-{at}")).collect();
            let text = format!(
                "Host: a.example\r\nConnection: close, {}\r\n",
                names.join(",")
            );
            let (head, octets) = request_head("1.1", &text);
            request_fields(&mut Vec::new(), &head, &octets, &rules, &context())
        };
        assert!(result(NOMINATIONS_MAX).is_ok());
        assert_eq!(result(NOMINATIONS_MAX + 1), Err(Unwritable { octet: b',' }));
    }

    #[test]
    fn a_name_in_via_cannot_smuggle_a_line() {
        assert!(Via::new("a\r\nB: c").is_err());
        assert!(Via::new("").is_err());
    }
}
