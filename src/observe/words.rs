//! The closed label sets of `metrics.md`, as enums.
//!
//! A set that is closed can be counted by index and can be there from the start with 0. The words
//! of reasons live in `base`; here are those that only metrics and logs say.

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::base::reason::By;
use crate::base::reason::How;
use crate::base::reason::OpenReason;
use crate::base::reason::Outcome;
use crate::base::reason::Phase;
use crate::base::reason::Side;

/// A member of a closed label set.
pub trait Word: Copy + 'static {
    /// Every member, each at its index.
    const ALL: &'static [Self];
    /// The word itself.
    fn label(self) -> &'static str;
    /// Its place in [`Word::ALL`].
    fn index(self) -> usize;
}

/// Lets the words of `base` count.
macro_rules! words_of_base {
    ($($name:ident)+) => { $(
        impl Word for $name {
            const ALL: &'static [Self] = <$name>::ALL;
            fn label(self) -> &'static str { self.label() }
            fn index(self) -> usize { self.index() }
        }
    )+ };
}

words_of_base! { By CloseReason How OpenReason Outcome Phase ProxyError Side }

/// Makes a closed label set from a table of words.
macro_rules! words {
    ($(
        $(#[$meta:meta])*
        $name:ident { $( $variant:ident, $label:literal, $text:literal; )+ }
    )+) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $( #[doc = $text] $variant, )+ }

        impl Word for $name {
            const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];
            fn label(self) -> &'static str { match self { $( Self::$variant => $label, )+ } }
            fn index(self) -> usize { self as usize }
        }
    )+ };
}

words! {
    /// What a client connection is doing, coarsely.
    ClientState {
        Active,  "active",  "An exchange is under way.";
        Idle,    "idle",    "Between exchanges.";
        Tunnel,  "tunnel",  "It became a tunnel.";
        Closing, "closing", "It is closing in stages.";
    }

    /// Why a client connection was turned away at once.
    RejectReason {
        GlobalLimit,   "global_limit",         "The process holds as many as it may.";
        ListenerLimit, "listener_limit",       "The listener holds as many as it may.";
        ClientLimit,   "client_limit",         "This client holds as many as it may.";
        FdPressure,    "fd_pressure",          "File descriptors are running out.";
        Draining,      "draining",             "Holdfast is draining.";
        ProxyProtocol, "proxy_protocol_error", "The PROXY protocol header was missing or malformed.";
    }

    /// What went wrong in accepting, by the name of the error.
    AcceptError {
        Aborted,      "econnaborted", "The client left the queue before it was taken out.";
        ProcessFiles, "emfile",       "The process has no descriptor left.";
        SystemFiles,  "enfile",       "The system has no descriptor left.";
        Buffers,      "enobufs",      "The kernel has no buffer left.";
        Memory,       "enomem",       "The kernel has no memory left.";
        Protocol,     "eproto",       "A protocol error on the new connection.";
        Forbidden,    "eperm",        "The firewall forbids it.";
        Unlisted,     "other",        "An error that is not in this table.";
    }

    /// What was done when a client shut down its sending side.
    HalfClose {
        Finish, "finish", "Its answer was finished.";
        Abort,  "abort",  "The exchange was given up.";
    }

    /// How a client connection ended while Holdfast drained.
    Drained {
        Idle,     "idle",     "It was closed between requests.";
        Finished, "finished", "What it carried was finished.";
        Cut,      "cut",      "What it carried was cut.";
    }

    /// What a client connection that is still open in a drain is doing.
    DrainKind {
        Idle,     "idle",     "It is between requests.";
        Exchange, "exchange", "It carries a request, or closes in stages.";
        Tunnel,   "tunnel",   "It is a tunnel.";
    }

    /// What became of a configuration that was read again.
    ReloadResult {
        Applied, "applied", "It is in effect.";
        Refused, "refused", "It is wrong, or cannot be had; the one before stays.";
    }

    /// How pipelined requests were served.
    PipelineMode {
        Serial,     "serial",     "One after the other.";
        Concurrent, "concurrent", "At the same time, answered in order.";
    }

    /// Which hop-by-hop field was removed (RFC 9110 §7.6.1).
    HopField {
        Connection,      "connection",       "Connection.";
        KeepAlive,       "keep_alive",       "Keep-Alive.";
        ProxyConnection, "proxy_connection", "Proxy-Connection.";
        Te,              "te",               "TE.";
        Named,           "named",            "A field that Connection named.";
    }

    /// The class of a status code (RFC 9110 §15).
    CodeClass {
        Informational, "1xx", "Informational.";
        Successful,    "2xx", "Successful.";
        Redirection,   "3xx", "Redirection.";
        ClientError,   "4xx", "Client error.";
        ServerError,   "5xx", "Server error.";
    }

    /// What an origin connection is doing, coarsely.
    UpstreamState {
        Connecting, "connecting", "The handshake is under way.";
        Active,     "active",     "It carries a request.";
        Idle,       "idle",       "It is parked in the pool.";
        Draining,   "draining",   "It carries its last request.";
        Canary,     "canary",     "It waits to learn when the origin closes.";
    }

    /// What a local port is doing.
    PortState {
        InUse,     "in_use",    "A connection has it.";
        TimeWait,  "time_wait", "TIME_WAIT holds it after a connection that we ended.";
        Available, "available", "Neither; the reserve is among these.";
    }

    /// Where an idle limit comes from.
    IdleLimitSource {
        Config,  "config",  "The configuration.";
        Hint,    "hint",    "The origin's Keep-Alive field.";
        Learned, "learned", "Closes by the origin.";
        Floor,   "floor",   "The lowest limit allowed.";
    }

    /// When a parked connection turned out to be dead.
    StaleFound {
        Checkout, "checkout", "When it was taken from the pool.";
        Write,    "write",    "When the request was sent on it.";
        Read,     "read",     "When the answer was read from it.";
    }

    /// What became of the request on a dead connection.
    StaleResult {
        Replaced, "replaced", "It took another connection; nothing had been sent.";
        Retried,  "retried",  "It was sent again.";
        Failed,   "failed",   "It failed.";
    }

    /// Why a connection could not be opened.
    ConnectError {
        Refused,     "refused",     "The endpoint refused it.";
        Timeout,     "timeout",     "The endpoint did not answer in time.";
        Unreachable, "unreachable", "No way leads to the endpoint.";
        NoPort,      "no_port",     "No local port is free.";
        Dns,         "dns",         "The endpoint's name does not resolve.";
        Unlisted,    "other",       "An error that is not in this table.";
    }

    /// How a look-up of a name went.
    DnsResult {
        Success, "success", "It was answered with addresses.";
        Failure, "failure", "It was answered without usable ones, or not at all.";
        Timeout, "timeout", "No answer came in time.";
    }

    /// Why a request did not get what it waited for.
    QueueReject {
        Full,       "full",        "Too many were waiting already.";
        Timeout,    "timeout",     "Nothing came free in time.";
        ClientGone, "client_gone", "Its client left.";
    }

    /// Why a request was sent again.
    RetryReason {
        Connect,  "connect",          "The connection could not be opened.";
        Unsent,   "unsent",           "A reused connection ended; the origin provably had nothing.";
        Stale,    "stale",            "A reused connection ended before it answered.";
        Empty,    "empty_response",   "A fresh connection ended without an answer.";
        Reset,    "reset",            "A fresh connection was reset before it answered.";
        Timeout,  "response_timeout", "The answer did not begin in time.";
        Status,   "status",           "The answer's status is one to be tried again.";
    }

    /// What came of sending a request again.
    RetryResult {
        Success, "success", "It was answered.";
        Failure, "failure", "It failed again.";
    }

    /// Why a request that failed was not sent again.
    RetryDenied {
        Budget,          "budget",            "Too large a share of requests are retries.";
        UnsafeMethod,    "unsafe_method",     "Its method is not safe to repeat.";
        BodyNotBuffered, "body_not_buffered", "A body is larger than what is kept for a retry.";
        Attempts,        "attempts",          "It had all its attempts.";
    }

    /// How a body that was cut short had been framed (RFC 9112 §6.3).
    TruncatedFraming {
        Length,  "length",  "By Content-Length.";
        Chunked, "chunked", "By chunks.";
    }

    /// What one endpoint's connections are doing.
    EndpointState {
        Connecting, "connecting", "The handshake is under way.";
        Active,     "active",     "It carries a request.";
        Idle,       "idle",       "It is parked in the pool.";
    }

    /// How an endpoint stands.
    EndpointStanding {
        Healthy,   "healthy",    "It gets its share of the requests.";
        Ejected,   "ejected",    "It gets none: requests or checks failed.";
        Draining,  "draining",   "It is no longer configured or resolved.";
        SlowStart, "slow_start", "It joined or returned, and its share grows.";
    }

    /// How closing in stages ended (RFC 9112 §9.6).
    GracefulOutcome {
        Clean,    "clean",     "The peer closed as well.";
        TimedOut, "timed_out", "The peer went on beyond what is waited for.";
        Reset,    "reset",     "The peer reset the connection.";
    }

    /// Which way octets went, seen from Holdfast.
    Direction {
        Rx, "rx", "Received.";
        Tx, "tx", "Sent.";
    }
}

impl CodeClass {
    /// The class of a status code; what is beyond 599 counts as an error of the server
    /// (RFC 9110 §15: a client treats it as 5xx).
    #[must_use]
    pub const fn of(status: u16) -> Self {
        match status {
            0..=199 => Self::Informational,
            200..=299 => Self::Successful,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in_order<W: Word>() -> bool {
        let mut labels: Vec<_> = W::ALL.iter().map(|word| word.label()).collect();
        let in_place = W::ALL
            .iter()
            .enumerate()
            .all(|(at, word)| word.index() == at);
        labels.sort_unstable();
        labels.dedup();
        in_place && labels.len() == W::ALL.len()
    }

    #[test]
    fn every_word_is_at_its_index_and_unique_in_its_set() {
        assert!(is_in_order::<ClientState>() && is_in_order::<RejectReason>());
        assert!(is_in_order::<AcceptError>() && is_in_order::<HopField>());
        assert!(is_in_order::<CodeClass>() && is_in_order::<UpstreamState>());
        assert!(is_in_order::<RetryReason>() && is_in_order::<RetryDenied>());
        assert!(is_in_order::<ConnectError>() && is_in_order::<QueueReject>());
        assert!(is_in_order::<DnsResult>() && is_in_order::<PortState>());
        assert!(is_in_order::<CloseReason>() && is_in_order::<ProxyError>());
    }

    #[test]
    fn a_status_belongs_to_the_class_of_its_first_digit() {
        let classes = [101, 204, 304, 499, 502, 999].map(|status| CodeClass::of(status).label());
        assert_eq!(classes, ["1xx", "2xx", "3xx", "4xx", "5xx", "5xx"]);
    }
}
