//! A request's head, judged: what is asked, and whether it is served at all.

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::h1::fields::Field;
use crate::h1::framing::Framing;
use crate::h1::framing::request_framing;
use crate::h1::head::Method;
use crate::h1::head::RequestHead;
use crate::h1::head::Version;
use crate::h1::octets;
use crate::h1::persistence::Persistence;
use crate::h1::persistence::request_persistence;
use crate::net::reactor::Gone;
use crate::policy::hops;
use crate::policy::hops::MaxForwards;
use crate::proxy::answer::Asked;
use crate::proxy::answer::Upgrade;
use crate::proxy::client::Client;
use crate::proxy::draining::Standing;
use crate::proxy::settings::HalfClose;
use crate::proxy::settings::Http10;
use crate::proxy::settings::Pipelining;
use crate::proxy::settings::RouteSettings;

/// What a request head asks.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    /// Which request on its connection it is, from 1.
    pub nth: u64,
    /// What the answer's side must know.
    pub asked: Asked,
    /// How its content ends.
    pub framing: Framing,
    /// What becomes of `Max-Forwards`.
    pub max_forwards: Option<u64>,
    /// Who is to answer.
    pub recipient: Recipient,
}

/// Who is to answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// An origin.
    Origin,
    /// We: it is an OPTIONS request that may go no further.
    Us,
}

/// Judges a client's nth head, which was read whole. `unread` is what came behind it.
///
/// # Errors
/// Why it is not served.
pub fn judge(
    (client, nth): (&Client, u64),
    head: &RequestHead,
    octets: &[u8],
    unread: &[u8],
) -> Result<Judged, ProxyError> {
    let settings = &client.listener.settings;
    if head.version == Version::Http10 && settings.http10 == Http10::Refused {
        return Err(ProxyError::VersionUnsupported);
    }
    // A reverse proxy is not a way to elsewhere (RFC 9110 §9.3.6 lets a server refuse CONNECT).
    if head.method == Method::Connect {
        return Err(ProxyError::MethodRefused);
    }
    let framing = request_framing(head, octets).map_err(|error| error.proxy_error())?;
    if let (Framing::Length(length), Some(limit)) = (framing, settings.max_body_bytes)
        && length > limit
    {
        return Err(ProxyError::BodyTooLarge);
    }
    check_expectation(head, octets)?;
    let mut recipient = Recipient::Origin;
    let max_forwards = match head.method {
        Method::Trace | Method::Options => match hops::max_forwards(&head.fields, octets) {
            MaxForwards::Unlimited => None,
            MaxForwards::Forward(left) => Some(left),
            // RFC 9110 §7.6.2: at 0 we are the final recipient. A gateway may refuse TRACE, which
            // would show what it knows; OPTIONS it answers for itself.
            MaxForwards::AnswerHere if head.method == Method::Trace => {
                return Err(ProxyError::MethodRefused);
            }
            MaxForwards::AnswerHere => {
                recipient = Recipient::Us;
                None
            }
        },
        _ => None,
    };
    let gone = match settings.half_close {
        HalfClose::Finish => Gone::Reset,
        HalfClose::Abort => Gone::Fin,
    };
    let asked = Asked {
        method: head.method,
        version: head.version,
        upgrade: Upgrade::No,
        persistence: persistence((client, nth), head, octets, (framing, unread)),
        gone,
        requests_left: settings.max_requests.map(|most| most.saturating_sub(nth)),
    };
    Ok(Judged {
        nth,
        asked,
        framing,
        max_forwards,
        recipient,
    })
}

/// Whether the request asks for a protocol that its route allows, among others perhaps
/// (RFC 9110 §7.8).
#[must_use]
pub fn upgrade(head: &RequestHead, octets: &[u8], route: &RouteSettings) -> Upgrade {
    let asks = head.version == Version::Http11
        && head.fields.has(Field::Upgrade)
        && head.fields.lists(Field::Connection, b"upgrade", octets);
    if !asks {
        return Upgrade::No;
    }
    let allowed = |protocol: &[u8]| {
        route
            .upgrade
            .iter()
            .any(|allowed| octets::eq_ignore_case(allowed, protocol))
    };
    match head.fields.list(Field::Upgrade, octets).any(allowed) {
        true => Upgrade::Asked,
        false => Upgrade::No,
    }
}

/// RFC 9110 §10.1.1: an expectation other than 100-continue may be refused with 417. An HTTP/1.0
/// client's is ignored.
fn check_expectation(head: &RequestHead, octets: &[u8]) -> Result<(), ProxyError> {
    if head.version == Version::Http10 || !head.fields.has(Field::Expect) {
        return Ok(());
    }
    let known = head
        .fields
        .list(Field::Expect, octets)
        .all(|expectation| octets::eq_ignore_case(expectation, b"100-continue"));
    if known {
        Ok(())
    } else {
        Err(ProxyError::ExpectationFailed)
    }
}

fn persistence(
    (client, nth): (&Client, u64),
    head: &RequestHead,
    octets: &[u8],
    (framing, unread): (Framing, &[u8]),
) -> Persistence {
    let settings = &client.listener.settings;
    let asked = request_persistence(head, octets);
    if let Persistence::Close(_) = asked {
        return asked;
    }
    // An HTTP/1.0 relay that passes `Connection: keep-alive` on without knowing it would wait for a
    // close that never comes; `Via` gives it away (the chapter, 4.5.6).
    if head.version == Version::Http10 && head.fields.has(Field::Via) {
        return Persistence::Close(CloseReason::BlindRelay);
    }
    if settings.max_requests.is_some_and(|most| nth >= most) {
        return Persistence::Close(CloseReason::MaxRequests);
    }
    if client.age_deadline.passed() {
        return Persistence::Close(CloseReason::MaxAge);
    }
    if client.service.standing() != Standing::Serving || client.listener.door.strong_count() == 0 {
        return Persistence::Close(CloseReason::Drain);
    }
    // An empty line is no request (RFC 9112 §2.2). Behind chunks nobody can tell yet.
    let ahead = match framing {
        Framing::None => !matches!(unread, [] | b"\r\n"),
        Framing::Length(length) => {
            let behind = usize::try_from(length).ok().and_then(|at| unread.get(at..));
            !matches!(behind, None | Some([] | b"\r\n"))
        }
        Framing::Chunked | Framing::UntilClose => false,
    };
    if ahead && settings.pipelining == Pipelining::Close {
        return Persistence::Close(CloseReason::PipeliningOff);
    }
    Persistence::Persist
}
