//! Floor 3: the ledger of one endpoint's connections and ports, and what the ledgers of one upstream
//! share. Pure: what they hand out and what they let go are values, and `proxy` acts on them.
//!
//! Read in this order: `limits`, `ports`, `lease`, `verdict`, `idle`, `total`, `waiters`, `ledger`,
//! `house`; `laws` (tests only) holds what must be true after any sequence of operations.

pub mod limits;
pub mod ports;
pub mod lease;
pub mod verdict;
pub(crate) mod idle;
pub mod total;
pub mod waiters;
pub mod ledger;
pub mod house;
#[cfg(test)]
mod laws;

pub use lease::Lease;
pub use ledger::Ledger;
pub use limits::PoolLimits;
pub use verdict::Verdict;
pub use waiters::Ticket;
