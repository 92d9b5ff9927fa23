//! How far the two directions of an attempt are: they run in one task and tell each other here.
//!
//! The answer's deadline is set here, because it is the request's end that starts it. Absent on
//! purpose: sockets; who reads and writes is `attempt` and `origin`.

use std::cell::Cell;
use std::cell::RefCell;
use std::time::Duration;

use crate::h1::exchange::Exchange;
use crate::h1::exchange::Expectation;
use crate::net::Deadline;

/// How far the two directions of an attempt are: they run in one task and tell each other here.
pub struct Progress {
    pub(super) exchange: RefCell<Exchange>,
    upload: Cell<Upload>,
    pub(super) begun: Cell<Begun>,
    pub(super) first_octet_micros: Cell<Option<u64>>,
    /// When the answer must have begun: set when the request is sent, not asked anew.
    pub(super) head_due: Cell<Deadline>,
    response_header: Duration,
    /// Whether the client's FIN was seen, and counted.
    pub(super) half_closed: Cell<bool>,
}

/// How far the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    /// Parts of it have yet to come or go.
    Flowing,
    /// It was sent whole, at this moment, in microseconds since the process began.
    Whole(u64),
    /// It was sent whole, but its end came behind its answer's.
    Behind,
    /// The origin takes no more of it; its answer may say why.
    Refused,
}

/// How far the answer is, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing went to the client.
    No,
    /// An interim head went to the client: another attempt is out of the question, an answer of our
    /// own is not.
    Interim,
    /// A final head went to the client, or is on its way.
    Yes,
}

impl Progress {
    /// Nothing was sent, nothing came.
    #[must_use]
    pub fn new(exchange: Exchange, response_header: Duration) -> Self {
        Self {
            exchange: RefCell::new(exchange),
            upload: Cell::new(Upload::Flowing),
            begun: Cell::new(Begun::No),
            first_octet_micros: Cell::new(None),
            // The client's own deadlines rule while it is still sending.
            head_due: Cell::new(Deadline::NEVER),
            response_header,
            half_closed: Cell::new(false),
        }
    }

    /// How far the request is.
    #[must_use]
    pub fn upload(&self) -> Upload {
        self.upload.get()
    }

    /// The request is so far.
    pub fn set_upload(&self, upload: Upload) {
        let mut exchange = self.exchange.borrow_mut();
        match upload {
            Upload::Flowing => return,
            Upload::Whole(_) | Upload::Behind => exchange.on_request_end(),
            Upload::Refused => exchange.on_request_abandoned(),
        }
        self.head_due.set(Deadline::after(self.response_header));
        self.upload.set(upload);
    }

    /// Whether the client waits for a 100 before it sends its content.
    #[must_use]
    pub fn awaits_continue(&self) -> bool {
        self.exchange.borrow().expectation() == Expectation::AwaitsContinue
    }

    /// The head is sent and nothing more will be until the origin has spoken.
    pub fn expect_answer(&self) {
        self.head_due.set(Deadline::after(self.response_header));
    }

    /// The content comes now; the client's own deadlines rule.
    pub fn expect_content(&self) {
        if self.upload.get() == Upload::Flowing {
            self.head_due.set(Deadline::NEVER);
        }
    }

    /// Content of the request came: its client no longer waits for a 100.
    pub fn on_request_content(&self) {
        self.exchange.borrow_mut().on_request_content();
    }

    /// How far the answer is.
    #[must_use]
    pub fn begun(&self) -> Begun {
        self.begun.get()
    }

    /// When the first octet of the answer came, in microseconds since the process began.
    #[must_use]
    pub fn first_octet_micros(&self) -> Option<u64> {
        self.first_octet_micros.get()
    }
}
