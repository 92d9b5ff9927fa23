//! A booth: the room that serving a client takes, lent by the worker while octets are in flight.
//!
//! The future of serving is large and that of waiting is small, so an idle connection holds only the
//! latter. Boxing the large one each time cost an allocation a request, the greater part of what the
//! allocator was asked for; a booth keeps its room from one client to the next. Absent on purpose:
//! knowing what serving is, which `converse` says.

use std::cell::Cell;
use std::cell::RefCell;
use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;

use crate::net::shelf::Shelf;
use crate::net::shelf::Thinned;
use crate::observe::words::Drained;
use crate::proxy::client::Client;
use crate::proxy::client::Ending;

/// A client that was served; if its connection ends, how, and as what a drain counts that.
pub type Served = (Box<Client>, Result<(), (Ending, Drained)>);

/// Serves the client in a booth of this worker. Cancel: as `serve`, whose future is dropped.
pub async fn serve_in<S, F>(client: Box<Client>, serve: S) -> Served
where
    S: Fn(Box<Client>) -> F + 'static,
    F: Future<Output = Served> + 'static,
{
    let booth = BOOTHS.with_borrow_mut(Shelf::take);
    let booth = booth.unwrap_or_else(|| Booth::new(serve));
    booth.counter.comes.set(Some(client));
    let mut booth = Occupied(Some(booth));
    poll_fn(|context| booth.poll(context)).await
}

/// Lets go of booths that were not needed lately; the worker asks now and then.
pub fn thin() -> Thinned {
    BOOTHS.with_borrow_mut(Shelf::thin)
}

/// A clerk who serves one client after the other, and the counter between them.
struct Booth {
    counter: Rc<Counter>,
    clerk: Pin<Box<dyn Future<Output = ()>>>,
}

/// Who comes, and who goes.
#[derive(Default)]
struct Counter {
    comes: Cell<Option<Box<Client>>>,
    goes: Cell<Option<Served>>,
}

impl Booth {
    fn new<S, F>(serve: S) -> Self
    where
        S: Fn(Box<Client>) -> F + 'static,
        F: Future<Output = Served> + 'static,
    {
        let counter = Rc::new(Counter::default());
        let clerk = Box::pin(attend(Rc::clone(&counter), serve));
        Self { counter, clerk }
    }
}

/// The clerk's work. It goes on for ever, so that its room is never moved or made anew.
async fn attend<S, F>(counter: Rc<Counter>, serve: S)
where
    S: Fn(Box<Client>) -> F,
    F: Future<Output = Served>,
{
    loop {
        let client = poll_fn(|_| counter.comes.take().map_or(Poll::Pending, Poll::Ready)).await;
        let served = serve(client).await;
        counter.goes.set(Some(served));
    }
}

/// A booth with somebody in it. Once they were served it is free for others; dropped before, or by
/// a panic, it is torn down with what was under way in it.
struct Occupied(Option<Booth>);

impl Occupied {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Served> {
        let Some(booth) = &mut self.0 else {
            return Poll::Pending; // it was answered
        };
        let _goes_on = booth.clerk.as_mut().poll(context);
        let Some(served) = booth.counter.goes.take() else {
            return Poll::Pending;
        };
        if let Some(free) = self.0.take() {
            BOOTHS.with_borrow_mut(|booths| booths.put(free, BOOTHS_KEPT_MAX));
        }
        Poll::Ready(served)
    }
}

thread_local! {
    static BOOTHS: RefCell<Shelf<Booth>> = const { RefCell::new(Shelf::new()) };
}

/// Booths kept by a worker, as many as desks.
const BOOTHS_KEPT_MAX: usize = 1024;
