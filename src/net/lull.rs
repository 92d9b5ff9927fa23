//! A lull: the moment at which a worker has nothing left to do before it sleeps.
//!
//! Who can do a thing now or a little later, and later together with more of its kind, awaits a lull.
//! While the worker is busy that gathers work; once it is not, nothing is kept waiting. A worker that
//! is never idle has one every few turns all the same. Absent on purpose: a clock; a lull is not a
//! time but the want of work.

use std::cell::Cell;
use std::cell::RefCell;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use slab::Slab;

/// A worker's lulls.
struct Lulls {
    awaiting: RefCell<Slab<Waker>>,
    /// Lulls so far.
    count: Cell<u64>,
    /// Turns that brought work since somebody began to wait.
    turns: Cell<u32>,
}

/// A wait for the next lull, given up when dropped.
pub struct Awaited {
    place: usize,
    count: u64,
}

/// What a turn of the worker brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// Tasks to run, or letters.
    Work,
    /// Nothing.
    Nothing,
}

thread_local! {
    static LULLS: Lulls = const {
        Lulls {
            awaiting: RefCell::new(Slab::new()),
            count: Cell::new(0),
            turns: Cell::new(0),
        }
    };
}

impl Awaited {
    /// Has this task woken at this worker's next lull.
    #[must_use]
    pub fn next(context: &Context<'_>) -> Self {
        LULLS.with(|lulls| Self {
            place: lulls.awaiting.borrow_mut().insert(context.waker().clone()),
            count: lulls.count.get(),
        })
    }

    /// Ready once there was one.
    pub fn poll(&self) -> Poll<()> {
        match LULLS.with(|lulls| lulls.count.get()) == self.count {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        // A task that outlives its worker's storage has nobody left to be woken by.
        let _gone = LULLS.try_with(|lulls| lulls.awaiting.borrow_mut().try_remove(self.place));
    }
}

/// Whether anybody awaits a lull, so that the worker must look for work before it sleeps.
pub(super) fn is_awaited() -> bool {
    LULLS.with(|lulls| !lulls.awaiting.borrow().is_empty())
}

/// A turn has passed while somebody waits: it is a lull if it brought nothing, or if many did not.
pub(super) fn after_turn(brought: Brought) {
    LULLS.with(|lulls| {
        let turns = lulls.turns.get() + 1;
        if brought == Brought::Work && turns < TURNS_MAX {
            lulls.turns.set(turns);
            return;
        }
        lulls.turns.set(0);
        lulls.count.set(lulls.count.get() + 1);
        // Waking schedules only; a task runs when this has returned.
        lulls
            .awaiting
            .borrow()
            .iter()
            .for_each(|(_, waker)| waker.wake_by_ref());
    });
}

/// Turns after which a worker that always has work is taken to have a lull. An origin that is near
/// answers within two or three turns of a busy worker, so that work of this kind finds its company.
const TURNS_MAX: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::noop_waker_ref;

    #[test]
    fn a_lull_comes_with_a_turn_that_brings_nothing() {
        let awaited = Awaited::next(&Context::from_waker(noop_waker_ref()));
        after_turn(Brought::Work);
        assert_eq!(awaited.poll(), Poll::Pending);
        after_turn(Brought::Nothing);
        assert_eq!(awaited.poll(), Poll::Ready(()));
    }

    #[test]
    fn a_worker_that_is_never_idle_has_a_lull_all_the_same() {
        let awaited = Awaited::next(&Context::from_waker(noop_waker_ref()));
        (1..TURNS_MAX).for_each(|_| after_turn(Brought::Work));
        assert_eq!(awaited.poll(), Poll::Pending);
        after_turn(Brought::Work);
        assert_eq!(awaited.poll(), Poll::Ready(()));
    }

    #[test]
    fn who_waits_no_more_gives_the_place_back() {
        let awaited = Awaited::next(&Context::from_waker(noop_waker_ref()));
        assert!(is_awaited());
        drop(awaited);
        assert!(!is_awaited());
    }
}
