//! The origins of one name: endpoints, each with its pool, and how one is chosen.

use crate::base::ProxyError;
use crate::h1::head::RequestHead;
use crate::net::clock;
use crate::observe::ErrorLog;
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
use crate::policy::balance::hash;
use crate::policy::balance::share;
use crate::policy::retry::Budget;
use crate::pool::PoolLimits;
use crate::pool::ports::PortShape;
use crate::proxy::condition::Condition;
use crate::proxy::condition::Trial;
use crate::proxy::condition::Ward;
use crate::proxy::endpoint::Apart;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::endpoint::EndpointSettings;
use crate::proxy::endpoint::Pool;
use crate::proxy::endpoint::Ports;
use crate::proxy::endpoint::RequestsMax;
use crate::proxy::endpoint::ShareOut;
use crate::proxy::household::Household;
use crate::proxy::settings::Rebalance;
use crate::proxy::settings::UpstreamSettings;
use arc_swap::ArcSwap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Instant;

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
    ward: Arc<Ward>,
    shared: Arc<EndpointSettings>,
    metrics: Arc<UpstreamMetrics>,
    process: Arc<Metrics>,
    live: Arc<LiveTable>,
    household: Arc<Household>,
}

impl Mould {
    fn make(&self, shape: EndpointShape, joined: Option<Instant>) -> Arc<Endpoint> {
        let ports = self.ports_to(shape.address.ip());
        let household = Arc::clone(&self.household);
        let total = Arc::clone(&household.total);
        let share_out: ShareOut = Box::new(move || household.share_out());
        let endpoint = Arc::new(Endpoint {
            series: self.metrics.endpoint(&shape.address.to_string()),
            host: shape.host,
            address: shape.address,
            max_requests: RequestsMax::new(shape.limits.max_requests),
            pool: Pool::new(shape.limits, self.shared.idle, ports, (total, share_out)),
            condition: Condition::new(&self.ward, shape.address.to_string(), joined),
            surplus: AtomicU32::new(0),
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
        of: (Arc<UpstreamMetrics>, Arc<LiveTable>, Arc<ErrorLog>),
    ) -> Self {
        let (own_metrics, live, errors) = of;
        let shared = Arc::new(EndpointSettings {
            name: settings.name.clone(),
            method,
            dial: settings.dial.clone(),
            port_reserve: settings.port_reserve,
            port_range: settings.port_range,
            connect_timeout: settings.connect_timeout,
            max_age: settings.max_age,
            max_age_jitter: settings.max_age_jitter,
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
                ward: Ward::new(settings.name.clone(), settings.health, errors),
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
                seed: hash::hash(shape.address.to_string().as_bytes()),
            })
            .collect();
        // One that is there from the start is what there is; one that joins others is new to them.
        let joined = (!self.endpoints.is_empty()).then(clock::now);
        let known = || self.endpoints.iter().chain(&self.leaving);
        let endpoints: Vec<_> = shapes
            .into_iter()
            .map(|shape| {
                let same =
                    |at: &&Arc<Endpoint>| at.address == shape.address && at.host == shape.host;
                let kept = known().find(same).cloned();
                kept.unwrap_or_else(|| self.mould.make(shape, joined))
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
        let staying = revised.endpoints.iter().map(|at| &at.condition);
        let leaving = revised.leaving.iter().map(|at| &at.condition);
        revised.mould.ward.revise(staying, leaving);
        revised.rebalance(self);
        revised
    }

    /// This upstream in the place of `old`, with its metrics: of these endpoints, those that are
    /// the same as there stay as they are; [`Upstream::apply`] gives them their new limits.
    #[must_use]
    pub fn in_place_of(mut self, old: &Self, shapes: Vec<EndpointShape>) -> Self {
        self.endpoints.clone_from(&old.endpoints);
        self.leaving.clone_from(&old.leaving);
        old.mould.ward.set(self.settings.health);
        // What is open there counts on, and who waits there is served from here: one household. And
        // one ward, in which those that are ejected stay so.
        self.mould = Arc::new(Mould {
            ward: Arc::clone(&old.mould.ward),
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
            endpoint.max_requests.set(shape.limits.max_requests);
            let ports = self.mould.ports_to(endpoint.address.ip());
            endpoint.hold_to(shape.limits.clone(), self.settings.idle, &ports);
            endpoint.condition.hold_to_ward();
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
        key: Option<u64>,
        dice: &mut impl Dice,
    ) -> Option<(usize, &Arc<Endpoint>)> {
        let look = |at: usize| match self.endpoints.get(at) {
            Some(endpoint) => endpoint.condition.look(self.load(endpoint)),
            None => Usable::Unfit(Unfit::Draining),
        };
        let held_too = |at: usize| match (look(at), self.endpoints.get(at)) {
            (Usable::Unfit(Unfit::Held), Some(endpoint)) => Usable::Fit(self.load(endpoint)),
            (usable, _) => usable,
        };
        let any = |at: usize| match self.endpoints.get(at) {
            Some(endpoint) => Usable::Fit(self.load(endpoint)),
            None => Usable::Unfit(Unfit::Draining),
        };
        let picked = self.balance.pick(look, dice, tried, key);
        let at = match held_down {
            HeldDown::Never => picked,
            // An ejected one is asked only where no other was there to be asked.
            HeldDown::RatherThanNone => picked
                .or_else(|| self.balance.pick(held_too, dice, tried, key))
                .or_else(|| {
                    let first = tried.is_empty();
                    first.then(|| self.balance.pick(any, dice, tried, key))?
                }),
        }?;
        self.endpoints.get(at).map(|endpoint| (at, endpoint))
    }

    /// How long an answer took, if that is what requests are balanced by.
    #[must_use]
    pub fn measures(&self, micros: u64) -> Option<u64> {
        (self.mould.method == Method::Ewma).then_some(micros)
    }

    /// What a request is balanced by, if that is its key.
    #[must_use]
    pub fn key(&self, (head, octets): (&RequestHead, &[u8]), client: &SocketAddr) -> Option<u64> {
        match self.mould.method {
            Method::Hash => self.settings.hash_key.of((head, octets), client.ip()),
            Method::RoundRobin | Method::LeastRequests | Method::P2c | Method::Ewma => None,
        }
    }

    fn load(&self, endpoint: &Endpoint) -> Load {
        let in_flight = endpoint.in_flight.load(Ordering::Relaxed);
        match self.mould.method {
            Method::Ewma => endpoint.condition.ewma.load(in_flight, clock::now_millis()),
            _ => Load(in_flight),
        }
    }

    /// Where endpoints have joined, the others give way.
    fn rebalance(&self, before: &Self) {
        let known = |at: &Arc<Endpoint>| before.endpoints.iter().any(|old| Arc::ptr_eq(at, old));
        let joins = !self.endpoints.iter().all(known);
        if self.settings.rebalance == Rebalance::Leave || before.endpoints.is_empty() || !joins {
            return;
        }
        let of = |at: &Arc<Endpoint>, candidate: &Candidate| share::Share {
            open: at.pool.open(),
            weight: candidate.weight.get(),
            rank: candidate.rank,
        };
        let pairs = self.endpoints.iter().zip(&self.candidates);
        let shares: Vec<_> = pairs.map(|(at, candidate)| of(at, candidate)).collect();
        for (endpoint, surplus) in self.endpoints.iter().zip(share::surpluses(&shares)) {
            endpoint.give_way(surplus);
        }
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
pub struct InFlight<'a>(&'a Endpoint, Trial);

impl<'a> InFlight<'a> {
    /// One more request at the endpoint.
    #[must_use]
    pub fn at(endpoint: &'a Endpoint) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(endpoint, endpoint.condition.begin())
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.condition.end(&self.1);
    }
}
