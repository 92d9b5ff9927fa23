//! A booth: the room that serving a client takes, lent by the worker while octets are in flight.
//!
//! The future of serving is large and that of waiting is small, so an idle connection holds only the
//! latter. Boxing the large one each time cost an allocation a request, the greater part of what the
//! allocator was asked for; a booth keeps its room from one client to the next. Absent on purpose:
//! knowing what serving is, which `converse` says.

use std::cell::RefCell;
use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use crate::net::shelf::Shelf;
use crate::net::shelf::Thinned;
use crate::proxy::client::Client;
use crate::proxy::client::Ending;

/// A client that was served, and how its connection ends if it does.
pub type Served = (Box<Client>, Result<(), Ending>);

/// Serves the client in a booth of this worker. Cancel: as `serve`, whose future is dropped.
pub async fn serve_in<F>(client: Box<Client>, serve: fn(Box<Client>) -> F) -> Served
where
    F: Future<Output = Served> + 'static,
{
    let booth = BOOTHS.with_borrow_mut(Shelf::take);
    let mut booth = Occupied(Some(booth.unwrap_or_else(|| Box::new(Booth::new(serve)))));
    if let Some(booth) = &mut booth.0 {
        booth.enter(client);
    }
    poll_fn(|context| match &mut booth.0 {
        Some(booth) => booth.poll(context),
        None => Poll::Pending, // it is there until it is dropped
    })
    .await
}

/// Lets go of booths that were not needed lately; the worker asks now and then.
pub fn thin() -> Thinned {
    BOOTHS.with_borrow_mut(Shelf::thin)
}

/// The room of one future, whatever its type: the room stays where it is, the future comes and goes.
trait Room {
    fn enter(&mut self, client: Box<Client>);
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Served>;
    fn leave(&mut self);
}

struct Booth<F> {
    serve: fn(Box<Client>) -> F,
    future: Pin<Box<Option<F>>>,
}

impl<F> Booth<F> {
    fn new(serve: fn(Box<Client>) -> F) -> Self {
        Self {
            serve,
            future: Box::pin(None),
        }
    }
}

impl<F: Future<Output = Served>> Room for Booth<F> {
    fn enter(&mut self, client: Box<Client>) {
        self.future.set(Some((self.serve)(client)));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Served> {
        match self.future.as_mut().as_pin_mut() {
            Some(future) => future.poll(context),
            None => Poll::Pending, // nobody is in it
        }
    }

    fn leave(&mut self) {
        self.future.set(None);
    }
}

/// A booth with somebody in it; dropped, it is free again.
struct Occupied(Option<Box<dyn Room>>);

impl Drop for Occupied {
    fn drop(&mut self) {
        if let Some(mut booth) = self.0.take() {
            booth.leave();
            BOOTHS.with_borrow_mut(|booths| booths.put(booth, BOOTHS_KEPT_MAX));
        }
    }
}

thread_local! {
    static BOOTHS: RefCell<Shelf<Box<dyn Room>>> = const { RefCell::new(Shelf::new()) };
}

/// Booths kept by a worker, as many as desks.
const BOOTHS_KEPT_MAX: usize = 1024;
