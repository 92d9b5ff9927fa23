//! Field sections: where each field line's name and value lie, and which fields are there.
//!
//! A section holds places, not octets: the octets stay in the buffer they came in, in their order,
//! case and number, and are written from there. Names that the gateway acts on are recognised once,
//! while parsing, so that nobody compares strings again. The storage is reused from message to
//! message. Absent on purpose: a map. Order and repetition matter (RFC 9110 §5.3).

use crate::h1::octets;

/// A place in the buffer that holds a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// No octets.
    pub const EMPTY: Self = Self { start: 0, end: 0 };

    /// From `start` up to `end`. Heads are limited far below 4 GiB, so the places fit; what would
    /// not, saturates and reads as empty.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self {
            start: place(start),
            end: place(end),
        }
    }

    /// The octets of this place. Empty if the buffer is not the one the place was taken from.
    #[must_use]
    pub fn of(self, octets: &[u8]) -> &[u8] {
        octets
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// How many octets.
    #[must_use]
    pub fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// Where it begins.
    #[must_use]
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// Where it ends; the octet there does not belong to it.
    #[must_use]
    pub fn end(self) -> usize {
        self.end as usize
    }
}

/// The fields that somebody on our path acts on. Every other one is [`Field::Other`] and passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Field {
    /// `Age`
    Age,
    /// `Alt-Svc`
    AltSvc,
    /// `Authorization`
    Authorization,
    /// `Cache-Control`
    CacheControl,
    /// `Connection`
    Connection,
    /// `Content-Encoding`
    ContentEncoding,
    /// `Content-Length`
    ContentLength,
    /// `Content-Type`
    ContentType,
    /// `Cookie`
    Cookie,
    /// `Date`
    Date,
    /// `Expect`
    Expect,
    /// `Forwarded`
    Forwarded,
    /// `Host`
    Host,
    /// `HTTP2-Settings`
    Http2Settings,
    /// `Keep-Alive`
    KeepAlive,
    /// `Location`
    Location,
    /// `Max-Forwards`
    MaxForwards,
    /// `Proxy-Authenticate`
    ProxyAuthenticate,
    /// `Proxy-Authorization`
    ProxyAuthorization,
    /// `Proxy-Connection`
    ProxyConnection,
    /// `Proxy-Status`
    ProxyStatus,
    /// `Range`
    Range,
    /// `Referer`
    Referer,
    /// `Retry-After`
    RetryAfter,
    /// `Server`
    Server,
    /// `Set-Cookie`
    SetCookie,
    /// `TE`
    Te,
    /// `traceparent`
    Traceparent,
    /// `tracestate`
    Tracestate,
    /// `Trailer`
    Trailer,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Upgrade`
    Upgrade,
    /// `User-Agent`
    UserAgent,
    /// `Via`
    Via,
    /// `WWW-Authenticate`
    WwwAuthenticate,
    /// `X-Forwarded-For`
    XForwardedFor,
    /// `X-Forwarded-Host`
    XForwardedHost,
    /// `X-Forwarded-Port`
    XForwardedPort,
    /// `X-Forwarded-Proto`
    XForwardedProto,
    /// `X-Real-IP`
    XRealIp,
    /// `X-Request-ID`
    XRequestId,
    /// Any other name.
    Other,
}

impl Field {
    /// Recognises a name, whatever its case (RFC 9110 §5.1). Length and first letter leave one
    /// candidate (two, once), which is then compared.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let initial = name.first().copied().unwrap_or_default() | 0x20;
        let candidate = match (name.len(), initial) {
            (2, b't') => Self::Te,
            (3, b'a') => Self::Age,
            (3, b'v') => Self::Via,
            (4, b'd') => Self::Date,
            (4, b'h') => Self::Host,
            (5, b'r') => Self::Range,
            (6, b'c') => Self::Cookie,
            (6, b'e') => Self::Expect,
            (6, b's') => Self::Server,
            (7, b'a') => Self::AltSvc,
            (7, b'r') => Self::Referer,
            (7, b't') => Self::Trailer,
            (7, b'u') => Self::Upgrade,
            (8, b'l') => Self::Location,
            (9, b'f') => Self::Forwarded,
            (9, b'x') => Self::XRealIp,
            (10, b'c') => Self::Connection,
            (10, b'k') => Self::KeepAlive,
            (10, b's') => Self::SetCookie,
            (10, b't') => Self::Tracestate,
            (10, b'u') => Self::UserAgent,
            (11, b'r') => Self::RetryAfter,
            (11, b't') => Self::Traceparent,
            (12, b'c') => Self::ContentType,
            (12, b'm') => Self::MaxForwards,
            (12, b'p') => Self::ProxyStatus,
            (12, b'x') => Self::XRequestId,
            (13, b'a') => Self::Authorization,
            (13, b'c') => Self::CacheControl,
            (14, b'c') => Self::ContentLength,
            (14, b'h') => Self::Http2Settings,
            (15, b'x') => Self::XForwardedFor,
            (16, b'c') => Self::ContentEncoding,
            (16, b'p') => Self::ProxyConnection,
            (16, b'w') => Self::WwwAuthenticate,
            (16, b'x') => match name.get(12) {
                Some(b'h' | b'H') => Self::XForwardedHost,
                _ => Self::XForwardedPort,
            },
            (17, b't') => Self::TransferEncoding,
            (17, b'x') => Self::XForwardedProto,
            (18, b'p') => Self::ProxyAuthenticate,
            (19, b'p') => Self::ProxyAuthorization,
            _ => return Self::Other,
        };
        if octets::is_same_token(name, candidate.name().as_bytes()) {
            candidate
        } else {
            Self::Other
        }
    }

    /// The name as it is usually written; empty for [`Field::Other`], whose name is its octets.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Age => "Age",
            Self::AltSvc => "Alt-Svc",
            Self::Authorization => "Authorization",
            Self::CacheControl => "Cache-Control",
            Self::Connection => "Connection",
            Self::ContentEncoding => "Content-Encoding",
            Self::ContentLength => "Content-Length",
            Self::ContentType => "Content-Type",
            Self::Cookie => "Cookie",
            Self::Date => "Date",
            Self::Expect => "Expect",
            Self::Forwarded => "Forwarded",
            Self::Host => "Host",
            Self::Http2Settings => "HTTP2-Settings",
            Self::KeepAlive => "Keep-Alive",
            Self::Location => "Location",
            Self::MaxForwards => "Max-Forwards",
            Self::ProxyAuthenticate => "Proxy-Authenticate",
            Self::ProxyAuthorization => "Proxy-Authorization",
            Self::ProxyConnection => "Proxy-Connection",
            Self::ProxyStatus => "Proxy-Status",
            Self::Range => "Range",
            Self::Referer => "Referer",
            Self::RetryAfter => "Retry-After",
            Self::Server => "Server",
            Self::SetCookie => "Set-Cookie",
            Self::Te => "TE",
            Self::Traceparent => "traceparent",
            Self::Tracestate => "tracestate",
            Self::Trailer => "Trailer",
            Self::TransferEncoding => "Transfer-Encoding",
            Self::Upgrade => "Upgrade",
            Self::UserAgent => "User-Agent",
            Self::Via => "Via",
            Self::WwwAuthenticate => "WWW-Authenticate",
            Self::XForwardedFor => "X-Forwarded-For",
            Self::XForwardedHost => "X-Forwarded-Host",
            Self::XForwardedPort => "X-Forwarded-Port",
            Self::XForwardedProto => "X-Forwarded-Proto",
            Self::XRealIp => "X-Real-IP",
            Self::XRequestId => "X-Request-ID",
            Self::Other => "",
        }
    }

    /// Whether the field may be passed on in a trailer section. Those that frame, route, control,
    /// authenticate or describe the content may not (RFC 9110 §6.5.1).
    #[must_use]
    pub const fn may_trail(self) -> bool {
        matches!(
            self,
            Self::Age
                | Self::Date
                | Self::ProxyStatus
                | Self::Server
                | Self::Traceparent
                | Self::Tracestate
                | Self::XRequestId
                | Self::Other
        )
    }

    /// Its bit in a section's presence set.
    const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// The presence set has a bit for each field.
const _: () = assert!((Field::Other as u8) < 64);

/// One field line: what it is and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldLine {
    /// Which field.
    pub field: Field,
    /// The name as it was sent.
    pub name: Span,
    /// The value without the white space around it.
    pub value: Span,
}

/// The field lines of one message in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct FieldSection {
    lines: Vec<FieldLine>,
    present: u64,
    repeated: u64,
}

impl FieldSection {
    /// An empty section that owns no memory yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            lines: Vec::new(),
            present: 0,
            repeated: 0,
        }
    }

    /// Every line, in order.
    #[must_use]
    pub fn lines(&self) -> &[FieldLine] {
        &self.lines
    }

    /// Whether at least one line has this field. Costs one test.
    #[must_use]
    pub const fn has(&self, field: Field) -> bool {
        self.present & field.bit() != 0
    }

    /// How many lines have this field.
    #[must_use]
    pub fn count(&self, field: Field) -> usize {
        if self.has(field) {
            self.lines.iter().filter(|line| line.field == field).count()
        } else {
            0
        }
    }

    /// The value of the first line with this field.
    #[must_use]
    pub fn first<'a>(&self, field: Field, octets: &'a [u8]) -> Option<&'a [u8]> {
        self.all(field, octets).next()
    }

    /// The value of each line with this field.
    pub fn all<'a>(&self, field: Field, octets: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        // Nobody looks for a line that is not there, or for a second one.
        let most = match field {
            _ if self.repeated & field.bit() != 0 => usize::MAX,
            _ if self.has(field) => 1,
            _ => 0,
        };
        let lines = self.lines.iter();
        lines
            .filter(move |line| line.field == field)
            .map(|line| line.value.of(octets))
            .take(most)
    }

    /// The members of a comma list over all lines of this field (RFC 9110 §5.3, §5.6.1): trimmed,
    /// empty ones skipped, quoted strings kept whole.
    pub fn list<'a>(&self, field: Field, octets: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.all(field, octets).flat_map(members)
    }

    /// Whether the list of this field holds the token, whatever its case.
    #[must_use]
    pub fn lists(&self, field: Field, token: &[u8], octets: &[u8]) -> bool {
        self.has(field)
            && self
                .list(field, octets)
                .any(|member| octets::eq_ignore_case(member, token))
    }

    /// Adds a line.
    pub fn push(&mut self, line: FieldLine) {
        self.repeated |= self.present & line.field.bit();
        self.present |= line.field.bit();
        self.lines.push(line);
    }

    /// Forgets the lines and keeps the memory.
    pub fn clear(&mut self) {
        self.lines.clear();
        self.present = 0;
        self.repeated = 0;
    }
}

/// The members of one comma list, trimmed, the empty ones skipped. A comma inside a quoted string
/// separates nothing (RFC 9110 §5.6.4).
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let (member, tail) = split_member(rest?);
        rest = tail;
        Some(octets::trim_ows(member))
    })
    .filter(|member| !member.is_empty())
}

fn split_member(list: &[u8]) -> (&[u8], Option<&[u8]>) {
    enum Within {
        List,
        Quotes,
        QuotedPair,
    }
    // Nearly every list is without quotes.
    let mark = list.iter().position(|octet| matches!(octet, b',' | b'"'));
    match mark.and_then(|at| list.split_at_checked(at)) {
        None => return (list, None),
        Some((member, [b',', tail @ ..])) => return (member, Some(tail)),
        Some(_) => {}
    }
    let mut within = Within::List;
    for (at, octet) in list.iter().enumerate() {
        within = match (within, octet) {
            (Within::List, b',') => {
                let (member, tail) = list.split_at(at);
                return (member, tail.get(1..));
            }
            (Within::List, b'"') | (Within::QuotedPair, _) => Within::Quotes,
            (Within::Quotes, b'"') | (Within::List, _) => Within::List,
            (Within::Quotes, b'\\') => Within::QuotedPair,
            (Within::Quotes, _) => Within::Quotes,
        };
    }
    (list, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(lines: &[(&str, &str)]) -> (FieldSection, Vec<u8>) {
        let (mut fields, mut octets) = (FieldSection::new(), Vec::new());
        for (name, value) in lines {
            let at = octets.len();
            octets.extend_from_slice(name.as_bytes());
            let middle = octets.len();
            octets.extend_from_slice(value.as_bytes());
            let (name_span, value) = (Span::new(at, middle), Span::new(middle, octets.len()));
            fields.push(FieldLine {
                field: Field::of(name.as_bytes()),
                name: name_span,
                value,
            });
        }
        (fields, octets)
    }

    const KNOWN: [Field; 41] = [
        Field::Age,
        Field::AltSvc,
        Field::Authorization,
        Field::CacheControl,
        Field::Connection,
        Field::ContentEncoding,
        Field::ContentLength,
        Field::ContentType,
        Field::Cookie,
        Field::Date,
        Field::Expect,
        Field::Forwarded,
        Field::Host,
        Field::Http2Settings,
        Field::KeepAlive,
        Field::Location,
        Field::MaxForwards,
        Field::ProxyAuthenticate,
        Field::ProxyAuthorization,
        Field::ProxyConnection,
        Field::ProxyStatus,
        Field::Range,
        Field::Referer,
        Field::RetryAfter,
        Field::Server,
        Field::SetCookie,
        Field::Te,
        Field::Traceparent,
        Field::Tracestate,
        Field::Trailer,
        Field::TransferEncoding,
        Field::Upgrade,
        Field::UserAgent,
        Field::Via,
        Field::WwwAuthenticate,
        Field::XForwardedFor,
        Field::XForwardedHost,
        Field::XForwardedPort,
        Field::XForwardedProto,
        Field::XRealIp,
        Field::XRequestId,
    ];

    #[test]
    fn every_known_field_is_recognised_in_any_case() {
        for field in KNOWN {
            assert_eq!(Field::of(field.name().as_bytes()), field);
            assert_eq!(Field::of(field.name().to_uppercase().as_bytes()), field);
            assert_eq!(Field::of(field.name().to_lowercase().as_bytes()), field);
        }
        assert_eq!(KNOWN.len(), Field::Other as usize);
    }

    #[test]
    fn a_name_that_only_resembles_a_known_one_is_another() {
        for name in [
            "",
            "Transfer_Encoding",
            "Content-Lengt",
            "Hosts",
            "X-Forwarded-Pork",
            "tf",
        ] {
            assert_eq!(Field::of(name.as_bytes()), Field::Other, "{name}");
        }
    }

    #[test]
    fn a_list_runs_over_all_lines_and_skips_empty_members() {
        let (fields, octets) =
            section(&[("Connection", ",a, b ,"), ("X", "c"), ("connection", "\td")]);
        let members: Vec<_> = fields.list(Field::Connection, &octets).collect();
        assert_eq!(members, [b"a", b"b", b"d"]);
        assert!(fields.lists(Field::Connection, b"D", &octets));
        assert_eq!(fields.count(Field::Connection), 2);
    }

    #[test]
    fn a_comma_in_a_quoted_string_separates_nothing() {
        let found: Vec<_> = members(br#"a="x,\",y", b, "c"#).collect();
        assert_eq!(found, [&br#"a="x,\",y""#[..], b"b", br#""c"#]);
    }

    #[test]
    fn a_span_of_another_buffer_is_empty_and_does_not_panic() {
        assert_eq!(Span::new(5, 9).of(b"abc"), b"");
        assert_eq!(Span::new(3, 1).of(b"abc"), b"");
        assert_eq!(Span::new(usize::MAX, usize::MAX).of(b"abc"), b"");
        assert!(Span::new(3, 1).is_empty());
    }

    #[test]
    fn a_cleared_section_has_nothing() {
        let (mut fields, octets) = section(&[("Host", "a")]);
        fields.clear();
        assert!(!fields.has(Field::Host));
        assert_eq!(fields.first(Field::Host, &octets), None);
        assert_eq!(fields.count(Field::Host), 0);
    }
}
