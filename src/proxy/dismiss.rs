//! A connection that an operator wants closed: told so, and closed by whoever has it.
//!
//! A client's is closed at once, whatever it is doing, with the exchange or tunnel on it. An origin's
//! is closed at once if it is parked, else when its request is over: who asked is not to suffer.

use crate::base::CloseReason;
use crate::base::ConnId;
use crate::base::reason::Side;
use crate::net::clock;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::rouse;
use crate::proxy::service::Service;

/// Has the connection with this number closed. `None`: there is none.
#[must_use]
pub fn dismiss(service: &Service, id: ConnId) -> Option<Side> {
    let conn = service.live.find(id)?;
    // First, so that whoever has it sees this before it parks it.
    conn.dismiss();
    let side = conn.facts().side;
    match side {
        Side::Client => rouse::everyone(),
        Side::Upstream => {
            let plan = service.plan();
            let endpoints = plan.upstreams.iter().flat_map(|of| &of.endpoints);
            endpoints.for_each(|endpoint| endpoint.close_parked(id));
        }
    }
    Some(side)
}

impl Endpoint {
    fn close_parked(&self, id: ConnId) {
        let reason = CloseReason::Admin;
        let removed = self
            .pool
            .lock()
            .ledger
            .remove_idle(id, reason, clock::now());
        if let Some(removed) = removed {
            let parked = removed.conn;
            self.close(parked.facts, (&parked.stream).into(), reason);
            self.pool.wake(removed.wake);
        }
    }
}
