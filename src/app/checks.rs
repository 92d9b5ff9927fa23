//! Active checks: every endpoint of an upstream with `health.active_path` is asked, again and again.
//!
//! One task of the control plane for each endpoint under check, at times that differ, so that an
//! upstream's origins are not all asked at once. A look at the plan each second finds endpoints that
//! joined, and upstreams that a reload has put under check; the task of one that left ends by itself.
//! Nothing of it is on the way of a request.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;

use crate::base::CloseReason;
use crate::base::close::Close;
use crate::base::names::Name;
use crate::base::reason::OpenReason;
use crate::base::reason::Phase;
use crate::base::reason::Side;
use crate::config::Settings;
use crate::config::settings::upstream::Health;
use crate::config::settings::values::StatusRange;
use crate::net::control;
use crate::net::probe;
use crate::net::probe::Probed;
use crate::policy::health::Check;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::service::Service;

/// What is checked, as the configuration in effect has it.
#[derive(Default)]
pub struct Checked(Mutex<Arc<BTreeMap<Name, Arc<Plan>>>>);

impl Checked {
    /// What these settings want checked.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let checked = Self::default();
        checked.set(settings);
        checked
    }

    /// What these settings want checked, from now on.
    pub fn set(&self, settings: &Settings) {
        let each = settings.upstreams.iter().filter_map(|upstream| {
            let path = upstream.health.active_path.clone()?;
            let plan = Plan::of(&upstream.health, path);
            Some((upstream.name.clone(), Arc::new(plan)))
        });
        *self.lock() = Arc::new(each.collect());
    }

    fn now(&self) -> Arc<BTreeMap<Name, Arc<Plan>>> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<BTreeMap<Name, Arc<Plan>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks for ever, whatever is to be checked.
pub async fn run(checked: &Arc<Checked>, service: &Arc<Service>) {
    let mut known: BTreeSet<Key> = BTreeSet::new();
    let mut coming: FuturesUnordered<LocalBoxFuture<'static, Event>> = FuturesUnordered::new();
    coming.push(Box::pin(async { Event::Look }));
    while let Some(event) = coming.next().await {
        match event {
            Event::Look => {
                for name in checked.now().keys() {
                    begin(service, (name, checked), &mut known, &coming);
                }
                coming.push(Box::pin(async {
                    control::sleep(LOOK_EVERY).await;
                    Event::Look
                }));
            }
            Event::Left(key) => {
                known.remove(&key);
            }
        }
    }
}

/// What is asked of an upstream's endpoints.
struct Plan {
    path: String,
    interval: Duration,
    timeout: Duration,
    expected: Vec<StatusRange>,
}

/// An endpoint under check: its upstream, its address, and its name there.
type Key = (Name, SocketAddr, String);

enum Event {
    /// It is time to look for endpoints that joined.
    Look,
    /// An endpoint is no longer in the plan.
    Left(Key),
}

impl Plan {
    fn of(health: &Health, path: String) -> Self {
        Self {
            path,
            interval: health.interval,
            timeout: health.timeout,
            expected: health.expected_status.clone(),
        }
    }

    /// What an ended check says; `None` where it says nothing of the endpoint.
    fn judge(&self, probed: Probed) -> Option<Check> {
        match probed {
            Probed::Status(status) if self.expected.iter().any(|range| range.contains(status)) => {
                Some(Check::Passed)
            }
            Probed::Status(_) | Probed::Unanswered | Probed::NotConnected => Some(Check::Failed),
            Probed::Ours => None,
        }
    }

    async fn check(&self, endpoint: &Endpoint) {
        let asked = (endpoint.host.as_str(), self.path.as_str());
        let metrics = &endpoint.metrics;
        let connected = Cell::new(false);
        let opened = || {
            metrics.opened.of(OpenReason::Health).inc();
            connected.set(true);
        };
        let settings = endpoint.upstream.load();
        let to = (endpoint.address, &settings.dial);
        let (probed, heard) = probe::probe(to, asked, self.timeout, opened).await;
        if connected.get() {
            let phase = match probed {
                Probed::Status(_) => Phase::Idle,
                Probed::Unanswered | Probed::NotConnected | Probed::Ours => Phase::Wait,
            };
            let close = Close::of_origin(CloseReason::CheckDone, heard, phase);
            metrics.closed.of(close.by, close.reason).inc();
            endpoint.process.count_close(Side::Upstream, close);
        }
        if let Some(check) = self.judge(probed) {
            endpoint.on_check(check);
        }
    }
}

/// Begins to check those that are not checked yet.
fn begin(
    service: &Arc<Service>,
    (name, checked): (&Name, &Arc<Checked>),
    known: &mut BTreeSet<Key>,
    coming: &FuturesUnordered<LocalBoxFuture<'static, Event>>,
) {
    let now = service.plan();
    let Some(upstream) = now.upstream(name) else {
        return;
    };
    for endpoint in &upstream.endpoints {
        let key = (name.clone(), endpoint.address, endpoint.host.clone());
        if known.insert(key.clone()) {
            let checking = check_while_there(Arc::clone(service), Arc::clone(checked), key);
            coming.push(Box::pin(checking));
        }
    }
}

async fn check_while_there(service: Arc<Service>, checked: Arc<Checked>, key: Key) -> Event {
    let plan = || checked.now().get(&key.0).map(Arc::clone);
    let first = plan().map_or(FIRST_WITHIN, |plan| plan.interval.min(FIRST_WITHIN));
    control::sleep(first.mul_f64(fastrand::f64())).await;
    loop {
        let Some(plan) = plan() else {
            return Event::Left(key);
        };
        // By address and not by hand: a reload may have made the endpoint anew.
        let endpoint = service.plan().upstream(&key.0).and_then(|upstream| {
            let mut endpoints = upstream.endpoints.iter();
            let found = endpoints.find(|at| at.address == key.1 && at.host == key.2);
            found.map(Arc::clone)
        });
        let Some(endpoint) = endpoint else {
            return Event::Left(key);
        };
        plan.check(&endpoint).await;
        drop(endpoint);
        // A tenth either way keeps those apart that began together.
        control::sleep(plan.interval.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// The first check comes within this, at any moment of it: an operator who starts a process sees soon
/// what it is worth, and many processes started together do not check together.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// How soon an endpoint that joined is checked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_trouble_is_no_failed_check() {
        let plan = Plan {
            path: "/".to_owned(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            expected: vec![StatusRange::parse("200-299").unwrap()],
        };
        assert_eq!(plan.judge(Probed::Ours), None);
        assert_eq!(plan.judge(Probed::Status(204)), Some(Check::Passed));
        for failed in [
            Probed::Status(302),
            Probed::Unanswered,
            Probed::NotConnected,
        ] {
            assert_eq!(plan.judge(failed), Some(Check::Failed));
        }
    }
}
