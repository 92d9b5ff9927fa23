//! Accepting: from a listening socket to a conversation, through the limits.
//!
//! Limits are counted before anything is read, so they are exact; what is refused is refused with
//! its reason, in the way the operator chose. Only a client that is told apart by what it says is
//! counted as soon as it has said it, in `introduce`.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;

use crate::base::CloseReason;
use crate::base::ConnId;
use crate::base::ProxyError;
use crate::base::reason::By;
use crate::base::reason::Phase;
use crate::base::reason::Side;
use crate::net::Deadline;
use crate::net::Stream;
use crate::net::buffer;
use crate::net::clock;
use crate::net::descriptors::Room;
use crate::net::listen::AcceptTrouble;
use crate::net::listen::Accepted;
use crate::net::listen::Bound;
use crate::net::reactor::Initially;
use crate::net::shelf::Thinned;
use crate::net::splice;
use crate::net::stream::Reset;
use crate::net::worker;
use crate::observe::error_log::Severity;
use crate::observe::live::LiveFacts;
use crate::observe::shard;
use crate::observe::words::AcceptError;
use crate::observe::words::RejectReason;
use crate::proxy::booth;
use crate::proxy::client::Admitted;
use crate::proxy::client::Client;
use crate::proxy::client::Places;
use crate::proxy::converse;
use crate::proxy::desk;
use crate::proxy::draining::Standing;
use crate::proxy::introduce;
use crate::proxy::introduce::Known;
use crate::proxy::rouse;
use crate::proxy::service::Door;
use crate::proxy::service::LimitAction;
use crate::proxy::service::Listener;
use crate::proxy::service::Service;
use crate::proxy::service::Taken;
use crate::proxy::tend;

/// Readies this thread as a worker: its lane of the metrics, its care for parked connections, its
/// part of the access log.
pub fn begin_worker(index: usize, service: &Arc<Service>) {
    shard::set(index);
    if let Ok(reactor) = worker::reactor() {
        worker::spawn(tend::bury_the_dead(reactor));
    }
    if let Some(interval) = service.tcp_info_interval {
        worker::spawn(tend::take_pulses(interval));
    }
    let log = Arc::clone(&service.access_log);
    let flushed = Cell::new(0);
    worker::each_turn(move || {
        let now = clock::now_millis();
        if now >= flushed.get() + LOG_TICK_MILLIS {
            flushed.set(now);
            log.flush();
            return Deadline::NEVER;
        }
        // Something may have been written since; look again when the tick is over.
        Deadline::from_millis(flushed.get() + LOG_TICK_MILLIS)
    });
    worker::each_turn(thinning());
}

/// Lets go of what bursts left behind. A worker that idles wakes for it until its shelves are bare.
fn thinning() -> impl Fn() -> Deadline {
    let due = Cell::new(0);
    move || {
        let now = clock::now_millis();
        if now >= due.get() {
            due.set(now + THIN_MILLIS);
            let of_net = buffer::thin().and(splice::thin());
            let shelves = of_net.and(desk::thin()).and(booth::thin());
            if shelves == Thinned::Bare {
                return Deadline::NEVER;
            }
        }
        Deadline::from_millis(due.get())
    }
}

/// A listening socket with what belongs to it.
pub struct Post {
    /// The socket.
    pub bound: Bound,
    /// Whose it is.
    pub door: Arc<Door>,
    /// Whether it is given up.
    pub shut: Arc<Shut>,
}

/// Whether a listening socket is given up before the process ends. [`rouse::everyone`] has those
/// who accept look.
#[derive(Debug, Default)]
pub struct Shut(AtomicBool);

impl Shut {
    /// It is, from now on.
    pub fn shut(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Accepts on this worker's socket until it is given up or the process closes its listeners.
pub async fn accept(post: Post, service: Arc<Service>) {
    let Post { bound, door, shut } = post;
    let address = bound.local.clone();
    let mut socket = match bound.attach() {
        Ok(socket) => socket,
        Err(error) => {
            let message = "a listening socket could not be registered";
            let facts: [(&'static str, &dyn std::fmt::Display); 2] =
                [("address", &address), ("error", &error)];
            service
                .errors
                .log(clock::wall(), Severity::Error, "accept", message, &facts);
            return;
        }
    };
    let take = |accepted| match accepted {
        Accepted::Connection(socket, peer) => admit(socket, peer, &door.listener(), &service),
        Accepted::Trouble(trouble) => tell(trouble, &door.listener(), &service),
    };
    let closes = || {
        let closes = service.standing() >= Standing::Closing || shut.0.load(Ordering::Acquire);
        closes.then_some(())
    };
    let accepting = async {
        while rouse::unless(closes, pin!(socket.accept(take)))
            .await
            .is_ok()
        {}
    };
    rouse::listed(pin!(accepting)).await;
    // Their handshakes are over: a close would reset them.
    socket.accept_the_rest(take);
}

fn admit(socket: OwnedFd, peer: SocketAddr, listener: &Arc<Listener>, service: &Arc<Service>) {
    listener.metrics.accepted.inc();
    if service.shed.room() == Room::None {
        return reject(socket, peer, RejectReason::FdPressure, (listener, service));
    }
    let most = service.max_connections.load(Ordering::Relaxed);
    if Listener::take_place(&service.clients, Some(most)) == Taken::Full {
        return reject(socket, peer, RejectReason::GlobalLimit, (listener, service));
    }
    if Listener::take_place(&listener.connections, listener.max_connections) == Taken::Full {
        service.clients.fetch_sub(1, Ordering::Relaxed);
        return reject(
            socket,
            peer,
            RejectReason::ListenerLimit,
            (listener, service),
        );
    }
    if listener.clients.is_some() && introduce::known(listener, peer.ip()) == Known::Later {
        let places = Places::new(listener, service, None);
        return begin(socket, peer, places, Admitted::Undecided);
    }
    let entered = listener
        .lock_clients()
        .map(|mut table| table.enter(peer.ip()));
    let (place, admitted) = match entered {
        None => (None, Admitted::Yes),
        Some(Ok(place)) => (Some(place), Admitted::Yes),
        Some(Err(_)) => {
            listener
                .metrics
                .rejected
                .of(RejectReason::ClientLimit)
                .inc();
            match listener.client_limit_action {
                LimitAction::TooManyRequests => (None, Admitted::No(ProxyError::ClientLimit)),
                LimitAction::Hold => {
                    return hold(socket, peer, Places::new(listener, service, None));
                }
                LimitAction::Close => {
                    drop(Places::new(listener, service, None));
                    count_refused(listener, CloseReason::ClientLimit);
                    return close_aside(socket);
                }
                LimitAction::Reset => {
                    drop(Places::new(listener, service, None));
                    count_refused(listener, CloseReason::ClientLimit);
                    let resets = &service.metrics.resets;
                    resets.of(Side::Client, By::Holdfast, Phase::Connect).inc();
                    return reset(&socket);
                }
            }
        }
    };
    begin(
        socket,
        peer,
        Places::new(listener, service, place),
        admitted,
    );
}

/// Answers 503 in one write that does not wait; then the connection closes, in stages if there are
/// not too many of them.
fn reject(
    socket: OwnedFd,
    _peer: SocketAddr,
    why: RejectReason,
    (listener, service): (&Arc<Listener>, &Arc<Service>),
) {
    listener.metrics.rejected.of(why).inc();
    let (reason, error) = match why {
        RejectReason::ListenerLimit => (CloseReason::ListenerLimit, ProxyError::ListenerLimit),
        RejectReason::FdPressure => (CloseReason::FdPressure, ProxyError::Descriptors),
        _ => (CloseReason::GlobalLimit, ProxyError::GlobalLimit),
    };
    count_refused(listener, reason);
    let mut answer = Vec::with_capacity(512);
    super::reply::error(
        &mut answer,
        error,
        crate::h1::head::Method::Get,
        super::reply::Afterwards::Closes,
        listener.settings.retry_after,
    );
    super::account::count_rejected(service, error);
    let Ok(stream) = Stream::new(socket, Initially::Writable) else {
        return;
    };
    let sent = stream.try_write(&[std::io::IoSlice::new(&answer)]).is_ok();
    if sent && service.shed.room_to_linger() == Room::Some {
        linger_aside(stream);
    }
}

/// A connection that was accepted and got no conversation is closed for a reason like any other.
fn count_refused(listener: &Listener, reason: CloseReason) {
    listener.metrics.closed.of(By::Holdfast, reason).inc();
}

/// Closes in stages: what the client has sent already would make a reset of a plain close.
fn close_aside(socket: OwnedFd) {
    if let Ok(stream) = Stream::new(socket, Initially::Writable) {
        linger_aside(stream);
    }
}

fn linger_aside(stream: Stream) {
    if REFUSED.get() >= REFUSED_LINGERING_MAX {
        return; // in a flood a refusal costs a write and a close, and no descriptor is kept
    }
    let deadline = Deadline::after(REJECT_LINGER);
    REFUSED.set(REFUSED.get() + 1);
    worker::spawn(async move {
        crate::net::linger::linger(stream, REJECT_LINGER_OCTETS, deadline).await;
        REFUSED.set(REFUSED.get().saturating_sub(1));
    });
}

fn hold(socket: OwnedFd, peer: SocketAddr, places: Places) {
    worker::spawn(async move {
        let Ok(stream) = Stream::new(socket, Initially::Writable) else {
            return;
        };
        let deadline = Deadline::after(places.idle_timeout());
        while !deadline.passed() && places.standing() < Standing::Closing {
            if let Some(place) = places.enter(peer) {
                return converse_on(stream, peer, places.with(place), Admitted::Yes).await;
            }
            worker::sleep_until(Deadline::after(HOLD_LOOK)).await;
            if stream.peer_has_ended() || stream.look() == crate::net::reactor::Seen::Closed {
                let reason = match stream.was_reset() {
                    Reset::Yes => CloseReason::PeerRst,
                    Reset::No => CloseReason::PeerFin,
                };
                return places.metrics().closed.of(By::Peer, reason).inc();
            }
        }
        let reason = match places.standing() {
            Standing::Serving | Standing::Announced => CloseReason::ClientLimit,
            Standing::Closing | Standing::Waiting | Standing::Tunnels | Standing::Ended => {
                CloseReason::Drain
            }
        };
        places.metrics().closed.of(By::Holdfast, reason).inc();
        linger_aside(stream);
    });
}

fn begin(socket: OwnedFd, peer: SocketAddr, places: Places, admitted: Admitted) {
    match Stream::new(socket, Initially::Writable) {
        Ok(stream) => worker::spawn(converse_on(stream, peer, places, admitted)),
        Err(_) => drop(places), // no room in epoll: the connection closes
    }
}

/// Serves the connection; a panic costs this connection only, and is counted. No `async fn`: that would
/// have room for what it is given beside the client that it becomes, for as long as that stays.
fn converse_on(
    stream: Stream,
    peer: SocketAddr,
    places: Places,
    admitted: Admitted,
) -> impl Future<Output = ()> + 'static {
    let service = places.service();
    let facts = LiveFacts {
        id: ConnId::next(),
        side: Side::Client,
        peer,
        local: stream.local_address(),
        name: places.name(),
        opened_micros: clock::now_micros(),
    };
    let live = service.live.open(facts, Phase::Idle);
    // Eight octets that lead to its address, instead of the address: they stay as long as it does.
    let shown = live.shared();
    let client = Box::new(Client::new(stream, peer, (places, admitted), live));
    let conversation = AssertUnwindSafe(converse::converse(client)).catch_unwind();
    conversation.map(move |ended| {
        if ended.is_err() {
            tell_panic(&service, shown.facts().peer);
        }
    })
}

fn tell_panic(service: &Service, peer: SocketAddr) {
    service.metrics.panics.inc();
    let message = "a connection's task panicked; only that connection ended";
    let facts: [(&'static str, &dyn std::fmt::Display); 1] = [("client", &peer)];
    let errors = &service.errors;
    errors.log(clock::wall(), Severity::Error, "panic", message, &facts);
}

fn reset(socket: &OwnedFd) {
    let socket = std::os::fd::AsFd::as_fd(socket);
    crate::net::stream::reset_on_close(socket);
}

fn tell(trouble: AcceptTrouble, listener: &Arc<Listener>, service: &Arc<Service>) {
    let word = match trouble {
        AcceptTrouble::ProcessDescriptors => AcceptError::ProcessFiles,
        AcceptTrouble::SystemDescriptors => AcceptError::SystemFiles,
        AcceptTrouble::Memory => AcceptError::Memory,
        AcceptTrouble::Aborted => AcceptError::Aborted,
        AcceptTrouble::Unexpected => AcceptError::Unlisted,
    };
    listener.metrics.accept_errors.of(word).inc();
    if matches!(word, AcceptError::ProcessFiles | AcceptError::SystemFiles) {
        return; // the step that follows from it is told of, once (`app/shedding`)
    }
    let name = &listener.settings.name;
    let message = "a connection could not be accepted";
    let facts: [(&'static str, &dyn std::fmt::Display); 2] =
        [("listener", name), ("error", &trouble.label())];
    service
        .errors
        .log(clock::wall(), Severity::Warn, "accept", message, &facts);
}

thread_local! {
    /// Refused connections of this worker that close in stages.
    static REFUSED: Cell<u32> = const { Cell::new(0) };
}

/// Refused connections that a worker closes in stages at once; more are closed on the spot, whose
/// clients may see a reset instead of the answer.
const REFUSED_LINGERING_MAX: u32 = 64;

/// Between two flushes of the access log.
const LOG_TICK_MILLIS: u64 = 50;

/// Between two thinnings of a worker's shelves: a memory peak is gone in some ten of them.
const THIN_MILLIS: u64 = 1000;

/// How long a refused client's octets are discarded, so that it reads its refusal.
const REJECT_LINGER: Duration = Duration::from_millis(500);

/// How much of them.
const REJECT_LINGER_OCTETS: u64 = 16 * 1024;

/// Between two looks for a free place of a client that is held.
const HOLD_LOOK: Duration = Duration::from_millis(50);
