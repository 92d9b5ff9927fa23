//! Answers to pipelined requests that wait a moment for the answer behind them, to leave with it.
//!
//! A write costs as much as a quarter of an exchange, and wakes the client. Of requests that came
//! together, one served after the other, the answers may leave together too: each waits in the tail
//! while the next request is at hand, until the next answer comes or the worker has a lull
//! (`net/lull`). So a busy worker gathers, and one that is not delays nobody. What waits here
//! counts as answered, as if it were in the kernel's buffer. Absent on purpose: pipelines served
//! concurrently, whose answers have places of their own (`outlet`).

use std::cell::RefCell;
use std::io::IoSlice;
use std::task::Context;
use std::time::Duration;

use crate::net::Deadline;
use crate::net::Stream;
use crate::net::buffer;
use crate::net::lull::Awaited;
use crate::net::stream::Fault;

/// The tail of what a client was answered.
#[derive(Default)]
pub struct Tail {
    octets: RefCell<Vec<u8>>,
    lull: RefCell<Option<Awaited>>,
}

/// Whether an answer waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// It does, with those before it.
    ForCompany,
    /// There is no room for it: it has to be written.
    ForNothing,
}

/// Whether something left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Something may have.
    Now,
    /// Nothing has.
    Nothing,
}

impl Tail {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.octets.borrow().is_empty()
    }

    /// Takes an answer in, if there is room; `out` is empty then.
    pub fn hold(&self, out: &mut Vec<u8>) -> Waits {
        let mut octets = self.octets.borrow_mut();
        if octets.len() + out.len() > TAIL_OCTETS_MAX {
            return Waits::ForNothing;
        }
        match octets.is_empty() {
            true => std::mem::swap(&mut *octets, out),
            false => octets.extend_from_slice(out),
        }
        out.clear();
        Waits::ForCompany
    }

    /// Writes what waits, and `slices` behind it. Cancel: a part may have gone out; the stream is
    /// good only for closing.
    ///
    /// # Errors
    /// The stream's fault.
    pub async fn leave_with(
        &self,
        stream: &Stream,
        slices: &mut [IoSlice<'_>],
        patience: Duration,
    ) -> Result<(), Fault> {
        let mut octets = self.take();
        let more: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut apart = slices;
        if octets.len() + more <= TAIL_OCTETS_MAX {
            apart
                .iter()
                .for_each(|slice| octets.extend_from_slice(slice));
            apart = &mut [];
        }
        let written = stream
            .write_all(&mut [IoSlice::new(&octets)], patience)
            .await;
        buffer::give_back(octets);
        written?;
        stream.write_all(apart, patience).await
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// The stream's fault.
    pub async fn leave(&self, stream: &Stream, patience: Duration) -> Result<(), Fault> {
        match self.is_empty() {
            true => Ok(()),
            false => self.leave_with(stream, &mut [], patience).await,
        }
    }

    /// Sees to it that what waits leaves at the next lull, while its task waits for something else.
    /// What the client does not take then leaves when it does, or with the next answer, which has
    /// a deadline.
    pub fn leave_in_time(&self, stream: &Stream, context: &Context<'_>) -> Left {
        if self.is_empty() {
            return Left::Nothing;
        }
        let lull = self
            .lull
            .borrow_mut()
            .get_or_insert_with(|| Awaited::next(context))
            .poll();
        if lull.is_pending() {
            return Left::Nothing;
        }
        self.leave_at_once(stream);
        if !self.is_empty() {
            // Woken when there is room; the wait itself is the next answer's.
            let _woken = stream.poll_writable(context, Deadline::NEVER);
        }
        Left::Now
    }

    /// Writes of what waits as much as the client takes now.
    pub fn leave_at_once(&self, stream: &Stream) {
        let mut octets = self.take();
        while !octets.is_empty() {
            match stream.try_write(&[IoSlice::new(&octets)]) {
                Ok(0) => break,
                Ok(count) => drop(octets.drain(..count)),
                // Who writes next, or watches whether the client stays, hears of it.
                Err(_) => octets.clear(),
            }
        }
        match octets.is_empty() {
            true => buffer::give_back(octets),
            false => drop(self.octets.replace(octets)),
        }
    }

    fn take(&self) -> Vec<u8> {
        self.lull.take();
        self.octets.take()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        buffer::give_back(self.octets.take());
    }
}

/// Most octets that wait: what `relay` gathers before it writes, for the same reason.
const TAIL_OCTETS_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::reactor::Initially;
    use crate::net::worker;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn an_answer_waits_only_where_there_is_room_for_it() {
        let tail = Tail::default();
        let mut answer = vec![b'a'; TAIL_OCTETS_MAX];
        assert_eq!(tail.hold(&mut answer), Waits::ForCompany);
        assert!(answer.is_empty());
        answer.push(b'a');
        assert_eq!(tail.hold(&mut answer), Waits::ForNothing);
        assert_eq!(answer, b"a");
    }

    /// The octets of each write, told apart by the kind of socket.
    fn writes(before: &'static [&[u8]], last: Vec<u8>) -> Vec<usize> {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let ours = OwnedFd::from(ours);
        let (tell, told) = mpsc::channel();
        let begin = move || {
            worker::spawn(async move {
                let (tail, stream) = (
                    Tail::default(),
                    Stream::new(ours, Initially::Writable).unwrap(),
                );
                for octets in before {
                    assert_eq!(tail.hold(&mut octets.to_vec()), Waits::ForCompany);
                }
                let slices = &mut [IoSlice::new(&last)];
                tail.leave_with(&stream, slices, PATIENCE).await.unwrap();
                tell.send(tail.is_empty()).unwrap();
                worker::stop();
            });
        };
        std::thread::spawn(move || worker::run(78, begin).unwrap());
        assert!(told.recv().unwrap(), "nothing waits any more");
        let mut octets = vec![0; 2 * TAIL_OCTETS_MAX];
        let mut received = || theirs.recv(&mut octets).ok();
        std::iter::from_fn(|| received().filter(|count| *count > 0)).collect()
    }

    #[test]
    fn what_waited_and_what_it_waited_for_leave_in_one_write() {
        assert_eq!(writes(&[b"one", b"two"], b"three".to_vec()), [11]);
    }

    #[test]
    fn what_is_too_long_to_gather_leaves_behind_what_waited() {
        let long = vec![b'l'; TAIL_OCTETS_MAX];
        assert_eq!(writes(&[b"one"], long), [3, TAIL_OCTETS_MAX]);
    }
}
