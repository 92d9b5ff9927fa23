//! The ledger of one endpoint's connections: who is idle, who is out, who waits.
//!
//! Why a ledger: the laws below can be tested without a socket. Absent on purpose: clocks, wakers,
//! sockets and locks; `proxy/checkout` brings them, and wakes exactly the tickets returned here.
//!
//! 1. idle + canary + leased + connecting = open, and open ≤ `max_connections`. Lowered limits take
//!    away idle connections at once and the others as they return; until then nothing new is opened.
//! 2. Someone waits only while nothing idle suits and no place to connect is free: none under the
//!    cap, none under the connect bound, or no local port beyond the reserve.
//! 3. Every permit and every lease is answered once.
//! 4. Waiters are served in order; one who left never receives.
//! 5. What leaves, leaves with one reason, and is counted under it.
//! 6. Nothing is handed out past its idle limit or its age.
//! 7. While anything is idle, or a canary, open + waiting ≤ `max_connections`: who waits beside idle
//!    connections that do not suit them wait for the connect bound only, room being kept for them.
//!    Hence an idle connection that leaves never has anyone to wake.
//! 8. There is at most one canary: a connection that has idled too long to be used, and is kept to
//!    find out when the origin closes it. It is never handed out, and the first to give its place.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::base::CloseReason;
use crate::base::ConnId;
use crate::base::reason::OpenReason;
use crate::pool::idle::End;
use crate::pool::idle::Idle;
use crate::pool::idle::Shelves;
use crate::pool::idle::earlier;
use crate::pool::lease::ConnectPermit;
use crate::pool::lease::Lease;
use crate::pool::lease::Terms;
use crate::pool::limits::Order;
use crate::pool::limits::PoolLimits;
use crate::pool::ports::Parting;
use crate::pool::ports::PortBook;
use crate::pool::ports::PortShape;
use crate::pool::ports::Seat;
use crate::pool::total::Entry;
use crate::pool::total::Total;
use crate::pool::verdict::Verdict;
use crate::pool::waiters::ClientTurn;
use crate::pool::waiters::Stand;
use crate::pool::waiters::Ticket;
use crate::pool::waiters::Waiters;
use crate::pool::waiters::Want;

/// Which connections suit a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// Any.
    Any,
    /// One idle for less than this (`unsafe_max_idle`), or a new one.
    IdleLessThan(Duration),
    /// A new one only: a retry, or `reuse = "never"`.
    Only,
}

impl Fresh {
    /// Whether a connection suits that has been idle so long; not reckoned unless it matters.
    fn takes(self, rested: impl FnOnce() -> Duration) -> bool {
        match self {
            Self::Any => true,
            Self::IdleLessThan(limit) => rested() < limit,
            Self::Only => false,
        }
    }

    /// Whether a connection suits that returns this moment. A guard of zero trusts not even that.
    fn takes_returning(self) -> bool {
        self.takes(|| Duration::ZERO)
    }

    /// What a connection is told that makes room for such a request.
    fn room_reason(self) -> CloseReason {
        match self {
            Self::Any | Self::IdleLessThan(_) => CloseReason::UnsafeGuard,
            Self::Only => CloseReason::RetryReplaced,
        }
    }
}

/// Whether a request may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queueing {
    /// It may, if the line is not too long.
    Allowed {
        /// Most requests in line, this one included.
        max_pending: u32,
    },
    /// It may not.
    Refused,
}

/// A request for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The worker that asks.
    pub worker: usize,
    /// Which connections suit.
    pub fresh: Fresh,
    /// Whether it may wait.
    pub queue: Queueing,
    /// Whose turn it takes in line: the default for all alike, else one client among others, who may
    /// have half of the line.
    pub client: ClientTurn,
}

/// Why a checkout is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseReason {
    /// There is no room, and the request may not wait.
    Full,
    /// The line is as long as it may be.
    QueueFull,
    /// The ledger is closed.
    Closed,
}

/// What a request lacks that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// A connection: the pool has as many as it may.
    Connection,
    /// A local port to connect from.
    Port,
}

/// The answer to a checkout.
#[must_use = "what was handed out must be answered for"]
#[derive(Debug, PartialEq, Eq)]
pub enum Checkout<C> {
    /// An idle connection.
    Reuse(C, Lease),
    /// A place, already counted, to connect in.
    Connect(ConnectPermit),
    /// A place in line; `collect` when woken, `cancel` when leaving.
    Wait(Ticket),
    /// Nothing.
    Refuse(RefuseReason),
}

/// What became of a connection that was given back.
#[must_use = "a handed connection's waiter must be woken, a retired one closed"]
#[derive(Debug, PartialEq, Eq)]
pub enum Returned<C> {
    /// It lies on the shelf of the worker that gave it back.
    Parked,
    /// It lies ready for this waiter, who must be woken.
    Handed(Ticket),
    /// It must be closed. With a ticket: that waiter may connect in its place and must be woken.
    Retired(C, CloseReason, Option<Ticket>),
}

/// What a waiter finds when woken.
#[must_use = "what was handed out must be answered for"]
#[derive(Debug, PartialEq, Eq)]
pub enum Collected<C> {
    /// Nothing yet; the ticket stays good.
    Waiting,
    /// A connection that returned. The ticket is spent.
    Reuse(C, Lease),
    /// A place to connect in. The ticket is spent.
    Connect(ConnectPermit),
    /// Sent away when the ledger closed, or spent before.
    Gone,
}

/// What a waiter who leaves leaves behind.
#[must_use = "what was left behind may have woken or retired something"]
#[derive(Debug, PartialEq, Eq)]
pub enum Cancelled<C> {
    /// Nothing had been handed to it.
    Unserved,
    /// A place: the next waiter, if there is one, may connect and must be woken.
    Place(Option<Ticket>),
    /// A connection, which went the way of one given back by the worker it came from.
    Connection(Returned<C>),
}

/// A connection that was taken off its shelf.
#[derive(Debug, PartialEq, Eq)]
pub struct Removed<C> {
    /// The connection, to be closed.
    pub conn: C,
    /// What it was parked as.
    pub was: Was,
    /// How long it was idle.
    pub rested: Duration,
    /// How many requests it had carried.
    pub requests: u64,
    /// This waiter may connect in its place, and must be woken.
    pub wake: Option<Ticket>,
}

/// What a parked connection was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    /// One to be used again.
    Parked,
    /// The canary.
    Canary,
}

/// Whether the ledger still serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Serving,
    Closed(CloseReason),
}

/// The ledger. Its connections are of any type; tests use numbers.
#[derive(Debug)]
pub struct Ledger<C> {
    limits: PoolLimits,
    ports: PortBook,
    total: Arc<Total>,
    idle_reason: CloseReason,
    standing: Standing,
    shelves: Shelves<C>,
    /// How long a canary is kept; None: none is wanted.
    canary_limit: Option<Duration>,
    canary: Option<Idle<C>>,
    waiters: Waiters<C, Fresh>,
    leased: u32,
    connecting: u32,
    deadline: Option<Instant>,
    departures: [u64; CloseReason::ALL.len()],
}

impl<C> Ledger<C> {
    /// An empty ledger.
    #[must_use]
    pub fn new(limits: PoolLimits) -> Self {
        Self::under(Arc::default(), limits, PortShape::unlimited())
    }

    /// An empty ledger under a total that it shares with others, with ports that can be counted.
    #[must_use]
    pub fn under(total: Arc<Total>, limits: PoolLimits, shape: PortShape) -> Self {
        Self {
            shelves: Shelves::new(limits.workers),
            limits,
            ports: PortBook::new(shape),
            canary_limit: None,
            canary: None,
            idle_reason: CloseReason::IdleTimeout,
            standing: Standing::Serving,
            waiters: Waiters::new(Arc::clone(&total)),
            total,
            leased: 0,
            connecting: 0,
            deadline: None,
            departures: [0; CloseReason::ALL.len()],
        }
    }

    /// Changes the limits. Idle connections beyond the new ones go to `retired`; the waiters
    /// returned may connect in places that came free, and must be woken. Age limits stay as they
    /// were given at connect.
    #[must_use = "these waiters must be woken"]
    pub fn set_limits(
        &mut self,
        limits: PoolLimits,
        now: Instant,
        retired: &mut Vec<(C, CloseReason)>,
    ) -> Vec<Ticket> {
        self.shelves.grow(limits.workers);
        self.deadline = self.shelves.reckon(limits.idle_limit);
        self.limits = limits;
        if self.is_crowded() {
            self.retire_canary(retired);
        }
        let too_many =
            |at: &Self| at.is_crowded() || at.total.is_exceeded() || at.idle() > at.limits.max_idle;
        while !self.shelves.is_empty() && too_many(self) {
            self.retire_oldest(CloseReason::PoolFull, now, retired);
        }
        std::iter::from_fn(|| self.admit_next()).collect()
    }

    /// Sets the idle limit alone, and what overdue connections are told: `IdleTimeout` for the
    /// configured limit, `LearnedIdle` for one learned from the origin. With `canary`, one of them
    /// is kept until it has been idle for so long.
    pub fn set_idle_limit(
        &mut self,
        idle_limit: Duration,
        reason: CloseReason,
        canary: Option<Duration>,
    ) {
        self.idle_reason = reason;
        self.canary_limit = canary;
        if self.limits.idle_limit != idle_limit {
            self.limits.idle_limit = idle_limit;
            self.deadline = self.shelves.reckon(idle_limit);
        }
    }

    /// Asks for a connection: the newest idle one that suits, else a place to connect, else a
    /// place in line. What had to leave on the way goes to `retired`.
    pub fn checkout(
        &mut self,
        ask: &Ask,
        now: Instant,
        retired: &mut Vec<(C, CloseReason)>,
    ) -> Checkout<C> {
        match self.reuse(ask, now, retired) {
            Some((conn, lease)) => Checkout::Reuse(conn, lease),
            None => self.open_or_wait(ask, now, retired),
        }
    }

    /// Asks for no more than an idle connection that suits, the newest one. It overtakes nobody: by
    /// law 2 it suits no one in line. What had to leave on the way goes to `retired`.
    #[must_use = "what was handed out must be answered for"]
    pub fn reuse(
        &mut self,
        ask: &Ask,
        now: Instant,
        retired: &mut Vec<(C, CloseReason)>,
    ) -> Option<(C, Lease)> {
        if self.shelves.is_empty() {
            return None;
        }
        let idle = self.take_idle(ask, now, retired)?;
        self.leased += 1;
        Some(idle.lend(now))
    }

    /// A requester whose own connect is under way also stands in line, to take a connection that
    /// returns earlier. Call it under the same lock as the `checkout` that gave the permit. When
    /// its own connect ends first it cancels; when it is served first, the finished connect is
    /// given back and goes to the next in line or the shelf.
    pub fn enlist(&mut self, fresh: Fresh, client: ClientTurn) -> Ticket {
        match self.standing {
            Standing::Serving if fresh.takes_returning() => {
                self.waiters.join(Want::Idle, fresh, client)
            }
            Standing::Serving | Standing::Closed(_) => self.waiters.void(),
        }
    }

    /// A place to connect in for the sake of a floor of idle connections, if nobody waits and
    /// there is room.
    pub fn warm(&mut self) -> Option<ConnectPermit> {
        if self.waiting() > 0 || self.total.is_waited_for() || !self.has_place() {
            return None;
        }
        let seat = self.take_place()?;
        Some(ConnectPermit {
            why: OpenReason::Warm,
            seat,
        })
    }

    /// The connect succeeded. `age_limit` is `max_age`, jittered by the caller. The waiter, if
    /// there is one, may connect under the connect bound and must be woken.
    pub fn connected(
        &mut self,
        permit: ConnectPermit,
        id: ConnId,
        age_limit: Option<Duration>,
        now: Instant,
    ) -> (Lease, Option<Ticket>) {
        let ConnectPermit { why: _, seat } = permit;
        self.ports.on_found(seat);
        self.connecting = self.connecting.saturating_sub(1);
        self.leased += 1;
        let age_deadline = age_limit.and_then(|limit| now.checked_add(limit));
        let lease = Lease(Box::new(Terms {
            id,
            age_deadline,
            requests: 0,
            idle_since: now,
            lent_at: now,
        }));
        (lease, self.admit_next())
    }

    /// The connect failed and frees its place. The waiter returned may now connect, and must be
    /// woken.
    #[must_use = "this waiter must be woken"]
    pub fn connect_failed(&mut self, permit: ConnectPermit) -> Option<Ticket> {
        let ConnectPermit { why: _, seat } = permit;
        self.free_place();
        self.ports.leave(seat, Parting::Free);
        self.admit_next()
    }

    /// The system found no port for the connect. Nobody is told to connect in its place: there is
    /// none for them either, until `look_for_ports` finds that there is.
    pub fn found_no_port(&mut self, permit: ConnectPermit, now: Instant) -> Option<Ticket> {
        let ConnectPermit { why: _, seat } = permit;
        self.free_place();
        self.ports.on_none(seat, now);
        self.admit_next()
    }

    /// A connection's socket closes and leaves its port so. The waiter returned may now connect,
    /// and must be woken.
    #[must_use = "this waiter must be woken"]
    pub fn port_left(&mut self, seat: Seat, parting: Parting, now: Instant) -> Option<Ticket> {
        self.ports.advance(now);
        self.ports.leave(seat, parting);
        self.admit_next()
    }

    /// Ports may have come free by time alone. The waiters returned may now connect, and must be
    /// woken.
    #[must_use = "these waiters must be woken"]
    pub fn look_for_ports(&mut self, now: Instant) -> Vec<Ticket> {
        self.ports.advance(now);
        std::iter::from_fn(|| self.admit_next()).collect()
    }

    /// When to look for ports again, if somebody may be waiting for one.
    #[must_use]
    pub fn ports_due(&self, now: Instant) -> Option<Instant> {
        self.ports.look_again(now)
    }

    /// Counts its ports by other terms, over these source addresses; none: the system chooses. Who
    /// waits for a port is served by the `set_limits` that follows.
    pub fn set_ports(&mut self, shape: PortShape, sources: &[IpAddr]) {
        self.ports.revise(shape, sources);
    }

    /// Its ports.
    #[must_use]
    pub fn ports(&self) -> &PortBook {
        &self.ports
    }

    /// What those who wait lack.
    #[must_use]
    pub fn lacks(&self) -> Lack {
        match self.ports.has_room() || self.is_full() || !self.total.has_room() {
            true => Lack::Connection,
            false => Lack::Port,
        }
    }

    /// A connection returns with what is to become of it.
    pub fn give_back(
        &mut self,
        conn: C,
        lease: Lease,
        worker: usize,
        verdict: Verdict,
        now: Instant,
    ) -> Returned<C> {
        let idle = Idle {
            conn,
            lease,
            since: now,
            leave_at: None,
        };
        match verdict {
            Verdict::Retire(reason) => self.retire_returned(idle, reason),
            Verdict::Reusable => self.settle(idle, worker, now),
        }
    }

    /// A leased connection is already gone. The waiter returned may now connect, and must be
    /// woken.
    #[must_use = "this waiter must be woken"]
    pub fn retire(&mut self, lease: Lease, reason: CloseReason) -> Option<Ticket> {
        drop(lease);
        self.leased = self.leased.saturating_sub(1);
        self.depart(reason);
        self.admit_next()
    }

    /// What has been laid ready for a waiter.
    pub fn collect(&mut self, ticket: Ticket, now: Instant) -> Collected<C> {
        if self.waiters.is_waiting(ticket) {
            return Collected::Waiting;
        }
        let fresh = self.waiters.fresh(ticket);
        match self.waiters.leave(ticket) {
            Some(Stand::Served(idle, _)) => {
                let (conn, lease) = idle.lend(now);
                Collected::Reuse(conn, lease)
            }
            Some(Stand::Admitted(seat)) => {
                let why = self.why_open(fresh.unwrap_or(Fresh::Any));
                Collected::Connect(ConnectPermit { why, seat })
            }
            Some(Stand::Waiting) | None => Collected::Gone,
        }
    }

    /// A waiter leaves. What it had been handed goes on; nothing is lost.
    pub fn cancel(&mut self, ticket: Ticket, now: Instant) -> Cancelled<C> {
        match self.waiters.leave(ticket) {
            Some(Stand::Waiting) | None => Cancelled::Unserved,
            Some(Stand::Admitted(seat)) => {
                self.free_place();
                self.ports.leave(seat, Parting::Free);
                Cancelled::Place(self.admit_next())
            }
            Some(Stand::Served(idle, worker)) => {
                Cancelled::Connection(self.settle(idle, worker, now))
            }
        }
    }

    /// A connection died while parked, or must leave. None: it is not on a shelf (any more); a
    /// waiter to whom it was handed finds it dead when it takes it.
    pub fn remove_idle(
        &mut self,
        id: ConnId,
        reason: CloseReason,
        now: Instant,
    ) -> Option<Removed<C>> {
        let canary = self.canary.take_if(|idle| idle.lease.0.id == id);
        let (idle, was) = match canary {
            Some(idle) => (idle, Was::Canary),
            None => (self.shelves.take_by_id(id)?, Was::Parked),
        };
        self.depart(reason);
        Some(Removed {
            was,
            rested: idle.rested(now),
            requests: idle.lease.0.requests,
            conn: idle.conn,
            wake: self.admit_next(),
        })
    }

    /// The canary, and how long it was idle, if the origin kept it for as long as it was to find
    /// out. It leaves as `IdleTimeout`.
    pub fn survived(&mut self, now: Instant) -> Option<(C, Duration)> {
        let idle = self.canary.take_if(|idle| idle.is_overdue(now))?;
        self.depart(CloseReason::IdleTimeout);
        let rested = idle.rested(now);
        Some((idle.conn, rested))
    }

    /// The canary.
    pub fn canary_mut(&mut self) -> Option<&mut C> {
        self.canary.as_mut().map(|idle| &mut idle.conn)
    }

    /// How many canaries: none or one.
    #[must_use]
    pub fn canaries(&self) -> u32 {
        u32::from(self.canary.is_some())
    }

    /// Moves every overdue idle connection to `retired`, but for one that may stay as the canary.
    pub fn expire(&mut self, now: Instant, retired: &mut Vec<(C, CloseReason)>) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        let (departures, total) = (&mut self.departures, &self.total);
        let idle_reason = self.idle_reason;
        let (canary, canary_limit) = (&mut self.canary, self.canary_limit);
        self.deadline = self.shelves.take_overdue(now, |idle| {
            let reason = idle.overdue_reason(now, idle_reason);
            let limit = canary_limit.filter(|_| reason == idle_reason && canary.is_none());
            let idle = match idle.into_canary(limit, now) {
                Ok(idle) => {
                    *canary = Some(idle);
                    return;
                }
                Err(idle) => idle,
            };
            departures[reason.index()] += 1;
            total.leave();
            retired.push((idle.conn, reason));
        });
    }

    /// When to call `survived` and `expire`: never later than the first idle connection falls due,
    /// perhaps earlier.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let canary = self.canary.as_ref().and_then(|idle| idle.leave_at);
        earlier(self.deadline, canary)
    }

    /// Takes every idle connection off its shelf, and the canary. By law 7 nobody waits for their
    /// places.
    pub fn retire_all_idle(&mut self, reason: CloseReason, retired: &mut Vec<(C, CloseReason)>) {
        if let Some(canary) = self.canary.take() {
            self.depart(reason);
            retired.push((canary.conn, reason));
        }
        self.retire_idle(reason, u32::MAX, retired);
    }

    /// Takes so many idle connections off their shelves, those idle for longest first.
    pub fn retire_idle(
        &mut self,
        reason: CloseReason,
        most: u32,
        retired: &mut Vec<(C, CloseReason)>,
    ) {
        for _ in 0..most {
            let Some(idle) = self.shelves.take_oldest() else {
                return;
            };
            self.depart(reason);
            retired.push((idle.conn, reason));
        }
    }

    /// Since when the connection idles that does so for longest, the canary included.
    #[must_use]
    pub fn idle_since(&self) -> Option<Instant> {
        let canary = self.canary.as_ref().map(|idle| idle.since);
        earlier(canary, self.shelves.oldest_since())
    }

    /// Takes the connection that has idled for longest. By law 7 nobody waits for its place.
    pub fn retire_longest_idle(
        &mut self,
        reason: CloseReason,
        retired: &mut Vec<(C, CloseReason)>,
    ) {
        // The canary idles for longer than any other: that is what it is for.
        match self.canary.take() {
            Some(canary) => {
                self.depart(reason);
                retired.push((canary.conn, reason));
            }
            None => self.retire_idle(reason, 1, retired),
        }
    }

    /// Closes the ledger: idle connections go to `retired`, what returns later retires with the
    /// same reason, checkouts are refused. The waiters returned are sent away and must be woken;
    /// those already served keep what they were handed.
    #[must_use = "these waiters must be woken"]
    pub fn close(
        &mut self,
        reason: CloseReason,
        retired: &mut Vec<(C, CloseReason)>,
    ) -> Vec<Ticket> {
        self.standing = Standing::Closed(reason);
        self.deadline = None;
        if let Some(canary) = self.canary.take() {
            self.depart(reason);
            retired.push((canary.conn, reason));
        }
        while let Some(idle) = self.shelves.take_oldest() {
            self.depart(reason);
            retired.push((idle.conn, reason));
        }
        self.waiters.dismiss()
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.standing, Standing::Closed(_))
    }

    /// Connections on shelves.
    #[must_use]
    pub fn idle(&self) -> u32 {
        self.shelves.len()
    }

    /// Connections out, those laid ready for a waiter included.
    #[must_use]
    pub fn leased(&self) -> u32 {
        self.leased
    }

    /// Connects under way, those a waiter has yet to begin included.
    #[must_use]
    pub fn connecting(&self) -> u32 {
        self.connecting
    }

    /// All of them: what `max_connections` limits.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.idle() + self.canaries() + self.leased + self.connecting
    }

    /// Requests in line, those enlisted beside their own connect not included.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiters.waiting()
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &PoolLimits {
        &self.limits
    }

    /// How many connections left for each reason, in the order of `CloseReason::ALL`.
    #[must_use]
    pub fn departures(&self) -> &[u64; CloseReason::ALL.len()] {
        &self.departures
    }

    /// The newest idle connection that suits: the worker's own first, then any other's, since
    /// moving a descriptor is cheaper than a handshake and leaves the cap alone. Overdue ones met
    /// on the way leave.
    fn take_idle(
        &mut self,
        ask: &Ask,
        now: Instant,
        retired: &mut Vec<(C, CloseReason)>,
    ) -> Option<Idle<C>> {
        if ask.fresh == Fresh::Only {
            return None;
        }
        loop {
            let own = self.shelves.newest_of(ask.worker);
            let own_suits = own.is_some_and(|idle| ask.fresh.takes(|| idle.rested(now)));
            let from = if own_suits {
                ask.worker
            } else {
                let worker = self.shelves.extreme(End::Newest)?;
                let newest = self.shelves.newest_of(worker)?;
                if !newest.is_overdue(now) && !ask.fresh.takes(|| newest.rested(now)) {
                    return None;
                }
                worker
            };
            // Only the newest is known to be young enough for the guard.
            let end = match (self.limits.order, ask.fresh) {
                (Order::Fifo, Fresh::Any) => End::Oldest,
                (Order::Fifo | Order::Lifo, _) => End::Newest,
            };
            let idle = self.shelves.take_own(from, end)?;
            if !idle.is_overdue(now) {
                return Some(idle);
            }
            self.retire_overdue(idle, now, retired);
        }
    }

    /// Nothing idle suits: a place to connect, else a place in line.
    fn open_or_wait(
        &mut self,
        ask: &Ask,
        now: Instant,
        retired: &mut Vec<(C, CloseReason)>,
    ) -> Checkout<C> {
        if let Standing::Closed(_) = self.standing {
            return Checkout::Refuse(RefuseReason::Closed);
        }
        self.ports.advance(now);
        let may_connect = self.connecting < self.limits.max_connecting && self.ports.has_room();
        if self.waiting() == 0 && may_connect && !self.total.is_waited_for() {
            let why = self.why_open(ask.fresh);
            if self.is_full() {
                self.retire_canary(retired);
            }
            if self.is_full() && !self.shelves.is_empty() {
                self.retire_oldest(ask.fresh.room_reason(), now, retired);
            }
            if !self.is_full()
                && let Some(seat) = self.take_place()
            {
                return Checkout::Connect(ConnectPermit { why, seat });
            }
        }
        match ask.queue {
            _ if self.is_held_up_by_others() => {}
            Queueing::Refused => return Checkout::Refuse(RefuseReason::Full),
            Queueing::Allowed { max_pending }
                if self.waiting() >= max_pending || self.has_half(ask.client, max_pending) =>
            {
                return Checkout::Refuse(RefuseReason::QueueFull);
            }
            Queueing::Allowed { .. } => {}
        }
        let want = if ask.fresh.takes_returning() {
            Want::Either
        } else {
            Want::Place
        };
        let ticket = self.waiters.join(want, ask.fresh, ask.client);
        // Law 7: who waits beside idle connections has room kept.
        if self.is_crowded() {
            self.retire_canary(retired);
        }
        if !self.shelves.is_empty() && self.is_crowded() {
            self.retire_oldest(ask.fresh.room_reason(), now, retired);
        }
        Checkout::Wait(ticket)
    }

    /// A sound connection, still counted as leased, goes to the oldest waiter whom it serves,
    /// else to a shelf, else away.
    fn settle(&mut self, mut idle: Idle<C>, worker: usize, now: Instant) -> Returned<C> {
        // It may have lain ready for a waiter while the limits changed.
        idle.reckon(self.limits.idle_limit);
        if let Some(reason) = self.refusal(&idle, now) {
            // Where nothing may be idle at all, only one that returns can be the canary.
            let may_stay = reason == self.idle_reason
                && self.canary.is_none()
                && self.standing == Standing::Serving
                && !self.is_crowded();
            let limit = self.canary_limit.filter(|_| may_stay);
            return match idle.into_canary(limit, now) {
                Ok(idle) => {
                    self.leased = self.leased.saturating_sub(1);
                    self.canary = Some(idle);
                    Returned::Parked
                }
                Err(idle) => self.retire_returned(idle, reason),
            };
        }
        let taker = self.waiters.oldest(Want::Either, Want::Idle);
        // The oldest of all may need a new connection. It is served in its turn: this one makes
        // room for it.
        if let Some(placer) = self.waiters.front(Want::Place)
            && self.is_full()
            && taker.is_none_or(|taker| placer < taker)
        {
            return self.make_room(idle, placer);
        }
        if let Some(taker) = taker {
            let suits = self
                .waiters
                .fresh(taker)
                .is_some_and(|f| f.takes(|| idle.rested(now)));
            if !suits {
                return self.retire_returned(idle, CloseReason::UnsafeGuard);
            }
            self.waiters.serve(taker, Stand::Served(idle, worker));
            return Returned::Handed(taker);
        }
        // Law 7 again: parking beside waiters only if there is room for them all.
        if let Some(placer) = self.waiters.front(Want::Place)
            && self.is_crowded()
        {
            return self.make_room(idle, placer);
        }
        if self.idle() >= self.limits.max_idle {
            return self.retire_returned(idle, CloseReason::PoolFull);
        }
        self.leased = self.leased.saturating_sub(1);
        self.deadline = earlier(self.deadline, idle.leave_at);
        self.shelves.park(worker, idle);
        Returned::Parked
    }

    /// Why the pool does not want a connection that is sound in itself.
    fn refusal(&self, idle: &Idle<C>, now: Instant) -> Option<CloseReason> {
        if let Standing::Closed(reason) = self.standing {
            return Some(reason);
        }
        if let Some(reason) = idle
            .lease
            .allowance(self.limits.max_requests, now)
            .refusal()
        {
            return Some(reason);
        }
        if idle.is_overdue(now) {
            return Some(self.idle_reason);
        }
        // Limits were lowered below what is open.
        let too_many = self.open() > self.limits.max_connections.0 || self.total.is_exceeded();
        too_many.then_some(CloseReason::PoolFull)
    }

    fn make_room(&mut self, idle: Idle<C>, placer: Ticket) -> Returned<C> {
        let fresh = self.waiters.fresh(placer).unwrap_or(Fresh::Only);
        self.retire_returned(idle, fresh.room_reason())
    }

    fn retire_returned(&mut self, idle: Idle<C>, reason: CloseReason) -> Returned<C> {
        let Idle { conn, lease, .. } = idle;
        let wake = self.retire(lease, reason);
        Returned::Retired(conn, reason, wake)
    }

    fn retire_oldest(
        &mut self,
        reason: CloseReason,
        now: Instant,
        retired: &mut Vec<(C, CloseReason)>,
    ) {
        let Some(idle) = self.shelves.take_oldest() else {
            return;
        };
        if idle.is_overdue(now) {
            return self.retire_overdue(idle, now, retired);
        }
        self.depart(reason);
        retired.push((idle.conn, reason));
    }

    /// The canary gives its place.
    fn retire_canary(&mut self, retired: &mut Vec<(C, CloseReason)>) {
        if let Some(idle) = self.canary.take() {
            self.depart(CloseReason::PoolFull);
            retired.push((idle.conn, CloseReason::PoolFull));
        }
    }

    fn retire_overdue(&mut self, idle: Idle<C>, now: Instant, retired: &mut Vec<(C, CloseReason)>) {
        let reason = idle.overdue_reason(now, self.idle_reason);
        self.depart(reason);
        retired.push((idle.conn, reason));
    }

    /// Gives the oldest who wants a place one that is free.
    fn admit_next(&mut self) -> Option<Ticket> {
        // Under a total somebody elsewhere may have come earlier: `house` sees them all.
        if self.total.limit().is_some() {
            return None;
        }
        self.admit()
    }

    fn admit(&mut self) -> Option<Ticket> {
        let ticket = self.next_for_total()?;
        let seat = self.take_place()?;
        self.waiters.serve(ticket, Stand::Admitted(seat));
        Some(ticket)
    }

    /// Whether one client among others has half of the line, which is as much as it may have.
    fn has_half(&self, client: ClientTurn, max_pending: u32) -> bool {
        client != ClientTurn::default()
            && self.waiters.waiting_of(client) >= max_pending.div_ceil(2)
    }

    /// The oldest who waits for a place, if there is one but for the total.
    pub(super) fn next_for_total(&self) -> Option<Ticket> {
        let ticket = self.waiters.oldest(Want::Either, Want::Place)?;
        self.has_place().then_some(ticket)
    }

    /// Gives that one a place, if the total has room.
    pub(super) fn admit_under_total(&mut self) -> Option<Ticket> {
        self.admit()
    }

    /// Since when the connection has been idle that `evict` takes; the canary is the first to go.
    pub(super) fn idle_longest(&self) -> Option<Instant> {
        let canary = self.canary.as_ref().map(|idle| idle.since);
        canary.or_else(|| {
            let worker = self.shelves.extreme(End::Oldest)?;
            Some(self.shelves.oldest_of(worker)?.since)
        })
    }

    /// Takes away an idle connection to make room at another endpoint.
    pub(super) fn evict(&mut self, now: Instant) -> Option<(C, CloseReason)> {
        let mut retired = Vec::new();
        self.retire_canary(&mut retired);
        if retired.is_empty() {
            self.retire_oldest(CloseReason::PoolFull, now, &mut retired);
        }
        retired.pop()
    }

    /// Counts a connect: in the total, among the ports, and here.
    fn take_place(&mut self) -> Option<Seat> {
        if self.total.take() == Entry::Full {
            return None;
        }
        let seat = self.ports.take();
        match seat {
            Some(_) => self.connecting += 1,
            None => self.total.leave(),
        }
        seat
    }

    /// A connect came to nothing.
    fn free_place(&mut self) {
        self.connecting = self.connecting.saturating_sub(1);
        self.total.leave();
    }

    fn has_place(&self) -> bool {
        self.standing == Standing::Serving
            && self.connecting < self.limits.max_connecting
            && !self.is_full()
            && self.ports.has_room()
    }

    /// Whether there is a place here and in the total, and only those who wait elsewhere may be
    /// earlier. It is given out in order then (`house`), and that takes standing in line, if for a
    /// moment: who may not wait is not refused because others wait for their own endpoints.
    fn is_held_up_by_others(&self) -> bool {
        self.total.is_waited_for()
            && self.total.has_room()
            && self.waiting() == 0
            && self.has_place()
    }

    fn is_full(&self) -> bool {
        self.open() >= self.limits.max_connections.0
    }

    /// Whether those who wait could not all have a place.
    fn is_crowded(&self) -> bool {
        self.open().saturating_add(self.waiting()) > self.limits.max_connections.0
    }

    fn why_open(&self, fresh: Fresh) -> OpenReason {
        match fresh {
            Fresh::Only => OpenReason::Retry,
            Fresh::IdleLessThan(_) if !self.shelves.is_empty() => OpenReason::UnsafeGuard,
            Fresh::Any | Fresh::IdleLessThan(_) if self.leased == 0 => OpenReason::EmptyPool,
            Fresh::Any | Fresh::IdleLessThan(_) => OpenReason::AllBusy,
        }
    }

    fn depart(&mut self, reason: CloseReason) {
        self.departures[reason.index()] += 1;
        self.total.leave();
    }
}
