//! Floor 6: wiring.
//!
//! Settings become listeners, upstreams and workers here; signals and the admin plane act on them.

pub mod resolve;
pub mod assemble;
pub mod budget;
pub mod cli;
pub mod readiness;
pub mod token;
pub mod connections;
pub mod page;
pub mod config_view;
pub mod names;
pub mod refresh;
pub mod checks;
pub mod ports;
pub mod upstreams_view;
pub mod shedding;
pub mod workers;
pub mod sockets;
pub mod reload;
pub mod admin;
pub mod shutdown;
pub mod watchdog;
pub mod plane;
pub mod life;
pub mod run;
#[cfg(test)]
mod removal;
pub mod demo;
pub mod ask;
