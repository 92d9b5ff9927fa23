//! What an endpoint's conduct leads to: an ejected one loses its idle connections, one that makes
//! room for others its surplus, and all of them are shown as what they are.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::base::CloseReason;
use crate::net::clock;
use crate::observe::words::EndpointStanding;
use crate::policy::balance::Method;
use crate::policy::balance::ewma;
use crate::policy::health::Change;
use crate::policy::health::Check;
use crate::policy::health::Standing;
use crate::policy::health::Symptom;
use crate::proxy::endpoint::Endpoint;

impl Endpoint {
    /// It answered with this status, in so many microseconds where its upstream balances by them.
    pub fn on_answer(&self, status: u16, micros: Option<u64>) {
        match (Symptom::of_status(status), micros) {
            (Some(symptom), _) => self.on_symptom(symptom),
            (None, None) => self.condition.on_answer(),
            (None, Some(micros)) => {
                self.condition.on_answer();
                self.condition.ewma.observe(micros, clock::now_millis());
            }
        }
    }

    /// It did something wrong.
    pub fn on_symptom(&self, symptom: Symptom) {
        if self.upstream.load().method == Method::Ewma {
            self.condition
                .ewma
                .observe(ewma::FAILED_MICROS, clock::now_millis());
        }
        self.act(self.condition.on_symptom(symptom));
    }

    /// An active check of it ended.
    pub fn on_check(&self, check: Check) {
        self.act(self.condition.on_check(check));
    }

    /// Shows what it is now, and whether it is up.
    pub fn show(&self, leaves: Leaves) {
        let (standing, ..) = self.condition.standing();
        let word = match (leaves, standing) {
            (Leaves::Going, _) => EndpointStanding::Draining,
            (Leaves::Staying, Standing::Well) => EndpointStanding::Healthy,
            (Leaves::Staying, Standing::Ejected(_)) => EndpointStanding::Ejected,
            (Leaves::Staying, Standing::OnTrial(_) | Standing::Warming { .. }) => {
                EndpointStanding::SlowStart
            }
        };
        let mut shown = self
            .condition
            .shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let gauge = self.metrics.endpoint_standings.of(word);
        match &mut shown.state {
            Some(guard) => guard.move_to(gauge),
            None => shown.state = Some(gauge.hold()),
        }
        let is_up = matches!(
            word,
            EndpointStanding::Healthy | EndpointStanding::SlowStart
        );
        match (&shown.up, is_up) {
            (None, true) => shown.up = Some(self.series.up.hold()),
            (Some(_), false) => shown.up = None,
            (Some(_), true) | (None, false) => {}
        }
    }

    /// So many of its idle connections are more than its share, now that others have joined.
    pub fn give_way(&self, surplus: u32) {
        self.surplus.store(surplus, Ordering::Relaxed);
    }

    /// Closes a part of its surplus, those idle for longest first, and never those that `min_idle`
    /// wants. A quarter each look: what is still needed then shows, since it is not idle.
    pub fn close_surplus(&self) {
        let surplus = self.surplus.load(Ordering::Relaxed);
        if surplus == 0 {
            return;
        }
        let mut retired = Vec::new();
        {
            let ledger = &mut self.pool.lock().ledger;
            let spare = ledger.idle().saturating_sub(self.upstream.load().min_idle);
            let now = spare.min(surplus.div_ceil(4));
            ledger.retire_idle(CloseReason::Rebalance, now, &mut retired);
        }
        let closed = u32::try_from(retired.len()).unwrap_or(u32::MAX);
        self.surplus
            .store(surplus.saturating_sub(closed), Ordering::Relaxed);
        self.bury(retired);
    }

    /// Since when its connection idles that does so for longest.
    #[must_use]
    pub fn idle_since(&self) -> Option<Instant> {
        self.pool.lock().ledger.idle_since()
    }

    /// Closes that one; answers how many have closed.
    pub fn close_oldest(&self, reason: CloseReason) -> u64 {
        let mut retired = Vec::new();
        self.pool
            .lock()
            .ledger
            .retire_longest_idle(reason, &mut retired);
        let closed = retired.len() as u64;
        self.bury(retired);
        closed
    }

    fn act(&self, change: Option<Change>) {
        if let Some(Change::Ejected(_)) = change {
            let mut retired = Vec::new();
            let reason = CloseReason::Ejected;
            self.pool
                .lock()
                .ledger
                .retire_all_idle(reason, &mut retired);
            self.bury(retired);
        }
    }
}

/// Whether an endpoint is on its way out of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// It is not.
    Staying,
    /// It is.
    Going,
}
