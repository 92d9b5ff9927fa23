//! The endpoints of one upstream under their total: who waits is served over all their pools.
//!
//! Whoever changes a pool calls `Pool::wake`, and where somebody waits for the total that leads
//! here. Every pool is locked at once for this, in one order, while nobody else holds two; so the
//! oldest is known and nobody overtakes. It costs that only where a total is set and reached.

use crate::base::CloseReason;
use crate::net::clock;
use crate::pool::Ledger;
use crate::pool::house;
use crate::pool::total::Total;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::endpoint::Parked;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;

/// The endpoints that share a total.
#[derive(Default)]
pub struct Household {
    /// The count.
    pub total: Arc<Total>,
    members: Mutex<Vec<Weak<Endpoint>>>,
}

impl Household {
    /// Nobody yet, under this limit.
    #[must_use]
    pub fn new(limit: Option<u32>) -> Self {
        Self {
            total: Arc::new(Total::new(limit)),
            members: Mutex::default(),
        }
    }

    /// One more endpoint. Those that are no more are forgotten.
    pub fn enter(&self, endpoint: &Arc<Endpoint>) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(endpoint));
    }

    /// Serves those who wait for the total, if anybody may.
    pub(super) fn share_out(&self) {
        if self.total.is_waited_for() {
            self.share_out_anyway();
        }
    }

    /// Serves those who wait, whether or not there is a limit now: who joined the line under one
    /// that has gone is nobody else's to serve.
    pub(super) fn share_out_anyway(&self) {
        let mut retired = Vec::new();
        let (endpoints, wakers) = {
            let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
            let endpoints: Vec<_> = members.iter().filter_map(Weak::upgrade).collect();
            let mut states: Vec<_> = endpoints.iter().map(|at| at.pool.lock()).collect();
            let mut ledgers: Vec<&mut Ledger<Parked>> =
                states.iter_mut().map(|state| &mut state.ledger).collect();
            let admitted = house::share_out(&mut ledgers, clock::now(), &mut retired);
            let wakers = admitted
                .into_iter()
                .filter_map(|(at, ticket)| states.get_mut(at)?.waker_of(ticket))
                .collect::<Vec<_>>();
            drop(states);
            drop(members);
            (endpoints, wakers)
        };
        wakers.into_iter().for_each(std::task::Waker::wake);
        for (at, parked, reason) in retired {
            let parked: Parked = parked;
            let reason: CloseReason = reason;
            if let Some(endpoint) = endpoints.get(at) {
                endpoint.close(parked.facts, (&parked.stream).into(), reason);
            }
        }
    }
}
