//! Floor 0: the words every floor shares. Standard library only.

pub mod units;
pub mod names;
pub mod reason;
pub mod close;
#[cfg(test)]
pub(crate) mod by_hand;

pub use names::ConnId;
pub use reason::CloseReason;
pub use reason::Fault;
pub use reason::ProxyError;
