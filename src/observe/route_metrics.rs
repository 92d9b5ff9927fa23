//! Requests and tunnels, by route.

use crate::observe::counter::Counter;
use crate::observe::gauge::Gauge;
use crate::observe::histogram::Histogram;
use crate::observe::histogram::LATENCY;
use crate::observe::registry::Info;
use crate::observe::registry::Registry;
use crate::observe::table::Table;
use crate::observe::words::CodeClass;
use crate::observe::words::Word;

/// What one route counts.
#[derive(Debug)]
pub struct RouteMetrics {
    /// Requests answered, by the class of the final status code.
    pub requests: Table<CodeClass, Counter>,
    /// From the first octet of the request to the last of the answer, in microseconds.
    pub duration: Histogram,
    /// Requests under way.
    pub in_flight: Gauge,
    /// Tunnels open now.
    pub tunnels: Gauge,
    /// Tunnels opened.
    pub tunnels_opened: Counter,
}

impl RouteMetrics {
    pub(super) fn new(r: &mut Registry, name: &str) -> Self {
        let l = ("route", name);
        let requests = |class: CodeClass| r.counter(REQUESTS, &[l, ("code", class.label())]);
        Self {
            requests: Table::new(requests),
            duration: r.histogram(DURATION, LATENCY, &[l]),
            in_flight: r.gauge(IN_FLIGHT, &[l]),
            tunnels: r.gauge(TUNNELS, &[l]),
            tunnels_opened: r.counter(TUNNELS_OPENED, &[l]),
        }
    }
}

const REQUESTS: Info = Info {
    name: "holdfast_requests_total",
    help: "Requests answered, by the class of the status code.",
};
const DURATION: Info = Info {
    name: "holdfast_request_duration_seconds",
    help: "From the first octet of a request to the last of its answer.",
};
const IN_FLIGHT: Info = Info {
    name: "holdfast_requests_in_flight",
    help: "Requests under way.",
};
const TUNNELS: Info = Info {
    name: "holdfast_tunnels",
    help: "Tunnels open now.",
};
const TUNNELS_OPENED: Info = Info {
    name: "holdfast_tunnels_total",
    help: "Tunnels opened.",
};
