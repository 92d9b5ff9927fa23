//! What an exchange works with: buffers and parsed heads, lent by the worker while octets are in
//! flight.
//!
//! An idle connection has no desk, and what is on a desk has storage only from the moment something
//! is written to it. Everything else on it keeps its storage from one exchange to the next, so the
//! steady state allocates nothing.

use std::cell::RefCell;

use crate::h1::head::RequestHead;
use crate::h1::head::ResponseHead;
use crate::net::buffer;
use crate::net::buffer::ReadBuffer;
use crate::net::shelf::Shelf;
use crate::net::shelf::Thinned;
use crate::observe::ExchangeRecord;

/// One exchange's workplace.
pub struct Desk {
    /// Octets from the client.
    pub input: ReadBuffer,
    /// The request head, as places in `input`'s held octets.
    pub request: RequestHead,
    /// Octets for the client.
    pub out: Vec<u8>,
    /// Octets from the origin.
    pub origin_in: ReadBuffer,
    /// The response head, as places in `origin_in`.
    pub response: ResponseHead,
    /// Octets for the origin.
    pub origin_out: Vec<u8>,
    /// The account of the exchange.
    pub record: ExchangeRecord,
}

impl Desk {
    fn new() -> Box<Self> {
        Box::new(Self {
            input: ReadBuffer::default(),
            request: RequestHead::new(),
            out: Vec::new(),
            origin_in: ReadBuffer::default(),
            response: ResponseHead::new(),
            origin_out: Vec::new(),
            record: ExchangeRecord::default(),
        })
    }
}

/// A desk on loan from this worker; dropped, it goes back.
pub struct Lease(Option<Box<Desk>>);

impl Lease {
    /// A cleared desk.
    #[must_use]
    pub fn take() -> Self {
        let desk = DESKS.with_borrow_mut(Shelf::take).unwrap_or_else(Desk::new);
        Self(Some(desk))
    }

    /// The desk.
    pub fn desk(&mut self) -> Option<&mut Desk> {
        self.0.as_deref_mut()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut desk) = self.0.take() else {
            return;
        };
        desk.input.clear();
        desk.origin_in.clear();
        buffer::give_back(std::mem::take(&mut desk.out));
        buffer::give_back(std::mem::take(&mut desk.origin_out));
        desk.request.reset();
        desk.response.reset();
        desk.record.origin = None;
        desk.record.route = None;
        desk.record.listener = None;
        DESKS.with_borrow_mut(|desks| desks.put(desk, DESKS_KEPT_MAX));
    }
}

/// Lets go of desks that were not needed lately; the worker asks now and then.
pub fn thin() -> Thinned {
    DESKS.with_borrow_mut(Shelf::thin)
}

thread_local! {
    // The boxes are what is kept: a desk moves by its pointer.
    static DESKS: RefCell<Shelf<Box<Desk>>> = const { RefCell::new(Shelf::new()) };
}

/// Desks kept by a worker, as many as buffers. Without these they are about 3 KiB each.
const DESKS_KEPT_MAX: usize = 1024;
