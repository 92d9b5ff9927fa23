//! Persistence: whether a connection outlives an exchange (RFC 9112 §9.3), each side one function.
//!
//! `Connection` is read as a list over all its lines. `close` wins over everything, whoever also
//! says `keep-alive`. `Proxy-Connection` is not read at all: it is an old mistake (RFC 9112 §C.2.2).

use std::time::Duration;

use crate::base::CloseReason;
use crate::h1::fields;
use crate::h1::fields::Field;
use crate::h1::fields::FieldSection;
use crate::h1::framing::Framing;
use crate::h1::head::RequestHead;
use crate::h1::head::ResponseHead;
use crate::h1::head::Version;
use crate::h1::octets;

/// Whether a connection outlives an exchange, as far as this message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// It does.
    Persist,
    /// It does not.
    Close(CloseReason),
}

/// What a request says about its connection. A request's length is always known.
#[must_use]
pub fn request_persistence(head: &RequestHead, octets: &[u8]) -> Persistence {
    let options = options(&head.fields, octets);
    match (options, head.version) {
        // RFC 9112 §9.3, 1: `close` present.
        (Options::Close, _) => Persistence::Close(CloseReason::ClientCloseHeader),
        // 2: HTTP/1.1 persists.
        (Options::KeepAlive | Options::Silent, Version::Http11) => Persistence::Persist,
        // 3: HTTP/1.0 persists when asked, and towards a client we are no proxy-to-proxy chain.
        (Options::KeepAlive, Version::Http10) => Persistence::Persist,
        // 4: else it closes.
        (Options::Silent, Version::Http10) => Persistence::Close(CloseReason::Http10),
    }
}

/// What a response says about its connection.
#[must_use]
pub fn response_persistence(head: &ResponseHead, framing: Framing, octets: &[u8]) -> Persistence {
    let options = options(&head.fields, octets);
    match (options, head.version, framing) {
        // RFC 9112 §9.3, 1: `close` present.
        (Options::Close, _, _) => Persistence::Close(CloseReason::UpstreamCloseHeader),
        // 4: HTTP/1.0 that does not ask.
        (Options::Silent, Version::Http10, _) => Persistence::Close(CloseReason::Http10),
        // To persist, every message must say its own length (RFC 9112 §9.3).
        (Options::KeepAlive | Options::Silent, _, Framing::UntilClose) => {
            Persistence::Close(CloseReason::CloseDelimited)
        }
        // 2 and 3: HTTP/1.1, or HTTP/1.0 that asks.
        (
            Options::KeepAlive | Options::Silent,
            Version::Http11 | Version::Http10,
            Framing::None | Framing::Length(_) | Framing::Chunked,
        ) => Persistence::Persist,
    }
}

/// What `Keep-Alive` promises. A hint of the peer's, not a contract; `timeout` and `max` are its
/// only parameters in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepAliveHint {
    /// How long the peer keeps the connection while it idles.
    pub timeout: Option<Duration>,
    /// How many more requests it takes on it.
    pub max: Option<u32>,
}

/// Reads `Keep-Alive: timeout=5, max=100`. What does not read so is no hint.
#[must_use]
pub fn keep_alive_hint(fields: &FieldSection, octets: &[u8]) -> KeepAliveHint {
    let mut hint = KeepAliveHint::default();
    if !fields.has(Field::KeepAlive) {
        return hint;
    }
    for member in fields.list(Field::KeepAlive, octets) {
        let Some(at) = member.iter().position(|octet| *octet == b'=') else {
            continue;
        };
        let (name, value) = member.split_at_checked(at).unwrap_or_default();
        let number = octets::decimal(octets::trim_ows(value.get(1..).unwrap_or_default()));
        match octets::trim_ows(name) {
            name if octets::eq_ignore_case(name, b"timeout") => {
                hint.timeout = number.map(Duration::from_secs).or(hint.timeout);
            }
            name if octets::eq_ignore_case(name, b"max") => {
                hint.max = number
                    .map(|max| u32::try_from(max).unwrap_or(u32::MAX))
                    .or(hint.max);
            }
            _ => {}
        }
    }
    hint
}

#[derive(Clone, Copy)]
enum Options {
    Close,
    KeepAlive,
    Silent,
}

fn options(fields: &FieldSection, octets: &[u8]) -> Options {
    let mut options = Options::Silent;
    for value in fields.all(Field::Connection, octets) {
        // Nearly every list is this one word.
        if octets::is_same_token(value, b"keep-alive") {
            options = Options::KeepAlive;
            continue;
        }
        for option in fields::members(value) {
            if octets::eq_ignore_case(option, b"close") {
                return Options::Close;
            }
            if octets::eq_ignore_case(option, b"keep-alive") {
                options = Options::KeepAlive;
            }
        }
    }
    options
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
    const CLOSED_BY_CLIENT: Persistence = Persistence::Close(CloseReason::ClientCloseHeader);
    const CLOSED_BY_ORIGIN: Persistence = Persistence::Close(CloseReason::UpstreamCloseHeader);
    const HTTP10: Persistence = Persistence::Close(CloseReason::Http10);
    const DELIMITED: Persistence = Persistence::Close(CloseReason::CloseDelimited);

    fn request(version: &str, fields: &str) -> Persistence {
        let octets = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::new();
        head.parse(octets.as_bytes(), &LIMITS).unwrap();
        request_persistence(&head, octets.as_bytes())
    }

    fn response(version: &str, fields: &str, framing: Framing) -> Persistence {
        let octets = format!("HTTP/{version} 200 x\r\n{fields}\r\n");
        let mut head = ResponseHead::new();
        head.parse(octets.as_bytes(), &LIMITS).unwrap();
        response_persistence(&head, framing, octets.as_bytes())
    }

    #[test]
    fn http11_persists_until_somebody_says_close() {
        assert_eq!(request("1.1", ""), Persistence::Persist);
        assert_eq!(request("1.1", "Connection: CLOSE\r\n"), CLOSED_BY_CLIENT);
        assert_eq!(response("1.1", "", Framing::Chunked), Persistence::Persist);
        assert_eq!(
            response("1.1", "Connection: x, close\r\n", Framing::None),
            CLOSED_BY_ORIGIN
        );
    }

    #[test]
    fn http10_persists_only_when_it_asks() {
        assert_eq!(request("1.0", ""), HTTP10);
        assert_eq!(
            request("1.0", "Connection: Keep-Alive\r\n"),
            Persistence::Persist
        );
        assert_eq!(response("1.0", "", Framing::Length(1)), HTTP10);
        let asks = "Connection: keep-alive\r\n";
        assert_eq!(
            response("1.0", asks, Framing::Length(1)),
            Persistence::Persist
        );
    }

    #[test]
    fn close_wins_over_keep_alive_even_on_a_second_line() {
        let both = "Connection: keep-alive\r\nConnection: close\r\n";
        assert_eq!(request("1.1", both), CLOSED_BY_CLIENT);
        assert_eq!(request("1.0", both), CLOSED_BY_CLIENT);
    }

    #[test]
    fn proxy_connection_says_nothing() {
        assert_eq!(request("1.0", "Proxy-Connection: keep-alive\r\n"), HTTP10);
        assert_eq!(
            request("1.1", "Proxy-Connection: close\r\n"),
            Persistence::Persist
        );
    }

    #[test]
    fn a_body_until_close_ends_its_connection() {
        assert_eq!(response("1.1", "", Framing::UntilClose), DELIMITED);
        let asks = "Connection: keep-alive\r\n";
        assert_eq!(response("1.0", asks, Framing::UntilClose), DELIMITED);
    }

    fn hint(fields: &str) -> KeepAliveHint {
        let octets = format!("HTTP/1.1 200 x\r\n{fields}\r\n");
        let mut head = ResponseHead::new();
        head.parse(octets.as_bytes(), &LIMITS).unwrap();
        keep_alive_hint(&head.fields, octets.as_bytes())
    }

    #[test]
    fn a_keep_alive_hint_is_read_and_nonsense_is_none() {
        let timeout = Some(Duration::from_secs(5));
        let both = KeepAliveHint {
            timeout,
            max: Some(100),
        };
        assert_eq!(hint("Keep-Alive: timeout=5, max=100\r\n"), both);
        assert_eq!(
            hint("keep-alive: Timeout = 5\r\nKeep-Alive: MAX=100\r\n"),
            both
        );
        let nothing = KeepAliveHint::default();
        assert_eq!(
            hint("Keep-Alive: 5, timeout=+5, timeout=, max=-1, timeout=5s\r\n"),
            nothing
        );
        assert_eq!(hint(""), nothing);
    }
}
