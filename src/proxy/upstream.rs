//! The origins of one name: endpoints, each with its pool, and how one is chosen.

use crate::net::clock;
use crate::observe::LiveTable;
use crate::observe::Metrics;
use crate::observe::UpstreamMetrics;
use crate::policy::balance::Balance;
use crate::policy::balance::Candidate;
use crate::policy::balance::Dice;
use crate::policy::balance::Load;
use crate::policy::balance::Method;
use crate::policy::balance::Rank;
use crate::policy::balance::Tried;
use crate::policy::balance::Unfit;
use crate::policy::balance::Usable;
use crate::policy::retry::Budget;
use crate::pool::PoolLimits;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::endpoint::EndpointSettings;
use crate::proxy::endpoint::Holddown;
use crate::proxy::endpoint::Pool;
use crate::proxy::settings::UpstreamSettings;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// A named set of origins.
pub struct Upstream {
    /// How it is treated.
    pub settings: UpstreamSettings,
    /// Its endpoints, in the order of the configuration.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Its metrics.
    pub metrics: Arc<UpstreamMetrics>,
    /// Which requests may be sent again.
    pub budget: Budget,
    balance: Balance,
}

/// An endpoint as configured.
pub struct EndpointShape {
    /// Where it is.
    pub address: SocketAddr,
    /// Its name as configured, for `Host` where the client's is not passed on.
    pub host: String,
    /// Its share of the load.
    pub weight: NonZeroU32,
    /// Whether it serves only when no primary can.
    pub rank: Rank,
    /// The limits of its pool.
    pub limits: PoolLimits,
}

impl Upstream {
    /// An upstream with its endpoints, nothing connected yet.
    #[must_use]
    pub fn new(
        settings: UpstreamSettings,
        shapes: Vec<EndpointShape>,
        method: Method,
        budget: (f64, u32),
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
            idle: settings.idle,
        });
        let candidates: Vec<Candidate> = shapes
            .iter()
            .map(|shape| Candidate {
                weight: shape.weight,
                rank: shape.rank,
            })
            .collect();
        let balance = Balance::new(method, &candidates);
        let limit: u64 = shapes
            .iter()
            .map(|s| u64::from(s.limits.max_connections.0))
            .sum();
        let limit = settings
            .max_connections_total
            .map_or(limit, |total| limit.min(total.into()));
        #[expect(
            clippy::cast_precision_loss,
            reason = "connection limits are far below 2^52"
        )]
        own_metrics.limit.set(limit as f64);
        own_metrics.queue_limit.set(f64::from(settings.max_pending));
        let endpoints = shapes
            .into_iter()
            .enumerate()
            .map(|(index, shape)| {
                Arc::new(Endpoint {
                    host: shape.host,
                    address: shape.address,
                    pool: Pool::new(shape.limits, shared.idle),
                    holddown: Holddown::default(),
                    in_flight: AtomicU64::new(0),
                    metrics_index: index,
                    metrics: Arc::clone(&own_metrics),
                    process: Arc::clone(metrics),
                    live: Arc::clone(&live),
                    upstream: Arc::clone(&shared),
                })
            })
            .collect();
        let (ratio, per_second) = budget;
        let budget = Budget::new(ratio, per_second, clock::now());
        Self {
            settings,
            endpoints,
            metrics: own_metrics,
            budget,
            balance,
        }
    }

    /// Chooses an endpoint that was not tried yet. `None`: there is none.
    pub fn pick(&self, tried: &Tried, dice: &mut impl Dice) -> Option<(usize, &Arc<Endpoint>)> {
        let load = |endpoint: &Endpoint| Load(endpoint.in_flight.load(Ordering::Relaxed));
        let rested = |at: usize| match self.endpoints.get(at) {
            Some(endpoint) if endpoint.holddown.is_over() => Usable::Fit(load(endpoint)),
            Some(_) | None => Usable::Unfit(Unfit::Ejected),
        };
        let any = |at: usize| match self.endpoints.get(at) {
            Some(endpoint) => Usable::Fit(load(endpoint)),
            None => Usable::Unfit(Unfit::Draining),
        };
        // When every one is held down, one of them is better than none.
        let picked = self.balance.pick(rested, dice, tried);
        let at = picked.or_else(|| self.balance.pick(any, dice, tried))?;
        self.endpoints.get(at).map(|endpoint| (at, endpoint))
    }

    /// Requests in line at every endpoint but this one.
    #[must_use]
    pub fn waiting_elsewhere(&self, than: &Arc<Endpoint>) -> u32 {
        let others = self
            .endpoints
            .iter()
            .filter(|endpoint| !Arc::ptr_eq(endpoint, than));
        others.map(|endpoint| endpoint.pool.counts().waiting).sum()
    }

    /// Connections open at all endpoints.
    #[must_use]
    pub fn open_connections(&self) -> u32 {
        self.endpoints
            .iter()
            .map(|endpoint| endpoint.pool.open())
            .sum()
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
