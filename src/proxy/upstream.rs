//! The origins of one name: endpoints, each with its pool, and how one is chosen.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::base::names::Name;
use crate::observe::LiveTable;
use crate::observe::Metrics;
use crate::observe::UpstreamMetrics;
use crate::policy::balance::Balance;
use crate::policy::balance::Candidate;
use crate::policy::balance::Dice;
use crate::policy::balance::Tried;
use crate::policy::retry::Budget;
use crate::pool::PoolLimits;
use crate::proxy::checkout::Pool;
use crate::proxy::settings::UpstreamSettings;

/// A named set of origins.
pub struct Upstream {
    /// How it is treated.
    pub settings: UpstreamSettings,
    /// Its endpoints, in the order of the configuration.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Its metrics.
    pub metrics: Arc<UpstreamMetrics>,
    /// Which requests may be sent again.
    pub budget: Mutex<Budget>,
    /// Requests waiting for a connection, at all endpoints.
    pub pending: AtomicU32,
    balance: Balance,
}

/// One origin address.
pub struct Endpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// Its share of the load.
    pub weight: u32,
    /// Whether it serves only when no other can.
    pub role: Role,
    /// Its connections.
    pub pool: Pool,
    /// Requests under way at it.
    pub in_flight: AtomicUsize,
    /// Its place in the metrics' shape.
    pub metrics_index: usize,
    /// The metrics of its upstream.
    pub metrics: Arc<UpstreamMetrics>,
    /// The metrics of the process.
    pub process: Arc<Metrics>,
    /// Where its connections are listed.
    pub live: Arc<LiveTable>,
    /// The settings of its upstream that its connections need.
    pub upstream: Arc<EndpointSettings>,
}

/// What an endpoint's connections need of their upstream's settings.
pub struct EndpointSettings {
    /// The upstream's name.
    pub name: Name,
    /// How connections are made.
    pub dial: crate::net::dial::DialOptions,
    /// How long a connect may take.
    pub connect_timeout: std::time::Duration,
    /// How old a connection may grow.
    pub max_age: Option<std::time::Duration>,
    /// By how large a share that varies.
    pub max_age_jitter: f64,
    /// Requests a connection may carry.
    pub max_requests: Option<u64>,
}

/// When an endpoint serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Always.
    Primary,
    /// When no primary can.
    Backup,
}

/// An endpoint as configured.
pub struct EndpointShape {
    /// Where it is.
    pub address: SocketAddr,
    /// Its share of the load.
    pub weight: u32,
    /// When it serves.
    pub role: Role,
    /// The limits of its pool.
    pub limits: PoolLimits,
}

/// How endpoints are chosen, before there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalanceKind {
    /// Each in turn, by weight.
    RoundRobin,
    /// The one with the fewest requests under way, by weight.
    LeastRequests,
    /// The better of two at random.
    P2c,
}

impl Upstream {
    /// An upstream with its endpoints, nothing connected yet.
    #[must_use]
    pub fn new(
        settings: UpstreamSettings,
        shapes: Vec<EndpointShape>,
        kind: BalanceKind,
        metrics: &Arc<Metrics>,
        of: (Arc<UpstreamMetrics>, Arc<LiveTable>),
    ) -> Self {
        let (own_metrics, live) = of;
        let shared = Arc::new(EndpointSettings {
            name: settings.name.clone(),
            dial: settings.dial.clone(),
            connect_timeout: settings.connect_timeout,
            max_age: settings.max_age,
            max_age_jitter: settings.max_age_jitter,
            max_requests: settings.max_requests,
        });
        let weights: Vec<u32> = shapes.iter().map(|shape| shape.weight).collect();
        let balance = match kind {
            BalanceKind::RoundRobin => Balance::round_robin(&weights),
            BalanceKind::LeastRequests => Balance::least_requests(),
            BalanceKind::P2c => Balance::p2c(),
        };
        let limit: u64 = shapes.iter().map(|s| u64::from(s.limits.max_connections.0)).sum();
        let limit = settings.max_connections_total.map_or(limit, |total| limit.min(total.into()));
        #[expect(clippy::cast_precision_loss, reason = "connection limits are far below 2^52")]
        own_metrics.limit.set(limit as f64);
        own_metrics.queue_limit.set(f64::from(settings.max_pending));
        let endpoints = shapes
            .into_iter()
            .enumerate()
            .map(|(index, shape)| {
                Arc::new(Endpoint {
                    address: shape.address,
                    weight: shape.weight,
                    role: shape.role,
                    pool: Pool::new(shape.limits),
                    in_flight: AtomicUsize::new(0),
                    metrics_index: index,
                    metrics: Arc::clone(&own_metrics),
                    process: Arc::clone(metrics),
                    live: Arc::clone(&live),
                    upstream: Arc::clone(&shared),
                })
            })
            .collect();
        let budget = Mutex::new(Budget::new(&settings.retry));
        Self { settings, endpoints, metrics: own_metrics, budget, pending: AtomicU32::new(0), balance }
    }

    /// Chooses an endpoint that was not tried yet. `None`: there is none.
    pub fn pick(&self, tried: &Tried, dice: &mut impl Dice) -> Option<(usize, &Arc<Endpoint>)> {
        let candidate = |at: usize| {
            self.endpoints.get(at).map_or_else(Candidate::absent, |endpoint| Candidate {
                weight: endpoint.weight,
                backup: endpoint.role.into(),
                usable: crate::policy::balance::Usable::Yes,
                load: endpoint.in_flight.load(Ordering::Relaxed),
            })
        };
        let at = self.balance.pick(self.endpoints.len(), candidate, dice, tried)?;
        self.endpoints.get(at).map(|endpoint| (at, endpoint))
    }

    /// Connections open at all endpoints.
    #[must_use]
    pub fn open_connections(&self) -> u32 {
        self.endpoints.iter().map(|endpoint| endpoint.pool.open()).sum()
    }
}

/// Counts a request at an endpoint while it lives.
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    /// One more request at the endpoint.
    #[must_use]
    pub fn at(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(endpoint))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
