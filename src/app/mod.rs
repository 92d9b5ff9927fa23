//! Floor 6: wiring.

pub mod readiness;
pub mod token;
pub mod connections;
pub mod page;
pub mod admin;
