//! Why: every close, every refusal, every opening and every error answer has a name here.
//!
//! One table makes the enum, the metric label, the log word, whose fault it is and the sentence an
//! operator reads. "Unknown" is deliberately absent.

use std::fmt;

/// Whose doing something was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// An ordinary end.
    Nobody,
    /// The client's.
    Client,
    /// The origin's.
    Origin,
    /// The network's between us and a peer.
    Network,
    /// The operator's: a limit, a drain, a command.
    Operator,
    /// Ours.
    Ours,
}

/// Makes an enum whose variants carry a label, and further columns as methods.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $name:ident { $( $variant:ident, $label:literal, $fault:ident, $text:literal; )+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $( #[doc = $text] $variant, )+ }

        impl $name {
            /// Every member, in the order of the table; `all[x as usize] == x`.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];

            /// The word in metrics, logs and the admin plane.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $( Self::$variant => $label, )+ }
            }

            /// Whose doing it was.
            #[must_use]
            pub const fn fault(self) -> Fault {
                match self { $( Self::$variant => Fault::$fault, )+ }
            }

            /// The sentence for an operator.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $( Self::$variant => $text, )+ }
            }

            /// Its place in [`Self::ALL`], for tables of counters.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.label())
            }
        }
    };
}

words! {
    /// Why a connection, on either side, was not kept.
    CloseReason {
    //  variant            label                    fault     text
        UpstreamCloseHeader, "upstream_close_header", Nobody,   "The origin's answer said `Connection: close`.";
        ClientCloseHeader, "client_close_header",   Nobody,   "The client's request said `Connection: close`.";
        ClientUnfinished,  "client_unfinished",     Client,   "The request was not sent whole when the exchange ended.";
        ClientGone,        "client_gone",           Client,   "The client left before it had its answer.";
        Http10,            "http10",                Nobody,   "An HTTP/1.0 message did not ask for persistence.";
        CloseDelimited,    "close_delimited",       Nobody,   "The body's end was the end of the connection.";
        UnreadBody,        "unread_body",           Nobody,   "A body was left unread beyond what is worth discarding.";
        ExtraBytes,        "extra_bytes",           Origin,   "Octets came that belong to no exchange.";
        FramingError,      "framing_error",         Client,   "A message broke the rules of HTTP/1.1 framing.";
        HeadTooLarge,      "head_too_large",        Client,   "A request head was larger than the limits allow.";
        BodyTooLarge,      "body_too_large",        Client,   "A request body was larger than the limit allows.";
        Truncated,         "truncated",             Origin,   "A body ended before its framing said so.";
        Upgraded,          "upgraded",              Nobody,   "The connection became a tunnel and ended as one.";
        MaxRequests,       "max_requests",          Operator, "The connection carried as many requests as it may.";
        MaxAge,            "max_age",               Operator, "The connection reached its age limit.";
        IdleTimeout,       "idle_timeout",          Operator, "No request came within the idle timeout.";
        LearnedIdle,       "learned_idle",          Nobody,   "The origin is known to close idle connections about now.";
        PoolFull,          "pool_full",             Operator, "The pool keeps as many idle connections as it may.";
        ReuseOff,          "reuse_off",             Operator, "The pool is told not to reuse connections.";
        CheckDone,         "health",                Operator, "A health check had its answer, or its time was over.";
        EndpointRemoved,   "endpoint_removed",      Operator, "The endpoint is no longer configured or resolved.";
        Ejected,           "ejected",               Origin,   "The endpoint was ejected as unhealthy.";
        Drain,             "drain",                 Operator, "Holdfast is draining.";
        Rebalance,         "rebalance",             Operator, "Closed so that load can move to other endpoints.";
        FdPressure,        "fd_pressure",           Operator, "File descriptors were running out.";
        Admin,             "admin",                 Operator, "Closed by an administrator.";
        GlobalLimit,       "global_limit",          Operator, "The process holds as many client connections as it may.";
        ListenerLimit,     "listener_limit",        Operator, "The listener holds as many connections as it may.";
        ClientLimit,       "client_limit",          Client,   "This client holds as many connections as it may.";
        PipeliningOff,     "pipelining_off",        Operator, "A pipelined request came and pipelining is set to close.";
        BlindRelay,        "blind_relay",           Client,   "A relay that forwards Connection blindly stands before us.";
        ErrorAnswer,       "error_answer",          Nobody,   "An error was answered whose cause leaves the connection unsure.";
        UnsafeGuard,       "unsafe_guard",          Operator, "Idle too long to be trusted with an unsafe request.";
        RetryReplaced,     "retry_replaced",        Origin,   "It failed a request that was sent again elsewhere.";
        BadResponse,       "bad_response",          Origin,   "The origin's answer broke the rules of HTTP/1.1.";
        PeerFin,           "peer_fin",              Nobody,   "The peer closed its side.";
        PeerRst,           "peer_rst",              Network,  "The peer reset the connection.";
        Timeout,           "timeout",               Network,  "A peer took longer than its deadline.";
        HeaderTimeout,     "header_timeout",        Client,   "A request head did not arrive within its deadline.";
        BodyTimeout,       "body_timeout",          Client,   "A request body stalled or came too slowly.";
        WriteTimeout,      "write_timeout",         Client,   "The peer did not read what was sent within the deadline.";
        IoError,           "io_error",              Network,  "The operating system reported an error on the socket.";
        ProxyProtocol,     "proxy_protocol_error",  Client,   "The PROXY protocol header was missing or malformed.";
        Ours,              "ours",                  Ours,     "A fault of our own; please report it.";
    }
}

words! {
    /// Why a new origin connection was opened.
    OpenReason {
        EmptyPool,   "empty_pool",   Nobody,   "Nothing was idle and nothing was in use.";
        AllBusy,     "all_busy",     Nobody,   "Every open connection was carrying a request.";
        UnsafeGuard, "unsafe_guard", Operator, "An unsafe request does not take a connection idle for so long.";
        Retry,       "retry",        Origin,   "A request is sent again, always on a fresh connection.";
        Warm,        "warm",         Operator, "The pool keeps a floor of idle connections.";
        Canary,      "canary",       Operator, "One idle connection learns when the origin closes.";
        Health,      "health",       Operator, "A health check.";
        NeverMode,   "never_mode",   Operator, "The pool is told not to reuse connections.";
    }
}

words! {
    /// How a request came by its origin connection.
    Outcome {
        Reused,          "reused",            Nobody,   "An idle connection was taken.";
        New,             "new",               Nobody,   "A connection was opened.";
        ReusedAfterWait, "reused_after_wait", Nobody,   "It waited, then took a connection that was given back.";
        NewAfterWait,    "new_after_wait",    Nobody,   "It waited, then opened a connection in a freed place.";
        Rejected,        "rejected",          Operator, "It got none.";
    }
}

words! {
    /// Why we answered a request ourselves, or broke off an answer.
    ProxyError {
    //  variant               label                      fault     text
        BadRequest,           "bad_request",             Client,   "The request breaks the rules of HTTP/1.1.";
        UriTooLong,           "uri_too_long",            Client,   "The request target is longer than allowed.";
        HeadTooLarge,         "head_too_large",          Client,   "The request head is larger than allowed.";
        BodyTooLarge,         "body_too_large",          Client,   "The request body is larger than allowed.";
        RequestTimeout,       "request_timeout",         Client,   "The request did not arrive in time.";
        VersionUnsupported,   "version_unsupported",     Client,   "The HTTP version is not supported.";
        NotImplemented,       "not_implemented",         Client,   "The method or the transfer coding is not supported.";
        MethodRefused,        "method_refused",          Client,   "The method is not served by a reverse proxy.";
        ExpectationFailed,    "expectation_failed",      Client,   "The expectation is not known.";
        NoRoute,              "no_route",                Client,   "No route matches the request.";
        ClientLimit,          "client_limit",            Client,   "This client holds too many connections.";
        GlobalLimit,          "global_limit",            Operator, "Holdfast holds too many connections.";
        ListenerLimit,        "listener_limit",          Operator, "This listener holds too many connections.";
        ClientGone,           "client_gone",             Client,   "The client left before it had its answer.";
        NoEndpoint,           "no_endpoint",             Origin,   "No endpoint can take the request.";
        QueueFull,            "queue_full",              Operator, "Too many requests are waiting for a connection.";
        QueueTimeout,         "queue_timeout",           Operator, "No connection came free in time.";
        LocalPorts,           "local_ports",             Ours,     "No local port is free towards the endpoint.";
        Descriptors,          "fd_pressure",             Ours,     "No file descriptor is free.";
        ConnectRefused,       "connect_refused",         Origin,   "The endpoint refused the connection.";
        ConnectTimeout,       "connect_timeout",         Network,  "The endpoint did not answer the connection attempt in time.";
        ConnectUnreachable,   "connect_unreachable",     Network,  "The endpoint cannot be reached.";
        ConnectFailed,        "connect_failed",          Network,  "The connection to the endpoint failed.";
        Dns,                  "dns",                     Network,  "The endpoint's name does not resolve.";
        StaleConnection,      "stale_connection",        Network,  "A reused connection ended before it answered, and repeating the request is not safe.";
        EmptyResponse,        "empty_response",          Origin,   "The origin closed the connection without an answer.";
        UpstreamReset,        "upstream_reset",          Origin,   "The origin reset the connection before it answered.";
        ResponseTimeout,      "response_timeout",        Origin,   "The origin's answer did not begin in time.";
        BadResponse,          "bad_response",            Origin,   "The origin's answer breaks the rules of HTTP/1.1.";
        ResponseHeadTooLarge, "response_head_too_large", Origin,   "The origin's response head is larger than allowed.";
        Truncated,            "truncated",               Origin,   "The origin's answer ended before its framing said so.";
        BodyIdle,             "body_idle",               Origin,   "The origin's body stalled.";
        RequestDeadline,      "request_deadline",        Operator, "The whole exchange took longer than allowed.";
        Draining,             "drain",                   Operator, "Holdfast is shutting down.";
        Dismissed,            "admin",                   Operator, "An administrator closed the connection.";
        Internal,             "internal",                Ours,     "A fault of our own; please report it.";
    }
}

impl ProxyError {
    /// The status code we answer with (RFC 9110 §15).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::ClientGone => 400,
            Self::RequestTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::ExpectationFailed => 417,
            Self::ClientLimit => 429,
            Self::HeadTooLarge => 431,
            Self::MethodRefused => 405,
            Self::NoRoute => 404,
            Self::Internal => 500,
            Self::NotImplemented => 501,
            Self::VersionUnsupported => 505,
            Self::NoEndpoint
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::LocalPorts
            | Self::Descriptors
            | Self::GlobalLimit
            | Self::Dismissed
            | Self::ListenerLimit
            | Self::Draining => 503,
            Self::ConnectTimeout | Self::ResponseTimeout | Self::RequestDeadline => 504,
            Self::ConnectRefused
            | Self::ConnectUnreachable
            | Self::ConnectFailed
            | Self::Dns
            | Self::StaleConnection
            | Self::EmptyResponse
            | Self::UpstreamReset
            | Self::BadResponse
            | Self::ResponseHeadTooLarge
            | Self::Truncated
            | Self::BodyIdle => 502,
        }
    }

    /// The `error` parameter of `Proxy-Status` (RFC 9209 §2.3).
    #[must_use]
    pub const fn proxy_status(self) -> &'static str {
        match self {
            Self::BadRequest
            | Self::UriTooLong
            | Self::HeadTooLarge
            | Self::BodyTooLarge
            | Self::RequestTimeout
            | Self::VersionUnsupported
            | Self::NotImplemented
            | Self::MethodRefused
            | Self::ExpectationFailed
            | Self::NoRoute
            | Self::ClientGone => "http_request_error",
            Self::ClientLimit => "http_request_denied",
            Self::GlobalLimit
            | Self::ListenerLimit
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::LocalPorts
            | Self::Descriptors => "connection_limit_reached",
            Self::NoEndpoint | Self::Dismissed | Self::Draining => "destination_unavailable",
            Self::ConnectRefused => "connection_refused",
            Self::ConnectTimeout => "connection_timeout",
            Self::ConnectUnreachable => "destination_ip_unroutable",
            Self::ConnectFailed => "destination_unavailable",
            Self::Dns => "dns_error",
            Self::StaleConnection | Self::EmptyResponse | Self::UpstreamReset => {
                "connection_terminated"
            }
            Self::ResponseTimeout | Self::RequestDeadline => "http_response_timeout",
            Self::BodyIdle => "connection_read_timeout",
            Self::BadResponse => "http_protocol_error",
            Self::ResponseHeadTooLarge => "http_response_header_section_size",
            Self::Truncated => "http_response_incomplete",
            Self::Internal => "proxy_internal_error",
        }
    }
}

words! {
    /// What a connection is doing. The closed set of `phase` in metrics, logs and the admin plane.
    Phase {
        Connect,      "connect",       Nobody, "The handshake is under way.";
        Idle,         "idle",          Nobody, "Between exchanges.";
        RequestHead,  "request_head",  Nobody, "A request head is arriving or leaving.";
        RequestBody,  "request_body",  Nobody, "A request body is flowing.";
        Wait,         "wait",          Nobody, "The request is sent; the answer has not begun.";
        ResponseHead, "response_head", Nobody, "A response head is arriving or leaving.";
        ResponseBody, "response_body", Nobody, "A response body is flowing.";
        Tunnel,       "tunnel",        Nobody, "After an upgrade: octets both ways.";
        Closing,      "closing",       Nobody, "Closing in stages.";
    }
}

words! {
    /// Who ended a connection.
    By {
        Peer,     "peer",     Nobody, "The peer.";
        Holdfast, "holdfast", Nobody, "Holdfast.";
    }
}

words! {
    /// How a connection ended on the wire.
    How {
        Fin,     "fin",     Nobody, "An orderly close.";
        Rst,     "rst",     Nobody, "A reset.";
        Timeout, "timeout", Nobody, "A deadline passed.";
    }
}

words! {
    /// Which side of Holdfast a connection is on.
    Side {
        Client,   "client",   Nobody, "The client side.";
        Upstream, "upstream", Nobody, "The origin side.";
    }
}

impl CloseReason {
    /// Whether a deadline passed.
    #[must_use]
    pub const fn is_a_deadline(self) -> bool {
        matches!(
            self,
            Self::IdleTimeout
                | Self::LearnedIdle
                | Self::Timeout
                | Self::HeaderTimeout
                | Self::BodyTimeout
                | Self::WriteTimeout
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_unique_within_its_table() {
        let mut labels: Vec<_> = CloseReason::ALL.iter().map(|r| r.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), CloseReason::ALL.len());
        let mut labels: Vec<_> = ProxyError::ALL.iter().map(|r| r.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), ProxyError::ALL.len());
    }

    #[test]
    fn a_reason_finds_itself_at_its_index() {
        assert!(
            CloseReason::ALL
                .iter()
                .enumerate()
                .all(|(at, r)| r.index() == at)
        );
        assert!(
            ProxyError::ALL
                .iter()
                .enumerate()
                .all(|(at, r)| r.index() == at)
        );
    }

    #[test]
    fn a_clients_fault_is_answered_with_4xx_or_501_or_505() {
        for error in ProxyError::ALL
            .iter()
            .filter(|e| e.fault() == Fault::Client)
        {
            let status = error.status();
            assert!(
                (400..500).contains(&status) || status == 501 || status == 505,
                "{error}"
            );
        }
    }
}
