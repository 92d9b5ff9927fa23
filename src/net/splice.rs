//! Octets from one socket to another past our memory: splice(2) by way of a pipe.
//!
//! A large body costs two copies less so. Pipes belong to the worker and are used again; one that
//! still holds octets when it is dropped is closed, so that nobody finds another's octets in it.
//! Elsewhere than on Linux, and in the portable form, there are no pipes to be had and bodies are
//! copied. Absent on purpose: what the octets mean; who passes them on counts them.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::net::descriptors;
use crate::net::descriptors::Held;
use crate::net::descriptors::Room;
use crate::net::shelf::Shelf;
use crate::net::shelf::Thinned;
use crate::net::stream::Fault;
use crate::net::stream::ReadEnd;
use crate::net::stream::Stream;
use crate::net::stream::retried;

/// A pipe on loan from this worker.
pub struct Pipe {
    ends: Option<Ends>,
    held: usize,
}

struct Ends {
    /// Octets go in here.
    inlet: OwnedFd,
    /// And come out here.
    outlet: OwnedFd,
    _held: Held<2>,
}

impl Pipe {
    /// An empty pipe. `None`: none is to be had, for want of descriptors or on this system.
    #[must_use]
    pub fn lend() -> Option<Self> {
        let kept = PIPES.with_borrow_mut(Shelf::take);
        let ends = kept.or_else(|| match descriptors::is_ample() {
            Room::Some => make().inspect_err(|error| descriptors::note(*error)).ok(),
            Room::None => None, // copying costs time only
        })?;
        Some(Self {
            ends: Some(ends),
            held: 0,
        })
    }

    /// How many octets are in it.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes what is there from a stream, at most `most` octets. `None`: nothing is.
    ///
    /// # Errors
    /// The stream's fault.
    pub fn fill(&mut self, from: &Stream, most: usize) -> Result<Option<ReadEnd>, Fault> {
        let Some(ends) = &self.ends else {
            return Err(Fault::Io(io::ErrorKind::BrokenPipe.into()));
        };
        let end = from.on_received(retried(|| splice(from, &ends.inlet, most)))?;
        if let Some(ReadEnd::Octets(count)) = end {
            self.held += count;
        }
        Ok(end)
    }

    /// Gives what fits to a stream. 0: nothing does now.
    ///
    /// # Errors
    /// The stream's fault.
    pub fn drain(&mut self, to: &Stream) -> Result<usize, Fault> {
        let Some(ends) = &self.ends else {
            return Err(Fault::Io(io::ErrorKind::BrokenPipe.into()));
        };
        let count = to.on_sent(retried(|| splice(&ends.outlet, to, self.held)))?;
        self.held = self.held.saturating_sub(count);
        Ok(count)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if let (Some(ends), 0) = (self.ends.take(), self.held) {
            PIPES.with_borrow_mut(|pipes| pipes.put(ends, PIPES_KEPT_MAX));
        }
    }
}

/// Closes pipes that were not needed lately; the worker asks now and then.
pub fn thin() -> Thinned {
    PIPES.with_borrow_mut(Shelf::thin)
}

#[cfg(all(target_os = "linux", not(feature = "portable")))]
fn make() -> Result<Ends, Errno> {
    use rustix::pipe::PipeFlags;
    let (outlet, inlet) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // Where the user's share of pipe memory is used up (pipe(7)) it stays as it is: smaller bites.
    let _size = rustix::pipe::fcntl_setpipe_size(&inlet, PIPE_OCTETS);
    Ok(Ends {
        inlet,
        outlet,
        _held: Held::new(),
    })
}

#[cfg(any(not(target_os = "linux"), feature = "portable"))]
fn make() -> Result<Ends, Errno> {
    Err(Errno::NOSYS)
}

#[cfg(all(target_os = "linux", not(feature = "portable")))]
fn splice(
    from: &impl std::os::fd::AsFd,
    to: &impl std::os::fd::AsFd,
    most: usize,
) -> Result<usize, Errno> {
    use rustix::pipe::SpliceFlags;
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    rustix::pipe::splice(from, None, to, None, most, flags)
}

#[cfg(any(not(target_os = "linux"), feature = "portable"))]
fn splice<From, To>(_: &From, _: &To, _: usize) -> Result<usize, Errno> {
    Err(Errno::NOSYS)
}

thread_local! {
    static PIPES: RefCell<Shelf<Ends>> = const { RefCell::new(Shelf::new()) };
}

/// Octets of content from which on a pipe costs less than to copy them: two copies against two or
/// three system calls. A request for 14 KiB took 12.6 µs of CPU time instead of 13.7, one for 64 KiB
/// 17.9 instead of 24.2; with 8 KiB nothing is gained.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub const WORTH_OCTETS: Option<u64> = Some(12 * 1024);

/// There are no pipes to be had.
#[cfg(any(not(target_os = "linux"), feature = "portable"))]
pub const WORTH_OCTETS: Option<u64> = None;

/// Octets of a pipe, and of one bite. The system's 64 KiB cost an upload of 1 MiB twice the CPU time
/// (370 µs against 196); beyond 256 KiB there is nothing more to gain, and less for other pipes in
/// the user's share of 64 MiB (pipe(7)).
pub const PIPE_OCTETS: usize = 256 * 1024;

/// Pipes kept by a worker: two descriptors each.
const PIPES_KEPT_MAX: usize = 64;
