//! Buffers: owned by the worker, lent while octets are in flight, given back when a connection idles.
//!
//! An idle connection owns none (21 KB against 0.8 KB per idle connection, measured). A
//! [`ReadBuffer`] keeps the octets of a message head in place while its body flows behind it, so
//! that a request stays readable until it cannot be retried any more.

use std::cell::RefCell;
use std::ops::Deref;

use crate::net::clock::Deadline;
use crate::net::shelf::Shelf;
use crate::net::shelf::Thinned;
use crate::net::stream::Fault;
use crate::net::stream::ReadEnd;
use crate::net::stream::Stream;

/// Octets read ahead of a connection's parser, with a head held at the front. Its storage is lent
/// by the worker when there is something to read.
///
/// ```text
///   | held head | consumed | unread | spare |
///   base      floor      start    len     capacity
/// ```
#[derive(Default)]
pub struct ReadBuffer {
    octets: Vec<u8>,
    base: usize,
    floor: usize,
    start: usize,
    consumed: Consumed,
}

/// What becomes of octets that were consumed behind a held head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Consumed {
    /// Others take their place.
    #[default]
    Overwritten,
    /// They stay until the head is let go.
    Kept,
}

impl ReadBuffer {
    /// What has been read and not consumed.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        self.octets.get(self.start..).unwrap_or_default()
    }

    /// Marks so many unread octets as consumed.
    pub fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.octets.len() - self.start);
        self.start = (self.start + count).min(self.octets.len());
        if self.start == self.octets.len() && self.consumed == Consumed::Overwritten {
            // Nothing is unread: the next read may use everything behind the held head.
            self.octets.truncate(self.floor);
            self.start = self.floor;
        }
    }

    /// Takes the next `count` unread octets: they count as consumed however the taker fares, also
    /// when it fails or is cancelled in the middle. A message's reader has counted them already,
    /// and buffer and reader must never differ about where the message stands.
    pub fn take(&mut self, count: usize) -> Taken<'_> {
        Taken {
            buffer: self,
            count,
        }
    }

    /// Consumes the next `count` octets but keeps them readable through [`Self::held`].
    pub fn hold(&mut self, count: usize) {
        self.base = self.start;
        self.start = (self.start + count).min(self.octets.len());
        self.floor = self.start;
    }

    /// Appends octets that were read elsewhere.
    pub fn put(&mut self, octets: &[u8]) {
        furnish(&mut self.octets);
        self.octets.extend_from_slice(octets);
    }

    /// Takes what is unread away, for a wait that may be long: in as much as that takes. Much of it
    /// keeps its storage, so that it is never there twice.
    #[must_use]
    pub fn take_unread(&mut self) -> Vec<u8> {
        if self.start > 0 || self.octets.len() < BUFFER_OCTETS / 2 {
            return self.unread().to_vec();
        }
        let mut octets = std::mem::take(&mut self.octets);
        octets.shrink_to_fit();
        self.clear();
        octets
    }

    /// Lays octets that were taken away where they were.
    pub fn put_back(&mut self, octets: Vec<u8>) {
        if self.octets.is_empty() && octets.len() >= BUFFER_OCTETS / 2 {
            self.clear();
            self.octets = octets;
        } else {
            self.put(&octets);
        }
    }

    /// The held head.
    #[must_use]
    pub fn held(&self) -> &[u8] {
        self.octets.get(self.base..self.floor).unwrap_or_default()
    }

    /// What is consumed from now on stays too, until the head is let go: a content that may have to
    /// be sent again lies here already, and is not copied. The caller knows that it is small.
    pub fn keep_consumed(&mut self) {
        self.consumed = Consumed::Kept;
    }

    /// What was kept behind the held head.
    #[must_use]
    pub fn kept(&self) -> &[u8] {
        match self.consumed {
            Consumed::Overwritten => &[],
            Consumed::Kept => self.octets.get(self.floor..self.start).unwrap_or_default(),
        }
    }

    /// The held head, and what is unread behind it.
    #[must_use]
    pub fn split(&self) -> (&[u8], &[u8]) {
        (self.held(), self.unread())
    }

    /// Lets the held head go, and what was kept behind it.
    pub fn release(&mut self) {
        self.base = 0;
        self.floor = 0;
        self.consumed = Consumed::Overwritten;
        if self.start == self.octets.len() {
            self.octets.clear();
            self.start = 0;
        }
    }

    /// Reads once, waiting until `deadline`. Makes room first: moves what is unread to the front,
    /// and where even that leaves none, grows up to `most` octets. Cancel: nothing is lost.
    ///
    /// # Errors
    /// [`Fill::Full`], when `most` octets are unread already; else the stream's fault.
    pub async fn fill(
        &mut self,
        stream: &Stream,
        most: usize,
        deadline: Deadline,
    ) -> Result<ReadEnd, Fill> {
        loop {
            stream.readable(deadline).await.map_err(Fill::Fault)?;
            if let Some(end) = self.try_fill(stream, most)? {
                return Ok(end);
            }
        }
    }

    /// Reads what is there, making room as [`Self::fill`] does. `None`: nothing is there, whatever
    /// readiness had said.
    ///
    /// # Errors
    /// [`Fill`].
    pub fn try_fill(&mut self, stream: &Stream, most: usize) -> Result<Option<ReadEnd>, Fill> {
        self.make_room(most)?;
        stream.try_read(&mut self.octets).map_err(Fill::Fault)
    }

    /// Reads what is there as [`Self::try_fill`] does, but no more than there is storage for: where
    /// there is none, little is lent, as what is behind it may go another way. Makes the usual room
    /// where hardly any is left.
    ///
    /// # Errors
    /// [`Fill`].
    pub fn try_fill_little(
        &mut self,
        stream: &Stream,
        most: usize,
    ) -> Result<Option<ReadEnd>, Fill> {
        if self.octets.capacity() == 0 {
            self.octets = lend_small();
        }
        if self.octets.capacity() - self.octets.len() < READ_LEAST {
            return self.try_fill(stream, most);
        }
        stream.try_read(&mut self.octets).map_err(Fill::Fault)
    }

    /// Gives the storage back, and with it whatever is unread.
    pub fn clear(&mut self) {
        give_back(std::mem::take(&mut self.octets));
        (self.base, self.floor, self.start) = (0, 0, 0);
        self.consumed = Consumed::Overwritten;
    }

    /// Takes larger storage, for a body that is worth larger reads.
    pub fn widen(&mut self) {
        widen(&mut self.octets);
    }

    /// Goes back to the usual storage, if what lies in the larger one leaves room there.
    pub fn narrow(&mut self) {
        if self.octets.capacity() >= WIDE_OCTETS && self.octets.len() < BUFFER_OCTETS / 2 {
            let mut usual = lend();
            usual.extend_from_slice(&self.octets);
            give_back(std::mem::replace(&mut self.octets, usual));
        }
    }

    /// Gives the storage back, and keeps what lies in it in as much as that takes: for a wait that
    /// may be long. The next read takes storage again.
    pub fn stow(&mut self) {
        if self.octets.len() <= SMALL_OCTETS {
            self.stow_small();
        } else if self.octets.len() + READ_LEAST < self.octets.capacity() {
            let exact = self.octets.as_slice().into();
            give_back(std::mem::replace(&mut self.octets, exact));
        }
    }

    /// The same, if little lies in it: that costs no allocation.
    pub fn stow_small(&mut self) {
        if self.octets.len() > SMALL_OCTETS || self.octets.capacity() <= SMALL_OCTETS {
            return;
        }
        let mut small = Vec::new();
        if !self.octets.is_empty() {
            small = lend_small();
            small.extend_from_slice(&self.octets);
        }
        give_back(std::mem::replace(&mut self.octets, small));
    }

    fn make_room(&mut self, most: usize) -> Result<(), Fill> {
        if self.octets.capacity() < BUFFER_OCTETS {
            let mut storage = lend();
            storage.extend_from_slice(&self.octets);
            give_back(std::mem::replace(&mut self.octets, storage));
        }
        if self.octets.capacity() - self.octets.len() >= READ_LEAST {
            return Ok(());
        }
        if self.start > self.floor && self.consumed == Consumed::Overwritten {
            self.octets.drain(self.floor..self.start);
            self.start = self.floor;
        }
        if self.octets.capacity() - self.octets.len() < READ_LEAST {
            let unread = self.octets.len() - self.start;
            if unread >= most {
                return Err(Fill::Full);
            }
            // Twice what there is, but not beyond what may come: a head near its limit costs that.
            let more = BUFFER_OCTETS.max(self.octets.capacity());
            let most = (most - unread).max(READ_LEAST);
            self.octets.reserve_exact(more.min(most));
        }
        Ok(())
    }
}

/// Octets taken from a [`ReadBuffer`]; consumed when dropped.
pub struct Taken<'a> {
    buffer: &'a mut ReadBuffer,
    count: usize,
}

impl Deref for Taken<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.unread().get(..self.count).unwrap_or_default()
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.buffer.consume(self.count);
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.octets));
    }
}

/// Why a buffer could not be filled.
#[derive(Debug)]
pub enum Fill {
    /// It holds as much unread as it may.
    Full,
    /// The stream's fault.
    Fault(Fault),
}

/// Storage from the worker: empty, with [`BUFFER_OCTETS`] of room at least.
#[must_use]
pub fn lend() -> Vec<u8> {
    SHELF
        .with_borrow_mut(Shelf::take)
        .unwrap_or_else(|| Vec::with_capacity(BUFFER_OCTETS))
}

/// Lends storage where there is none: just before octets are written to it, so that an exchange
/// which waits for its origin owns no more than the request it may have to repeat. What many
/// exchanges write through in turn stays in the processor's cache.
#[inline]
pub fn furnish(storage: &mut Vec<u8>) {
    if storage.capacity() == 0 {
        *storage = lend();
    }
}

/// Moves what is in storage to larger storage of the worker's, if there is any larger.
pub fn widen(storage: &mut Vec<u8>) {
    if storage.capacity() >= WIDE_OCTETS {
        return;
    }
    let mut wide = lend_wide();
    wide.extend_from_slice(storage);
    give_back(std::mem::replace(storage, wide));
}

/// Gives storage back to the worker.
#[inline]
pub fn give_back(storage: Vec<u8>) {
    if storage.capacity() > 0 {
        shelve(storage);
    }
}

fn shelve(mut storage: Vec<u8>) {
    storage.clear();
    match storage.capacity() {
        BUFFER_OCTETS..=GROWN_OCTETS_MAX => {
            SHELF.with_borrow_mut(|shelf| shelf.put(storage, SHELF_BUFFERS_MAX));
        }
        SMALL_OCTETS => SMALL_SHELF.with_borrow_mut(|shelf| shelf.put(storage, SHELF_BUFFERS_MAX)),
        WIDE_OCTETS..=KEPT_OCTETS_MAX => {
            WIDE_SHELF.with_borrow_mut(|shelf| shelf.put(storage, WIDE_SHELF_BUFFERS_MAX));
        }
        _ => {}
    }
}

/// Lets go of storage that was not needed lately; the worker asks now and then.
pub fn thin() -> Thinned {
    let narrow = SHELF.with_borrow_mut(Shelf::thin);
    let narrow = narrow.and(SMALL_SHELF.with_borrow_mut(Shelf::thin));
    narrow.and(WIDE_SHELF.with_borrow_mut(Shelf::thin))
}

fn lend_small() -> Vec<u8> {
    SMALL_SHELF
        .with_borrow_mut(Shelf::take)
        .unwrap_or_else(|| Vec::with_capacity(SMALL_OCTETS))
}

fn lend_wide() -> Vec<u8> {
    WIDE_SHELF
        .with_borrow_mut(Shelf::take)
        .unwrap_or_else(|| Vec::with_capacity(WIDE_OCTETS))
}

thread_local! {
    static SHELF: RefCell<Shelf<Vec<u8>>> = const { RefCell::new(Shelf::new()) };
    static SMALL_SHELF: RefCell<Shelf<Vec<u8>>> = const { RefCell::new(Shelf::new()) };
    static WIDE_SHELF: RefCell<Shelf<Vec<u8>>> = const { RefCell::new(Shelf::new()) };
}

/// Octets of a buffer: one read of a small message, and of most medium ones with their head.
pub const BUFFER_OCTETS: usize = 20 * 1024;

/// Octets of a buffer for a head that only has to be kept: most requests' heads fit.
pub const SMALL_OCTETS: usize = 2 * 1024;

/// Octets of a buffer for a large body: fewer, larger reads.
pub const WIDE_OCTETS: usize = 128 * 1024;

/// Buffers that grew up to this still serve as usual ones: a head near its limit.
const GROWN_OCTETS_MAX: usize = 2 * BUFFER_OCTETS;

/// Buffers that grew beyond this are not kept: one large head must not cost memory for ever.
const KEPT_OCTETS_MAX: usize = 256 * 1024;

/// Wide buffers kept by a worker: 64 × 128 KiB is 8 MiB, for the seconds until it is thinned.
const WIDE_SHELF_BUFFERS_MAX: usize = 64;

/// Buffers kept by a worker: 1024 × 20 KiB is 20 MiB, of which small messages touch a fifth. So many
/// exchanges at once, or sixteen pipelined ones on each of 64 connections, allocate nothing.
const SHELF_BUFFERS_MAX: usize = 1024;

/// Room below which octets are moved to the front or storage grows, so that reads stay worth their
/// system call.
const READ_LEAST: usize = 2 * 1024;
