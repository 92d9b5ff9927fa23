//! The origin side, by upstream and, within a cap, by endpoint.

use std::sync::Arc;
use std::sync::OnceLock;

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::base::reason::By;
use crate::base::reason::OpenReason;
use crate::base::reason::Outcome;
use crate::observe::counter::Counter;
use crate::observe::endpoint_metrics::EndpointBook;
use crate::observe::endpoint_metrics::EndpointSeries;
use crate::observe::gauge::Gauge;
use crate::observe::gauge::Level;
use crate::observe::histogram::AGE;
use crate::observe::histogram::Histogram;
use crate::observe::histogram::LATENCY;
use crate::observe::histogram::REQUESTS;
use crate::observe::registry::Info;
use crate::observe::registry::Registry;
use crate::observe::table::Table;
use crate::observe::table::Table2;
use crate::observe::tcp_metrics::TcpMetrics;
use crate::observe::words::ConnectError;
use crate::observe::words::EndpointStanding;
use crate::observe::words::IdleLimitSource;
use crate::observe::words::PortState;
use crate::observe::words::QueueReject;
use crate::observe::words::RetryDenied;
use crate::observe::words::RetryReason;
use crate::observe::words::RetryResult;
use crate::observe::words::StaleFound;
use crate::observe::words::StaleResult;
use crate::observe::words::TruncatedFraming;
use crate::observe::words::UpstreamState;
use crate::observe::words::Word;

/// What one upstream counts.
#[derive(Debug)]
pub struct UpstreamMetrics {
    /// Requests, by how they came by their connection.
    pub requests: Table<Outcome, Counter>,
    /// Connections opened, by why a parked one did not do.
    pub opened: Table<OpenReason, Counter>,
    /// Connections ended.
    pub closed: Table2<By, CloseReason, Counter>,
    /// Endpoints now.
    pub endpoint_standings: Table<EndpointStanding, Gauge>,
    /// Connections now.
    pub connections: Table<UpstreamState, Gauge>,
    /// Most connections, over all endpoints.
    pub limit: Level,
    /// Requests a connection had carried when it ended.
    pub requests_per_connection: Histogram,
    /// Age of a connection when it ended, in microseconds.
    pub connection_age: Histogram,
    /// How long a connection had been parked when it was taken again, in microseconds.
    pub idle_before_reuse: Histogram,
    /// How long a connection had been parked when it ended, in microseconds.
    pub idle_close_age: Histogram,
    /// The idle limit now in force, under its source.
    pub idle_limit: Table<IdleLimitSource, Level>,
    /// Parked connections that turned out to be dead.
    pub stale: Table2<StaleFound, StaleResult, Counter>,
    /// Handshakes that succeeded, in microseconds.
    pub connect_duration: Histogram,
    /// Handshakes that failed.
    pub connect_errors: Table<ConnectError, Counter>,
    /// Local ports towards the endpoint with the fewest left.
    pub local_ports: Table<PortState, Level>,
    /// Seconds until they are used up.
    pub local_ports_exhaustion: Level,
    /// Requests waiting for a connection.
    pub queue_length: Gauge,
    /// Most requests that may wait.
    pub queue_limit: Level,
    /// How long requests that were served had waited, in microseconds.
    pub queue_wait: Histogram,
    /// Requests that waited in vain, or might not wait.
    pub queue_rejected: Table<QueueReject, Counter>,
    /// Requests sent again.
    pub retries: Table2<RetryReason, RetryResult, Counter>,
    /// Requests that failed and were not sent again.
    pub retries_denied: Table<RetryDenied, Counter>,
    /// From the request's last octet to the answer's first, in microseconds.
    pub first_byte: Histogram,
    /// Answers that ended before their framing said so.
    pub truncated: Table<TruncatedFraming, Counter>,
    /// Requests we answered ourselves.
    pub proxy_errors: Table<ProxyError, Counter>,
    tcp: OnceLock<TcpMetrics>,
    endpoints: Arc<EndpointBook>,
}

impl UpstreamMetrics {
    pub(super) fn new(r: &mut Registry, name: &str, endpoints: Arc<EndpointBook>) -> Self {
        let u = ("upstream", name);
        Self {
            requests: by(r, OUTCOMES, u, "outcome"),
            opened: by(r, OPENED, u, "reason"),
            closed: by2(r, CLOSED, u, ["by", "reason"]),
            endpoint_standings: Table::new(|w: EndpointStanding| {
                r.gauge(ENDPOINTS, &[u, ("state", w.label())])
            }),
            connections: Table::new(|w: UpstreamState| {
                r.gauge(CONNECTIONS, &[u, ("state", w.label())])
            }),
            limit: r.level(LIMIT, &[u]),
            requests_per_connection: r.histogram(PER_CONNECTION, REQUESTS, &[u]),
            connection_age: r.histogram(CONNECTION_AGE, AGE, &[u]),
            idle_before_reuse: r.histogram(IDLE_BEFORE_REUSE, AGE, &[u]),
            idle_close_age: r.histogram(IDLE_CLOSE_AGE, AGE, &[u]),
            idle_limit: Table::new(|w: IdleLimitSource| {
                r.level(IDLE_LIMIT, &[u, ("source", w.label())])
            }),
            stale: by2(r, STALE, u, ["found", "result"]),
            connect_duration: r.histogram(CONNECT_DURATION, LATENCY, &[u]),
            connect_errors: by(r, CONNECT_ERRORS, u, "reason"),
            local_ports: Table::new(|w: PortState| {
                r.level(LOCAL_PORTS, &[u, ("state", w.label())])
            }),
            local_ports_exhaustion: r.level(LOCAL_PORTS_EXHAUSTION, &[u]),
            queue_length: r.gauge(QUEUE_LENGTH, &[u]),
            queue_limit: r.level(QUEUE_LIMIT, &[u]),
            queue_wait: r.histogram(QUEUE_WAIT, LATENCY, &[u]),
            queue_rejected: by(r, QUEUE_REJECTED, u, "reason"),
            retries: by2(r, RETRIES, u, ["reason", "result"]),
            retries_denied: by(r, RETRIES_DENIED, u, "reason"),
            first_byte: r.histogram(FIRST_BYTE, LATENCY, &[u]),
            truncated: by(r, TRUNCATED, u, "framing"),
            proxy_errors: by(r, PROXY_ERRORS, u, "reason"),
            tcp: OnceLock::new(),
            endpoints,
        }
    }

    /// What its connections' `TCP_INFO` is counted into, if it is sampled.
    #[must_use]
    pub fn tcp(&self) -> Option<TcpMetrics> {
        self.tcp.get().copied()
    }

    pub(super) fn set_tcp(&self, tcp: TcpMetrics) {
        self.tcp.get_or_init(|| tcp);
    }

    /// The series of an endpoint, now and later; beyond the cap, those of "other".
    #[must_use]
    pub fn endpoint(&self, endpoint: &str) -> EndpointSeries {
        self.endpoints.enter(endpoint)
    }

    /// The errors of requests that found no upstream: the label is empty, as no name can be.
    pub(super) fn errors_without_upstream(r: &mut Registry) -> Table<ProxyError, Counter> {
        by(r, PROXY_ERRORS, ("upstream", ""), "reason")
    }
}

fn by<W: Word>(
    r: &mut Registry,
    info: Info,
    upstream: (&'static str, &str),
    label: &'static str,
) -> Table<W, Counter> {
    Table::new(|word: W| r.counter(info, &[upstream, (label, word.label())]))
}

fn by2<A: Word, B: Word>(
    r: &mut Registry,
    info: Info,
    upstream: (&'static str, &str),
    [first, second]: [&'static str; 2],
) -> Table2<A, B, Counter> {
    Table2::new(|a: A, b: B| r.counter(info, &[upstream, (first, a.label()), (second, b.label())]))
}

const OUTCOMES: Info = Info {
    name: "holdfast_upstream_requests_total",
    help: "Requests, by how they came by their connection.",
};
const OPENED: Info = Info {
    name: "holdfast_upstream_connections_opened_total",
    help: "Connections opened, by why a parked one did not do.",
};
const CLOSED: Info = Info {
    name: "holdfast_upstream_connections_closed_total",
    help: "Origin connections ended, by whom and why.",
};
const CONNECTIONS: Info = Info {
    name: "holdfast_upstream_connections",
    help: "Origin connections now, by state.",
};
const ENDPOINTS: Info = Info {
    name: "holdfast_upstream_endpoints",
    help: "Endpoints now, by how they stand.",
};
const LIMIT: Info = Info {
    name: "holdfast_upstream_connections_limit",
    help: "Most origin connections over all endpoints.",
};
const PER_CONNECTION: Info = Info {
    name: "holdfast_upstream_requests_per_connection",
    help: "Requests an origin connection had carried when it ended.",
};
const CONNECTION_AGE: Info = Info {
    name: "holdfast_upstream_connection_age_seconds",
    help: "Age of an origin connection when it ended.",
};
const IDLE_BEFORE_REUSE: Info = Info {
    name: "holdfast_upstream_idle_before_reuse_seconds",
    help: "How long a connection had been parked when it was taken again.",
};
const IDLE_CLOSE_AGE: Info = Info {
    name: "holdfast_upstream_idle_close_age_seconds",
    help: "How long a connection had been parked when it ended.",
};
const IDLE_LIMIT: Info = Info {
    name: "holdfast_upstream_idle_limit_seconds",
    help: "The idle limit by source; 0 where the source says nothing.",
};
const STALE: Info = Info {
    name: "holdfast_upstream_stale_connections_total",
    help: "Parked connections found dead, when, and what became of the request.",
};
const CONNECT_DURATION: Info = Info {
    name: "holdfast_upstream_connect_duration_seconds",
    help: "Duration of handshakes that succeeded.",
};
const CONNECT_ERRORS: Info = Info {
    name: "holdfast_upstream_connect_errors_total",
    help: "Handshakes that failed, by reason.",
};
const LOCAL_PORTS: Info = Info {
    name: "holdfast_local_ports",
    help: "Local ports towards the endpoint that has the fewest left, by state.",
};
const LOCAL_PORTS_EXHAUSTION: Info = Info {
    name: "holdfast_local_ports_exhaustion_seconds",
    help: "Until an endpoint has no local port left but the reserve, at the present rate.",
};
const QUEUE_LENGTH: Info = Info {
    name: "holdfast_upstream_queue_length",
    help: "Requests waiting for a connection.",
};
const QUEUE_LIMIT: Info = Info {
    name: "holdfast_upstream_queue_limit",
    help: "Most requests that may wait.",
};
const QUEUE_WAIT: Info = Info {
    name: "holdfast_upstream_queue_wait_seconds",
    help: "How long requests waited that got a connection.",
};
const QUEUE_REJECTED: Info = Info {
    name: "holdfast_upstream_queue_rejected_total",
    help: "Requests that waited in vain or might not wait.",
};
const RETRIES: Info = Info {
    name: "holdfast_upstream_retries_total",
    help: "Requests sent again, why, and what came of it.",
};
const RETRIES_DENIED: Info = Info {
    name: "holdfast_upstream_retries_denied_total",
    help: "Requests that failed and were not sent again, by reason.",
};
const FIRST_BYTE: Info = Info {
    name: "holdfast_upstream_first_byte_seconds",
    help: "From the last octet of a request to the first of its answer.",
};
const TRUNCATED: Info = Info {
    name: "holdfast_upstream_truncated_responses_total",
    help: "Answers that ended before their framing said so.",
};
const PROXY_ERRORS: Info = Info {
    name: "holdfast_proxy_errors_total",
    help: "Requests that Holdfast answered itself or broke off, by reason.",
};
