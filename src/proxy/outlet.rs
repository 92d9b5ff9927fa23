//! An answer's way to its client: straight, behind what waits to leave with it, or in line behind the
//! answers to earlier requests.
//!
//! RFC 9112 §9.3.2 has answers leave in the order of the requests. An answer in line is held back,
//! up to a limit; beyond it the answer waits, and with it its origin, which is not read from
//! meanwhile. When its turn comes, `pipeline` first writes what was held, then the rest goes
//! straight. Absent on purpose: wakers. All answers of a line live in one task, which polls those
//! whose turn changed.

use std::cell::Cell;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::IoSlice;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use crate::base::close::Close;
use crate::net::Deadline;
use crate::net::Stream;
use crate::net::buffer;
use crate::net::stream::Fault;
use crate::proxy::tail::Tail;
use crate::proxy::tail::Waits;

/// Where octets go.
#[derive(Clone, Copy)]
pub enum Outlet<'a> {
    /// Straight to a peer.
    Direct(&'a Stream),
    /// Straight to the client, with the answers before it that may still wait.
    Behind(&'a Stream, &'a Tail),
    /// To the client, in its turn.
    InLine(&'a Stream, &'a Place),
}

/// An answer's place in line.
pub struct Place {
    turn: Cell<Turn>,
    behind: Cell<Behind>,
    reached: Cell<Reached>,
    held: RefCell<Vec<u8>>,
    /// How much of `held` was written.
    written: Cell<usize>,
    /// Until when the client must take more of it.
    due: Cell<Option<Deadline>>,
    fault: RefCell<Option<Fault>>,
    /// Why the line ended before it, if it did.
    cut: Cell<Option<Close>>,
}

/// Whether it is an answer's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// There are answers before it.
    Waits,
    /// What was held is being written.
    Empties,
    /// What comes goes straight.
    Flows,
}

/// Whether another answer is in line behind one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// It is the last.
    Nothing,
    /// There is.
    Another,
}

/// How far an answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Nothing of it left.
    Nobody,
    /// Some of it was written to the client.
    Client,
}

/// What became of octets that came to a place.
enum Passage {
    Held,
    Straight,
}

impl<'a> Outlet<'a> {
    /// The peer's stream.
    #[must_use]
    pub const fn stream(self) -> &'a Stream {
        match self {
            Self::Direct(stream) | Self::Behind(stream, _) | Self::InLine(stream, _) => stream,
        }
    }

    /// Writes what leaves at once, if it goes straight and nothing is before it.
    ///
    /// # Errors
    /// The stream's fault, but never `TimedOut`.
    #[inline]
    pub fn try_write(self, octets: &[u8]) -> Result<usize, Fault> {
        self.straight()
            .map_or(Ok(0), |stream| stream.try_write(&[IoSlice::new(octets)]))
    }

    /// The same with octets behind which others follow at once, to leave in one segment.
    ///
    /// # Errors
    /// The stream's fault, but never `TimedOut`.
    pub fn try_write_ahead(self, octets: &[u8]) -> Result<usize, Fault> {
        self.straight()
            .map_or(Ok(0), |stream| stream.try_write_ahead(octets))
    }

    /// The peer's stream, if what comes goes straight and nothing is before it.
    #[inline]
    fn straight(self) -> Option<&'a Stream> {
        match self {
            Self::Behind(_, tail) if !tail.is_empty() => None,
            Self::Direct(stream) | Self::Behind(stream, _) => Some(stream),
            Self::InLine(..) => None,
        }
    }

    /// Writes everything, or holds it until its turn; awaits the turn where that is too much.
    /// Cancel: a part may have gone out; the stream is good only for closing.
    ///
    /// # Errors
    /// The stream's fault.
    pub async fn write_all(
        self,
        slices: &mut [IoSlice<'_>],
        patience: Duration,
    ) -> Result<(), Fault> {
        match self {
            Self::InLine(_, place) => {
                if let Passage::Held = poll_fn(|_| place.poll_passage(slices)).await? {
                    return Ok(());
                }
            }
            Self::Behind(stream, tail) if !tail.is_empty() => {
                return tail.leave_with(stream, slices, patience).await;
            }
            Self::Direct(_) | Self::Behind(..) => {}
        }
        self.stream().write_all(slices, patience).await
    }

    /// Lets the last octets of an answer wait for the answer behind it, where they may.
    #[must_use]
    pub fn hold(self, out: &mut Vec<u8>) -> Waits {
        match self {
            Self::Behind(_, tail) => tail.hold(out),
            Self::Direct(_) | Self::InLine(..) => Waits::ForNothing,
        }
    }

    /// Writes what waits of earlier answers, so that all that leaves from now on is this one's.
    ///
    /// # Errors
    /// The stream's fault.
    pub async fn begin(self, patience: Duration) -> Result<(), Fault> {
        match self {
            Self::Behind(stream, tail) => tail.leave(stream, patience).await,
            Self::Direct(_) | Self::InLine(..) => Ok(()),
        }
    }

    /// Awaits the turn, and that everything held has been written: what ends an answer is told
    /// only then.
    ///
    /// # Errors
    /// The stream's fault.
    pub async fn turn(self) -> Result<(), Fault> {
        match self {
            Self::Direct(_) | Self::Behind(..) => Ok(()),
            Self::InLine(_, place) => poll_fn(|_| place.poll_turn()).await,
        }
    }

    /// Whether anything left since the stream's count of octets was `sent_before`. What was only
    /// held is forgotten: another answer may take its place.
    #[must_use]
    pub fn take_back(self, sent_before: u64) -> Reached {
        match self {
            Self::Direct(stream) | Self::Behind(stream, _) if stream.sent() == sent_before => {
                Reached::Nobody
            }
            Self::Direct(_) | Self::Behind(..) => Reached::Client,
            Self::InLine(_, place) => {
                if place.reached.get() == Reached::Nobody {
                    place.held.borrow_mut().clear();
                }
                place.reached.get()
            }
        }
    }

    /// Whether another answer is in line behind this one.
    #[must_use]
    pub fn behind(self) -> Behind {
        match self {
            Self::Direct(_) | Self::Behind(..) => Behind::Nothing,
            Self::InLine(_, place) => place.behind.get(),
        }
    }

    /// Whether what is written now leaves now.
    #[must_use]
    pub fn flows(self) -> Flow {
        match self {
            Self::Direct(_) | Self::Behind(..) => Flow::Now,
            Self::InLine(_, place) => place.flow(),
        }
    }
}

/// When octets that are written leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// At once.
    Now,
    /// When it is their turn.
    Later,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            turn: Cell::new(Turn::Waits),
            behind: Cell::new(Behind::Nothing),
            reached: Cell::new(Reached::Nobody),
            held: RefCell::default(),
            written: Cell::new(0),
            due: Cell::new(None),
            fault: RefCell::default(),
            cut: Cell::new(None),
        }
    }
}

impl Place {
    /// Another answer is behind it now.
    pub fn on_another(&self) {
        self.behind.set(Behind::Another);
    }

    /// Whether what is written now leaves now.
    #[must_use]
    pub fn flow(&self) -> Flow {
        match self.turn.get() {
            Turn::Flows => Flow::Now,
            Turn::Waits | Turn::Empties => Flow::Later,
        }
    }

    /// How far its answer came.
    #[must_use]
    pub fn reached(&self) -> Reached {
        self.reached.get()
    }

    /// The line ended before it, with this close.
    pub fn on_cut(&self, close: Close) {
        self.cut.set(Some(close));
    }

    /// How the line ended before it, if it did.
    #[must_use]
    pub fn cut(&self) -> Option<Close> {
        self.cut.get()
    }

    /// Its turn has come: writes what was held. Ready when the rest may go straight, or when the
    /// client's stream is at fault, of which the answer is told.
    pub fn poll_flow(
        &self,
        (stream, patience): (&Stream, Duration),
        context: &Context<'_>,
    ) -> Poll<()> {
        if self.turn.get() == Turn::Waits {
            self.turn.set(Turn::Empties);
        }
        if self.turn.get() == Turn::Flows || self.fault.borrow().is_some() {
            return Poll::Ready(());
        }
        match self.poll_empty(stream, patience, context) {
            Poll::Ready(Ok(())) => {
                self.turn.set(Turn::Flows);
                buffer::give_back(self.held.take());
            }
            Poll::Ready(Err(fault)) => *self.fault.borrow_mut() = Some(fault),
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(())
    }

    fn poll_empty(
        &self,
        stream: &Stream,
        patience: Duration,
        context: &Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        let held = self.held.borrow();
        loop {
            let left = held.get(self.written.get()..).unwrap_or_default();
            if left.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let count = stream.try_write(&[IoSlice::new(left)])?;
            if count > 0 {
                self.reached.set(Reached::Client);
                self.written.set(self.written.get() + count);
                self.due.set(None);
                continue;
            }
            let due = self.due.get().unwrap_or_else(|| Deadline::after(patience));
            self.due.set(Some(due));
            match stream.poll_writable(context, due) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(late)) => return Poll::Ready(Err(late.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_turn(&self) -> Poll<Result<(), Fault>> {
        if let Some(fault) = self.fault.borrow_mut().take() {
            return Poll::Ready(Err(fault));
        }
        match self.turn.get() {
            Turn::Flows => Poll::Ready(Ok(())),
            Turn::Waits | Turn::Empties => Poll::Pending,
        }
    }

    fn poll_passage(&self, slices: &[IoSlice<'_>]) -> Poll<Result<Passage, Fault>> {
        match self.poll_turn() {
            Poll::Ready(Ok(())) => {
                self.reached.set(Reached::Client);
                Poll::Ready(Ok(Passage::Straight))
            }
            Poll::Ready(Err(fault)) => Poll::Ready(Err(fault)),
            Poll::Pending => self.poll_hold(slices).map(Ok),
        }
    }

    /// Holds these octets, if it is not yet their turn and there is room for all of them.
    fn poll_hold(&self, slices: &[IoSlice<'_>]) -> Poll<Passage> {
        let mut held = self.held.borrow_mut();
        let more: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.turn.get() != Turn::Waits || held.len() + more > HELD_OCTETS_MAX {
            return Poll::Pending;
        }
        buffer::furnish(&mut held);
        for slice in slices {
            held.extend_from_slice(slice);
        }
        Poll::Ready(Passage::Held)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        buffer::give_back(self.held.take());
    }
}

/// Most octets of one answer held back: with the read buffer behind it, what a small page takes.
/// 64 KiB is the window that HTTP/2 gives a stream at first (RFC 9113 §6.9.2 has 65,535 octets),
/// which serves the same end. Beyond it the origin is not read from until the answer's turn.
const HELD_OCTETS_MAX: usize = 64 * 1024;
