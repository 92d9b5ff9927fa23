//! The client side, by listener.

use crate::base::CloseReason;
use crate::base::reason::By;
use crate::observe::counter::Counter;
use crate::observe::gauge::Gauge;
use crate::observe::gauge::Level;
use crate::observe::histogram::AGE;
use crate::observe::histogram::Histogram;
use crate::observe::histogram::REQUESTS;
use crate::observe::registry::Info;
use crate::observe::registry::Registry;
use crate::observe::table::Table;
use crate::observe::table::Table2;
use crate::observe::words::AcceptError;
use crate::observe::words::ClientState;
use crate::observe::words::HalfClose;
use crate::observe::words::HopField;
use crate::observe::words::PipelineMode;
use crate::observe::words::RejectReason;
use crate::observe::words::Word;

/// What one listener counts.
#[derive(Debug)]
pub struct ListenerMetrics {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections open now.
    pub connections: Table<ClientState, Gauge>,
    /// Most connections this listener may hold; infinite when off.
    pub limit: Level,
    /// Connections turned away at once.
    pub rejected: Table<RejectReason, Counter>,
    /// Connections ended.
    pub closed: Table2<By, CloseReason, Counter>,
    /// Requests that came second or later on their connection.
    pub keepalive_requests: Counter,
    /// Requests a connection had carried when it ended.
    pub requests_per_connection: Histogram,
    /// Age of a connection when it ended, in microseconds.
    pub connection_age: Histogram,
    /// Failures of accept(2).
    pub accept_errors: Table<AcceptError, Counter>,
    /// Clients that shut down their sending side before their answer was complete.
    pub half_closed: Table<HalfClose, Counter>,
    /// Requests that arrived before the answer to the one ahead of them was complete.
    pub pipelined: Table<PipelineMode, Counter>,
    /// Hop-by-hop fields removed from requests and their answers.
    pub hop_by_hop_removed: Table<HopField, Counter>,
}

impl ListenerMetrics {
    pub(super) fn new(r: &mut Registry, name: &str) -> Self {
        let l = ("listener", name);
        let state = |s: ClientState| r.gauge(CONNECTIONS, &[l, ("state", s.label())]);
        let connections = Table::new(state);
        let rejected =
            Table::new(|w: RejectReason| r.counter(REJECTED, &[l, ("reason", w.label())]));
        let closed = Table2::new(|by: By, why: CloseReason| {
            r.counter(CLOSED, &[l, ("by", by.label()), ("reason", why.label())])
        });
        Self {
            accepted: r.counter(ACCEPTED, &[l]),
            connections,
            limit: r.level(LIMIT, &[l]),
            rejected,
            closed,
            keepalive_requests: r.counter(KEEPALIVE, &[l]),
            requests_per_connection: r.histogram(PER_CONNECTION, REQUESTS, &[l]),
            connection_age: r.histogram(CONNECTION_AGE, AGE, &[l]),
            accept_errors: Table::new(|w: AcceptError| {
                r.counter(ACCEPT_ERRORS, &[l, ("error", w.label())])
            }),
            half_closed: Table::new(|w: HalfClose| {
                r.counter(HALF_CLOSED, &[l, ("action", w.label())])
            }),
            pipelined: Table::new(|w: PipelineMode| {
                r.counter(PIPELINED, &[l, ("mode", w.label())])
            }),
            hop_by_hop_removed: Table::new(|w: HopField| {
                r.counter(HOP_BY_HOP, &[l, ("field", w.label())])
            }),
        }
    }
}

const ACCEPTED: Info = Info {
    name: "holdfast_client_connections_accepted_total",
    help: "Client connections accepted.",
};
const CONNECTIONS: Info = Info {
    name: "holdfast_client_connections",
    help: "Client connections open now, by state.",
};
const LIMIT: Info = Info {
    name: "holdfast_client_connections_limit",
    help: "Most client connections the listener may hold; infinite when off.",
};
const REJECTED: Info = Info {
    name: "holdfast_client_connections_rejected_total",
    help: "Client connections turned away at once, by reason.",
};
const CLOSED: Info = Info {
    name: "holdfast_client_connections_closed_total",
    help: "Client connections ended, by whom and why.",
};
const KEEPALIVE: Info = Info {
    name: "holdfast_client_keepalive_requests_total",
    help: "Requests that came second or later on their connection.",
};
const PER_CONNECTION: Info = Info {
    name: "holdfast_client_requests_per_connection",
    help: "Requests a client connection had carried when it ended.",
};
const CONNECTION_AGE: Info = Info {
    name: "holdfast_client_connection_age_seconds",
    help: "Age of a client connection when it ended.",
};
const ACCEPT_ERRORS: Info = Info {
    name: "holdfast_client_accept_errors_total",
    help: "Failures to accept, by error.",
};
const HALF_CLOSED: Info = Info {
    name: "holdfast_client_half_closed_total",
    help: "Clients that shut down their sending side before their answer was complete.",
};
const PIPELINED: Info = Info {
    name: "holdfast_client_pipelined_requests_total",
    help: "Requests that arrived before the answer to the one ahead was complete.",
};
const HOP_BY_HOP: Info = Info {
    name: "holdfast_hop_by_hop_removed_total",
    help: "Hop-by-hop fields removed from messages, by field.",
};
