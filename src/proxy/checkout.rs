//! The pool's face to requests: the ledger behind a lock, wakers beside it, sockets around it.
//!
//! A request takes an idle connection, or dials, or waits in line; while it dials it also stands in
//! line, and takes whichever comes first: the finished dial then goes to the pool. The lock is held
//! for the ledger's few instructions, never across an await; wakers are woken after it.
//! Dropped anywhere, a permit frees its place and a lease retires its connection.

use crate::base::CloseReason;
use crate::base::ConnId;
use crate::base::reason::OpenReason;
use crate::base::reason::Outcome;
use crate::base::reason::Phase;
use crate::base::reason::Side;
use crate::net::Deadline;
use crate::net::clock;
use crate::net::dial;
use crate::net::dial::DialError;
use crate::net::reactor::Seen;
use crate::net::stream::Peeked;
use crate::net::worker;
use crate::observe::live::LiveFacts;
use crate::observe::words::ConnectError;
use crate::observe::words::StaleFound;
use crate::observe::words::StaleResult;
use crate::observe::words::UpstreamState;
use crate::policy::health::Symptom;
use crate::policy::idle_learning::IdleLimit;
use crate::policy::idle_learning::IdleSettings;
use crate::pool::Lease;
use crate::pool::PoolLimits;
use crate::pool::Ticket;
use crate::pool::Verdict;
use crate::pool::lease::ConnectPermit;
use crate::pool::ledger::Ask;
use crate::pool::ledger::Cancelled;
use crate::pool::ledger::Checkout;
use crate::pool::ledger::Collected;
use crate::pool::ledger::Fresh;
use crate::pool::ledger::Lack;
use crate::pool::ledger::Queueing;
use crate::pool::ledger::RefuseReason;
use crate::pool::ledger::Was;
use crate::pool::ports::Parting;
use crate::pool::waiters::ClientTurn;
use crate::proxy::endpoint::Counted;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::endpoint::Facts;
use crate::proxy::endpoint::Parked;
use crate::proxy::endpoint::Ports;
use crate::proxy::lent::Acquired;
use crate::proxy::lent::Lent;
use crate::proxy::lent::Waited;
use crate::proxy::pulse::Pulse;
use crate::proxy::tend;
use std::cell::Cell;
use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

/// Why a request got no connection.
#[derive(Debug)]
pub enum NotAcquired {
    /// The endpoint cannot be connected to.
    Dial(DialError),
    /// There is no room and the request may not wait here.
    Full,
    /// The line is as long as it may be, and what those in it lack.
    QueueFull(Lack),
    /// It waited as long as it may, and what it lacked.
    QueueTimeout {
        /// What it lacked.
        lack: Lack,
        /// How long it waited.
        queued: Duration,
    },
    /// The pool is closed.
    Closed,
}

/// What a request wants.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// Which connections suit.
    pub fresh: Fresh,
    /// Whether it may wait.
    pub queue: Queueing,
    /// Whose turn it takes in line.
    pub client: ClientTurn,
    /// Until when.
    pub until: Deadline,
    /// Why a connection would be opened, if not for want of an idle one.
    pub why: Option<OpenReason>,
    /// How closely an idle connection is looked at.
    pub inspect: Inspect,
}

/// How closely an idle connection is looked at before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspect {
    /// What epoll has told already: free, and late by at most one turn.
    Seen,
    /// The socket itself: one system call, for requests that cannot be repeated.
    Socket,
}

impl Endpoint {
    /// Takes an idle connection to this endpoint, if one suits.
    #[must_use]
    pub fn at_hand(self: &Arc<Self>, fresh: Fresh, inspect: Inspect) -> Option<Acquired> {
        let ask = Ask {
            worker: worker::index(),
            fresh,
            queue: Queueing::Refused,
            client: ClientTurn::default(),
        };
        loop {
            let mut retired = Vec::new(); // allocates only if something retires
            let reused = {
                let ledger = &mut self.pool.lock().ledger;
                ledger.reuse(&ask, clock::now(), &mut retired)
            };
            if !retired.is_empty() {
                self.bury(retired);
            }
            let (parked, lease) = reused?;
            if let Some(lent) = self.revive(parked, lease, inspect) {
                return Some(lent.acquired(Duration::ZERO, Waited::No));
            }
        }
    }

    /// Takes a connection to this endpoint: idle, new, or waited for.
    /// Cancel: the place in line and the dial are given up, nothing leaks.
    ///
    /// # Errors
    /// [`NotAcquired`].
    pub async fn acquire(self: &Arc<Self>, want: Want) -> Result<Acquired, NotAcquired> {
        let ask = Ask {
            worker: worker::index(),
            fresh: want.fresh,
            queue: want.queue,
            client: want.client,
        };
        loop {
            let mut retired = Vec::new(); // allocates only if something retires
            let (checkout, standing) = {
                let mut state = self.pool.lock();
                let checkout = state.ledger.checkout(&ask, clock::now(), &mut retired);
                let standing = match checkout {
                    Checkout::Connect(_) => Some(state.ledger.enlist(want.fresh, want.client)),
                    Checkout::Reuse(..) | Checkout::Wait(_) | Checkout::Refuse(_) => None,
                };
                (checkout, standing)
            };
            self.bury(retired);
            match checkout {
                Checkout::Reuse(parked, lease) => {
                    if let Some(lent) = self.revive(parked, lease, want.inspect) {
                        let acquired = lent.acquired(Duration::ZERO, Waited::No);
                        return Ok(acquired);
                    }
                }
                Checkout::Connect(permit) => {
                    let permit = Permit::new(self, permit, want.why);
                    let place = standing.map(|ticket| Place::new(self, ticket));
                    // Boxed, as the line is: the usual way has neither.
                    let dialled = Box::pin(self.dial_or_be_served(permit, place, want)).await;
                    return self.or_wait_for_a_port(dialled, want).await;
                }
                Checkout::Wait(ticket) => {
                    let place = Place::new(self, ticket);
                    self.pool.after_change();
                    let served = Box::pin(self.stand_in_line(place, want)).await;
                    return self.or_wait_for_a_port(served, want).await;
                }
                Checkout::Refuse(RefuseReason::Full) => return Err(NotAcquired::Full),
                Checkout::Refuse(RefuseReason::QueueFull) => {
                    let lack = self.pool.lock().ledger.lacks();
                    return Err(NotAcquired::QueueFull(lack));
                }
                Checkout::Refuse(RefuseReason::Closed) => return Err(NotAcquired::Closed),
            }
        }
    }

    /// A connection died while it was parked: it leaves the pool, and its age teaches.
    pub fn on_parked_stir(&self, id: ConnId) {
        let now = clock::now();
        // Its reason is looked at outside; the ledger counts it as a FIN, the usual case.
        let removed = self
            .pool
            .lock()
            .ledger
            .remove_idle(id, CloseReason::PeerFin, now);
        let Some(removed) = removed else { return };
        let Parked { stream, facts } = removed.conn;
        let reason = reason_of(stream.peek());
        // Before it is counted, so that who sees the count sees the limit that follows.
        self.ended_idle(
            reason,
            (removed.rested, removed.requests),
            |idle| match removed.was {
                Was::Parked => idle.on_idle_close(removed.rested, now),
                Was::Canary => idle.on_canary_closed(removed.rested),
            },
        );
        self.close(facts, (&stream).into(), reason);
        self.pool.wake(removed.wake);
    }

    /// Retires what has been idle too long; answers when to look again.
    pub fn expire(&self) -> Option<Instant> {
        let mut retired = Vec::new();
        let (next, survived) = {
            let (now, mut state) = (clock::now(), self.pool.lock());
            let survived = state.ledger.survived(now);
            if let Some((_, age)) = &survived {
                state.idle.on_canary_survived(*age);
                state.apply_idle_limit();
            }
            state.ledger.expire(now, &mut retired);
            if let Some(canary) = state.ledger.canary_mut() {
                canary.facts.counted.enter(self, UpstreamState::Canary);
            }
            (state.ledger.next_deadline(), survived)
        };
        if let Some((canary, _)) = survived {
            retired.push((canary, CloseReason::IdleTimeout));
        }
        self.bury(retired);
        next
    }

    /// Opens as many connections as `min_idle` wants more of, while there is room and nobody waits.
    pub fn keep_warm(self: &Arc<Self>) {
        let wanted = self.upstream.load().min_idle;
        while self.condition.may_connect() {
            let permit = {
                let ledger = &mut self.pool.lock().ledger;
                match ledger.idle() + ledger.connecting() < wanted {
                    true => ledger.warm(),
                    false => None,
                }
            };
            let Some(permit) = permit else { return };
            let dialled = connect(Arc::clone(self), Permit::new(self, permit, None));
            worker::spawn(async move {
                // One that fails is counted there, and tried again at the next look.
                if let Ok(lent) = dialled.await {
                    lent.give_back(Verdict::Reusable);
                }
            });
        }
    }

    /// Holds the pool to other limits from now on: idle connections beyond them end, and requests
    /// for which there is room now are woken.
    pub fn hold_to(&self, limits: PoolLimits, idle: IdleSettings, ports: &Ports) {
        let mut retired = Vec::new();
        let woken = {
            let mut state = self.pool.lock();
            let (shape, sources) = ports;
            state.ledger.set_ports(*shape, sources);
            let woken = state.ledger.set_limits(limits, clock::now(), &mut retired);
            state.idle.set(idle);
            state.apply_idle_limit();
            woken
        };
        self.bury(retired);
        for ticket in woken {
            self.pool.wake(Some(ticket));
        }
        tend::on_parked();
    }

    /// Closes the pool: idle connections end, what is in use ends when it is given back.
    pub fn close_pool(&self, reason: CloseReason) {
        let mut retired = Vec::new();
        let sent_away = self.pool.lock().ledger.close(reason, &mut retired);
        self.bury(retired);
        for ticket in sent_away {
            self.pool.wake(Some(ticket));
        }
    }

    /// Takes an origin's hint of how long it keeps idle connections; the lock is taken only if it
    /// says something new.
    pub fn on_hint(&self, hint: Duration) {
        let micros = u64::try_from(hint.as_micros()).unwrap_or(u64::MAX);
        if self.pool.hinted.load(Ordering::Relaxed) != micros {
            self.pool.hinted.store(micros, Ordering::Relaxed);
            self.learn(|idle| idle.on_hint(hint));
        }
    }

    /// A connection ended that had rested so long and carried so many requests: its age is shown and,
    /// if it was ever used, `teaches`. Octets that nobody asked for are no end of its idling.
    fn ended_idle(
        &self,
        reason: CloseReason,
        (rested, requests): (Duration, u64),
        teaches: impl FnOnce(&mut IdleLimit),
    ) {
        if reason == CloseReason::ExtraBytes {
            return;
        }
        self.metrics.idle_close_age.observe_duration(rested);
        if requests > 0 {
            self.learn(teaches);
        }
    }

    fn learn(&self, of: impl FnOnce(&mut IdleLimit)) {
        let mut state = self.pool.lock();
        of(&mut state.idle);
        state.apply_idle_limit();
    }

    /// Where the system found no port, the request waits like others: that says nothing about the
    /// endpoint. One that may not wait here looks elsewhere, as if the pool were full.
    async fn or_wait_for_a_port(
        self: &Arc<Self>,
        acquired: Result<Acquired, NotAcquired>,
        want: Want,
    ) -> Result<Acquired, NotAcquired> {
        match (acquired, want.queue) {
            (Err(NotAcquired::Dial(DialError::NoPort)), Queueing::Refused) => {
                Err(NotAcquired::Full)
            }
            (Err(NotAcquired::Dial(DialError::NoPort)), Queueing::Allowed { .. })
                if want.until.passed() =>
            {
                Err(NotAcquired::QueueTimeout {
                    lack: Lack::Port,
                    queued: Duration::ZERO,
                })
            }
            (Err(NotAcquired::Dial(DialError::NoPort)), Queueing::Allowed { .. }) => {
                Box::pin(self.acquire(want)).await
            }
            (acquired, _) => acquired,
        }
    }

    async fn stand_in_line(
        self: &Arc<Self>,
        place: Place,
        want: Want,
    ) -> Result<Acquired, NotAcquired> {
        let since = clock::now();
        let waiting = self.metrics.queue_length.hold();
        let served = worker::within(want.until, self.served(&place)).await;
        drop(waiting);
        let queued = clock::now().saturating_duration_since(since);
        self.metrics.queue_wait.observe_duration(queued);
        match served {
            Err(_) => {
                let lack = self.pool.lock().ledger.lacks();
                Err(NotAcquired::QueueTimeout { lack, queued })
            }
            Ok(Served::Gone) => Err(NotAcquired::Closed),
            Ok(Served::Connection(parked, lease)) => {
                match self.revive(*parked, lease, want.inspect) {
                    Some(lent) => Ok(lent.acquired(queued, Waited::Yes)),
                    // It died on the way: rare enough to go to the end of the line.
                    None => Box::pin(self.acquire(want)).await,
                }
            }
            Ok(Served::Room(permit)) => {
                let permit = Permit::new(self, permit, want.why);
                let begun = clock::now();
                let lent = connect(Arc::clone(self), permit)
                    .await
                    .map_err(NotAcquired::Dial)?;
                let connecting = clock::now().saturating_duration_since(begun);
                let opened = lent.why();
                Ok(Acquired {
                    lent,
                    outcome: Outcome::NewAfterWait,
                    opened,
                    queued,
                    connecting,
                    idle: None,
                })
            }
        }
    }

    /// Waits for the place to be served. Ports come free by time alone, so while they are short
    /// whoever waits looks after them.
    async fn served(&self, place: &Place) -> Served {
        loop {
            // Where there are ports now they may be short by the time a connection closes.
            let due = self.pool.look_for_ports();
            let due = due.map_or(LOOK_FOR_PORTS, |due| {
                due.saturating_duration_since(clock::now())
            });
            if let Ok(served) = worker::within(Deadline::after(due), place.served()).await {
                return served;
            }
        }
    }

    async fn dial_or_be_served(
        self: &Arc<Self>,
        permit: Permit,
        place: Option<Place>,
        want: Want,
    ) -> Result<Acquired, NotAcquired> {
        let begun = clock::now();
        // Boxed, so that an unfinished dial can go on by itself.
        let mut dialling: Pin<Box<dyn Future<Output = Result<Lent, DialError>>>> =
            Box::pin(connect(Arc::clone(self), permit));
        let first = {
            let mut served = std::pin::pin!(async {
                match &place {
                    Some(place) => place.served().await,
                    None => std::future::pending().await,
                }
            });
            poll_fn(|context| {
                if let Poll::Ready(dialled) = dialling.as_mut().poll(context) {
                    return Poll::Ready(First::Dialled(Box::new(dialled)));
                }
                served.as_mut().poll(context).map(First::Served)
            })
            .await
        };
        let spent = clock::now().saturating_duration_since(begun);
        match first {
            First::Dialled(result) => {
                drop(place); // what it was handed at the last moment goes to the next in line
                dialled(begun, *result)
            }
            First::Served(Served::Connection(parked, lease)) => {
                worker::spawn(async move {
                    if let Ok(lent) = dialling.await {
                        lent.give_back(Verdict::Reusable);
                    }
                });
                match self.revive(*parked, lease, want.inspect) {
                    Some(lent) => Ok(lent.acquired(spent, Waited::Yes)),
                    None => Box::pin(self.acquire(want)).await,
                }
            }
            // Standing beside one's own dial is never answered with room. Gone: it stands in no
            // line, since only a fresh connection will do, or the pool has closed.
            First::Served(Served::Room(_) | Served::Gone) => dialled(begun, dialling.await),
        }
    }

    /// Looks at a parked connection and, if it is alive, makes it a request's.
    fn revive(self: &Arc<Self>, parked: Parked, lease: Lease, inspect: Inspect) -> Option<Lent> {
        let Parked { stream, mut facts } = parked;
        let (worker, _) = stream.home();
        let moved = worker != worker::index();
        let peeked = if inspect == Inspect::Socket || moved {
            Some(stream.peek())
        } else {
            None
        };
        let Ok(stream) = stream.attach() else {
            self.retire(lease, CloseReason::IoError);
            self.port_left(&facts, Parting::OursFirst);
            self.count_closed(&facts, CloseReason::IoError);
            return None;
        };
        let dead = match (peeked, stream.look()) {
            (Some(Peeked::Nothing), _) | (None, Seen::Quiet) => None,
            (Some(peeked), _) => Some(reason_of(peeked)),
            // Stirred may be a false alarm: a read that filled its buffer leaves it behind.
            (None, Seen::Stirred | Seen::Closed) => match stream.peek() {
                Peeked::Nothing => None,
                peeked => Some(reason_of(peeked)),
            },
        };
        if let Some(reason) = dead {
            self.metrics
                .stale
                .of(StaleFound::Checkout, StaleResult::Replaced)
                .inc();
            self.ended_idle(reason, (lease.rested(), lease.requests()), |idle| {
                idle.on_idle_close(lease.rested(), clock::now());
            });
            self.close(facts, (&stream).into(), reason);
            self.retire(lease, reason);
            return None;
        }
        facts.counted.enter(self, UpstreamState::Active);
        if moved {
            tend::watch(&stream, self, &facts);
        }
        Some(Lent {
            conn: Some((stream, facts, lease)),
            endpoint: Arc::clone(self),
        })
    }
}

fn dialled(begun: Instant, result: Result<Lent, DialError>) -> Result<Acquired, NotAcquired> {
    let lent = result.map_err(NotAcquired::Dial)?;
    let opened = lent.why();
    Ok(Acquired {
        lent,
        outcome: Outcome::New,
        opened,
        queued: Duration::ZERO,
        connecting: clock::now().saturating_duration_since(begun),
        idle: None,
    })
}

enum First {
    Dialled(Box<Result<Lent, DialError>>),
    Served(Served),
}

enum Served {
    Connection(Box<Parked>, Lease),
    Room(ConnectPermit),
    Gone,
}

/// A place in line; dropped, it is given up, and what was laid ready for it goes on.
struct Place {
    endpoint: Arc<Endpoint>,
    /// Spent as soon as it was served: its slot may be another's by the time this is dropped.
    ticket: Cell<Option<Ticket>>,
}

impl Place {
    fn new(endpoint: &Arc<Endpoint>, ticket: Ticket) -> Self {
        Self {
            endpoint: Arc::clone(endpoint),
            ticket: Cell::new(Some(ticket)),
        }
    }

    async fn served(&self) -> Served {
        poll_fn(|context| {
            let Some(ticket) = self.ticket.get() else {
                return Poll::Ready(Served::Gone);
            };
            let mut state = self.endpoint.pool.lock();
            let collected = state.ledger.collect(ticket, clock::now());
            if !matches!(collected, Collected::Waiting) {
                self.ticket.set(None);
            }
            match collected {
                Collected::Waiting => {
                    state.set_waker(ticket, context.waker());
                    Poll::Pending
                }
                Collected::Reuse(parked, lease) => {
                    Poll::Ready(Served::Connection(Box::new(parked), lease))
                }
                Collected::Connect(permit) => Poll::Ready(Served::Room(permit)),
                Collected::Gone => Poll::Ready(Served::Gone),
            }
        })
        .await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let cancelled = {
            let mut state = self.endpoint.pool.lock();
            drop(state.waker_of(ticket));
            state.ledger.cancel(ticket, clock::now())
        };
        match cancelled {
            Cancelled::Unserved => self.endpoint.pool.after_change(),
            Cancelled::Place(next) => self.endpoint.pool.wake(next),
            Cancelled::Connection(returned) => {
                self.endpoint.settle(returned);
            }
        }
    }
}

/// The right to connect, with the gauge that shows it; dropped, it frees its place.
struct Permit {
    endpoint: Arc<Endpoint>,
    permit: Option<ConnectPermit>,
    counted: Option<Counted>,
    why: OpenReason,
}

impl Permit {
    fn new(endpoint: &Arc<Endpoint>, permit: ConnectPermit, why: Option<OpenReason>) -> Self {
        let why = why.unwrap_or_else(|| permit.why());
        let counted = Some(Counted::new(endpoint, UpstreamState::Connecting));
        Self {
            endpoint: Arc::clone(endpoint),
            permit: Some(permit),
            counted,
            why,
        }
    }
}

impl Permit {
    /// The connect failed.
    fn failed(&mut self, error: &DialError) {
        let endpoint = &self.endpoint;
        let errors = &endpoint.metrics.connect_errors;
        if !matches!(error, DialError::NoDescriptor) {
            errors.of(connect_error(error)).inc(); // without one, no connect was tried
        }
        match error {
            DialError::Refused | DialError::TimedOut | DialError::Unreachable => {
                endpoint.on_symptom(Symptom::NoConnect);
            }
            // Our own trouble says nothing about the endpoint.
            DialError::NoPort => self.found_no_port(),
            DialError::NoDescriptor | DialError::Io(_) => {}
        }
    }

    /// The system found no port: those who wait for one do not try at once.
    fn found_no_port(&mut self) {
        if let Some(permit) = self.permit.take() {
            let mut state = self.endpoint.pool.lock();
            let next = state.ledger.found_no_port(permit, clock::now());
            drop(state);
            self.endpoint.pool.wake(next);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            let next = self.endpoint.pool.lock().ledger.connect_failed(permit);
            self.endpoint.pool.wake(next);
        }
    }
}

/// Connects on a permit. Cancel: the place is freed, the socket closes.
async fn connect(endpoint: Arc<Endpoint>, mut permit: Permit) -> Result<Lent, DialError> {
    let settings = endpoint.upstream.load_full();
    let begun = clock::now();
    let deadline = Deadline::after(settings.connect_timeout);
    let right = permit.permit.as_ref();
    let seat = right.map(ConnectPermit::seat).ok_or(DialError::NoPort)?;
    let source = endpoint.pool.lock().ledger.ports().address(seat);
    let dialled = dial::dial(endpoint.address, &settings.dial, source, deadline).await;
    let stream = dialled.inspect_err(|error| permit.failed(error))?;
    endpoint.condition.on_connected();
    let now = clock::now();
    endpoint
        .metrics
        .connect_duration
        .observe_duration(now.saturating_duration_since(begun));
    endpoint.metrics.opened.of(permit.why).inc();
    let id = ConnId::next();
    let live = endpoint.live.open(
        LiveFacts {
            id,
            side: Side::Upstream,
            peer: endpoint.address,
            local: stream.local_address(),
            name: settings.name.clone(),
            opened_micros: clock::micros(begun),
        },
        Phase::RequestHead,
    );
    let mut counted = permit
        .counted
        .take()
        .unwrap_or_else(|| Counted::new(&endpoint, UpstreamState::Connecting));
    counted.enter(&endpoint, UpstreamState::Active);
    let facts = Box::new(Facts {
        live,
        opened_at: now,
        why: permit.why,
        counted,
        seat,
        origin_max_requests: None,
        pulse: endpoint.metrics.tcp().map(|tcp| Pulse::of(&stream, tcp)),
    });
    tend::watch(&stream, &endpoint, &facts);
    let Some(right) = permit.permit.take() else {
        return Err(DialError::TimedOut);
    };
    let age_limit = settings
        .max_age
        .map(|age| jitter(age, settings.max_age_jitter));
    let (lease, next) = endpoint
        .pool
        .lock()
        .ledger
        .connected(right, id, age_limit, now);
    endpoint.pool.wake(next);
    Ok(Lent {
        conn: Some((stream, facts, lease)),
        endpoint,
    })
}

/// `age`, changed by at most the share `jitter` either way, so that connections opened together do
/// not end together.
#[must_use]
pub fn jitter(age: Duration, jitter: f64) -> Duration {
    age.mul_f64(1.0 + jitter * (2.0 * fastrand::f64() - 1.0))
}

/// How often who waits looks whether ports are short, so that service is back within a second.
const LOOK_FOR_PORTS: Duration = Duration::from_millis(500);

fn reason_of(peeked: Peeked) -> CloseReason {
    match peeked {
        Peeked::Fin | Peeked::Nothing => CloseReason::PeerFin,
        Peeked::Octets => CloseReason::ExtraBytes,
        Peeked::Broken => CloseReason::PeerRst,
    }
}

fn connect_error(error: &DialError) -> ConnectError {
    match error {
        DialError::Refused => ConnectError::Refused,
        DialError::TimedOut => ConnectError::Timeout,
        DialError::Unreachable => ConnectError::Unreachable,
        DialError::NoPort => ConnectError::NoPort,
        DialError::NoDescriptor | DialError::Io(_) => ConnectError::Unlisted,
    }
}
