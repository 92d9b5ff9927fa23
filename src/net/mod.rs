//! Floor 4: sockets, workers and the clock. The only floor that knows a runtime.
//!
//! A worker is one thread with its own listening sockets, its own edge-triggered epoll and its own
//! tasks. What a worker owns stays on it; what crosses does so as a [`stream::Detached`] stream or a
//! letter to its mailbox. Absent on purpose: HTTP.

pub mod sys;
pub mod clock;
pub mod mailbox;
pub mod reactor;
pub mod worker;
pub mod buffer;
pub mod stream;
pub mod dial;
pub mod listen;
pub mod linger;
pub mod control;

pub use clock::Deadline;
pub use stream::Stream;
