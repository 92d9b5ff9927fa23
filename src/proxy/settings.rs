//! What the proxy is told: small types of this floor, since it cannot see the configuration's.
//!
//! Each is named as the operator names it in the configuration.

use std::time::Duration;

use crate::base::names::Name;
use crate::h1::head::HeadLimits;
use crate::net::dial::DialOptions;
use crate::net::port_range::PortRange;
use crate::net::quickack::QuickAck;
use crate::policy::balance::hash_key::HashKey;
use crate::policy::client_key::ClientKey;
use crate::policy::health::HealthSettings;
use crate::policy::hops::RequestRules;
use crate::policy::hops::ResponseRules;
use crate::policy::idle_learning::IdleSettings;
use crate::policy::retry::RetrySettings;

/// How one listener treats its clients.
#[derive(Debug)]
pub struct ListenerSettings {
    /// The listener's name.
    pub name: Name,
    /// Whether connections begin with a PROXY protocol header.
    pub proxy_protocol: ProxyProtocol,
    /// What clients are told apart by.
    pub client_key: ClientKey,
    /// From the first octet of a head to its end.
    pub header_timeout: Duration,
    /// Between two reads of a request body.
    pub body_timeout: Duration,
    /// Octets a second of a request body, after a grace.
    pub min_body_rate: Option<u64>,
    /// How long a client may take nothing of what is sent to it.
    pub write_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// Whether clients are told the idle timeout.
    pub keep_alive_header: KeepAliveField,
    /// Requests a connection may carry.
    pub max_requests: Option<u64>,
    /// How old a connection may grow.
    pub max_age: Option<Duration>,
    /// By how large a share `max_age` varies, so that connections do not end together.
    pub max_age_jitter: f64,
    /// Bounds on a request head.
    pub head: HeadLimits,
    /// Most octets of a request body.
    pub max_body_bytes: Option<u64>,
    /// Whether HTTP/1.0 is served.
    pub http10: Http10,
    /// What becomes of requests sent ahead.
    pub pipelining: Pipelining,
    /// What a client's FIN after a whole request means.
    pub half_close: HalfClose,
    /// How long a close in stages may take.
    pub linger_timeout: Duration,
    /// How much is discarded in a close in stages.
    pub linger_bytes: u64,
    /// What `Retry-After` says on a refusal.
    pub retry_after: Duration,
    /// When a client's octets are acknowledged.
    pub quickack: QuickAck,
}

/// Whether connections begin with a PROXY protocol header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None does; one would be a bad request.
    Off,
    /// Those from trusted proxies may.
    Optional,
    /// All do, and come from trusted proxies if any are named.
    Required,
}

/// Whether `Keep-Alive` is sent to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAliveField {
    /// With the true timeout, a little less than the timer.
    Sent,
    /// Not at all.
    Omitted,
}

/// Whether HTTP/1.0 requests are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http10 {
    /// They are.
    Served,
    /// They are answered with 505.
    Refused,
}

/// What becomes of requests that come before the answer to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipelining {
    /// One after the other.
    Serial,
    /// Safe ones at once, at most so many, their answers in order.
    Concurrent {
        /// So many.
        depth: u32,
    },
    /// The connection closes after the first answer.
    Close,
}

/// What a client's FIN after a whole request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfClose {
    /// It gets its answer.
    Finish,
    /// It has left.
    Abort,
}

/// How one upstream is treated.
#[derive(Debug)]
pub struct UpstreamSettings {
    /// The upstream's name.
    pub name: Name,
    /// Whether connections are reused.
    pub reuse: Reuse,
    /// How a connection may be used that was idle: for unsafe methods only for less than this.
    pub unsafe_max_idle: Duration,
    /// How old a connection may grow.
    pub max_age: Option<Duration>,
    /// By how large a share `max_age` varies.
    pub max_age_jitter: f64,
    /// How long a connection may idle, and whether that is learned.
    pub idle: IdleSettings,
    /// Idle connections kept ready at each endpoint.
    pub min_idle: u32,
    /// What a request is balanced by, where that is its key.
    pub hash_key: HashKey,
    /// When an endpoint is ejected.
    pub health: HealthSettings,
    /// What becomes of connections that are more than an endpoint's share when another joins.
    pub rebalance: Rebalance,
    /// Who of the waiting is next.
    pub queue: QueueOrder,
    /// Most connections of the whole upstream.
    pub max_connections_total: Option<u32>,
    /// Most waiting requests of the whole upstream.
    pub max_pending: u32,
    /// How long a request waits for a connection.
    pub queue_timeout: Duration,
    /// How much of an answer is read on after its client left, to keep the connection.
    pub abort_drain_bytes: u64,
    /// How long a connect may take.
    pub connect_timeout: Duration,
    /// Local ports left to others.
    pub port_reserve: u32,
    /// What the system says of local ports.
    pub port_range: PortRange,
    /// How connections are made.
    pub dial: DialOptions,
    /// How long an answer may take to begin.
    pub response_header: Duration,
    /// Between two reads of an answer's body.
    pub body_idle: Duration,
    /// The whole exchange.
    pub request: Option<Duration>,
    /// How long a tunnel may be silent.
    pub tunnel_idle: Duration,
    /// Retries.
    pub retry: RetrySettings,
    /// Most octets of a request's content kept for another attempt, and of an answer's held during
    /// one.
    pub retry_buffer: u64,
}

/// Whether a pool reuses connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Never.
    Never,
    /// For everything but the first request of a client connection.
    Safe,
    /// Whenever possible.
    Always,
}

/// What becomes of connections that are more than an endpoint's share when another joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// Those that are idle close, bit by bit.
    CloseSurplus,
    /// They end in their own time.
    Leave,
}

/// Who of the waiting is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueOrder {
    /// The oldest.
    Fifo,
    /// Clients in turn.
    Fair,
}

/// What one route says about the requests it matches.
#[derive(Debug)]
pub struct RouteSettings {
    /// The route's name.
    pub name: Name,
    /// Whether the origin gets the `Host` that the client sent.
    pub preserve_host: PreserveHost,
    /// Protocols a request may upgrade to, lower-case.
    pub upgrade: Vec<Vec<u8>>,
    /// What is done to request fields.
    pub request: RequestRules,
    /// What is done to response fields.
    pub response: ResponseRules,
}

/// Which `Host` the origin gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreserveHost {
    /// The client's.
    Kept,
    /// Its own address.
    Replaced,
}
