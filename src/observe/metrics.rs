//! All that is counted, made at start from the shape of the configuration.
//!
//! Handles are resolved once; on the path of a request nothing is looked up. Only what something
//! feeds is registered: a series that could not move would be a lie.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::base::ProxyError;
use crate::base::names::Name;
use crate::base::reason::By;
use crate::base::reason::Phase;
use crate::base::reason::Side;
use crate::observe::counter::Counter;
use crate::observe::gauge::Level;
use crate::observe::listener_metrics::ListenerMetrics;
use crate::observe::process::ProcessMetrics;
use crate::observe::registry::Info;
use crate::observe::registry::Registry;
use crate::observe::route_metrics::RouteMetrics;
use crate::observe::table::Table;
use crate::observe::table::Table2;
use crate::observe::table::Table3;
use crate::observe::upstream_metrics::EndpointMetrics;
use crate::observe::upstream_metrics::UpstreamMetrics;
use crate::observe::words::Direction;
use crate::observe::words::GracefulOutcome;
use crate::observe::words::Word;

/// What there is to count: the names of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Listeners, in the order of the configuration.
    pub listeners: Vec<Name>,
    /// Routes.
    pub routes: Vec<Name>,
    /// Upstreams.
    pub upstreams: Vec<UpstreamShape>,
    /// Worker threads; each has a lane of its own.
    pub workers: usize,
}

/// One upstream's names.
#[derive(Clone, Debug)]
pub struct UpstreamShape {
    /// Its name.
    pub name: Name,
    /// Its endpoints as configured, `host:port`.
    pub endpoints: Vec<String>,
    /// Most endpoints with series of their own; further ones are counted as "other".
    pub max_endpoint_series: usize,
}

/// Everything that is counted. The vectors are in the order of the shape.
#[derive(Debug)]
pub struct Metrics {
    /// The client side.
    pub listeners: Vec<Arc<ListenerMetrics>>,
    /// Requests.
    pub routes: Vec<Arc<RouteMetrics>>,
    /// Requests that no route matched, under an empty `route`.
    pub no_route: Arc<RouteMetrics>,
    /// The origin side.
    pub upstreams: Vec<Arc<UpstreamMetrics>>,
    /// Answers of our own to requests that reached no upstream, under an empty `upstream`.
    pub no_upstream: Table<ProxyError, Counter>,
    /// Connections reset: on which side, by whom, and in which phase.
    pub resets: Table3<Side, By, Phase, Counter>,
    /// Connections closed in stages, and how that ended.
    pub graceful_closes: Table2<Side, GracefulOutcome, Counter>,
    /// Octets on the wire.
    pub bytes: Table2<Side, Direction, Counter>,
    /// 0 serving, 1 draining.
    pub drain_state: Level,
    /// Access log lines given up because the writer could not keep pace.
    pub log_lines_dropped: Counter,
    /// Tasks that panicked; each cost one connection.
    pub panics: Counter,
    process: ProcessMetrics,
    registry: Mutex<Registry>,
}

impl Metrics {
    /// Everything at 0.
    #[must_use]
    pub fn new(shape: &Shape) -> Arc<Self> {
        let mut registry = Registry::new(shape.workers);
        let r = &mut registry;
        let listener = |name: &Name| Arc::new(ListenerMetrics::new(r, name.as_str()));
        let listeners = shape.listeners.iter().map(listener).collect();
        let route = |name: &Name| Arc::new(RouteMetrics::new(r, name.as_str()));
        let routes = shape.routes.iter().map(route).collect();
        let upstreams = shape
            .upstreams
            .iter()
            .map(|shape| upstream(r, shape))
            .collect();
        let build = Info {
            name: "holdfast_build_info",
            help: "1, labelled with the version.",
        };
        r.level(build, &[("version", env!("CARGO_PKG_VERSION"))])
            .set(1.0);
        Arc::new(Self {
            listeners,
            routes,
            no_route: Arc::new(RouteMetrics::new(r, "")),
            upstreams,
            no_upstream: UpstreamMetrics::errors_without_upstream(r),
            resets: Table3::new(|side: Side, by: By, phase: Phase| {
                let origin = ("origin", by.label());
                r.counter(
                    RESETS,
                    &[("side", side.label()), origin, ("phase", phase.label())],
                )
            }),
            graceful_closes: Table2::new(|side: Side, outcome: GracefulOutcome| {
                r.counter(
                    GRACEFUL,
                    &[("side", side.label()), ("outcome", outcome.label())],
                )
            }),
            bytes: Table2::new(|side: Side, direction: Direction| {
                r.counter(
                    BYTES,
                    &[("side", side.label()), ("direction", direction.label())],
                )
            }),
            drain_state: r.level(DRAIN_STATE, &[]),
            log_lines_dropped: r.counter(LOG_DROPPED, &[]),
            panics: r.counter(PANICS, &[]),
            process: ProcessMetrics::new(r),
            registry: Mutex::new(registry),
        })
    }

    /// All of it as Prometheus text, version 0.0.4.
    #[must_use]
    pub fn expose(&self) -> String {
        self.process.refresh();
        self.registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .expose()
    }
}

fn upstream(r: &mut Registry, shape: &UpstreamShape) -> Arc<UpstreamMetrics> {
    let (name, cap) = (shape.name.as_str(), shape.max_endpoint_series);
    let endpoints = EndpointMetrics::capped(r, name, &shape.endpoints, cap);
    Arc::new(UpstreamMetrics::new(r, name, endpoints))
}

const RESETS: Info = Info {
    name: "holdfast_connection_resets_total",
    help: "Connections reset: on which side, by whom, in which phase.",
};
const GRACEFUL: Info = Info {
    name: "holdfast_graceful_closes_total",
    help: "Connections closed in stages, and how that ended.",
};
const BYTES: Info = Info {
    name: "holdfast_bytes_total",
    help: "Octets received and sent.",
};
const DRAIN_STATE: Info = Info {
    name: "holdfast_drain_state",
    help: "0 while serving, 1 while draining.",
};
const LOG_DROPPED: Info = Info {
    name: "holdfast_log_lines_dropped_total",
    help: "Access log lines given up because the writer could not keep pace.",
};
const PANICS: Info = Info {
    name: "holdfast_panics_total",
    help: "Tasks that panicked; each cost a connection.",
};
