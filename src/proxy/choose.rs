//! Taking a connection for a request: at a chosen endpoint, else wherever there is room, else in line.

use crate::base::ProxyError;
use crate::base::reason::OpenReason;
use crate::base::reason::Outcome;
use crate::net::Deadline;
use crate::net::dial::DialError;
use crate::net::worker;
use crate::observe::record::Kept;
use crate::observe::record::OriginRecord;
use crate::observe::words::QueueReject;
use crate::policy::balance::Dice;
use crate::policy::balance::Tried;
use crate::policy::retry::MethodClass;
use crate::pool::ledger::Fresh;
use crate::pool::ledger::Lack;
use crate::pool::ledger::Queueing;
use crate::pool::waiters::ClientTurn;
use crate::proxy::checkout::Inspect;
use crate::proxy::checkout::NotAcquired;
use crate::proxy::checkout::Want;
use crate::proxy::desk::Desk;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::exchange::Exchange;
use crate::proxy::lent::Acquired;
use crate::proxy::lent::Lent;
use crate::proxy::lent::Wear;
use crate::proxy::settings::QueueOrder;
use crate::proxy::settings::Reuse;
use crate::proxy::upstream::HeldDown;
use crate::proxy::upstream::InFlight;
use crate::proxy::upstream::Upstream;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

impl Exchange<'_> {
    /// Chooses an endpoint and takes an idle connection there: for most requests all there is to it,
    /// without a future to wait in.
    ///
    /// # Errors
    /// The endpoint that was chosen, if there was one: it has none that suits.
    pub(super) fn reuse<'u>(
        &self,
        desk: &mut Desk,
        upstream: &'u Upstream,
        tried: &Tried,
        occasion: Occasion,
    ) -> Result<Chosen<'u>, Option<(usize, &'u Arc<Endpoint>)>> {
        let chosen = upstream.pick(tried, HeldDown::RatherThanNone, self.key, &mut Fast);
        let (at, endpoint) = chosen.ok_or(None)?;
        let (fresh, _) = self.fresh(upstream, occasion);
        let acquired = endpoint.at_hand(fresh, self.inspect()).ok_or(chosen)?;
        self.note_acquired(desk, upstream, endpoint, &acquired);
        Ok(Chosen::new(acquired, (at, InFlight::at(endpoint))))
    }

    /// Takes a connection: at the chosen endpoint, else wherever there is room, else in line.
    pub(super) async fn acquire<'u>(
        &mut self,
        desk: &mut Desk,
        upstream: &'u Upstream,
        tried: &mut Tried,
        (occasion, mut chosen): (Occasion, Option<(usize, &'u Arc<Endpoint>)>),
    ) -> Result<Chosen<'u>, NotServed> {
        let mut looked = *tried;
        let mut full: Option<(usize, &Arc<Endpoint>)> = None;
        let mut short_until = None;
        let only = match upstream.endpoints.len() {
            1 => IfFull::Wait,
            _ => IfFull::LookElsewhere,
        };
        loop {
            let held_down = match full {
                Some(_) => HeldDown::Never,
                None => HeldDown::RatherThanNone,
            };
            let pick = || upstream.pick(&looked, held_down, self.key, &mut Fast);
            let picked = chosen.take().or_else(pick);
            let (at, endpoint, if_full) = match (picked, full) {
                (Some((at, endpoint)), _) => (at, endpoint, only),
                (None, Some((at, endpoint))) => (at, endpoint, IfFull::Wait),
                (None, None) => return Err(NotServed::NoneLeft),
            };
            let in_flight = InFlight::at(endpoint);
            let want = self.want(upstream, endpoint, (occasion, if_full));
            let acquired = self.while_client_stays(pin!(endpoint.acquire(want))).await;
            match acquired {
                None => {
                    if if_full == IfFull::Wait {
                        upstream
                            .metrics
                            .queue_rejected
                            .of(QueueReject::ClientGone)
                            .inc();
                    }
                    return Err(NotServed::ClientGone);
                }
                Some(Ok(acquired)) => {
                    self.note_acquired(desk, upstream, endpoint, &acquired);
                    return Ok(Chosen::new(acquired, (at, in_flight)));
                }
                Some(Err(NotAcquired::Full)) => {
                    looked.note(at);
                    full = full.or(Some((at, endpoint)));
                }
                // Ours alone, and room comes with the next connection that returns or leaves.
                Some(Err(NotAcquired::Dial(DialError::NoDescriptor)))
                    if !short_until
                        .get_or_insert_with(|| Deadline::after(upstream.settings.queue_timeout))
                        .passed() =>
                {
                    let room = worker::sleep_until(Deadline::after(ROOM_LOOK));
                    let stays = self.while_client_stays(Box::pin(room).as_mut()).await;
                    stays.ok_or(NotServed::ClientGone)?;
                }
                Some(Err(NotAcquired::Dial(error))) => {
                    note_endpoint(desk, upstream, endpoint);
                    tried.note(at);
                    return Err(NotServed::Dial(error));
                }
                Some(Err(NotAcquired::QueueFull(lack))) => {
                    upstream.metrics.queue_rejected.of(QueueReject::Full).inc();
                    upstream.metrics.requests.of(Outcome::Rejected).inc();
                    return Err(NotServed::Error(in_vain(lack, ProxyError::QueueFull)));
                }
                Some(Err(NotAcquired::QueueTimeout { lack, queued })) => {
                    desk.record.timeline.queue += micros(queued);
                    upstream
                        .metrics
                        .queue_rejected
                        .of(QueueReject::Timeout)
                        .inc();
                    upstream.metrics.requests.of(Outcome::Rejected).inc();
                    return Err(NotServed::Error(in_vain(lack, ProxyError::QueueTimeout)));
                }
                Some(Err(NotAcquired::Closed)) => {
                    looked.note(at);
                    full = full.filter(|(place, _)| *place != at);
                }
            }
        }
    }

    fn want(
        &self,
        upstream: &Upstream,
        endpoint: &Arc<Endpoint>,
        (occasion, if_full): (Occasion, IfFull),
    ) -> Want {
        let settings = &upstream.settings;
        let (fresh, why) = self.fresh(upstream, occasion);
        let queue = match if_full {
            IfFull::Wait => {
                let elsewhere = match upstream.endpoints.len() {
                    1 => 0,
                    _ => upstream.waiting_elsewhere(endpoint),
                };
                Queueing::Allowed {
                    max_pending: settings.max_pending.saturating_sub(elsewhere),
                }
            }
            IfFull::LookElsewhere => Queueing::Refused,
        };
        let client = match settings.queue {
            QueueOrder::Fifo => ClientTurn::default(),
            QueueOrder::Fair => turn_of(self.client.address.ip()),
        };
        Want {
            fresh,
            queue,
            client,
            until: Deadline::after(settings.queue_timeout),
            why,
            inspect: self.inspect(),
        }
    }

    /// Which connections suit, and why one would be opened if not for want of an idle one.
    fn fresh(&self, upstream: &Upstream, occasion: Occasion) -> (Fresh, Option<OpenReason>) {
        let settings = &upstream.settings;
        let first_of_client = settings.reuse == Reuse::Safe && self.judged.nth <= 1;
        match settings.reuse {
            _ if occasion == Occasion::Retry => (Fresh::Only, Some(OpenReason::Retry)),
            Reuse::Never => (Fresh::Only, Some(OpenReason::NeverMode)),
            Reuse::Safe if first_of_client => (Fresh::Only, Some(OpenReason::NeverMode)),
            Reuse::Safe | Reuse::Always => match self.method {
                MethodClass::Unsafe => (Fresh::IdleLessThan(settings.unsafe_max_idle), None),
                MethodClass::Idempotent => (Fresh::Any, None),
            },
        }
    }

    /// How closely an idle one is looked at.
    fn inspect(&self) -> Inspect {
        match self.method {
            MethodClass::Unsafe => Inspect::Socket,
            MethodClass::Idempotent => Inspect::Seen,
        }
    }

    /// Counts the request under how it came by its connection, and tells the log.
    fn note_acquired(
        &self,
        desk: &mut Desk,
        upstream: &Upstream,
        endpoint: &Arc<Endpoint>,
        acquired: &Acquired,
    ) {
        upstream.metrics.requests.of(acquired.outcome).inc();
        if !self.client.service.access_log.is_off() {
            note_origin(desk, upstream, endpoint, acquired);
        }
    }
}

/// Clients are told apart by address, an IPv6 one by its network: it may have as many as it likes.
fn turn_of(client: IpAddr) -> ClientTurn {
    ClientTurn(match client.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        // The first half is the network's.
        IpAddr::V6(address) => {
            u64::try_from(address.to_bits() >> 64).unwrap_or(u64::MAX) ^ (1 << 63)
        }
    })
}

/// A connection that was had, at this endpoint.
pub(super) struct Chosen<'u> {
    pub(super) lent: Lent,
    pub(super) wear: Wear,
    pub(super) at: usize,
    /// Counts the request there as long as this lives.
    _in_flight: InFlight<'u>,
}

impl<'u> Chosen<'u> {
    fn new(acquired: Acquired, (at, in_flight): (usize, InFlight<'u>)) -> Self {
        Self {
            wear: acquired.wear(),
            lent: acquired.lent,
            at,
            _in_flight: in_flight,
        }
    }
}

/// What a connection is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// For an attempt of which nothing is known yet, or whose request was never sent: any will do.
    First,
    /// For a request that was sent already: only a fresh one will do, since a second stale one
    /// would teach nothing.
    Retry,
}

/// What a request does at an endpoint that has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfFull {
    /// It stands in line.
    Wait,
    /// It goes to another endpoint first.
    LookElsewhere,
}

/// Why no connection was had.
pub(super) enum NotServed {
    /// The client left.
    ClientGone,
    /// There is none.
    Error(ProxyError),
    /// Every endpoint was tried.
    NoneLeft,
    /// A connect failed.
    Dial(DialError),
}

pub(super) fn dial_error(error: &DialError) -> ProxyError {
    match error {
        DialError::Refused => ProxyError::ConnectRefused,
        DialError::TimedOut => ProxyError::ConnectTimeout,
        DialError::Unreachable => ProxyError::ConnectUnreachable,
        DialError::NoPort => ProxyError::LocalPorts,
        DialError::NoDescriptor => ProxyError::Descriptors,
        DialError::Io(_) => ProxyError::ConnectFailed,
    }
}

fn note_endpoint(desk: &mut Desk, upstream: &Upstream, endpoint: &Arc<Endpoint>) {
    desk.record.origin = Some(OriginRecord {
        upstream: upstream.settings.name.clone(),
        endpoint: Some(endpoint.address),
        conn: None,
        nth: 0,
        outcome: None,
        opened: None,
        idle: None,
        kept: Kept::Never,
    });
}

fn note_origin(
    desk: &mut Desk,
    upstream: &Upstream,
    endpoint: &Arc<Endpoint>,
    acquired: &Acquired,
) {
    desk.record.origin = Some(OriginRecord {
        upstream: upstream.settings.name.clone(),
        endpoint: Some(endpoint.address),
        conn: acquired.lent.id(),
        nth: acquired.lent.nth() + 1,
        outcome: Some(acquired.outcome),
        opened: acquired.opened,
        idle: acquired.idle,
        kept: Kept::Persists,
    });
    desk.record.timeline.queue += micros(acquired.queued);
    desk.record.timeline.connect += micros(acquired.connecting);
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Between two looks for a descriptor, of a request that could not have one. No line is kept: who is
/// served first matters less than that descriptors are given up for it meanwhile.
const ROOM_LOOK: Duration = Duration::from_millis(20);

/// What a request is told that waited in vain or might not wait.
fn in_vain(lack: Lack, otherwise: ProxyError) -> ProxyError {
    match lack {
        Lack::Connection => otherwise,
        Lack::Port => ProxyError::LocalPorts,
    }
}

/// The dice of the data plane: quick and good enough to choose among endpoints.
pub(super) struct Fast;

impl Dice for Fast {
    fn below(&mut self, bound: u32) -> u32 {
        if bound == 0 {
            0
        } else {
            fastrand::u32(..bound)
        }
    }
}
