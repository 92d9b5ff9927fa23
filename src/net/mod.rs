//! Floor 4: sockets, workers and the clock. The only floor that knows a runtime.
//!
//! A worker is one thread with its own listening sockets, its own edge-triggered epoll and its own
//! tasks. What a worker owns stays on it; what crosses does so as a [`stream::Detached`] stream or a
//! letter to its mailbox. The control plane (signals, names, the admin listener) runs on async-std,
//! away from the workers. Systems other than Linux, and Linux under the feature `portable`, have
//! the runtime's reactor where epoll would be: `poller_portable` tells what differs. Absent on
//! purpose: HTTP/1.1 on the wire, which is `h1`'s and `proxy`'s.

pub mod sys;
mod socket;
pub mod clock;
pub mod descriptors;
#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[path = "poller_epoll.rs"]
mod poller;
#[cfg(any(not(target_os = "linux"), feature = "portable"))]
#[path = "poller_portable.rs"]
mod poller;
pub mod reactor;
mod mailbox;
pub mod lull;
pub mod worker;
pub mod quickack;
pub mod stream;
pub mod shelf;
pub mod buffer;
pub mod splice;
pub mod dial;
pub mod port_range;
pub mod listen;
pub mod inherit;
pub mod linger;
pub mod control;
pub mod memory;
pub mod handover;
pub mod notify;
pub mod probe;
pub mod admin_serve;
pub mod admin_client;
pub mod demo_origin;
#[cfg(test)]
mod tests;

pub use clock::Deadline;
pub use stream::Stream;
