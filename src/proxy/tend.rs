//! Care for connections between requests: parked ones that die, idle limits that pass, and those
//! that are kept ready.
//!
//! Each worker watches the connections registered with its epoll. One task of the first worker
//! retires what has been idle too long; while nothing is idle it sleeps without a deadline, so an
//! idle process does not wake.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use futures::task::AtomicWaker;

use crate::base::ConnId;
use crate::net::Deadline;
use crate::net::Stream;
use crate::net::clock;
use crate::net::reactor::Reactor;
use crate::net::worker;
use crate::observe::words::IdleLimitSource;
use crate::policy::idle_learning::IdleSource;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::endpoint::Facts;
use crate::proxy::pulse::Pulse;

thread_local! {
    /// By place in this worker's reactor: whose connection it is.
    static WATCHED: RefCell<Vec<Option<Watched>>> = const { RefCell::new(Vec::new()) };
}

/// Whose connection, which, and its pulse where that is taken.
#[derive(Clone)]
struct Watched {
    endpoint: Weak<Endpoint>,
    id: ConnId,
    pulse: Weak<Pulse>,
}

static EXPIRY_WAKER: AtomicWaker = AtomicWaker::new();
static EXPIRY_SLEEPS: AtomicBool = AtomicBool::new(false);

/// Has this worker notice when the stream stirs while it is parked.
pub(super) fn watch(stream: &Stream, endpoint: &Arc<Endpoint>, facts: &Facts) {
    let place = stream.key().place() as usize;
    WATCHED.with_borrow_mut(|watched| {
        if watched.len() <= place {
            watched.resize_with(place + 1, || None);
        }
        if let Some(slot) = watched.get_mut(place) {
            *slot = Some(Watched {
                endpoint: Arc::downgrade(endpoint),
                id: facts.live.facts().id,
                pulse: facts.pulse.as_ref().map_or_else(Weak::new, Arc::downgrade),
            });
        }
    });
}

/// Something was parked: the expiry task must not sleep through its limit.
pub fn on_parked() {
    if EXPIRY_SLEEPS.load(Ordering::Relaxed) && EXPIRY_SLEEPS.swap(false, Ordering::AcqRel) {
        EXPIRY_WAKER.wake();
    }
}

/// Retires parked connections of this worker that die. Runs as long as the worker.
pub async fn bury_the_dead(reactor: Rc<Reactor>) {
    let mut keys = Vec::new();
    loop {
        poll_fn(|context| reactor.poll_stirred(&mut keys, context)).await;
        for key in keys.drain(..) {
            let who = WATCHED
                .with_borrow(|watched| watched.get(key.place() as usize).and_then(Clone::clone));
            if let Some(who) = who
                && let Some(endpoint) = who.endpoint.upgrade()
            {
                endpoint.on_parked_stir(who.id);
            }
        }
    }
}

/// Takes the pulse of this worker's connections to origins, each once an `interval`, a few at a
/// time so that nobody waits for it. Runs as long as the worker.
pub async fn take_pulses(interval: Duration) {
    loop {
        worker::sleep_until(Deadline::after(interval)).await;
        let count = WATCHED.with_borrow(Vec::len);
        for first in (0..count).step_by(PULSES_A_TURN) {
            // Only looked up in the loan: what a pulse does may not come back here.
            let pulses: Vec<_> = WATCHED.with_borrow(|watched| {
                let some = watched.iter().skip(first).take(PULSES_A_TURN);
                some.flatten()
                    .filter_map(|who| who.pulse.upgrade())
                    .collect()
            });
            pulses.iter().for_each(|pulse| pulse.take_if_due(interval));
            worker::yield_now().await;
        }
    }
}

/// Retires connections that have been idle too long, at every endpoint that `endpoints` gives.
/// Runs on one worker, as long as the process.
pub async fn expire_the_idle(endpoints: impl Fn() -> Vec<Arc<Endpoint>>) {
    loop {
        let look_most = {
            let endpoints = endpoints();
            endpoints.iter().for_each(|at| at.close_surplus());
            let due = endpoints.iter().filter_map(|endpoint| {
                Some((endpoint.expire()?, endpoint.upstream.load().idle.margin))
            });
            let due = due.reduce(|one, other| (one.0.min(other.0), one.1.min(other.1)));
            tell_idle_limits(&endpoints);
            // What is parked meanwhile must leave before its origin closes it, half a margin at
            // most after its time.
            due.map(|(next, margin)| (next, LOOK_MOST.min(margin / 2).max(LOOK_LEAST)))
        };
        match look_most {
            Some((next, most)) => {
                let wait = next.saturating_duration_since(clock::now()).max(LOOK_LEAST);
                worker::sleep_until(Deadline::after(wait.min(most))).await;
            }
            None => until_parked(&endpoints).await,
        }
    }
}

/// Keeps `min_idle` connections ready at every endpoint that `endpoints` gives. Runs on one worker,
/// as long as the process; nobody starts it where none are wanted.
pub async fn keep_warm(endpoints: impl Fn() -> Vec<Arc<Endpoint>>) {
    loop {
        for endpoint in endpoints() {
            endpoint.keep_warm();
        }
        worker::sleep_until(Deadline::after(LOOK_MOST)).await;
    }
}

/// Shows the idle limits in force: of each source the least of an upstream's endpoints.
fn tell_idle_limits(endpoints: &[Arc<Endpoint>]) {
    for of_upstream in endpoints.chunk_by(|one, other| Arc::ptr_eq(&one.metrics, &other.metrics)) {
        let limits: Vec<_> = of_upstream
            .iter()
            .map(|endpoint| endpoint.pool.counts())
            .map(|counts| (counts.idle_source, counts.idle_limit))
            .collect();
        for (source, word) in SOURCES {
            let limits = limits.iter().filter(|(of, _)| *of == source);
            let least = limits.map(|(_, limit)| limit.as_secs_f64());
            let level = least.reduce(f64::min).unwrap_or(0.0);
            if let Some(endpoint) = of_upstream.first() {
                endpoint.metrics.idle_limit.of(word).set(level);
            }
        }
    }
}

async fn until_parked(endpoints: &impl Fn() -> Vec<Arc<Endpoint>>) {
    let mut asleep = false;
    poll_fn(|context| {
        if asleep && !EXPIRY_SLEEPS.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        EXPIRY_WAKER.register(context.waker());
        EXPIRY_SLEEPS.store(true, Ordering::Release);
        asleep = true;
        // One may have been parked between the last look and the store.
        if endpoints()
            .iter()
            .map(|endpoint| endpoint.pool.counts())
            .any(|counts| counts.idle + counts.canaries > 0)
        {
            EXPIRY_SLEEPS.store(false, Ordering::Release);
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

/// The sources of idle limits, and how the metrics call them.
const SOURCES: [(IdleSource, IdleLimitSource); 4] = [
    (IdleSource::Config, IdleLimitSource::Config),
    (IdleSource::Hint, IdleLimitSource::Hint),
    (IdleSource::Learned, IdleLimitSource::Learned),
    (IdleSource::Floor, IdleLimitSource::Floor),
];

/// Pulses taken before others get their turn: at some 0.5 µs each, less than a busy turn takes.
const PULSES_A_TURN: usize = 128;

/// The least time between two looks: idle limits are exact to this.
const LOOK_LEAST: Duration = Duration::from_millis(20);

/// The most, so that a limit shortened meanwhile is seen; and how often those kept ready are counted.
const LOOK_MOST: Duration = Duration::from_millis(1000);
