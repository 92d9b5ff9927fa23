//! All that is counted, made at start from the shape of the configuration.
//!
//! Handles are resolved once; on the path of a request nothing is looked up. Only what something
//! feeds is registered: a series that could not move would be a lie.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::base::ProxyError;
use crate::base::close::Close;
use crate::base::names::Name;
use crate::base::reason::By;
use crate::base::reason::How;
use crate::base::reason::Phase;
use crate::base::reason::Side;
use crate::observe::counter::Counter;
use crate::observe::dns_metrics::DnsMetrics;
use crate::observe::drain_metrics::DrainMetrics;
use crate::observe::endpoint_metrics::EndpointBook;
use crate::observe::gauge::Level;
use crate::observe::listener_metrics::ListenerMetrics;
use crate::observe::process::ProcessMetrics;
use crate::observe::registry::Info;
use crate::observe::registry::Registry;
use crate::observe::reload_metrics::ReloadMetrics;
use crate::observe::route_metrics::RouteMetrics;
use crate::observe::table::Table;
use crate::observe::table::Table2;
use crate::observe::table::Table3;
use crate::observe::tcp_metrics::TcpMetrics;
use crate::observe::upstream_metrics::UpstreamMetrics;
use crate::observe::words::Direction;
use crate::observe::words::Drained;
use crate::observe::words::GracefulOutcome;
use crate::observe::words::Word;
use crate::observe::worker_metrics::WorkerMetrics;

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
    /// Most endpoints with series of their own; further ones are counted as "other".
    pub max_endpoint_series: usize,
}

/// Everything that is counted.
pub struct Metrics {
    book: Mutex<Book>,
    /// Requests that no route matched, under an empty `route`.
    pub no_route: Arc<RouteMetrics>,
    /// Answers of our own to requests that reached no upstream, under an empty `upstream`.
    pub no_upstream: Table<ProxyError, Counter>,
    /// Connections closed: on which side, by whom, how, and in which phase.
    pub closes: Table<Side, Table3<By, How, Phase, Counter>>,
    /// Connections reset: on which side, by whom, and in which phase.
    pub resets: Table3<Side, By, Phase, Counter>,
    /// Connections closed in stages, and how that ended.
    pub graceful_closes: Table2<Side, GracefulOutcome, Counter>,
    /// Octets on the wire.
    pub bytes: Table2<Side, Direction, Counter>,
    /// How a drain goes.
    pub drain: DrainMetrics,
    /// Client connections that ended in a drain.
    pub drain_closed: Table<Drained, Counter>,
    /// What is given up for want of descriptors: the step, by its number.
    pub fd_pressure: Level,
    /// Whether each worker turns.
    pub workers: Vec<WorkerMetrics>,
    /// Reloads of the configuration.
    pub reloads: ReloadMetrics,
    /// Access log lines given up because the writer could not keep pace.
    pub log_lines_dropped: Counter,
    /// Tasks that panicked; each cost one connection.
    pub panics: Counter,
    process: ProcessMetrics,
    registry: Arc<Mutex<Registry>>,
    looks: Mutex<Vec<Look>>,
}

/// Brings up to date what is only looked at when somebody asks.
type Look = Box<dyn Fn() + Send + Sync>;

impl Metrics {
    /// Everything at 0.
    #[must_use]
    pub fn new(shape: &Shape) -> Arc<Self> {
        let registry = Arc::new(Mutex::new(Registry::new(shape.workers)));
        let mut locked = registry.lock().unwrap_or_else(PoisonError::into_inner);
        let r = &mut *locked;
        let mut book = Book::default();
        for name in &shape.listeners {
            book.listener(name, r);
        }
        for name in &shape.routes {
            book.route(name, r);
        }
        for shape in &shape.upstreams {
            book.upstream(shape, r, &registry);
        }
        let build = Info {
            name: "holdfast_build_info",
            help: "1, labelled with the version.",
        };
        r.level(build, &[("version", env!("CARGO_PKG_VERSION"))])
            .set(1.0);
        let metrics = Self {
            book: Mutex::new(book),
            no_route: Arc::new(RouteMetrics::new(r, "")),
            no_upstream: UpstreamMetrics::errors_without_upstream(r),
            closes: Table::new(|side: Side| {
                Table3::new(|by: By, how: How, phase: Phase| {
                    let by = ("by", by.label());
                    let (how, phase) = (("how", how.label()), ("phase", phase.label()));
                    r.counter(CLOSES, &[("side", side.label()), by, how, phase])
                })
            }),
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
            drain: DrainMetrics::new(r),
            fd_pressure: r.level(FD_PRESSURE, &[]),
            drain_closed: DrainMetrics::closed(r),
            workers: (0..shape.workers)
                .map(|index| WorkerMetrics::new(r, index))
                .collect(),
            reloads: ReloadMetrics::new(r),
            log_lines_dropped: r.counter(LOG_DROPPED, &[]),
            panics: r.counter(PANICS, &[]),
            process: ProcessMetrics::new(r),
            registry: Arc::clone(&registry),
            looks: Mutex::default(),
        };
        drop(locked);
        Arc::new(metrics)
    }

    /// What the listener of this name counts. What was there once is there for good: a listener that
    /// a reload takes away may still have connections, and one that it brings back goes on counting.
    #[must_use]
    pub fn listener(&self, name: &Name) -> Arc<ListenerMetrics> {
        self.in_book(|book, registry| book.listener(name, registry))
    }

    /// Every listener's.
    #[must_use]
    pub fn listeners(&self) -> Vec<Arc<ListenerMetrics>> {
        self.in_book(|book, _| book.listeners.values().cloned().collect())
    }

    /// What the route of this name counts.
    #[must_use]
    pub fn route(&self, name: &Name) -> Arc<RouteMetrics> {
        self.in_book(|book, registry| book.route(name, registry))
    }

    /// What the upstream of this name counts.
    #[must_use]
    pub fn upstream(&self, shape: &UpstreamShape) -> Arc<UpstreamMetrics> {
        self.in_book(|book, registry| book.upstream(shape, registry, &self.registry))
    }

    fn in_book<T>(&self, look: impl FnOnce(&mut Book, &mut Registry) -> T) -> T {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut book, &mut registry)
    }

    /// What the upstream of this name counts of look-ups, from now on.
    #[must_use]
    pub fn dns(&self, upstream: &Name) -> Arc<DnsMetrics> {
        self.in_book(|book, registry| book.dns(upstream, registry))
    }

    /// Has `look` called before all of it is exposed.
    pub fn look_first(&self, look: impl Fn() + Send + Sync + 'static) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.push(Box::new(look));
    }

    /// The connections of this upstream are sampled from now on.
    pub fn sample_tcp(&self, name: &Name, upstream: &UpstreamMetrics) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        upstream.set_tcp(TcpMetrics::new(&mut registry, name.as_str()));
    }

    /// Counts how a connection was closed; a reset is counted as one too.
    pub fn count_close(&self, side: Side, close: Close) {
        let Close { by, how, phase, .. } = close;
        self.closes.of(side).of(by, how, phase).inc();
        if how == How::Rst {
            self.resets.of(side, by, phase).inc();
        }
    }

    /// All of it as Prometheus text, version 0.0.4.
    #[must_use]
    pub fn expose(&self) -> String {
        self.process.refresh();
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.iter().for_each(|look| look());
        drop(looks);
        self.registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .expose()
    }
}

/// What was made, by name: asking again gives the same.
#[derive(Debug, Default)]
struct Book {
    listeners: BTreeMap<String, Arc<ListenerMetrics>>,
    routes: BTreeMap<String, Arc<RouteMetrics>>,
    upstreams: BTreeMap<String, Arc<UpstreamMetrics>>,
    dns: BTreeMap<String, Arc<DnsMetrics>>,
}

impl Book {
    fn listener(&mut self, name: &Name, r: &mut Registry) -> Arc<ListenerMetrics> {
        let make = || Arc::new(ListenerMetrics::new(r, name.as_str()));
        Arc::clone(self.listeners.entry(name.to_string()).or_insert_with(make))
    }

    fn route(&mut self, name: &Name, r: &mut Registry) -> Arc<RouteMetrics> {
        let make = || Arc::new(RouteMetrics::new(r, name.as_str()));
        Arc::clone(self.routes.entry(name.to_string()).or_insert_with(make))
    }

    fn dns(&mut self, upstream: &Name, r: &mut Registry) -> Arc<DnsMetrics> {
        let make = || Arc::new(DnsMetrics::new(r, upstream.as_str()));
        Arc::clone(self.dns.entry(upstream.to_string()).or_insert_with(make))
    }

    fn upstream(
        &mut self,
        shape: &UpstreamShape,
        r: &mut Registry,
        registry: &Arc<Mutex<Registry>>,
    ) -> Arc<UpstreamMetrics> {
        let (name, cap) = (shape.name.as_str(), shape.max_endpoint_series);
        let make = || {
            let endpoints = EndpointBook::new(name, cap, registry);
            Arc::new(UpstreamMetrics::new(r, name, endpoints))
        };
        Arc::clone(self.upstreams.entry(name.to_owned()).or_insert_with(make))
    }
}

const CLOSES: Info = Info {
    name: "holdfast_connections_closed_total",
    help: "Connections closed: on which side, by whom, how, in which phase.",
};
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
const LOG_DROPPED: Info = Info {
    name: "holdfast_log_lines_dropped_total",
    help: "Access log lines given up because the writer could not keep pace.",
};
const PANICS: Info = Info {
    name: "holdfast_panics_total",
    help: "Tasks that panicked; each cost a connection.",
};

const FD_PRESSURE: Info = Info {
    name: "holdfast_fd_pressure",
    help: "0 calm, 1 idle connections to origins close, 2 clients between requests too, 3 new clients are refused.",
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::CloseReason;
    use crate::observe::words::DnsResult;
    use std::collections::BTreeSet;

    fn shape() -> Shape {
        let name = |text| Name::parse(text).unwrap();
        Shape {
            listeners: vec![name("web"), name("other")],
            routes: vec![name("all")],
            upstreams: vec![UpstreamShape {
                name: name("app"),
                max_endpoint_series: 2,
            }],
            workers: 2,
        }
    }

    /// One line of an exposition.
    struct Sample {
        name: String,
        labels: BTreeMap<String, String>,
        value: f64,
    }

    fn samples(text: &str) -> Vec<Sample> {
        let pair = |pair: &str| {
            let (key, value) = pair.split_once("=\"").unwrap();
            (key.to_owned(), value.strip_suffix('"').unwrap().to_owned())
        };
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let pairs = labels
                .strip_suffix('}')
                .unwrap()
                .split(',')
                .filter(|pair| !pair.is_empty());
            Sample {
                name: name.to_owned(),
                labels: pairs.map(pair).collect(),
                value: value.parse().unwrap(),
            }
        };
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(sample)
            .collect()
    }

    fn values(text: &str, name: &str, label: &str) -> BTreeSet<String> {
        let named = samples(text)
            .into_iter()
            .filter(|sample| sample.name == name);
        named
            .filter_map(|mut sample| sample.labels.remove(label))
            .collect()
    }

    fn words(list: &str) -> BTreeSet<String> {
        list.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn no_series_is_there_twice_and_every_family_is_told_once() {
        let text = Metrics::new(&shape()).expose();
        let mut lines = BTreeSet::new();
        for sample in samples(&text) {
            let shown = format!("{} {:?}", sample.name, sample.labels);
            assert!(lines.insert(shown.clone()), "{shown}");
        }
        for line in text.lines().filter(|line| line.starts_with('#')) {
            assert!(lines.insert(line.to_owned()), "{line}");
        }
    }

    #[test]
    fn every_closed_label_set_is_there_from_the_start() {
        let text = Metrics::new(&shape()).expose();
        for line in CLOSED_SETS.lines() {
            let mut parts = line.splitn(3, ' ');
            let (name, label) = (parts.next().unwrap(), parts.next().unwrap());
            let name = format!("holdfast_{name}");
            assert_eq!(
                values(&text, &name, label),
                words(parts.next().unwrap()),
                "{line}"
            );
        }
    }

    #[test]
    fn every_reason_of_floor_0_has_its_series() {
        let text = Metrics::new(&shape()).expose();
        let name = "holdfast_upstream_connections_closed_total";
        assert_eq!(values(&text, name, "reason").len(), CloseReason::ALL.len());
        let name = "holdfast_proxy_errors_total";
        assert_eq!(values(&text, name, "reason").len(), ProxyError::ALL.len());
        let name = "holdfast_connection_resets_total";
        assert_eq!(values(&text, name, "phase").len(), Phase::ALL.len());
    }

    #[test]
    fn a_count_is_nought_until_something_happens() {
        for sample in samples(&Metrics::new(&shape()).expose()) {
            if sample.name.starts_with("holdfast_") && sample.name.ends_with("_total") {
                assert!(sample.value.abs() < f64::EPSILON, "{}", sample.name);
            }
        }
    }

    #[test]
    fn what_is_counted_is_shown_under_its_own_labels() {
        let metrics = Metrics::new(&shape());
        let other = Name::parse("other").unwrap();
        metrics
            .listener(&other)
            .closed
            .of(By::Peer, CloseReason::PeerFin)
            .add(3);
        metrics.resets.of(Side::Client, By::Peer, Phase::Wait).inc();
        let text = metrics.expose();
        for line in [
            r#"closed_total{listener="other",by="peer",reason="peer_fin"} 3"#,
            r#"closed_total{listener="web",by="peer",reason="peer_fin"} 0"#,
            r#"resets_total{side="client",origin="peer",phase="wait"} 1"#,
        ] {
            assert!(text.contains(line), "{line}");
        }
    }

    #[test]
    fn a_reset_is_counted_as_a_close_and_as_a_reset_and_a_fin_is_not() {
        let metrics = Metrics::new(&shape());
        for how in [How::Rst, How::Fin] {
            let close = Close {
                by: By::Peer,
                how,
                reason: CloseReason::Truncated,
                phase: Phase::ResponseBody,
            };
            metrics.count_close(Side::Upstream, close);
        }
        let resets = &metrics.resets;
        let reset = resets.of(Side::Upstream, By::Peer, Phase::ResponseBody);
        assert_eq!(reset.value(), 1);
        let text = metrics.expose();
        for how in ["rst", "fin"] {
            let labels = format!(r#"by="peer",how="{how}",phase="response_body"}} 1"#);
            assert!(text.contains(&labels), "{labels}");
        }
    }

    #[test]
    fn look_ups_are_counted_for_upstreams_that_have_names() {
        let metrics = Metrics::new(&shape());
        assert!(!metrics.expose().contains("holdfast_dns_"));
        let dns = metrics.dns(&Name::parse("app").unwrap());
        dns.refreshes.of(DnsResult::Timeout).inc();
        let text = metrics.expose();
        let results = values(&text, "holdfast_dns_refresh_total", "result");
        assert_eq!(results, words("success failure timeout"));
        assert!(text.contains(r#"{upstream="app",result="timeout"} 1"#));
        assert!(text.contains("holdfast_dns_last_success_timestamp_seconds{upstream=\"app\"} 0"));
    }

    #[test]
    fn what_a_reload_brings_back_goes_on_counting() {
        let metrics = Metrics::new(&shape());
        let name = Name::parse("late").unwrap();
        metrics.listener(&name).accepted.add(2);
        metrics.listener(&name).accepted.inc();
        let line = r#"holdfast_client_connections_accepted_total{listener="late"} 3"#;
        assert!(metrics.expose().contains(line));
        assert_eq!(metrics.listeners().len(), 3);
    }

    #[test]
    fn samples_of_tcp_are_shown_for_upstreams_that_are_sampled() {
        let metrics = Metrics::new(&shape());
        let app = metrics.upstream(&shape().upstreams[0]);
        assert!(!metrics.expose().contains("holdfast_upstream_tcp_"));
        assert!(app.tcp().is_none());
        metrics.sample_tcp(&Name::parse("app").unwrap(), &app);
        app.tcp().unwrap().rtt.observe(250);
        metrics.sample_tcp(&Name::parse("app").unwrap(), &app);
        let text = metrics.expose();
        assert!(text.contains(r#"holdfast_upstream_tcp_retransmits_total{upstream="app"} 0"#));
        assert!(text.contains(r#"tcp_rtt_seconds_sum{upstream="app"} 0.00025"#));
    }

    #[test]
    fn a_limit_that_is_off_is_infinite() {
        let metrics = Metrics::new(&shape());
        let web = Name::parse("web").unwrap();
        metrics.listener(&web).limit.set(f64::INFINITY);
        let text = metrics.expose();
        let limit = r#"holdfast_client_connections_limit{listener="web"} +Inf"#;
        assert!(text.contains(limit));
    }

    /// `metrics.md`, as name, label and set.
    const CLOSED_SETS: &str = "\
client_connections state active idle tunnel closing
client_connections_rejected_total reason global_limit listener_limit client_limit fd_pressure draining proxy_protocol_error
client_connections_closed_total by peer holdfast
client_half_closed_total action finish abort
client_pipelined_requests_total mode serial concurrent
hop_by_hop_removed_total field connection keep_alive proxy_connection te named
requests_total code 1xx 2xx 3xx 4xx 5xx
upstream_requests_total outcome reused new reused_after_wait new_after_wait rejected
upstream_connections_opened_total reason empty_pool all_busy unsafe_guard retry warm canary health never_mode
upstream_connections_closed_total by peer holdfast
upstream_connections state connecting active idle draining canary
upstream_idle_limit_seconds source config hint learned floor
upstream_stale_connections_total found checkout write read
upstream_stale_connections_total result replaced retried failed
upstream_connect_errors_total reason refused timeout unreachable no_port dns other
local_ports state in_use time_wait available
upstream_queue_rejected_total reason full timeout client_gone
upstream_retries_total result success failure
upstream_retries_denied_total reason budget unsafe_method body_not_buffered attempts
upstream_truncated_responses_total framing length chunked
connections_closed_total side client upstream
connections_closed_total by peer holdfast
connections_closed_total how fin rst timeout
connection_resets_total side client upstream
connection_resets_total origin peer holdfast
graceful_closes_total outcome clean timed_out reset
bytes_total direction rx tx
config_reloads_total result applied refused
drain_connections kind idle exchange tunnel
drain_closed_total how idle finished cut";
}
