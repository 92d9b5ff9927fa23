//! Floor 6: wiring.
//!
//! Settings become listeners, upstreams and workers here; signals and the admin plane act on them.

pub mod cli;
pub mod readiness;
pub mod token;
pub mod connections;
pub mod page;
pub mod admin;
