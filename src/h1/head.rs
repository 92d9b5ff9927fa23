//! Heads: start line and field section of a request or a response, read in place.
//!
//! `parse` is called with the same octets and more of them until it says `Complete`; it goes on
//! where it stopped. A complete head is a legal one: target, version and `Host` have been checked.
//! What its framing is, `framing` says. Absent on purpose: copying, and repairing.

use crate::base::units::ByteCount;
use crate::h1::error::MessageError;
use crate::h1::fields::FieldLine;
use crate::h1::fields::FieldSection;
use crate::h1::fields::Span;
use crate::h1::lines;
use crate::h1::lines::Lines;
use crate::h1::lines::NextLine;
use crate::h1::octets;
use crate::h1::target::HostNeed;
use crate::h1::target::Target;
use crate::h1::target::TargetOf;

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Most octets, the empty line included.
    pub octets: ByteCount,
    /// Most field lines.
    pub fields: u32,
    /// Most octets of a request target.
    pub target: ByteCount,
}

/// Whether the head is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More octets are needed.
    Partial,
    /// The head is whole and legal.
    Complete,
}

/// The methods whose meaning we know. Methods are case-sensitive (RFC 9110 §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
    /// `TRACE`
    Trace,
    /// `CONNECT`
    Connect,
    /// `PATCH`
    Patch,
    /// Any other token; forwarded as sent.
    Other,
}

impl Method {
    /// Recognises a method.
    #[must_use]
    pub fn of(octets: &[u8]) -> Self {
        match octets {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// Whether it asks for nothing to be changed (RFC 9110 §9.2.1).
    #[must_use]
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// Whether sending it twice is meant to do what sending it once does (RFC 9110 §9.2.2).
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }
}

/// The version a sender speaks. A higher minor version is read as the highest we know
/// (RFC 9110 §2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1 to HTTP/1.9
    Http11,
}

impl Version {
    fn parse(octets: &[u8]) -> Result<Self, MessageError> {
        match octets {
            b"HTTP/1.1" => Ok(Self::Http11),
            b"HTTP/1.0" => Ok(Self::Http10),
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Ok(Self::Http11),
            [
                b'H',
                b'T',
                b'T',
                b'P',
                b'/',
                major @ b'0'..=b'9',
                b'.',
                b'0'..=b'9',
            ] => Err(MessageError::VersionUnsupported {
                major: major - b'0',
            }),
            _ => Err(MessageError::VersionMalformed),
        }
    }
}

/// Where the reading of a head stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing but octets of the first line.
    Start,
    /// One empty line was skipped.
    AfterEmptyLine,
    /// The start line is read.
    Fields,
    /// The head is whole.
    Complete,
}

/// The head of a request.
#[derive(Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The method as sent.
    pub method_octets: Span,
    /// The target.
    pub target: Target,
    /// The version.
    pub version: Version,
    /// The field section.
    pub fields: FieldSection,
    /// The head's length in the buffer, an empty line before it included.
    pub octets: usize,
    stage: Stage,
    lines: Lines,
}

impl RequestHead {
    /// A head that has not arrived.
    #[must_use]
    pub fn new() -> Self {
        Self {
            method: Method::Other,
            method_octets: Span::EMPTY,
            target: Target::EMPTY,
            version: Version::Http11,
            fields: FieldSection::new(),
            octets: 0,
            stage: Stage::Start,
            lines: Lines::default(),
        }
    }

    /// Goes on reading. `octets` begins where it began before.
    ///
    /// # Errors
    /// The first rule that the head breaks, which is the same however the octets were split.
    pub fn parse(&mut self, octets: &[u8], limits: &HeadLimits) -> Result<Parsed, MessageError> {
        let end_max = limits.octets.as_len();
        while matches!(self.stage, Stage::Start | Stage::AfterEmptyLine) {
            let line_max = self.lines.at().saturating_add(request_line_max(limits));
            let start = self.lines.at();
            if let Some((method, target)) = plain_request_line(&mut self.lines, octets, limits) {
                self.accept(method, target, start, Version::Http11)?;
                self.stage = Stage::Fields;
                break;
            }
            match self.lines.next(octets, line_max.min(end_max))? {
                NextLine::Partial => return Ok(Parsed::Partial),
                // RFC 9112 §3: 414. Also where the whole head's limit comes first: what is too long
                // is the request line, and its fields have not been seen.
                NextLine::Overrun => {
                    return Err(MessageError::TargetTooLong {
                        limit: limits.target.min(limits.octets),
                    });
                }
                NextLine::Broken { start, line } => {
                    self.request_line(line, start, limits)?;
                    return Err(MessageError::RequestLineShape);
                }
                // RFC 9112 §2.2: a server should ignore at least one empty line before the
                // request line. One it is.
                NextLine::Line { line: [], .. } => match self.stage {
                    Stage::Start => self.stage = Stage::AfterEmptyLine,
                    Stage::AfterEmptyLine | Stage::Fields | Stage::Complete => {
                        return Err(MessageError::EmptyLines);
                    }
                },
                NextLine::Line { start, line } => {
                    self.request_line(line, start, limits)?;
                    self.stage = Stage::Fields;
                }
            }
        }
        if self.stage == Stage::Fields {
            match field_section(&mut self.fields, &mut self.lines, octets, limits)? {
                Parsed::Partial => return Ok(Parsed::Partial),
                Parsed::Complete => self.finish(octets)?,
            }
        }
        Ok(Parsed::Complete)
    }

    /// The host the request is for. Empty only where an HTTP/1.0 request named none.
    #[must_use]
    pub fn host<'a>(&self, octets: &'a [u8]) -> &'a [u8] {
        self.target.host(&self.fields, octets)
    }

    /// Whether the request line is there and legal, and so what it says.
    #[must_use]
    pub fn has_request_line(&self) -> bool {
        match self.stage {
            Stage::Start | Stage::AfterEmptyLine => false,
            Stage::Fields | Stage::Complete => true,
        }
    }

    /// Makes ready for the next message and keeps the memory.
    pub fn reset(&mut self) {
        // What was asked last must not show in the answer to something illegible.
        self.method = Method::Other;
        self.method_octets = Span::EMPTY;
        self.fields.clear();
        self.stage = Stage::Start;
        self.lines = Lines::default();
        self.octets = 0;
    }

    /// An empty line before this head was taken off its connection already, and one is
    /// all that is skipped.
    pub fn on_empty_line(&mut self) {
        if self.stage == Stage::Start {
            self.stage = Stage::AfterEmptyLine;
        }
    }

    /// RFC 9112 §3: method SP request-target SP HTTP-version. Single spaces and no others: §3 lets a
    /// recipient be lenient here, and warns of what comes of it.
    fn request_line(
        &mut self,
        line: &[u8],
        start: usize,
        limits: &HeadLimits,
    ) -> Result<(), MessageError> {
        let (method, rest) = octets::split_class(line, octets::is_tchar);
        let rest = match (method, rest) {
            ([], [b' ', ..] | []) => return Err(MessageError::MethodMissing),
            (_, [b' ', rest @ ..]) => rest,
            (_, [] | [b'\t', ..]) => return Err(MessageError::RequestLineShape),
            (_, [b'\r', ..]) => return Err(MessageError::BareCarriageReturn),
            (_, [octet, ..]) => return Err(MessageError::MethodOctet { octet: *octet }),
        };
        if method.len() > METHOD_OCTETS_MAX {
            return Err(MessageError::MethodTooLong);
        }
        let (target, rest) = octets::split_target(rest);
        let version = match (target, rest) {
            ([], [b' ' | b'\t', ..] | []) => return Err(MessageError::RequestLineShape),
            (_, [b' ', version @ ..]) => version,
            // HTTP/0.9's request line, which has no version, ends here as well.
            (_, [] | [b'\t', ..]) => return Err(MessageError::RequestLineShape),
            (_, [b'\r', ..]) => return Err(MessageError::BareCarriageReturn),
            (_, [octet, ..]) => return Err(MessageError::TargetOctet { octet: *octet }),
        };
        if target.len() > limits.target.as_len() {
            return Err(MessageError::TargetTooLong {
                limit: limits.target,
            });
        }
        let version = Version::parse(version).map_err(|error| version_error(version, error))?;
        self.accept(method, target, start, version)
    }

    fn accept(
        &mut self,
        method: &[u8],
        target: &[u8],
        start: usize,
        version: Version,
    ) -> Result<(), MessageError> {
        self.version = version;
        self.method = Method::of(method);
        self.method_octets = Span::new(start, start + method.len());
        let of = match self.method {
            Method::Connect => TargetOf::Connect,
            Method::Options => TargetOf::Options,
            Method::Get
            | Method::Head
            | Method::Post
            | Method::Put
            | Method::Delete
            | Method::Trace
            | Method::Patch
            | Method::Other => TargetOf::Any,
        };
        self.target = Target::parse(target, start + method.len() + 1, of)?;
        Ok(())
    }

    fn finish(&mut self, octets: &[u8]) -> Result<(), MessageError> {
        let need = match self.version {
            Version::Http11 => HostNeed::Required,
            Version::Http10 => HostNeed::Optional,
        };
        self.target.check_host(&self.fields, octets, need)?;
        self.octets = self.lines.at();
        self.stage = Stage::Complete;
        Ok(())
    }
}

impl Default for RequestHead {
    fn default() -> Self {
        Self::new()
    }
}

/// The head of a response.
#[derive(Debug)]
pub struct ResponseHead {
    /// The status code, 100 to 599.
    pub status: u16,
    /// The reason phrase as sent, perhaps empty.
    pub reason: Span,
    /// The version.
    pub version: Version,
    /// The field section.
    pub fields: FieldSection,
    /// The head's length in the buffer.
    pub octets: usize,
    stage: Stage,
    lines: Lines,
}

impl ResponseHead {
    /// A head that has not arrived.
    #[must_use]
    pub fn new() -> Self {
        Self {
            status: 0,
            reason: Span::EMPTY,
            version: Version::Http11,
            fields: FieldSection::new(),
            octets: 0,
            stage: Stage::Start,
            lines: Lines::default(),
        }
    }

    /// Goes on reading. `octets` begins where it began before.
    ///
    /// # Errors
    /// The first rule that the head breaks, which is the same however the octets were split.
    pub fn parse(&mut self, octets: &[u8], limits: &HeadLimits) -> Result<Parsed, MessageError> {
        if self.stage == Stage::Start && self.plain_status_line(octets, limits).is_some() {
            self.stage = Stage::Fields;
        }
        if self.stage == Stage::Start {
            match self.lines.next(octets, limits.octets.as_len())? {
                NextLine::Partial => return Ok(Parsed::Partial),
                NextLine::Overrun => {
                    return Err(MessageError::HeadTooLong {
                        limit: limits.octets,
                    });
                }
                NextLine::Line { start, line } => self.status_line(line, start)?,
                NextLine::Broken { start, line } => {
                    self.status_line(line, start)?;
                    return Err(reason_error(line));
                }
            }
            self.stage = Stage::Fields;
        }
        if self.stage == Stage::Fields {
            match field_section(&mut self.fields, &mut self.lines, octets, limits)? {
                Parsed::Partial => return Ok(Parsed::Partial),
                Parsed::Complete => {
                    self.octets = self.lines.at();
                    self.stage = Stage::Complete;
                }
            }
        }
        Ok(Parsed::Complete)
    }

    /// Makes ready for the next message and keeps the memory.
    pub fn reset(&mut self) {
        self.fields.clear();
        self.stage = Stage::Start;
        self.lines = Lines::default();
        self.octets = 0;
    }

    /// A status line that is whole, of HTTP/1.1, with a reason, and not looked at before: what nearly
    /// every one is. None: [`Lines::next`] and [`Self::status_line`] say what it is instead.
    #[inline]
    fn plain_status_line(&mut self, octets: &[u8], limits: &HeadLimits) -> Option<()> {
        let octets = octets.get(..limits.octets.as_len()).unwrap_or(octets);
        let line = self.lines.fresh(octets)?;
        let [
            a @ b'1'..=b'5',
            b @ b'0'..=b'9',
            c @ b'0'..=b'9',
            b' ',
            rest @ ..,
        ] = line.strip_prefix(b"HTTP/1.1 ")?
        else {
            return None;
        };
        let (reason, end) = rest.split_at_checked(octets::first_control(rest)?)?;
        let next = end.strip_prefix(b"\r\n")?;
        let digit = |octet: &u8| u16::from(*octet - b'0'); // matched above
        self.status = digit(a) * 100 + digit(b) * 10 + digit(c);
        self.version = Version::Http11;
        let start = octets.len() - rest.len();
        self.reason = Span::new(start, start + reason.len());
        self.lines.next_at(octets.len() - next.len());
        Some(())
    }

    /// RFC 9112 §4: HTTP-version SP status-code SP [ reason-phrase ]. The last space is missing in
    /// the answers of many real servers that send no reason, and nothing can be hidden there.
    fn status_line(&mut self, line: &[u8], start: usize) -> Result<(), MessageError> {
        let (version, rest) = octets::split_class(line, |octet| octet != b' ');
        self.version = Version::parse(version)?;
        let (status, reason) = match rest {
            [b' ', status @ ..] if status.len() == 3 => (status, &[][..]),
            [b' ', a, b, c, b' ', reason @ ..] => (&[*a, *b, *c][..], reason),
            _ => return Err(MessageError::StatusLineShape),
        };
        let number = octets::decimal(status).and_then(|number| u16::try_from(number).ok());
        self.status = number.ok_or(MessageError::StatusLineShape)?;
        if !(100..=599).contains(&self.status) {
            return Err(MessageError::StatusRange {
                status: self.status,
            });
        }
        let end = start + line.len();
        self.reason = Span::new(end - reason.len(), end);
        Ok(())
    }
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self::new()
    }
}

/// Method and target of a request line that is whole, within its limits, of HTTP/1.1 and not looked
/// at before: what nearly every one is. It is read in one pass. None: [`Lines::next`] and
/// [`RequestHead::request_line`] say what it is instead, and nothing has changed.
#[inline]
fn plain_request_line<'a>(
    lines: &mut Lines,
    octets: &'a [u8],
    limits: &HeadLimits,
) -> Option<(&'a [u8], &'a [u8])> {
    let octets = octets.get(..limits.octets.as_len()).unwrap_or(octets);
    let line = lines.fresh(octets)?;
    let (method, rest) = octets::split_class(line, octets::is_tchar);
    let (target, rest) = octets::split_target(rest.strip_prefix(b" ")?);
    let next = rest.strip_prefix(b" HTTP/1.1\r\n")?;
    let is_within = (1..=METHOD_OCTETS_MAX).contains(&method.len())
        && (1..=limits.target.as_len()).contains(&target.len());
    if !is_within {
        return None;
    }
    lines.next_at(octets.len() - next.len());
    Some((method, target))
}

fn field_section(
    fields: &mut FieldSection,
    lines: &mut Lines,
    octets: &[u8],
    limits: &HeadLimits,
) -> Result<Parsed, MessageError> {
    let end_max = limits.octets.as_len();
    loop {
        if let Some(line) = lines.next_plain(octets, end_max) {
            push(fields, line, limits)?;
            continue;
        }
        if lines.next_is_empty(octets, end_max) {
            return Ok(Parsed::Complete);
        }
        match lines.next(octets, end_max)? {
            NextLine::Partial => return Ok(Parsed::Partial),
            NextLine::Overrun => {
                return Err(MessageError::HeadTooLong {
                    limit: limits.octets,
                });
            }
            NextLine::Line { line: [], .. } => return Ok(Parsed::Complete),
            NextLine::Broken { start, line } => return Err(lines::broken_field_line(line, start)),
            NextLine::Line { start, line } => {
                push(fields, lines::field_line(line, start)?, limits)?;
            }
        }
    }
}

#[inline]
fn push(
    fields: &mut FieldSection,
    line: FieldLine,
    limits: &HeadLimits,
) -> Result<(), MessageError> {
    if fields.lines().len() >= limits.fields as usize {
        return Err(MessageError::FieldsTooMany {
            limit: limits.fields,
        });
    }
    fields.push(line);
    Ok(())
}

/// Which rule a status line breaks whose reason phrase ends in a control octet.
#[cold]
fn reason_error(line: &[u8]) -> MessageError {
    match line.last() {
        Some(b'\r') | None => MessageError::BareCarriageReturn,
        Some(octet) => MessageError::ReasonOctet { octet: *octet },
    }
}

/// A bare CR or a fourth part is a worse fault of the request line than its version.
#[cold]
fn version_error(version: &[u8], error: MessageError) -> MessageError {
    if version.contains(&b'\r') {
        MessageError::BareCarriageReturn
    } else if version.contains(&b' ') || version.contains(&b'\t') {
        MessageError::RequestLineShape
    } else {
        error
    }
}

/// Most octets of a request line, so that an endless one is refused before the whole head's limit.
fn request_line_max(limits: &HeadLimits) -> usize {
    limits
        .target
        .as_len()
        .saturating_add(METHOD_OCTETS_MAX + "  HTTP/1.1\r\n".len())
}

/// Longest method. The longest registered one, `UPDATEREDIRECTREF`, has 17 octets. Longer:
/// `MethodTooLong`, 501, close.
pub const METHOD_OCTETS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        octets: ByteCount(256),
        fields: 4,
        target: ByteCount(32),
    };

    fn request(octets: &[u8]) -> Result<Parsed, MessageError> {
        RequestHead::new().parse(octets, &LIMITS)
    }

    fn padded(length: usize) -> Vec<u8> {
        let fixed = b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        let value = "v".repeat(length - fixed);
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n").into_bytes()
    }

    #[test]
    fn a_head_of_just_the_limit_passes_and_one_octet_more_does_not() {
        assert_eq!(request(&padded(256)), Ok(Parsed::Complete));
        let limit = LIMITS.octets;
        assert_eq!(
            request(&padded(257)),
            Err(MessageError::HeadTooLong { limit })
        );
        assert_eq!(request(&padded(257)[..255]), Ok(Parsed::Partial));
        assert_eq!(
            request(&padded(257)[..256]),
            Err(MessageError::HeadTooLong { limit })
        );
    }

    #[test]
    fn one_empty_line_is_skipped_also_one_that_was_taken_off_before() {
        let parsed = |octets: &[u8]| {
            let mut head = RequestHead::new();
            head.on_empty_line();
            head.parse(octets, &LIMITS)
        };
        let empty_lines = Err(MessageError::EmptyLines);
        assert_eq!(request(b"\r\nGET / HTTP/1.0\r\n\r\n"), Ok(Parsed::Complete));
        assert_eq!(request(b"\r\n\r\n"), empty_lines);
        assert_eq!(parsed(b"GET / HTTP/1.0\r\n\r\n"), Ok(Parsed::Complete));
        assert_eq!(parsed(b"\r\n"), empty_lines);
    }

    #[test]
    fn a_target_of_just_the_limit_passes_and_one_octet_more_does_not() {
        let with = |length: usize| {
            format!(
                "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
                "p".repeat(length - 1)
            )
            .into_bytes()
        };
        assert_eq!(request(&with(32)), Ok(Parsed::Complete));
        let limit = LIMITS.target;
        assert_eq!(
            request(&with(33)),
            Err(MessageError::TargetTooLong { limit })
        );
    }

    #[test]
    fn an_endless_request_line_is_a_long_target() {
        let limit = LIMITS.target;
        assert_eq!(
            request(&[b'a'; 80]),
            Err(MessageError::TargetTooLong { limit })
        );
    }

    #[test]
    fn a_request_line_past_the_heads_limit_is_a_long_target_too() {
        let octets = ByteCount(16);
        let limits = HeadLimits { octets, ..LIMITS };
        let error = MessageError::TargetTooLong { limit: octets };
        let line = b"GET /aaaaaaaaaaa HTTP/1.1\r\n";
        assert_eq!(RequestHead::new().parse(line, &limits), Err(error));
        assert_eq!(RequestHead::new().parse(&line[..16], &limits), Err(error));
        assert_eq!(
            RequestHead::new().parse(&line[..15], &limits),
            Ok(Parsed::Partial)
        );
    }

    #[test]
    fn as_many_fields_as_allowed_pass_and_one_more_does_not() {
        let with = |count: usize| {
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
                "X: y\r\n".repeat(count)
            )
            .into_bytes()
        };
        assert_eq!(request(&with(3)), Ok(Parsed::Complete));
        assert_eq!(
            request(&with(4)),
            Err(MessageError::FieldsTooMany { limit: 4 })
        );
    }

    #[test]
    fn a_method_of_32_octets_passes_and_one_of_33_does_not() {
        let with = |length: usize| format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(length));
        assert_eq!(request(with(32).as_bytes()), Ok(Parsed::Complete));
        assert_eq!(
            request(with(33).as_bytes()),
            Err(MessageError::MethodTooLong)
        );
    }

    #[test]
    fn the_next_head_is_read_into_the_same_memory() {
        let mut head = RequestHead::new();
        let octets = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nPUT /b HTTP/1.0\r\n\r\n";
        assert_eq!(head.parse(octets, &LIMITS), Ok(Parsed::Complete));
        assert_eq!(head.octets, 28);
        let rest = &octets[head.octets..];
        head.reset();
        assert_eq!(head.parse(rest, &LIMITS), Ok(Parsed::Complete));
        assert_eq!((head.method, head.version), (Method::Put, Version::Http10));
        assert_eq!(head.target.path(rest), b"/b");
        assert!(head.fields.lines().is_empty());
        assert_eq!(head.host(rest), b"");
    }

    #[test]
    fn a_higher_minor_version_is_read_as_the_one_we_know() {
        assert_eq!(
            request(b"GET / HTTP/1.7\r\nHost: a\r\n\r\n"),
            Ok(Parsed::Complete)
        );
        let error = MessageError::VersionUnsupported { major: 2 };
        assert_eq!(request(b"PRI * HTTP/2.0\r\n\r\n"), Err(error));
    }

    #[test]
    fn safe_methods_are_idempotent_and_post_is_neither() {
        assert!(Method::Get.is_safe() && Method::Get.is_idempotent());
        assert!(!Method::Put.is_safe() && Method::Put.is_idempotent());
        assert!(!Method::Post.is_idempotent() && !Method::Patch.is_idempotent());
        assert_eq!(Method::of(b"get"), Method::Other);
        assert!(!Method::Other.is_idempotent());
    }

    #[test]
    fn only_the_six_idempotent_methods_are_idempotent() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(Method::of(method.as_bytes()).is_idempotent(), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "get", "PURGE", ""] {
            assert!(!Method::of(method.as_bytes()).is_idempotent(), "{method}");
        }
    }
}
