//! The origins of one name: endpoints, each with its pool, and how one is chosen.

use crate::base::ProxyError;
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
use crate::pool::ports::PortShape;
use crate::proxy::endpoint::Apart;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::endpoint::EndpointSettings;
use crate::proxy::endpoint::Holddown;
use crate::proxy::endpoint::Pool;
use crate::proxy::endpoint::Ports;
use crate::proxy::endpoint::ShareOut;
use crate::proxy::household::Household;
use crate::proxy::settings::UpstreamSettings;
use arc_swap::ArcSwap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// A named set of origins.
pub struct Upstream {
    /// How it is treated.
    pub settings: Arc<UpstreamSettings>,
    /// Its endpoints, in the order of the configuration.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// What the configuration says of each of them.
    pub candidates: Vec<Candidate>,
    /// Endpoints that are no longer configured or resolved: no request goes to them, and what they
    /// have under way may finish.
    pub leaving: Vec<Arc<Endpoint>>,
    /// Its metrics.
    pub metrics: Arc<UpstreamMetrics>,
    /// Which requests may be sent again: one account through all revisions.
    pub budget: Arc<Budget>,
    balance: Balance,
    mould: Arc<Mould>,
}

/// Whether an endpoint that is held down may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldDown {
    /// When there is no other: one of them is better than none.
    RatherThanNone,
    /// Not while another one lives, even if that one makes requests wait.
    Never,
}

/// An endpoint as configured.
#[derive(Clone, Debug)]
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

/// What new endpoints of an upstream are made with.
#[derive(Clone)]
struct Mould {
    method: Method,
    shared: Arc<EndpointSettings>,
    metrics: Arc<UpstreamMetrics>,
    process: Arc<Metrics>,
    live: Arc<LiveTable>,
    household: Arc<Household>,
}

impl Mould {
    fn make(&self, shape: EndpointShape) -> Arc<Endpoint> {
        let ports = self.ports_to(shape.address.ip());
        let household = Arc::clone(&self.household);
        let total = Arc::clone(&household.total);
        let share_out: ShareOut = Box::new(move || household.share_out());
        let endpoint = Arc::new(Endpoint {
            series: self.metrics.endpoint(&shape.address.to_string()),
            host: shape.host,
            address: shape.address,
            pool: Pool::new(shape.limits, self.shared.idle, ports, (total, share_out)),
            holddown: Holddown::default(),
            in_flight: Apart(AtomicU64::new(0)),
            metrics: Arc::clone(&self.metrics),
            process: Arc::clone(&self.process),
            live: Arc::clone(&self.live),
            upstream: ArcSwap::new(Arc::clone(&self.shared)),
        });
        self.household.enter(&endpoint);
        endpoint
    }
}

impl Mould {
    fn ports_to(&self, address: IpAddr) -> Ports {
        let sources = self.shared.dial.sources_to(address);
        let range = &self.shared.port_range;
        let shape = PortShape::new(
            u16::try_from(sources.len()).unwrap_or(u16::MAX),
            range.ports,
            self.shared.port_reserve,
            range.hold(address),
        );
        (shape, sources)
    }
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
            port_reserve: settings.port_reserve,
            port_range: settings.port_range,
            connect_timeout: settings.connect_timeout,
            max_age: settings.max_age,
            max_age_jitter: settings.max_age_jitter,
            max_requests: settings.max_requests,
            idle: settings.idle,
            min_idle: settings.min_idle,
        });
        own_metrics.queue_limit.set(f64::from(settings.max_pending));
        let (ratio, per_second) = budget;
        let nothing_yet = Self {
            endpoints: Vec::new(),
            candidates: Vec::new(),
            leaving: Vec::new(),
            metrics: Arc::clone(&own_metrics),
            budget: Arc::new(Budget::new(ratio, per_second, clock::now())),
            balance: Balance::new(method, &[]),
            mould: Arc::new(Mould {
                method,
                shared,
                metrics: own_metrics,
                process: Arc::clone(metrics),
                live,
                household: Arc::new(Household::new(settings.max_connections_total)),
            }),
            settings: Arc::new(settings),
        };
        nothing_yet.revised(shapes)
    }

    /// This upstream over other endpoints. Those that are the same, by name and address, are
    /// shared with their pools, also when they were leaving; those that are none of them any more
    /// leave.
    #[must_use]
    pub fn revised(&self, shapes: Vec<EndpointShape>) -> Self {
        let candidates: Vec<Candidate> = shapes
            .iter()
            .map(|shape| Candidate {
                weight: shape.weight,
                rank: shape.rank,
            })
            .collect();
        let known = || self.endpoints.iter().chain(&self.leaving);
        let endpoints: Vec<_> = shapes
            .into_iter()
            .map(|shape| {
                let same =
                    |at: &&Arc<Endpoint>| at.address == shape.address && at.host == shape.host;
                let kept = known().find(same).cloned();
                kept.unwrap_or_else(|| self.mould.make(shape))
            })
            .collect();
        let stays = |at: &Arc<Endpoint>| endpoints.iter().any(|other| Arc::ptr_eq(at, other));
        let leaving = known().filter(|at| !stays(at)).cloned().collect();
        let revised = Self {
            settings: Arc::clone(&self.settings),
            leaving,
            metrics: Arc::clone(&self.metrics),
            budget: Arc::clone(&self.budget),
            balance: Balance::new(self.mould.method, &candidates),
            mould: Arc::clone(&self.mould),
            candidates,
            endpoints,
        };
        revised.tell_limit();
        revised
    }

    /// This upstream in the place of `old`, with its metrics: of these endpoints, those that are
    /// the same as there stay as they are; [`Upstream::apply`] gives them their new limits.
    #[must_use]
    pub fn in_place_of(mut self, old: &Self, shapes: Vec<EndpointShape>) -> Self {
        self.endpoints.clone_from(&old.endpoints);
        self.leaving.clone_from(&old.leaving);
        // What is open there counts on, and who waits there is served from here: one household.
        self.mould = Arc::new(Mould {
            household: Arc::clone(&old.mould.household),
            ..Mould::clone(&self.mould)
        });
        if self.budget.has_terms_of(&old.budget) {
            self.budget = Arc::clone(&old.budget);
        }
        self.revised(shapes)
    }

    /// Holds the endpoints, which others may have made, to the present settings and these limits.
    pub fn apply(&self, shapes: &[EndpointShape]) {
        let household = &self.mould.household;
        let total = self.settings.max_connections_total;
        household.total.set_limit(total);
        for (endpoint, shape) in self.endpoints.iter().zip(shapes) {
            endpoint.upstream.store(Arc::clone(&self.mould.shared));
            let ports = self.mould.ports_to(endpoint.address.ip());
            endpoint.hold_to(shape.limits.clone(), self.settings.idle, &ports);
        }
        household.share_out_anyway();
        self.tell_limit();
        let most = f64::from(self.settings.max_pending);
        self.metrics.queue_limit.set(most);
    }

    /// This upstream without some of those that leave.
    #[must_use]
    pub fn without(&self, gone: &[Arc<Endpoint>]) -> Self {
        let stays = |at: &&Arc<Endpoint>| !gone.iter().any(|other| Arc::ptr_eq(at, other));
        Self {
            settings: Arc::clone(&self.settings),
            endpoints: self.endpoints.clone(),
            candidates: self.candidates.clone(),
            leaving: self.leaving.iter().filter(stays).cloned().collect(),
            metrics: Arc::clone(&self.metrics),
            budget: Arc::clone(&self.budget),
            balance: Balance::new(self.mould.method, &self.candidates),
            mould: Arc::clone(&self.mould),
        }
    }

    /// What a request is told that finds no endpoint untried. The configuration names at least one
    /// server and a literal address is always an endpoint: without any, it waits for its names.
    #[must_use]
    pub fn none_left(&self) -> ProxyError {
        match self.endpoints.as_slice() {
            [] => ProxyError::Dns,
            [_, ..] => ProxyError::NoEndpoint,
        }
    }

    fn tell_limit(&self) {
        let each = self.endpoints.iter().map(|at| at.pool.counts());
        let limit: u64 = each.map(|counts| u64::from(counts.max_connections)).sum();
        let limit = self
            .settings
            .max_connections_total
            .map_or(limit, |total| limit.min(total.into()));
        #[expect(
            clippy::cast_precision_loss,
            reason = "connection limits are far below 2^52"
        )]
        self.metrics.limit.set(limit as f64);
    }

    /// Chooses an endpoint that was not tried yet. `None`: there is none.
    pub fn pick(
        &self,
        tried: &Tried,
        held_down: HeldDown,
        dice: &mut impl Dice,
    ) -> Option<(usize, &Arc<Endpoint>)> {
        let load = |endpoint: &Endpoint| Load(endpoint.in_flight.load(Ordering::Relaxed));
        let rested = |at: usize| match self.endpoints.get(at) {
            Some(endpoint) if endpoint.holddown.is_over() => Usable::Fit(load(endpoint)),
            Some(_) | None => Usable::Unfit(Unfit::Ejected),
        };
        let any = |at: usize| match self.endpoints.get(at) {
            Some(endpoint) => Usable::Fit(load(endpoint)),
            None => Usable::Unfit(Unfit::Draining),
        };
        let picked = self.balance.pick(rested, dice, tried);
        let at = match held_down {
            HeldDown::RatherThanNone => picked.or_else(|| self.balance.pick(any, dice, tried)),
            HeldDown::Never => picked,
        }?;
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
pub struct InFlight<'a>(&'a Endpoint);

impl<'a> InFlight<'a> {
    /// One more request at the endpoint.
    #[must_use]
    pub fn at(endpoint: &'a Endpoint) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(endpoint)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
