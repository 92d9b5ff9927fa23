//! A client's connection: what stays with it from its first exchange to its last, and its end.

use std::cell::Cell;
use std::cell::RefCell;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::base::close::Close;
use crate::base::names::Name;
use crate::base::reason::By;
use crate::base::reason::How;
use crate::base::reason::Phase;
use crate::base::reason::Side;
use crate::net::Deadline;
use crate::net::Stream;
use crate::net::clock;
use crate::net::linger;
use crate::net::linger::Outcome;
use crate::net::stream::Fault;
use crate::net::stream::Reset;
use crate::net::worker;
use crate::observe::GaugeGuard;
use crate::observe::live::LiveConn;
use crate::observe::live::LiveHandle;
use crate::observe::record::Kept;
use crate::observe::words::ClientState;
use crate::observe::words::Direction;
use crate::observe::words::GracefulOutcome;
use crate::policy::admission::ClientPlace;
use crate::policy::drain::AtDeadline;
use crate::policy::forwarded::Trust;
use crate::proxy::beginning::Beginning;
use crate::proxy::draining::Standing;
use crate::proxy::outlet::Reached;
use crate::proxy::service::Listener;
use crate::proxy::service::Service;
use crate::proxy::service::Taken;
use crate::proxy::settings::ProxyProtocol;

/// A client's connection.
pub struct Client {
    /// Its stream.
    pub stream: Stream,
    /// The client's address: the peer's, or who it stands for.
    pub address: SocketAddr,
    /// Whether its word about who was before it counts.
    pub trust: Trust,
    /// Whether its requests are served.
    pub admitted: Admitted,
    /// Whether its first octets are yet to be looked at for a PROXY protocol header.
    pub opening: Opening,
    /// Where it was accepted.
    pub listener: Arc<Listener>,
    /// What all workers share.
    pub service: Arc<Service>,
    /// How it is seen.
    pub live: LiveHandle,
    /// When it is as old as it may grow.
    pub age_deadline: Deadline,
    /// Requests so far.
    pub nth: Cell<u64>,
    /// Before which request an empty line was skipped; the first is 1.
    pub skipped_before: Cell<Option<NonZeroU64>>,
    /// The head whose rest it waits for with nothing else in hand.
    pub beginning: Option<Box<Beginning>>,
    /// Its places in the counts, given back when it is dropped.
    pub places: Places,
    /// Whether it is cut.
    pub cut: Rc<Cut>,
    /// The plan's number when it last looked.
    version: u64,
    state: RefCell<GaugeGuard>,
    /// Octets sent when the last exchange was over.
    sent_before: Cell<u64>,
}

/// Whether a client's requests are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// They are.
    Yes,
    /// Its first one is answered with this error.
    No(ProxyError),
    /// That is decided once it is known who the client is.
    Undecided,
}

/// Whether a connection's first octets may be something else than a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// They may be a PROXY protocol header.
    Due,
    /// They were looked at, or no header is read here.
    Past,
}

/// A connection's places in the counts that have limits.
pub struct Places {
    listener: Arc<Listener>,
    service: Arc<Service>,
    client: Option<ClientPlace>,
}

/// How a conversation with a client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// How we leave.
    pub leave: Leave,
    /// Who ended it.
    pub by: By,
    /// Why.
    pub reason: CloseReason,
}

/// How we leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// At once: nothing more can come that would turn the close into a reset.
    Close,
    /// In stages, for the client may still be sending (RFC 9112 §9.6).
    Linger,
    /// The same, since the client let a deadline pass.
    LingerLate,
    /// By reset, once what it may have is sent: the client must see that its answer is not whole.
    Abort,
    /// By reset, now: it is cut, and nobody waits any more.
    Cut,
}

impl Ending {
    /// We end it, at once.
    #[must_use]
    pub const fn close(reason: CloseReason) -> Self {
        Self {
            leave: Leave::Close,
            by: By::Holdfast,
            reason,
        }
    }

    /// We end it, in stages.
    #[must_use]
    pub const fn linger(reason: CloseReason) -> Self {
        Self {
            leave: Leave::Linger,
            by: By::Holdfast,
            reason,
        }
    }

    /// We end it, by reset.
    #[must_use]
    pub const fn abort(reason: CloseReason) -> Self {
        Self {
            leave: Leave::Abort,
            by: By::Holdfast,
            reason,
        }
    }

    /// The drain ends it, whatever it is doing.
    #[must_use]
    pub const fn cut(how: AtDeadline) -> Self {
        Self {
            leave: match how {
                AtDeadline::Reset => Leave::Cut,
                AtDeadline::Fin => Leave::Close,
            },
            by: By::Holdfast,
            reason: CloseReason::Drain,
        }
    }

    /// An operator ends it, whatever it is doing.
    #[must_use]
    pub const fn dismissed(phase: Phase) -> Self {
        let reason = CloseReason::Admin;
        match phase {
            Phase::Idle => Self::linger(reason),
            _ => Self {
                leave: Leave::Cut,
                by: By::Holdfast,
                reason,
            },
        }
    }

    /// An answer could not be written whole, for this fault of the client's stream.
    #[must_use]
    pub const fn unwritten(fault: &Fault) -> Self {
        match fault {
            Fault::TimedOut => Self::abort(CloseReason::WriteTimeout),
            Fault::Reset => Self::by_peer(CloseReason::PeerRst),
            Fault::Io(_) => Self::abort(CloseReason::IoError),
        }
    }

    /// The client ended it.
    #[must_use]
    pub const fn by_peer(reason: CloseReason) -> Self {
        Self {
            leave: Leave::Close,
            by: By::Peer,
            reason,
        }
    }
}

/// Whether a client is cut by a drain or an operator, as can be asked while the client is lent to who serves it.
pub struct Cut {
    service: Arc<Service>,
    live: Arc<LiveConn>,
}

impl Cut {
    /// The end of its connection, if that is wanted now whatever it is doing. Asked each time its
    /// task is woken.
    #[must_use]
    #[inline]
    pub fn is_due(&self) -> Option<Ending> {
        match self.service.standing() {
            Standing::Serving if !self.live.is_dismissed() => None,
            standing => self.is_due_in(standing),
        }
    }

    #[cold]
    fn is_due_in(&self, standing: Standing) -> Option<Ending> {
        let due = match standing {
            Standing::Ended => true,
            Standing::Tunnels => self.live.phase() != Phase::Tunnel,
            Standing::Serving | Standing::Announced | Standing::Closing | Standing::Waiting => {
                false
            }
        };
        match due {
            true => Some(Ending::cut(self.service.draining.at_deadline())),
            false if self.live.is_dismissed() => Some(Ending::dismissed(self.live.phase())),
            false => None,
        }
    }
}

impl Client {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(
        stream: Stream,
        peer: SocketAddr,
        (places, admitted): (Places, Admitted),
        live: LiveHandle,
    ) -> Self {
        let (listener, service) = (Arc::clone(&places.listener), Arc::clone(&places.service));
        let settings = &listener.settings;
        let age = settings
            .max_age
            .map(|age| super::checkout::jitter(age, settings.max_age_jitter));
        stream.set_quickack(settings.quickack);
        let cut = live.shared();
        let state = listener.metrics.connections.of(ClientState::Idle).hold();
        Self {
            stream,
            address: peer,
            trust: listener.trust(peer.ip()),
            admitted,
            opening: match settings.proxy_protocol {
                ProxyProtocol::Off => Opening::Past,
                ProxyProtocol::Optional | ProxyProtocol::Required => Opening::Due,
            },
            live,
            age_deadline: age.map_or(Deadline::NEVER, Deadline::after),
            nth: Cell::new(0),
            skipped_before: Cell::new(None),
            beginning: None,
            places,
            cut: Rc::new(Cut {
                service: Arc::clone(&service),
                live: cut,
            }),
            version: service.version(),
            state: RefCell::new(state),
            sent_before: Cell::new(0),
            listener,
            service,
        }
    }

    /// The peer passes on what this one says: from here on it is the client. So its own word about
    /// who was before it counts if it is trusted, whoever carried it.
    pub fn becomes(&mut self, source: SocketAddr) {
        self.address = SocketAddr::new(source.ip().to_canonical(), source.port());
        self.trust = self.listener.trust(source.ip());
        self.live.stands_for(self.address);
    }

    /// Before an exchange: what the configuration says now holds for it. How old the connection may
    /// grow was decided when it began.
    pub fn keep_up(&mut self) {
        let version = self.service.version();
        if version == self.version {
            return;
        }
        self.version = version;
        // Without a door its listener is gone: the connection stays what it was, for one exchange.
        if let Some(door) = self.listener.door.upgrade() {
            self.listener = door.listener();
            self.trust = self.listener.trust(self.address.ip());
        }
    }

    /// It does something else now.
    pub fn enter(&self, phase: Phase) {
        self.live.enter(phase, clock::now_micros());
    }

    /// The gauge shows this state from now on.
    pub fn show(&self, state: ClientState) {
        self.state
            .borrow_mut()
            .move_to(self.listener.metrics.connections.of(state));
    }

    /// Which request comes next; the first is 1.
    #[must_use]
    pub fn next_nth(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.nth.get().saturating_add(1))
    }

    /// Counts the octets of an exchange that is over.
    pub fn count_octets(&self) {
        self.tell_octets();
        self.sent_before.set(self.stream.sent());
    }

    /// Counts the octets that moved since the last call, an exchange being over or not.
    pub fn tell_octets(&self) {
        let now = (self.stream.received(), self.stream.sent());
        let (received, sent) = self.live.has_moved(now);
        if (received, sent) == (0, 0) {
            return;
        }
        let bytes = &self.service.metrics.bytes;
        bytes.of(Side::Client, Direction::Rx).add(received);
        bytes.of(Side::Client, Direction::Tx).add(sent);
    }

    /// How far the answer to the exchange under way came.
    #[must_use]
    pub fn reached(&self) -> Reached {
        match self.stream.sent() > self.sent_before.get() {
            true => Reached::Client,
            false => Reached::Nobody,
        }
    }

    /// Why the client is gone, which the socket has told us: by reset, or otherwise.
    #[must_use]
    pub fn gone_reason(&self) -> CloseReason {
        match self.stream.was_reset() {
            Reset::Yes => CloseReason::PeerRst,
            Reset::No => CloseReason::ClientGone,
        }
    }

    /// How the connection will have been closed, told before it is.
    #[must_use]
    pub fn closes(&self, ending: Ending) -> Kept {
        Kept::Closed(ending.told(self.live.phase()))
    }

    /// Ends the connection as said, and counts how that went.
    pub async fn end(self, ending: Ending) {
        let phase = self.live.phase();
        self.show(ClientState::Closing);
        self.enter(Phase::Closing);
        let settings = &self.listener.settings;
        let deadline = Deadline::after(settings.linger_timeout);
        self.count_octets();
        self.count_end(ending, phase);
        match ending.leave {
            Leave::Close => {}
            Leave::Linger | Leave::LingerLate => {
                let Self {
                    stream,
                    service,
                    listener,
                    ..
                } = self;
                let most = listener.settings.linger_bytes;
                let outcome = linger::linger(stream, most, deadline).await;
                let resets = &service.metrics.resets;
                let reset_by = |by| resets.of(Side::Client, by, Phase::Closing).inc();
                let word = match outcome {
                    Outcome::Clean => GracefulOutcome::Clean,
                    Outcome::TimedOut => {
                        reset_by(By::Holdfast);
                        GracefulOutcome::TimedOut
                    }
                    Outcome::StillTaking => GracefulOutcome::TimedOut,
                    Outcome::Reset => {
                        reset_by(By::Peer);
                        GracefulOutcome::Reset
                    }
                };
                service.metrics.graceful_closes.of(Side::Client, word).inc();
            }
            Leave::Abort => {
                sent_out(&self.stream, deadline).await;
                self.stream.reset();
            }
            Leave::Cut => self.stream.reset(),
        }
    }

    fn count_end(&self, ending: Ending, phase: Phase) {
        let metrics = &self.listener.metrics;
        metrics.requests_per_connection.observe(self.nth.get());
        let age = clock::now_micros().saturating_sub(self.live.facts().opened_micros);
        metrics
            .connection_age
            .observe_duration(Duration::from_micros(age));
        let close = ending.count(phase, &self.listener, &self.service);
        self.live.close(close, (clock::now_micros(), clock::wall()));
    }
}

impl Ending {
    /// Counts it for a connection that was accepted and got no conversation: it is closed for a
    /// reason like any other.
    pub fn count_refused(self, listener: &Listener, service: &Service) {
        self.count(Phase::Connect, listener, service);
    }

    /// Counts it for a connection that ends in this phase; answers the close event.
    fn count(self, phase: Phase, listener: &Listener, service: &Service) -> Close {
        let close = self.told(phase);
        listener.metrics.closed.of(close.by, close.reason).inc();
        service.metrics.count_close(Side::Client, close);
        close
    }

    /// The ending as a close event.
    #[must_use]
    pub const fn told(self, phase: Phase) -> Close {
        let how = match (self.reason, self.leave) {
            (CloseReason::PeerRst, _) | (_, Leave::Abort | Leave::Cut) => How::Rst,
            (_, Leave::LingerLate) => How::Timeout,
            (reason, _) if reason.is_a_deadline() => How::Timeout,
            _ => How::Fin,
        };
        Close {
            by: self.by,
            how,
            reason: self.reason,
            phase,
        }
    }
}

impl Places {
    /// Places that were taken.
    #[must_use]
    pub fn new(
        listener: &Arc<Listener>,
        service: &Arc<Service>,
        client: Option<ClientPlace>,
    ) -> Self {
        Self {
            listener: Arc::clone(listener),
            service: Arc::clone(service),
            client,
        }
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> Arc<Service> {
        Arc::clone(&self.service)
    }

    /// The listener's name.
    #[must_use]
    pub fn name(&self) -> Name {
        self.listener.settings.name.clone()
    }

    /// How long a held client may wait: as long as an idle one.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        self.listener.settings.idle_timeout
    }

    /// Counts the end of a connection that got no conversation.
    pub fn count_refused(&self, ending: Ending) {
        ending.count_refused(&self.listener, &self.service);
    }

    /// Whether new work is taken.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.service.standing()
    }

    /// A place among the client's own, if one is free now.
    #[must_use]
    pub fn enter(&self, peer: SocketAddr) -> Option<ClientPlace> {
        self.listener
            .lock_clients()
            .and_then(|mut table| table.enter(peer.ip()).ok())
    }

    /// Takes a place among the client's own, if one is free now.
    pub fn take(&mut self, client: IpAddr) -> Taken {
        let entered = self
            .listener
            .lock_clients()
            .map(|mut table| table.enter(client));
        match entered {
            None => Taken::Place,
            Some(Ok(place)) => {
                self.client = Some(place);
                Taken::Place
            }
            Some(Err(_)) => Taken::Full,
        }
    }

    /// These places, and one among the client's own.
    #[must_use]
    pub fn with(mut self, place: ClientPlace) -> Self {
        self.client = Some(place);
        self
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.service.clients.fetch_sub(1, Ordering::Relaxed);
        self.listener.connections.fetch_sub(1, Ordering::Relaxed);
        if let (Some(place), Some(mut table)) = (self.client.take(), self.listener.lock_clients()) {
            table.leave(place);
        }
    }
}

/// Waits until the client's TCP has acknowledged what we sent, or until `deadline`.
async fn sent_out(stream: &Stream, deadline: Deadline) {
    while !stream.is_sent_out() && !deadline.passed() {
        worker::sleep_until(Deadline::after(SENT_OUT_LOOK)).await;
    }
}

/// Between two looks at what an aborted connection has yet to deliver.
const SENT_OUT_LOOK: Duration = Duration::from_millis(10);
