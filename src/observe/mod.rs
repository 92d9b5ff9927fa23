//! Floor 4: what happened, told once and in one set of words.
//!
//! Counters a worker can afford on every octet run, the record of one exchange, the access log, the
//! log of the process, and the table of live connections. Absent on purpose: clocks (time is an
//! argument), sockets and HTTP; the admin plane of `app` shows what is kept here.

pub mod shard;
pub mod cells;
pub mod counter;
pub mod gauge;
pub mod histogram;
pub mod words;
pub mod table;
pub mod registry;
pub mod listener_metrics;
pub mod route_metrics;
pub mod endpoint_metrics;
pub mod tcp_metrics;
pub mod upstream_metrics;
pub mod dns_metrics;
pub mod process;
pub mod drain_metrics;
pub mod reload_metrics;
pub mod worker_metrics;
pub mod metrics;
pub mod record;
pub mod stamp;
pub mod escape;
pub mod line;
pub mod access_format;
pub mod log_writer;
pub mod access_log;
pub mod error_log;
pub mod closed;
pub mod live;

pub use access_log::AccessLog;
pub use counter::Counter;
pub use dns_metrics::DnsMetrics;
pub use endpoint_metrics::EndpointMetrics;
pub use endpoint_metrics::EndpointSeries;
pub use error_log::ErrorLog;
pub use gauge::Gauge;
pub use gauge::GaugeGuard;
pub use gauge::Level;
pub use histogram::Histogram;
pub use listener_metrics::ListenerMetrics;
pub use live::LiveTable;
pub use metrics::Metrics;
pub use metrics::Shape;
pub use metrics::UpstreamShape;
pub use record::ExchangeRecord;
pub use route_metrics::RouteMetrics;
pub use tcp_metrics::TcpMetrics;
pub use upstream_metrics::UpstreamMetrics;
