//! One origin address: its pool, its gauges, and how it is.
//!
//! The pool is the ledger behind a lock, with wakers beside it. The lock is held for the ledger's
//! few instructions, never across an await; wakers are woken after it.

use crate::base::CloseReason;
use crate::base::close::Heard;
use crate::base::names::Name;
use crate::base::reason::OpenReason;
use crate::net::Stream;
use crate::net::clock;
use crate::net::port_range::PortRange;
use crate::net::reactor::Seen;
use crate::net::stream::Detached;
use crate::net::stream::First;
use crate::net::stream::Peeked;
use crate::observe::EndpointSeries;
use crate::observe::GaugeGuard;
use crate::observe::LiveTable;
use crate::observe::Metrics;
use crate::observe::UpstreamMetrics;
use crate::observe::live::LiveHandle;
use crate::observe::words::EndpointState;
use crate::observe::words::UpstreamState;
use crate::policy::balance::Method;
use crate::policy::idle_learning::IdleLimit;
use crate::policy::idle_learning::IdleSettings;
use crate::policy::idle_learning::IdleSource;
use crate::policy::idle_learning::Known;
use crate::pool::Ledger;
use crate::pool::PoolLimits;
use crate::pool::Ticket;
use crate::pool::ports::Parting;
use crate::pool::ports::PortCounts;
use crate::pool::ports::PortShape;
use crate::pool::ports::Seat;
use crate::pool::total::Total;
use crate::proxy::condition::Condition;
use crate::proxy::pulse::Pulse;
use arc_swap::ArcSwap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;
use std::time::Instant;

/// One origin address.
pub struct Endpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// Its address as text, for `Host`.
    pub host: String,
    /// Its connections.
    pub pool: Pool,
    /// Whether it gets requests: how its connects, answers and checks went.
    pub condition: Condition,
    /// Idle connections beyond its share, to be closed bit by bit.
    pub surplus: AtomicU32,
    /// Requests under way at it.
    pub in_flight: Apart<AtomicU64>,
    /// The metrics of its upstream.
    pub metrics: Arc<UpstreamMetrics>,
    /// The metrics of the process.
    pub process: Arc<Metrics>,
    /// Where its connections are listed.
    pub live: Arc<LiveTable>,
    /// The settings of its upstream that its connections need.
    pub upstream: ArcSwap<EndpointSettings>,
    /// Requests a connection may carry: asked twice an exchange, so it lies where no guard is needed
    /// to read it.
    pub max_requests: RequestsMax,
    /// Its own series. Last, so that what its pool holds is counted out before they go.
    pub series: EndpointSeries,
}

/// What an endpoint's connections need of their upstream's settings.
pub struct EndpointSettings {
    /// The upstream's name.
    pub name: Name,
    /// How endpoints are picked.
    pub method: Method,
    /// How connections are made.
    pub dial: crate::net::dial::DialOptions,
    /// Local ports left to others.
    pub port_reserve: u32,
    /// What the system says of local ports.
    pub port_range: PortRange,
    /// How long a connect may take.
    pub connect_timeout: std::time::Duration,
    /// How old a connection may grow.
    pub max_age: Option<std::time::Duration>,
    /// By how large a share that varies.
    pub max_age_jitter: f64,
    /// How long a connection may idle.
    pub idle: IdleSettings,
    /// Idle connections kept ready.
    pub min_idle: u32,
}

/// Most requests of a connection, if there is a most; set when another configuration comes.
pub struct RequestsMax(AtomicU64);

impl RequestsMax {
    /// So many.
    #[must_use]
    pub fn new(most: Option<u64>) -> Self {
        Self(AtomicU64::new(most.unwrap_or(u64::MAX)))
    }

    /// So many from now on.
    pub fn set(&self, most: Option<u64>) {
        self.0.store(most.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many. More than can be counted is no limit.
    #[must_use]
    pub fn most(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|most| *most != u64::MAX)
    }
}

/// What all workers write all the time, on cache lines of its own (two, since processors fetch lines
/// in pairs): what lies beside it is only read, and would be fetched anew after each write.
#[repr(align(128))]
pub struct Apart<T>(pub T);

impl<T> std::ops::Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// One endpoint's pool, apart for the same reason.
#[repr(align(128))]
pub struct Pool {
    pub(super) state: Mutex<State>,
    total: Arc<Total>,
    /// Serves those who wait for the total, at whichever endpoint.
    share_out: ShareOut,
    /// The origin's last word on its idle timeout, in microseconds, 0 before any: asked before the
    /// lock is taken, since most answers repeat it.
    pub(super) hinted: AtomicU64,
}

pub(super) struct State {
    pub(super) ledger: Ledger<Parked>,
    /// What is known of how long the origin keeps idle connections.
    pub(super) idle: IdleLimit,
    /// Who waits, by the ticket's slot.
    pub(super) wakers: Vec<Option<Waker>>,
}

/// A connection in the pool: on a shelf, or laid ready for a waiter.
pub(super) struct Parked {
    pub(super) stream: Detached,
    pub(super) facts: Box<Facts>,
}

/// What stays with a connection all its life.
pub(super) struct Facts {
    pub(super) live: LiveHandle,
    pub(super) opened_at: Instant,
    pub(super) why: OpenReason,
    pub(super) counted: Counted,
    /// The local port it uses.
    pub(super) seat: Seat,
    /// How many requests its origin lets it carry, counted from its first, by the last word on it.
    pub(super) origin_max_requests: Option<u64>,
    /// Its TCP, where that is sampled.
    pub(super) pulse: Option<Arc<Pulse>>,
}

/// The gauges that a connection holds up, in its present state.
pub(super) struct Counted {
    pub(super) upstream: GaugeGuard,
    pub(super) endpoint: GaugeGuard,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(
        limits: PoolLimits,
        idle: IdleSettings,
        ports: Ports,
        (total, share_out): (Arc<Total>, ShareOut),
    ) -> Self {
        let (shape, sources) = ports;
        let mut ledger = Ledger::under(Arc::clone(&total), limits, shape);
        ledger.set_ports(shape, &sources);
        let mut state = State {
            ledger,
            idle: IdleLimit::new(idle),
            wakers: Vec::new(),
        };
        state.apply_idle_limit();
        Self {
            state: Mutex::new(state),
            total,
            share_out,
            hinted: AtomicU64::new(0),
        }
    }

    /// Connections open: idle, in use and connecting.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.lock().ledger.open()
    }

    /// Whether it was closed: it takes and gives no connection any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().ledger.is_closed()
    }

    /// Idle, leased, connecting and waiting, at one moment.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let state = self.lock();
        Counts {
            idle: state.ledger.idle(),
            canaries: state.ledger.canaries(),
            leased: state.ledger.leased(),
            connecting: state.ledger.connecting(),
            waiting: state.ledger.waiting(),
            max_connections: state.ledger.limits().max_connections.0,
            idle_limit: state.ledger.limits().idle_limit,
            idle_source: state.idle.effective().1,
            origin: state.idle.known(),
        }
    }

    /// Its local ports now, and how long they last at the present rate.
    #[must_use]
    pub fn ports(&self) -> (PortCounts, Option<Duration>) {
        let mut state = self.lock();
        let (woken, ports) = {
            let woken = state.ledger.look_for_ports(clock::now());
            let book = state.ledger.ports();
            (woken, (book.counts(), book.exhaustion()))
        };
        drop(state);
        woken.into_iter().for_each(|ticket| self.wake(Some(ticket)));
        ports
    }

    /// Lets those connect for whom ports came free meanwhile; when to look again.
    pub(super) fn look_for_ports(&self) -> Option<Instant> {
        let now = clock::now();
        let (woken, due) = {
            let ledger = &mut self.lock().ledger;
            (ledger.look_for_ports(now), ledger.ports_due(now))
        };
        woken.into_iter().for_each(|ticket| self.wake(Some(ticket)));
        due
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake(&self, ticket: Option<Ticket>) {
        let waker = ticket.and_then(|ticket| self.lock().waker_of(ticket));
        if let Some(waker) = waker {
            waker.wake();
        }
        self.after_change();
    }

    /// The pool has changed: that may be what somebody at another endpoint waits for.
    pub(super) fn after_change(&self) {
        if self.total.is_waited_for() {
            (self.share_out)();
        }
    }
}

/// The local ports of an endpoint, and the addresses it is connected to from; none: the system
/// chooses.
pub type Ports = (PortShape, Vec<IpAddr>);

/// What serves those who wait for the total: the endpoints' household, which is made of pools.
pub type ShareOut = Box<dyn Fn() + Send + Sync>;

/// A pool's counts at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// On shelves.
    pub idle: u32,
    /// Left to find out when the origin closes.
    pub canaries: u32,
    /// Carrying requests.
    pub leased: u32,
    /// In their handshake.
    pub connecting: u32,
    /// Requests in line.
    pub waiting: u32,
    /// The cap.
    pub max_connections: u32,
    /// The idle limit in force.
    pub idle_limit: Duration,
    /// Which rule set it.
    pub idle_source: IdleSource,
    /// What is known of the origin's own.
    pub origin: Known,
}

impl State {
    /// Puts in force what has been learned.
    pub(super) fn apply_idle_limit(&mut self) {
        let (limit, source) = self.idle.effective();
        let reason = match source {
            IdleSource::Config => CloseReason::IdleTimeout,
            IdleSource::Hint | IdleSource::Learned | IdleSource::Floor => CloseReason::LearnedIdle,
        };
        self.ledger
            .set_idle_limit(limit, reason, self.idle.canary());
    }

    pub(super) fn waker_of(&mut self, ticket: Ticket) -> Option<Waker> {
        self.wakers.get_mut(ticket.slot()).and_then(Option::take)
    }

    pub(super) fn set_waker(&mut self, ticket: Ticket, waker: &Waker) {
        let slot = ticket.slot();
        if self.wakers.len() <= slot {
            self.wakers.resize(slot + 1, None);
        }
        if let Some(place) = self.wakers.get_mut(slot) {
            *place = Some(waker.clone());
        }
    }
}

impl Counted {
    pub(super) fn new(endpoint: &Endpoint, state: UpstreamState) -> Self {
        let upstream = endpoint.metrics.connections.of(state).hold();
        let endpoint = endpoint.series.of(endpoint_state(state)).hold();
        Self { upstream, endpoint }
    }

    pub(super) fn enter(&mut self, endpoint: &Endpoint, state: UpstreamState) {
        self.upstream
            .move_to(endpoint.metrics.connections.of(state));
        self.endpoint
            .move_to(endpoint.series.of(endpoint_state(state)));
    }
}

/// Octets that a stream has moved.
#[derive(Clone, Copy)]
pub(super) struct Moved {
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl From<&Stream> for Moved {
    fn from(stream: &Stream) -> Self {
        Self {
            received: stream.received(),
            sent: stream.sent(),
        }
    }
}

impl From<&Detached> for Moved {
    fn from(stream: &Detached) -> Self {
        let (received, sent) = stream.moved();
        Self { received, sent }
    }
}

/// What is known of a connection that closes.
pub(super) struct Leaving {
    pub(super) moved: Moved,
    pub(super) heard: Heard,
    pub(super) parting: Parting,
}

impl From<&Stream> for Leaving {
    fn from(stream: &Stream) -> Self {
        let heard = match (stream.look(), stream.peer_has_ended()) {
            // Its FIN answered ours, as at the end of a tunnel.
            _ if stream.ended_first() == First::Ours => Heard::Nothing,
            (Seen::Closed, _) => Heard::Rst,
            (Seen::Quiet | Seen::Stirred, true) => Heard::Fin,
            (Seen::Quiet | Seen::Stirred, false) => Heard::Nothing,
        };
        let parting = match (stream.ended_first(), stream.peek()) {
            (First::Ours, Peeked::Fin) => Parting::OursFirst,
            (_, peeked) => parting(peeked),
        };
        Self {
            moved: stream.into(),
            heard,
            parting,
        }
    }
}

/// A parked connection: what it had heard is why it leaves, so the reason tells it.
impl From<&Detached> for Leaving {
    fn from(stream: &Detached) -> Self {
        Self {
            moved: stream.into(),
            heard: Heard::Nothing,
            parting: parting(stream.peek()),
        }
    }
}

/// How a socket that is about to close leaves its port. Unread octets make the kernel send a reset
/// (RFC 2525 §2.17), after which there is no TIME_WAIT.
fn parting(peeked: Peeked) -> Parting {
    match peeked {
        Peeked::Nothing => Parting::OursFirst,
        Peeked::Octets | Peeked::Fin | Peeked::Broken => Parting::Free,
    }
}

pub(super) fn endpoint_state(state: UpstreamState) -> EndpointState {
    match state {
        UpstreamState::Connecting => EndpointState::Connecting,
        UpstreamState::Active | UpstreamState::Draining => EndpointState::Active,
        UpstreamState::Idle | UpstreamState::Canary => EndpointState::Idle,
    }
}
