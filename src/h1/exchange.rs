//! The exchange: one request and its answers as a machine of two sides.
//!
//! ```text
//! request:   Sending ─► Sent
//!               └─────► Abandoned
//! response:  AwaitingHead ─(1xx)─► AwaitingHead ─(final)─► Answered
//!               └─(101, asked)─► Switched
//! ```
//!
//! The sides run on their own: an origin may answer while the request still flows (RFC 9112 §9.5).
//! What arrives in a state that has no place for it is an error, never a guess. Absent on purpose:
//! time, the octets themselves, and whether the connection lives on (`pool/verdict`).

use crate::h1::error::MessageError;
use crate::h1::fields;
use crate::h1::fields::Field;
use crate::h1::framing;
use crate::h1::framing::Framing;
use crate::h1::head::Method;
use crate::h1::head::RequestHead;
use crate::h1::head::ResponseHead;
use crate::h1::head::Version;
use crate::h1::octets;

/// What a response head means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// An informational answer; another follows (RFC 9110 §15.2). It goes to the client unless that
    /// speaks HTTP/1.0 (`Withhold`).
    Informational {
        /// Its status.
        status: u16,
    },
    /// An informational answer that the client's HTTP/1.0 has no place for (RFC 9110 §15.2).
    Withhold {
        /// Its status.
        status: u16,
    },
    /// The connection becomes a tunnel for a protocol that the request asked for.
    SwitchingProtocols,
    /// The final answer.
    Final(Framing),
}

/// Where the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestSide {
    /// Its octets are on their way.
    Sending,
    /// It is sent whole.
    Sent,
    /// The rest of it will not be sent.
    Abandoned,
}

/// Where the response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseSide {
    /// No final answer has begun.
    AwaitingHead,
    /// The final answer's head came; its body has a reader of its own (`body`).
    Answered,
    /// The connection is a tunnel.
    Switched,
}

/// Whether the client waits for `100` before it sends content (RFC 9110 §10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// It does not, or no longer.
    Settled,
    /// It waits.
    AwaitsContinue,
    /// It waited, and then sent content all the same; a `100` that comes is still one it asked for.
    Overtaken,
}

/// One request and its answers.
#[derive(Debug)]
pub struct Exchange {
    method: Method,
    version: Version,
    request: RequestSide,
    response: ResponseSide,
    expectation: Expectation,
    informational: u32,
    /// The protocols that the request asks to switch to. Made only where there is one.
    upgrade: Option<Box<[u8]>>,
}

impl Exchange {
    /// The exchange that a request begins.
    #[must_use]
    pub fn new(head: &RequestHead, framing: Framing, octets: &[u8]) -> Self {
        let request = match framing {
            Framing::None | Framing::Length(0) => RequestSide::Sent,
            Framing::Length(_) | Framing::Chunked | Framing::UntilClose => RequestSide::Sending,
        };
        Self {
            method: head.method,
            version: head.version,
            request,
            response: ResponseSide::AwaitingHead,
            expectation: expectation(head, request, octets),
            informational: 0,
            upgrade: upgrade(head, octets),
        }
    }

    /// Whether the client waits for `100`.
    #[must_use]
    pub const fn expectation(&self) -> Expectation {
        self.expectation
    }

    /// The client sends its content without having waited to the end (RFC 9110 §10.1.1 lets it).
    pub fn on_request_content(&mut self) {
        if self.expectation == Expectation::AwaitsContinue {
            self.expectation = Expectation::Overtaken;
        }
    }

    /// The request is sent whole.
    pub fn on_request_end(&mut self) {
        self.on_request_content();
        self.request = match self.request {
            RequestSide::Sending | RequestSide::Sent => RequestSide::Sent,
            RequestSide::Abandoned => RequestSide::Abandoned,
        };
    }

    /// The rest of the request will not be sent: the client left, or the answer came early.
    pub fn on_request_abandoned(&mut self) {
        self.expectation = Expectation::Settled;
        self.request = match self.request {
            RequestSide::Sending | RequestSide::Abandoned => RequestSide::Abandoned,
            RequestSide::Sent => RequestSide::Sent,
        };
    }

    /// A response head arrived.
    ///
    /// # Errors
    /// The rule that the answer breaks: of framing, of switching, or of how many there may be.
    pub fn on_response_head(
        &mut self,
        head: &ResponseHead,
        octets: &[u8],
    ) -> Result<Arrival, MessageError> {
        let framing = framing::response_framing(self.method, head, octets)?;
        match (self.response, kind(head.status)) {
            (ResponseSide::AwaitingHead, Kind::Informational) => self.informational(head.status),
            (ResponseSide::AwaitingHead, Kind::Switching) => self.switch(head, octets),
            (ResponseSide::AwaitingHead, Kind::Final) => {
                self.expectation = Expectation::Settled;
                self.response = ResponseSide::Answered;
                Ok(Arrival::Final(framing))
            }
            (
                ResponseSide::Answered | ResponseSide::Switched,
                Kind::Informational | Kind::Switching | Kind::Final,
            ) => Err(MessageError::AnswerUnasked),
        }
    }

    fn informational(&mut self, status: u16) -> Result<Arrival, MessageError> {
        self.informational += 1;
        if self.informational > INFORMATIONAL_MAX {
            return Err(MessageError::InformationalTooMany {
                limit: INFORMATIONAL_MAX,
            });
        }
        if status == 100 {
            self.expectation = Expectation::Settled;
        }
        Ok(match self.version {
            Version::Http11 => Arrival::Informational { status },
            Version::Http10 => Arrival::Withhold { status },
        })
    }

    /// RFC 9110 §7.8: a server must not switch to a protocol that was not asked for, and switches
    /// after it has the request. Octets sent before are held back by the caller: until here nothing
    /// is a tunnel.
    fn switch(&mut self, head: &ResponseHead, octets: &[u8]) -> Result<Arrival, MessageError> {
        let Some(asked) = self.upgrade.as_deref() else {
            return Err(MessageError::SwitchUnasked);
        };
        let among =
            |chosen: &[u8]| fields::members(asked).any(|p| octets::eq_ignore_case(p, chosen));
        let mut chosen = head.fields.list(Field::Upgrade, octets).peekable();
        match self.request {
            RequestSide::Sent if chosen.peek().is_some() && chosen.all(among) => {
                self.response = ResponseSide::Switched;
                Ok(Arrival::SwitchingProtocols)
            }
            RequestSide::Sent | RequestSide::Sending | RequestSide::Abandoned => {
                Err(MessageError::SwitchUnasked)
            }
        }
    }
}

enum Kind {
    Informational,
    Switching,
    Final,
}

const fn kind(status: u16) -> Kind {
    match status {
        101 => Kind::Switching,
        100..=199 => Kind::Informational,
        _ => Kind::Final,
    }
}

/// RFC 9110 §10.1.1: an expectation in an HTTP/1.0 request, or without content, is ignored.
fn expectation(head: &RequestHead, request: RequestSide, octets: &[u8]) -> Expectation {
    match (head.version, request) {
        (Version::Http11, RequestSide::Sending)
            if head.fields.lists(Field::Expect, b"100-continue", octets) =>
        {
            Expectation::AwaitsContinue
        }
        (Version::Http10 | Version::Http11, _) => Expectation::Settled,
    }
}

/// RFC 9110 §7.8: `Upgrade` counts where `Connection` names it, and not in HTTP/1.0. `h2c` is never
/// asked for on: behind it a tunnel would carry requests that nobody checks (RFC 9113 §3.1 has
/// taken it back).
fn upgrade(head: &RequestHead, octets: &[u8]) -> Option<Box<[u8]>> {
    let asks = head.fields.has(Field::Upgrade)
        && head.version == Version::Http11
        && head.fields.lists(Field::Connection, b"upgrade", octets);
    if !asks {
        return None;
    }
    let mut protocols = Vec::new();
    for protocol in head.fields.list(Field::Upgrade, octets) {
        if !octets::eq_ignore_case(protocol, b"h2c") {
            protocols.extend_from_slice(protocol);
            protocols.push(b',');
        }
    }
    (!protocols.is_empty()).then(|| protocols.into_boxed_slice())
}

/// Most informational answers before the final one. Real origins send a `100` and a few `103`;
/// without a limit an origin could keep an exchange alive for ever. More: `InformationalTooMany`,
/// 502, close.
pub const INFORMATIONAL_MAX: u32 = 16;

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

    fn ask(request: &str) -> Exchange {
        let mut head = RequestHead::new();
        head.parse(request.as_bytes(), &LIMITS).unwrap();
        let framing = framing::request_framing(&head, request.as_bytes()).unwrap();
        Exchange::new(&head, framing, request.as_bytes())
    }

    fn answer(exchange: &mut Exchange, response: &str) -> Result<Arrival, MessageError> {
        let mut head = ResponseHead::new();
        head.parse(response.as_bytes(), &LIMITS).unwrap();
        exchange.on_response_head(&head, response.as_bytes())
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const GET10: &str = "GET / HTTP/1.0\r\n\r\n";
    const POST: &str =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    const SOCKET: &str =
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\n";
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";

    #[test]
    fn a_client_that_waits_for_100_waits_until_100_or_a_final_answer() {
        let mut exchange = ask(POST);
        assert_eq!(exchange.expectation(), Expectation::AwaitsContinue);
        let early = answer(&mut exchange, "HTTP/1.1 103 Early Hints\r\n\r\n");
        assert_eq!(early, Ok(Arrival::Informational { status: 103 }));
        assert_eq!(exchange.expectation(), Expectation::AwaitsContinue);
        answer(&mut exchange, "HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        assert_eq!(exchange.expectation(), Expectation::Settled);
        let mut refused = ask(POST);
        answer(&mut refused, "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert_eq!(refused.expectation(), Expectation::Settled);
    }

    #[test]
    fn a_client_of_http10_gets_no_informational_answer() {
        let mut exchange = ask(GET10);
        let early = answer(&mut exchange, "HTTP/1.1 103 Early Hints\r\n\r\n");
        assert_eq!(early, Ok(Arrival::Withhold { status: 103 }));
    }

    #[test]
    fn sixteen_informational_answers_pass_and_the_seventeenth_does_not() {
        let mut exchange = ask(GET);
        for _ in 0..INFORMATIONAL_MAX {
            assert!(answer(&mut exchange, "HTTP/1.1 102 Processing\r\n\r\n").is_ok());
        }
        let error = Err(MessageError::InformationalTooMany {
            limit: INFORMATIONAL_MAX,
        });
        assert_eq!(
            answer(&mut exchange, "HTTP/1.1 102 Processing\r\n\r\n"),
            error
        );
    }

    #[test]
    fn only_a_protocol_that_was_asked_for_is_switched_to() {
        let switch = |to: &str| format!("HTTP/1.1 101 x\r\nConnection: upgrade\r\n{to}\r\n");
        let mut exchange = ask(SOCKET);
        let arrival = answer(&mut exchange, &switch("Upgrade: WebSocket\r\n"));
        assert_eq!(arrival, Ok(Arrival::SwitchingProtocols));
        assert_eq!(answer(&mut exchange, OK), Err(MessageError::AnswerUnasked));
        for to in [
            "",
            "Upgrade: h2c\r\n",
            "Upgrade: other\r\n",
            "Upgrade: websocket, other\r\n",
        ] {
            let arrival = answer(&mut ask(SOCKET), &switch(to));
            assert_eq!(arrival, Err(MessageError::SwitchUnasked), "{to}");
        }
        let arrival = answer(&mut ask(GET), &switch("Upgrade: websocket\r\n"));
        assert_eq!(arrival, Err(MessageError::SwitchUnasked));
    }

    #[test]
    fn nothing_is_switched_before_the_request_is_sent_whole() {
        let octets = SOCKET
            .replace("GET", "POST")
            .replace("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\n");
        let arrival = answer(
            &mut ask(&octets),
            "HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n",
        );
        assert_eq!(arrival, Err(MessageError::SwitchUnasked));
    }

    #[test]
    fn a_request_that_was_abandoned_never_counts_as_sent() {
        let octets = SOCKET.replace("Upgrade: w", "Content-Length: 5\r\nUpgrade: w");
        let switch = "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        let mut sent = ask(&octets);
        sent.on_request_end();
        assert_eq!(answer(&mut sent, switch), Ok(Arrival::SwitchingProtocols));
        let mut abandoned = ask(&octets);
        abandoned.on_request_abandoned();
        abandoned.on_request_end();
        let arrival = answer(&mut abandoned, switch);
        assert_eq!(arrival, Err(MessageError::SwitchUnasked));
    }

    #[test]
    fn a_second_final_answer_belongs_to_nobody() {
        let mut exchange = ask(GET);
        answer(&mut exchange, OK).unwrap();
        assert_eq!(answer(&mut exchange, OK), Err(MessageError::AnswerUnasked));
    }

    #[test]
    fn an_answer_to_head_is_whole_with_its_head() {
        let mut exchange = ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(answer(&mut exchange, OK), Ok(Arrival::Final(Framing::None)));
    }
}
