//! Waking tasks that wait for a peer, when something else has changed that they should look at.
//!
//! Each worker keeps the wakers of its tasks that asked for it. A task that is roused looks, finds
//! that it is called or not, and waits on. Rare: stages of a drain, listeners that go.

use std::cell::Cell;
use std::cell::RefCell;
use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use slab::Slab;

use crate::net::worker;

thread_local! {
    static LISTED: RefCell<Slab<Waker>> = const { RefCell::new(Slab::new()) };
}

/// Rouses every such task of every worker.
pub fn everyone() {
    for address in worker::all() {
        address.post(|| {
            // Waking schedules only; a task runs when this has returned.
            LISTED.with_borrow(|listed| listed.iter().for_each(|(_, waker)| waker.wake_by_ref()));
        });
    }
}

/// Awaits `future` unless `call` says that there is something else to do; it is asked before
/// anything and each time the task is roused. For a task that is [`listed`]. Pinned by the caller:
/// the future of an exchange is some kilobytes, which would be copied for being handed in.
/// Cancel: whatever `future` does when dropped.
///
/// # Errors
/// What `call` said; `future` is to be dropped then.
pub async fn unless<T, C>(
    call: impl Fn() -> Option<C>,
    mut future: Pin<&mut impl Future<Output = T>>,
) -> Result<T, C> {
    poll_fn(|context| match call() {
        Some(called) => Poll::Ready(Err(called)),
        None => future.as_mut().poll(context).map(Ok),
    })
    .await
}

/// Awaits `future`, whose task is roused meanwhile. To be awaited by a task itself, for its waker
/// is noted once, and not anew for all that it waits for. Pinned by the caller: handed in, it would
/// take its room twice for as long as the task waits.
/// Cancel: whatever `future` does when dropped.
pub async fn listed<T>(mut future: Pin<&mut impl Future<Output = T>>) -> T {
    let listed = Listed(Cell::new(None));
    poll_fn(|context| {
        listed.note(context);
        future.as_mut().poll(context)
    })
    .await
}

/// A place among those to be roused, given back when dropped.
struct Listed(Cell<Option<usize>>);

impl Listed {
    fn note(&self, context: &Context<'_>) {
        if self.0.get().is_none() {
            let waker = context.waker().clone();
            self.0
                .set(Some(LISTED.with_borrow_mut(|listed| listed.insert(waker))));
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        if let Some(place) = self.0.get() {
            // A task that outlives its worker's storage has nobody left to be roused by.
            let _gone = LISTED.try_with(|listed| listed.borrow_mut().try_remove(place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering;
    use std::sync::mpsc;

    #[test]
    fn a_task_that_waits_for_ever_hears_the_call_and_gives_its_place_back() {
        let called = Arc::new(AtomicBool::new(false));
        let (theirs, (tell, told)) = (Arc::clone(&called), mpsc::channel());
        let ready = tell.clone();
        let begin = move || {
            worker::spawn(async move {
                let waits = Rc::new(());
                let held = Rc::clone(&waits);
                let for_ever = async move {
                    ready.send(None).unwrap();
                    std::future::pending::<()>().await;
                    drop(held);
                };
                let call = || theirs.load(Ordering::SeqCst).then_some(7);
                let heard = listed(pin!(unless(call, pin!(for_ever)))).await;
                let listed = LISTED.with_borrow(Slab::len);
                tell.send(Some((heard, Rc::strong_count(&waits), listed)))
                    .unwrap();
                worker::stop();
            });
        };
        let thread = std::thread::spawn(move || worker::run(77, begin).unwrap());
        assert_eq!(told.recv().unwrap(), None);
        called.store(true, Ordering::SeqCst);
        everyone();
        assert_eq!(told.recv().unwrap(), Some((Err(7), 1, 0)));
        thread.join().unwrap();
    }
}
