//! What every worker shares: the plan (routes and upstreams), the listeners, and where things are told.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::observe::ListenerMetrics;
use crate::observe::LiveTable;
use crate::observe::Metrics;
use crate::observe::RouteMetrics;
use crate::observe::access_log::AccessLog;
use crate::observe::error_log::ErrorLog;
use crate::observe::words::ClientState;
use crate::policy::admission::ClientTable;
use crate::policy::drain::DrainSettings;
use crate::policy::drain::Open;
use crate::policy::forwarded::Trust;
use crate::policy::route::Routes;
use crate::proxy::draining::Draining;
use crate::proxy::draining::Standing;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::heed::Leaves;
use crate::proxy::settings::ListenerSettings;
use crate::proxy::settings::RouteSettings;
use crate::proxy::shedding::Shed;
use crate::proxy::upstream::Upstream;

/// What every worker shares.
pub struct Service {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Every connection, to be seen.
    pub live: Arc<LiveTable>,
    /// One line an exchange.
    pub access_log: Arc<AccessLog>,
    /// The log of the process.
    pub errors: Arc<ErrorLog>,
    /// Whether `Server-Timing` is sent.
    pub server_timing: ServerTiming,
    /// How often the TCP of connections to origins is sampled; `None`: never.
    pub tcp_info_interval: Option<Duration>,
    /// Client connections of all listeners, now.
    pub clients: AtomicU32,
    /// Most client connections of all listeners.
    pub max_connections: AtomicU32,
    /// The drain.
    pub draining: Draining,
    /// What is given up while descriptors run out.
    pub shed: Shed,
    plan: ArcSwap<Plan>,
    version: AtomicU64,
    /// Held by who makes the next plan.
    maker: Mutex<()>,
}

/// Whether the timeline is told to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerTiming {
    /// In a `Server-Timing` field.
    Sent,
    /// Not.
    Omitted,
}

/// A worker's own handle on the plan: counted by that worker only.
pub struct PlanHere(Arc<Plan>);

impl std::ops::Deref for PlanHere {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0
    }
}

/// Where requests go.
pub struct Plan {
    /// Which route a request takes.
    pub table: Arc<Routes>,
    /// The routes, as the table numbers them.
    pub routes: Vec<Arc<Route>>,
    /// The upstreams.
    pub upstreams: Vec<Arc<Upstream>>,
}

/// One route.
pub struct Route {
    /// What it says.
    pub settings: Arc<RouteSettings>,
    /// Where it leads.
    pub upstream: Arc<Upstream>,
    /// Its metrics.
    pub metrics: Arc<RouteMetrics>,
}

/// One listener, as its workers share it.
pub struct Listener {
    /// How it treats its clients.
    pub settings: ListenerSettings,
    /// Its metrics.
    pub metrics: Arc<ListenerMetrics>,
    /// Its connections, now; shared with those before and after it in its place.
    pub connections: Arc<AtomicU32>,
    /// Most connections.
    pub max_connections: Option<u32>,
    /// Connections per client; `None`: they are not limited.
    pub clients: Option<Arc<Mutex<ClientTable>>>,
    /// What a client beyond its limit is told.
    pub client_limit_action: LimitAction,
    /// Peers whose word about who was before them counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Where whoever comes after it is found.
    pub door: Weak<Door>,
}

/// The place of a listener: who stands there changes when the configuration does. A connection
/// looks for its listener's successor between two exchanges.
pub struct Door(ArcSwap<Listener>);

impl Door {
    /// A door with the listener that `make` puts there.
    #[must_use]
    pub fn new(make: impl FnOnce(&Weak<Self>) -> Listener) -> Arc<Self> {
        Arc::new_cyclic(|door| Self(ArcSwap::from_pointee(make(door))))
    }

    /// The listener as it is now.
    #[must_use]
    pub fn listener(&self) -> Arc<Listener> {
        self.0.load_full()
    }

    /// Another from now on. Connections see it once the plan is swapped too.
    pub fn succeed(&self, listener: Listener) {
        self.0.store(Arc::new(listener));
    }
}

/// What a client beyond its limit is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitAction {
    /// 429, when it has sent its request.
    TooManyRequests,
    /// An orderly close.
    Close,
    /// A reset.
    Reset,
    /// Nothing, until a place is free.
    Hold,
}

impl Service {
    /// A service that carries out `plan`.
    #[must_use]
    pub fn new(parts: Parts, plan: Plan) -> Self {
        Self {
            metrics: parts.metrics,
            live: parts.live,
            access_log: parts.access_log,
            errors: parts.errors,
            server_timing: parts.server_timing,
            tcp_info_interval: parts.tcp_info_interval,
            clients: AtomicU32::new(0),
            max_connections: AtomicU32::new(parts.max_connections),
            draining: Draining::new(parts.drain),
            shed: Shed::default(),
            plan: ArcSwap::from_pointee(plan),
            version: AtomicU64::new(1),
            maker: Mutex::new(()),
        }
    }

    /// Whether new work is taken.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.draining.standing()
    }

    /// Client connections whose conversation is not over; closes in stages are.
    #[must_use]
    pub fn unended(&self) -> usize {
        let each = self.metrics.listeners();
        let states = each
            .iter()
            .map(|at| at.connections.of(ClientState::Closing));
        let closing: i64 = states.map(|closing| closing.value()).sum();
        let total = self.clients.load(Ordering::Acquire) as usize;
        total.saturating_sub(usize::try_from(closing).unwrap_or(0))
    }

    /// What clients have open. Gauges may be askew for a moment, but the whole is exact, and what
    /// is neither idle nor a tunnel counts as an exchange: a close in stages must not be cut either.
    #[must_use]
    pub fn open(&self) -> Open {
        let total = self.clients.load(Ordering::Acquire) as usize;
        let of = |state| {
            let each = self.metrics.listeners();
            let sum: i64 = each.iter().map(|at| at.connections.of(state).value()).sum();
            usize::try_from(sum).unwrap_or(0)
        };
        let tunnels = of(ClientState::Tunnel).min(total);
        let idle = of(ClientState::Idle).min(total - tunnels);
        Open {
            idle,
            exchanges: total - tunnels - idle,
            tunnels,
        }
    }

    /// The plan, for threads that are no workers.
    #[must_use]
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// The number of the plan: another one means that something has changed.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Puts another plan in the place of this one, made from it. Exchanges under way keep theirs;
    /// each worker takes the new one at its next exchange. One plan is made at a time, so that none
    /// is made from one that has gone meanwhile.
    pub fn revise_plan(&self, revise: impl FnOnce(&Plan) -> Plan) {
        let _only_one = self.maker.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = revise(&self.plan.load());
        self.plan.store(Arc::new(plan));
        // After the store: who sees this number loads that plan, or a later one.
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Whether any upstream keeps idle connections ready.
    #[must_use]
    pub fn keeps_warm(&self) -> bool {
        let plan = self.plan.load();
        plan.upstreams.iter().any(|at| at.settings.min_idle > 0)
    }

    /// The endpoints at which idle connections are kept ready: those that serve, while new work is
    /// taken and descriptors are not short.
    #[must_use]
    pub fn endpoints_kept_warm(&self) -> Vec<Arc<Endpoint>> {
        let plan = self.plan.load();
        let keeps = self.standing() == Standing::Serving && self.shed.is_calm();
        let serving = plan
            .upstreams
            .iter()
            .filter(|at| at.settings.min_idle > 0 && keeps);
        serving
            .flat_map(|at| at.endpoints.iter().cloned())
            .collect()
    }

    /// Every endpoint of every upstream, those that leave too.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let plan = self.plan.load();
        plan.upstreams
            .iter()
            .flat_map(|upstream| upstream.endpoints.iter().chain(&upstream.leaving).cloned())
            .collect()
    }

    /// Shows how every endpoint stands.
    pub fn show_endpoints(&self) {
        for upstream in &self.plan.load().upstreams {
            upstream
                .endpoints
                .iter()
                .for_each(|at| at.show(Leaves::Staying));
            upstream
                .leaving
                .iter()
                .for_each(|at| at.show(Leaves::Going));
        }
    }

    /// The plan as this worker has it, taken once an exchange. A worker keeps its own handle: a
    /// shared count would be written by every worker for every request.
    #[must_use]
    pub fn plan_here(&self) -> Rc<PlanHere> {
        let version = self.version();
        PLAN.with_borrow_mut(|kept| match kept {
            Some((of, plan)) if *of == version => Rc::clone(plan),
            _ => {
                let plan = Rc::new(PlanHere(self.plan.load_full()));
                *kept = Some((version, Rc::clone(&plan)));
                plan
            }
        })
    }
}

/// What a service is made of besides its plan.
pub struct Parts {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The table of connections.
    pub live: Arc<LiveTable>,
    /// The access log.
    pub access_log: Arc<AccessLog>,
    /// The log of the process.
    pub errors: Arc<ErrorLog>,
    /// Whether `Server-Timing` is sent.
    pub server_timing: ServerTiming,
    /// How often the TCP of connections to origins is sampled; `None`: never.
    pub tcp_info_interval: Option<Duration>,
    /// Most client connections.
    pub max_connections: u32,
    /// How a drain goes.
    pub drain: DrainSettings,
}

impl Listener {
    /// Whether a peer's word about who was before it counts.
    #[must_use]
    pub fn trust(&self, peer: IpAddr) -> Trust {
        let peer = peer.to_canonical();
        match self
            .trusted_proxies
            .iter()
            .any(|range| range.contains(&peer))
        {
            true => Trust::Trusted,
            false => Trust::Untrusted,
        }
    }

    /// Takes a place in a count with a limit.
    #[must_use]
    pub fn take_place(count: &AtomicU32, limit: Option<u32>) -> Taken {
        let before = count.fetch_add(1, Ordering::Relaxed);
        if limit.is_some_and(|limit| before >= limit) {
            count.fetch_sub(1, Ordering::Relaxed);
            return Taken::Full;
        }
        Taken::Place
    }

    /// The table of clients, locked.
    pub fn lock_clients(&self) -> Option<std::sync::MutexGuard<'_, ClientTable>> {
        self.clients
            .as_ref()
            .map(|table| table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether there was a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// There was.
    Place,
    /// The limit is reached.
    Full,
}

thread_local! {
    static PLAN: RefCell<Option<(u64, Rc<PlanHere>)>> = const { RefCell::new(None) };
}
