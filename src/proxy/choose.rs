//! Taking a connection for a request: at a chosen endpoint, else wherever there is room, else in line.

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::base::reason::OpenReason;
use crate::base::reason::Outcome;
use crate::net::Deadline;
use crate::net::dial::DialError;
use crate::observe::record::Kept;
use crate::observe::record::OriginRecord;
use crate::observe::words::QueueReject;
use crate::policy::balance::Dice;
use crate::policy::balance::Tried;
use crate::policy::retry::MethodClass;
use crate::pool::ledger::Fresh;
use crate::pool::ledger::Queueing;
use crate::proxy::checkout::Inspect;
use crate::proxy::checkout::NotAcquired;
use crate::proxy::checkout::Want;
use crate::proxy::desk::Desk;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::exchange::Exchange;
use crate::proxy::lent::Acquired;
use crate::proxy::settings::Reuse;
use crate::proxy::upstream::HeldDown;
use crate::proxy::upstream::InFlight;
use crate::proxy::upstream::Upstream;
use std::sync::Arc;
use std::time::Duration;

impl Exchange<'_> {
    /// Takes a connection: at a chosen endpoint, else wherever there is room, else in line.
    pub(super) async fn acquire<'u>(
        &mut self,
        desk: &mut Desk,
        upstream: &'u Upstream,
        tried: &mut Tried,
        retry: bool,
    ) -> Result<(Acquired, usize, InFlight<'u>), NotServed> {
        let mut looked = *tried;
        let mut full: Option<(usize, &Arc<Endpoint>)> = None;
        let only = upstream.endpoints.len() == 1;
        loop {
            let held_down = match full {
                Some(_) => HeldDown::Never,
                None => HeldDown::RatherThanNone,
            };
            let picked = upstream.pick(&looked, held_down, &mut Fast);
            let (at, endpoint, may_wait) = match (picked, full) {
                (Some((at, endpoint)), _) => (at, endpoint, only),
                (None, Some((at, endpoint))) => (at, endpoint, true),
                (None, None) => return Err(NotServed::NoneLeft),
            };
            let in_flight = InFlight::at(endpoint);
            let want = self.want(upstream, endpoint, (retry, may_wait));
            let acquired = self.while_client_stays(endpoint.acquire(want)).await;
            match acquired {
                None => {
                    if may_wait {
                        upstream
                            .metrics
                            .queue_rejected
                            .of(QueueReject::ClientGone)
                            .inc();
                    }
                    return Err(NotServed::ClientGone);
                }
                Some(Ok(acquired)) => {
                    upstream.metrics.requests.of(acquired.outcome).inc();
                    if !self.client.service.access_log.is_off() {
                        note_origin(desk, upstream, endpoint, &acquired);
                    }
                    return Ok((acquired, at, in_flight));
                }
                Some(Err(NotAcquired::Full)) => {
                    looked.note(at);
                    full = full.or(Some((at, endpoint)));
                }
                Some(Err(NotAcquired::Dial(error))) => {
                    note_endpoint(desk, upstream, endpoint);
                    tried.note(at);
                    return Err(NotServed::Dial(error));
                }
                Some(Err(NotAcquired::QueueFull)) => {
                    upstream.metrics.queue_rejected.of(QueueReject::Full).inc();
                    upstream.metrics.requests.of(Outcome::Rejected).inc();
                    return Err(NotServed::Error(ProxyError::QueueFull));
                }
                Some(Err(NotAcquired::QueueTimeout)) => {
                    upstream
                        .metrics
                        .queue_rejected
                        .of(QueueReject::Timeout)
                        .inc();
                    upstream.metrics.requests.of(Outcome::Rejected).inc();
                    return Err(NotServed::Error(ProxyError::QueueTimeout));
                }
                Some(Err(NotAcquired::Closed)) => {
                    looked.note(at);
                    full = full.filter(|(place, _)| *place != at);
                }
            }
        }
    }

    pub(super) fn want(
        &self,
        upstream: &Upstream,
        endpoint: &Arc<Endpoint>,
        (retry, may_wait): (bool, bool),
    ) -> Want {
        let settings = &upstream.settings;
        let first_of_client = settings.reuse == Reuse::Safe && self.judged.nth <= 1;
        let unsafe_method = self.method == MethodClass::Unsafe;
        let (fresh, why) = match settings.reuse {
            _ if retry => (Fresh::Only, Some(OpenReason::Retry)),
            Reuse::Never => (Fresh::Only, Some(OpenReason::NeverMode)),
            Reuse::Safe if first_of_client => (Fresh::Only, Some(OpenReason::NeverMode)),
            Reuse::Safe | Reuse::Always if unsafe_method => {
                (Fresh::IdleLessThan(settings.unsafe_max_idle), None)
            }
            Reuse::Safe | Reuse::Always => (Fresh::Any, None),
        };
        let queue = match may_wait {
            true => {
                let elsewhere = match upstream.endpoints.len() {
                    1 => 0,
                    _ => upstream.waiting_elsewhere(endpoint),
                };
                Queueing::Allowed {
                    max_pending: settings.max_pending.saturating_sub(elsewhere),
                }
            }
            false => Queueing::Refused,
        };
        let inspect = if unsafe_method {
            Inspect::Socket
        } else {
            Inspect::Seen
        };
        Want {
            fresh,
            queue,
            until: Deadline::after(settings.queue_timeout),
            why,
            inspect,
        }
    }
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
        outcome: Outcome::Rejected,
        opened: None,
        idle: None,
        kept: Kept::Closed(CloseReason::IoError),
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
        outcome: acquired.outcome,
        opened: acquired.opened,
        idle: acquired.idle,
        kept: Kept::Persists,
    });
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    desk.record.timeline.queue += micros(acquired.queued);
    desk.record.timeline.connect += micros(acquired.connecting);
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
