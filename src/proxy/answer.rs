//! An answer's words: what was asked, what passing the answer on needs, and what became of it.
//!
//! `answer_head` writes its head for the client, `origin` reads it and passes it on.

use std::time::Duration;

use crate::base::CloseReason;
use crate::base::reason::Phase;
use crate::h1::encode::Unwritable;
use crate::h1::error::MessageError;
use crate::h1::framing::Framing;
use crate::h1::head::Method;
use crate::h1::head::ResponseHead;
use crate::h1::head::Version;
use crate::h1::persistence::KeepAliveHint;
use crate::h1::persistence::Persistence;
use crate::net::Stream;
use crate::net::buffer::ReadBuffer;
use crate::net::reactor::Gone;
use crate::net::stream::Fault;
use crate::observe::Counter;
use crate::policy::hops;
use crate::proxy::held::Holding;
use crate::proxy::outlet::Outlet;
use crate::proxy::progress::Progress;
use crate::proxy::relay::Stuck;
use crate::proxy::service::Service;
use crate::proxy::settings::ListenerSettings;
use crate::proxy::settings::RouteSettings;

/// What the answer's side must know of the request.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its version.
    pub version: Version,
    /// Whether it may become a tunnel.
    pub upgrade: Upgrade,
    /// What its head said about the client's connection, our limits considered.
    pub persistence: Persistence,
    /// What counts as the client having left.
    pub gone: Gone,
    /// How many more requests the client's connection may carry.
    pub requests_left: Option<u64>,
}

/// Whether a request may become a tunnel (RFC 9110 §7.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// It asked for a protocol that the route allows.
    Asked,
    /// It did not.
    No,
}

/// A final answer that was passed on, but for what remains in `out`.
#[derive(Debug)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// What became of it.
    pub kind: AnswerKind,
    /// What it said about the origin's connection.
    pub origin: Persistence,
    /// Its version.
    pub version: Version,
    /// What the client was told about its own connection.
    pub client: Persistence,
    /// Octets of its content.
    pub content: u64,
    /// The hop-by-hop fields that were removed.
    pub removed: hops::Removed,
    /// The origin's `Keep-Alive` hint.
    pub hint: KeepAliveHint,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// It ended where its framing said.
    Complete,
    /// It ended with the origin's connection.
    UntilClose,
    /// The protocol was switched; the head waits in `out`.
    Switched,
}

/// Why there is no whole answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// The connection ended before any octet of an answer.
    Ended(Ended),
    /// The head did not come in time.
    TimedOut,
    /// The head, or its framing, breaks the rules.
    Malformed(MessageError),
    /// The head is larger than we take.
    HeadTooLarge,
    /// It is one that the upstream wants tried again: it came whole, and waits in `out` as it would
    /// go to the client. Boxed: it is rare, and every attempt has room for one of these.
    Unwanted(Box<Answer>),
    /// It would have been that, but broke off before anything of it went to the client.
    UnwantedBrokeOff {
        /// Its status code.
        status: u16,
        /// How its end was to be known.
        framing: Framing,
        /// How it broke off.
        stuck: Stuck,
    },
    /// The client left.
    ClientGone,
    /// The client took nothing of an interim answer, or of an early one, for too long.
    ClientStalled,
    /// The answer began and then broke off.
    BrokeOff {
        /// Its status code.
        status: u16,
        /// How its end was to be known.
        framing: Framing,
        /// How it broke off.
        stuck: Stuck,
        /// Octets of content that came.
        content: u64,
        /// What it said about the origin's connection.
        origin: Persistence,
    },
    /// The head ended with the connection.
    HeadCutShort(Ended),
    /// It cannot be written canonically, or its `Connection` field names more than anyone needs.
    Unwritable,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By a FIN.
    Fin,
    /// By a reset, or an error of the socket.
    Reset,
    /// By nothing: its TCP acknowledged nothing for `tcp.user_timeout`, or answered no probe.
    Silence,
}

impl Ended {
    /// Why the connection is not kept.
    #[must_use]
    pub const fn reason(self) -> CloseReason {
        match self {
            Self::Fin => CloseReason::PeerFin,
            Self::Reset => CloseReason::PeerRst,
            Self::Silence => CloseReason::Timeout,
        }
    }
}

impl NoAnswer {
    /// Octets could not be written to the client, for this fault of its stream.
    #[must_use]
    pub fn of_client(fault: Fault) -> Self {
        match fault {
            Fault::TimedOut => Self::ClientStalled,
            Fault::Reset | Fault::Io(_) => Self::ClientGone,
        }
    }
}

impl From<Unwritable> for NoAnswer {
    fn from(_: Unwritable) -> Self {
        Self::Unwritable
    }
}

/// Everything that passing an answer on needs.
pub struct Answering<'a> {
    /// The way to the client.
    pub client: Outlet<'a>,
    /// The origin's connection.
    pub origin: &'a Stream,
    /// Octets from the origin.
    pub input: &'a mut ReadBuffer,
    /// Octets of content that were passed on, as they pass.
    pub count: &'a mut u64,
    /// The head, as places in them.
    pub head: &'a mut ResponseHead,
    /// Octets for the client.
    pub out: &'a mut Vec<u8>,
    /// What was asked.
    pub asked: Asked,
    /// What the listener says.
    pub listener: &'a ListenerSettings,
    /// What the route says.
    pub route: &'a RouteSettings,
    /// Counts clients that ended their side and still get their answer.
    pub half_closed: Counter,
    /// Whether new work is still taken: the last answer says if not.
    pub service: &'a Service,
    /// How long the body may pause.
    pub body_idle: Duration,
    /// Which answers are held back for another attempt.
    pub holding: &'a Holding<'a>,
    /// A field line to add, pre-encoded.
    pub extra: &'a [u8],
    /// Shows what both connections are doing now.
    pub phase: &'a dyn Fn(Phase),
    /// How far both directions are.
    pub progress: &'a Progress,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_takes_nothing_of_its_answer_has_stalled_and_not_left() {
        let told = NoAnswer::of_client(Fault::TimedOut);
        assert!(matches!(told, NoAnswer::ClientStalled), "{told:?}");
        let told = NoAnswer::of_client(Fault::Reset);
        assert!(matches!(told, NoAnswer::ClientGone), "{told:?}");
    }
}
