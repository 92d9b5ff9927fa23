//! The numbers a pool is held to.
//!
//! They are what the operator calls them in the configuration. Absent on purpose: `min_idle`,
//! `queue_timeout` and jitter; those need a clock, a task or dice, and live with whoever has them.

use std::time::Duration;

/// A number of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnCount(pub u32);

/// Which idle connection of a shelf is taken first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The newest: its congestion window is open, and the surplus grows old and leaves.
    Lifo,
    /// The oldest: every connection is used in turn and none grows old.
    Fifo,
}

/// The limits of one endpoint's pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Most connections that may be open: connecting, leased and idle together, counted before the
    /// connect. At the limit requests wait in line.
    pub max_connections: ConnCount,
    /// Most idle connections kept; a further one that returns retires as `PoolFull`.
    pub max_idle: u32,
    /// Most connects under way at once. At the limit requests wait in line.
    pub max_connecting: u32,
    /// How long a connection may stay idle; then it leaves with the pool's idle reason.
    pub idle_limit: Duration,
    /// How old a connection may grow. The ledger compares with the limit given to each connection
    /// at connect, which the caller has jittered; this one is for reading.
    pub max_age: Option<Duration>,
    /// How many requests a connection may carry; then it retires as `MaxRequests`.
    pub max_requests: Option<u64>,
    /// Which idle connection is taken first.
    pub order: Order,
    /// How many workers keep a shelf.
    pub workers: usize,
}
