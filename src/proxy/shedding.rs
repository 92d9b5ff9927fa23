//! Shedding as the workers see it: who is refused, who may rest, and what closes.
//!
//! The control plane looks how many descriptors are open (`look`), when there are many and a few
//! times a second as long as there are; `policy/shedding` decides. Connections to origins that idle
//! close here and then. Clients that rest are told by a moment: who rests since then or longer
//! closes. So a request costs one load, and no list of those who rest is kept.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::base::CloseReason;
use crate::net::clock;
use crate::net::descriptors;
use crate::net::descriptors::News;
use crate::net::descriptors::Room;
use crate::observe::LiveTable;
use crate::policy::budget::Descriptors;
use crate::policy::shedding::Marks;
use crate::policy::shedding::Shedding;
use crate::policy::shedding::Step;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::rouse;

/// What is given up while descriptors run out, shared by all workers.
pub struct Shed {
    machine: Mutex<Shedding>,
    /// What the configuration needs.
    needed: Mutex<Descriptors>,
    refuse_from: AtomicU64,
    linger_below: AtomicU64,
    /// Clients close that rest since this moment or longer, in microseconds since the process began.
    rest_since: AtomicU64,
}

/// What a look came to.
#[derive(Clone, Copy, Debug)]
pub struct Looked {
    /// The step that holds.
    pub step: Step,
    /// Descriptors that were open.
    pub open: u64,
    /// Where the steps are.
    pub marks: Marks,
    /// What had happened until then.
    pub news: News,
}

impl Default for Shed {
    /// Nothing is given up, whatever is open, until it is told what is needed.
    fn default() -> Self {
        Self {
            machine: Mutex::new(Shedding::new(Marks::new(u64::MAX, 0, 0))),
            needed: Mutex::default(),
            refuse_from: AtomicU64::new(u64::MAX),
            linger_below: AtomicU64::new(u64::MAX),
            rest_since: AtomicU64::new(0),
        }
    }
}

impl Shed {
    /// What the configuration needs, from the next look on, which is soon.
    pub fn provide(&self, needed: &Descriptors) {
        *self.needed.lock().unwrap_or_else(PoisonError::into_inner) = *needed;
        descriptors::look_again();
    }

    /// Whether there is room for another client.
    #[must_use]
    pub fn room(&self) -> Room {
        below(&self.refuse_from)
    }

    /// Whether there is room to close one in stages who was refused.
    #[must_use]
    pub fn room_to_linger(&self) -> Room {
        below(&self.linger_below)
    }

    /// Why a client closes that rests since this moment, if it does.
    #[must_use]
    pub fn closes(&self, since_micros: u64) -> Option<CloseReason> {
        let closes = since_micros <= self.rest_since.load(Ordering::Relaxed);
        closes.then_some(CloseReason::FdPressure)
    }

    /// Whether descriptors are not short.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.lock().step() == Step::Calm
    }

    /// Looks how many are open, and closes what is too much. The limit is asked each time: it can be
    /// changed from outside.
    pub fn look(&self, endpoints: &[Arc<Endpoint>], live: &LiveTable) -> Looked {
        let (open, news) = (descriptors::open(), descriptors::news());
        let limit = descriptors::limit().unwrap_or(u64::MAX);
        let needed = *self.needed.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = Marks::new(limit, needed.reserve, needed.beside_the_reserve());
        let (step, surplus) = {
            let mut machine = self.lock();
            machine.set_marks(marks);
            let step = machine.look(open, news.refusals, clock::real());
            (step, machine.surplus(open))
        };
        descriptors::bound(marks.ample(), marks.most());
        self.refuse_from
            .store(marks.refuse(step), Ordering::Relaxed);
        self.linger_below.store(marks.linger(), Ordering::Relaxed);
        let freed = close_idle(endpoints, surplus.idle);
        self.send_away(surplus.clients.saturating_sub(freed), live);
        Looked {
            step,
            open,
            marks,
            news,
        }
    }

    /// Has so many clients close, of those who rest those that do so for longest.
    fn send_away(&self, count: u64, live: &LiveTable) {
        let now = clock::now_micros();
        let rested = u64::try_from(REST_LEAST.as_micros()).unwrap_or(u64::MAX);
        let until = now.saturating_sub(rested);
        if let Some(since) = live.resting_since(count, until) {
            self.rest_since.store(since, Ordering::Relaxed);
            rouse::everyone();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shedding> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn below(mark: &AtomicU64) -> Room {
    match descriptors::open() < mark.load(Ordering::Relaxed) {
        true => Room::Some,
        false => Room::None,
    }
}

/// Closes so many idle connections of all pools, those idle for longest first; answers how many.
fn close_idle(endpoints: &[Arc<Endpoint>], most: u64) -> u64 {
    if most == 0 {
        return 0;
    }
    let heads = endpoints.iter().enumerate();
    let heads = heads.filter_map(|(at, endpoint)| Some(Reverse((endpoint.idle_since()?, at))));
    let mut heads: BinaryHeap<Reverse<(Instant, usize)>> = heads.collect();
    let mut closed = 0;
    while closed < most
        && let Some(Reverse((_, at))) = heads.pop()
        && let Some(endpoint) = endpoints.get(at)
    {
        closed += endpoint.close_oldest(CloseReason::FdPressure);
        heads.extend(endpoint.idle_since().map(|since| Reverse((since, at))));
    }
    closed
}

/// Who has rested for less is spared: the next request follows soon if at all, and a client that
/// has only just come is about to send its first.
const REST_LEAST: Duration = Duration::from_secs(1);
