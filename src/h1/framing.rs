//! Framing: how the end of a message is known. RFC 9112 §6.3, in its order, each side one function.
//!
//! This is the place where smuggling happens or does not. The framing is found once, does not
//! depend on the request's method, and is stated anew on the way out. Absent on purpose: any way to
//! prefer one of two lengths.

use crate::h1::error::MessageError;
use crate::h1::fields;
use crate::h1::fields::Field;
use crate::h1::fields::FieldSection;
use crate::h1::head::Method;
use crate::h1::head::RequestHead;
use crate::h1::head::ResponseHead;
use crate::h1::head::Version;
use crate::h1::octets;

/// How the end of a message is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The head is all there is.
    None,
    /// So many octets of content follow.
    Length(u64),
    /// Chunks follow, up to the last one and a trailer section.
    Chunked,
    /// Content follows until the origin closes. Only a response may be framed so.
    UntilClose,
}

/// How a request is framed.
///
/// # Errors
/// The rule that its framing breaks; the connection cannot be trusted any further.
pub fn request_framing(head: &RequestHead, octets: &[u8]) -> Result<Framing, MessageError> {
    // RFC 9112 §6.3, 3 to 5: coding and length, which rules are the same on both sides.
    // 6: a legal length.
    // 7: neither, so the request has no content. A request never runs until close.
    Ok(stated(&head.fields, head.version, octets)?.unwrap_or(Framing::None))
}

/// How a response is framed, which depends on what was asked.
///
/// # Errors
/// The rule that its framing breaks; the connection cannot be trusted any further.
pub fn response_framing(
    request_method: Method,
    head: &ResponseHead,
    octets: &[u8],
) -> Result<Framing, MessageError> {
    // Read first, although 1 and 2 do not need it: a contradiction is one even there.
    let stated = stated(&head.fields, head.version, octets)?;
    // RFC 9112 §6.3, 1: to HEAD, and with 1xx, 204 and 304, there is no content, whatever the fields say.
    if request_method == Method::Head || matches!(head.status, 100..=199 | 204 | 304) {
        return Ok(Framing::None);
    }
    // 2: 2xx to CONNECT makes a tunnel of the connection; coding and length are ignored.
    if request_method == Method::Connect && matches!(head.status, 200..=299) {
        return Ok(Framing::None);
    }
    // 3 to 6: coding and length. 8: neither, so the end is the end of the connection.
    Ok(stated.unwrap_or(Framing::UntilClose))
}

/// What `Transfer-Encoding` and `Content-Length` say; `None` where neither is there.
fn stated(
    fields: &FieldSection,
    version: Version,
    octets: &[u8],
) -> Result<Option<Framing>, MessageError> {
    match (
        fields.has(Field::TransferEncoding),
        fields.has(Field::ContentLength),
    ) {
        (false, false) => Ok(None),
        // RFC 9112 §6.1: a coding in HTTP/1.0 is faulty framing, even where the length would tell.
        (true, _) if version == Version::Http10 => Err(MessageError::CodingInHttp10),
        // RFC 9112 §6.3, 3: both present may be smuggling. The RFC lets us refuse, and makes us close.
        (true, true) => Err(MessageError::LengthAndCoding),
        (true, false) => coding(fields, octets).map(Some),
        (false, true) => length(fields, octets).map(Some),
    }
}

/// RFC 9112 §6.3, 4: `chunked` must be the final coding, and it is the only one we speak.
fn coding(fields: &FieldSection, octets: &[u8]) -> Result<Framing, MessageError> {
    let mut lines = fields.all(Field::TransferEncoding, octets);
    let value = lines.next().unwrap_or_default();
    // Two lines make one list (RFC 9110 §5.3), and recipients that read only one of them exist.
    if lines.next().is_some() {
        return Err(MessageError::CodingRepeated);
    }
    if octets::eq_ignore_case(value, b"chunked") {
        return Ok(Framing::Chunked);
    }
    Err(coding_error(value))
}

/// Tells a list of codings that we do not speak (RFC 9112 §6.1: 501) from what is no such list, or
/// has `chunked` where it may not be (RFC 9112 §7).
#[cold]
fn coding_error(value: &[u8]) -> MessageError {
    let chunked = |coding: &[u8]| octets::eq_ignore_case(coding, b"chunked");
    let mut codings = value.split(|octet| *octet == b',').map(octets::trim_ows);
    let is_list = codings.clone().all(|coding| {
        // A parameter makes another coding of it, but not of `chunked`, which takes none (§7.1).
        let mut parts = coding.split(|octet| *octet == b';').map(octets::trim_ows);
        let (name, parameters) = (parts.next().unwrap_or_default(), parts.next());
        octets::is_token(name) && !(parameters.is_some() && chunked(name))
    });
    let Some(last) = codings.next_back() else {
        return MessageError::CodingMalformed;
    };
    let early = codings.any(chunked);
    if is_list && !early && !last.is_empty() {
        MessageError::CodingUnknown
    } else {
        MessageError::CodingMalformed
    }
}

/// RFC 9112 §6.3, 5: one line of digits. The RFC allows to take equal lengths for one; a sender that
/// repeats itself gains nothing by it, and a recipient that counts differently loses.
fn length(fields: &FieldSection, octets: &[u8]) -> Result<Framing, MessageError> {
    let mut lines = fields.all(Field::ContentLength, octets);
    let value = lines.next().unwrap_or_default();
    if lines.next().is_some() {
        return Err(MessageError::LengthRepeated);
    }
    octets::decimal(value)
        .map(Framing::Length)
        .ok_or_else(|| length_error(value))
}

/// Tells a list of lengths from what is no length.
#[cold]
fn length_error(value: &[u8]) -> MessageError {
    match fields::members(value).nth(1) {
        Some(_) => MessageError::LengthRepeated,
        None => MessageError::LengthMalformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::ByteCount;
    use crate::h1::head::HeadLimits;

    const LIMITS: HeadLimits = HeadLimits {
        octets: ByteCount(1024),
        fields: 16,
        target: ByteCount(256),
    };

    fn request(method: &str, fields: &str) -> Result<Framing, MessageError> {
        let octets = format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::new();
        head.parse(octets.as_bytes(), &LIMITS).unwrap();
        request_framing(&head, octets.as_bytes())
    }

    fn response(method: Method, status: u16, fields: &str) -> Result<Framing, MessageError> {
        let octets = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
        let mut head = ResponseHead::new();
        head.parse(octets.as_bytes(), &LIMITS).unwrap();
        response_framing(method, &head, octets.as_bytes())
    }

    #[test]
    fn a_requests_framing_does_not_depend_on_its_method() {
        for method in ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            assert_eq!(request(method, ""), Ok(Framing::None));
            assert_eq!(
                request(method, "Content-Length: 3\r\n"),
                Ok(Framing::Length(3))
            );
            assert_eq!(
                request(method, "Transfer-Encoding: CHUNKED\r\n"),
                Ok(Framing::Chunked)
            );
        }
    }

    #[test]
    fn a_response_without_length_runs_until_close() {
        assert_eq!(response(Method::Get, 200, ""), Ok(Framing::UntilClose));
        assert_eq!(
            response(Method::Get, 200, "Content-Length: 0\r\n"),
            Ok(Framing::Length(0))
        );
    }

    #[test]
    fn head_and_the_bodiless_statuses_have_no_content_whatever_the_fields_say() {
        let length = "Content-Length: 9\r\n";
        assert_eq!(response(Method::Head, 200, length), Ok(Framing::None));
        for status in [100, 103, 199, 204, 304] {
            assert_eq!(response(Method::Get, status, length), Ok(Framing::None));
        }
        assert_eq!(response(Method::Connect, 200, length), Ok(Framing::None));
        assert_eq!(
            response(Method::Connect, 407, length),
            Ok(Framing::Length(9))
        );
        assert_eq!(response(Method::Get, 205, length), Ok(Framing::Length(9)));
    }

    #[test]
    fn a_contradiction_counts_even_where_there_is_no_content() {
        let both = "Content-Length: 9\r\nTransfer-Encoding: chunked\r\n";
        assert_eq!(
            response(Method::Head, 200, both),
            Err(MessageError::LengthAndCoding)
        );
    }
}
