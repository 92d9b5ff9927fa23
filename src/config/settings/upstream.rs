//! What one upstream does: its servers and how they are chosen, connected to, pooled and judged.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::base::names::Name;
use crate::base::units::ByteCount;
use crate::base::units::Limit;

use super::listener::Tcp;
use super::values::HashKey;
use super::values::Ratio;
use super::values::ServerAddress;
use super::values::StatusRange;
use super::words::Balance;
use super::words::PoolOrder;
use super::words::QueueOrder;
use super::words::RetryOn;
use super::words::Reuse;
use super::words::UnsafeMethods;

/// `[upstreams.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The name of its table.
    pub name: Name,
    /// Its origins; at least one, and one that is no backup.
    pub servers: Vec<Server>,
    /// How an origin is chosen.
    pub balance: Balance,
    /// What `balance = "hash"` hashes.
    pub hash_key: HashKey,
    /// How long a new origin's share grows.
    pub slow_start: Limit<Duration>,
    /// `[upstreams.NAME.pool]`.
    pub pool: Pool,
    /// `[upstreams.NAME.connect]`.
    pub connect: Connect,
    /// `[upstreams.NAME.timeouts]`.
    pub timeouts: Timeouts,
    /// `[upstreams.NAME.retry]`.
    pub retry: Retry,
    /// `[upstreams.NAME.health]`.
    pub health: Health,
    /// Options of connections to its origins.
    pub tcp: Tcp,
}

/// One entry of `servers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub address: ServerAddress,
    /// Its share among the others.
    pub weight: NonZeroU32,
    /// Its own cap, in place of `pool.max_connections`.
    pub max_connections: Option<u32>,
    /// Whether it is used only when no other can be.
    pub backup: bool,
}

/// `[upstreams.NAME.pool]`; for each endpoint unless said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Most connections: connecting, busy and idle.
    pub max_connections: u32,
    /// Most connections of the whole upstream.
    pub max_connections_total: Limit<u32>,
    /// Most idle connections.
    pub max_idle: u32,
    /// Idle connections kept ready.
    pub min_idle: u32,
    /// Which idle connection is taken.
    pub order: PoolOrder,
    /// Which requests may take a used one.
    pub reuse: Reuse,
    /// How long a connection may be idle.
    pub idle_timeout: Duration,
    /// Whether the origin's own limit is learned.
    pub idle_learning: bool,
    /// The limit for an origin not yet known.
    pub idle_floor: Duration,
    /// How much earlier than the origin we close.
    pub idle_margin: Duration,
    /// Longest idle connection that an unsafe method takes.
    pub unsafe_max_idle: Duration,
    /// Most requests of one connection.
    pub max_requests: Limit<u32>,
    /// Greatest age of a connection.
    pub max_age: Limit<Duration>,
    /// The share of `max_age` by which connections differ.
    pub max_age_jitter: Ratio,
    /// Whether connections are retired so that new endpoints get their share.
    pub rebalance: bool,
    /// Most waiting requests of the whole upstream.
    pub max_pending: u32,
    /// How long a request waits for a connection.
    pub queue_timeout: Duration,
    /// Who of the waiting is next.
    pub queue: QueueOrder,
    /// How much of an unwanted response is read so that its connection survives.
    pub abort_drain_bytes: ByteCount,
}

/// `[upstreams.NAME.connect]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// How long a connect may take.
    pub timeout: Duration,
    /// Most simultaneous connects.
    pub max_concurrent: u32,
    /// Addresses we connect from; empty: as the kernel chooses.
    pub source_addresses: Vec<IpAddr>,
    /// `IP_BIND_ADDRESS_NO_PORT`: the port is chosen at connect, so that it may be shared.
    pub bind_no_port: bool,
    /// Local ports left free; at the reserve requests wait.
    pub port_reserve: u16,
}

/// `[upstreams.NAME.timeouts]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of the request to the response head.
    pub response_header: Duration,
    /// Between two reads of a response body.
    pub body_idle: Duration,
    /// The whole exchange.
    pub request: Limit<Duration>,
    /// A tunnel on which nothing moves.
    pub tunnel_idle: Duration,
}

/// `[upstreams.NAME.retry]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Most attempts, the first one included.
    pub attempts: NonZeroU32,
    /// What is tried again; each at most once.
    pub on: Vec<RetryOn>,
    /// When a request that is not idempotent is.
    pub unsafe_methods: UnsafeMethods,
    /// Longest request that is kept for another attempt, and longest answer held during one.
    pub buffer: ByteCount,
    /// Retries per request, at most.
    pub budget_ratio: Ratio,
    /// Retries a second that are always allowed.
    pub budget_min_per_second: u32,
}

/// `[upstreams.NAME.health]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Consecutive failures until an endpoint is ejected.
    pub failures: Limit<u32>,
    /// How long, the first time.
    pub eject: Duration,
    /// The share of endpoints that may be ejected; above it, none is.
    pub max_eject_ratio: Ratio,
    /// What is asked for to see whether an endpoint is well.
    pub active_path: Option<String>,
    /// Between two such requests.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Status codes of an endpoint that is well.
    pub expected_status: Vec<StatusRange>,
    /// Checks in a row that must fail until it is ejected.
    pub unhealthy_after: u32,
    /// Checks in a row that must pass until it is back.
    pub healthy_after: u32,
}
