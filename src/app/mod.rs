//! Floor 6: wiring.

pub mod cli;
