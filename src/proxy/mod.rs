//! Floor 5: the pure floors driven over the network.
//!
//! Calls go down, values come back: this floor acts on decisions, counts them and tells them.
//! `serve` has the whole story of an exchange; `client` repeats it until a connection ends.
//! Absent on purpose: the configuration, which reaches this floor as the small types of `settings`.

pub mod settings;
pub mod rouse;
pub mod draining;
pub mod condition;
pub mod pulse;
pub mod endpoint;
pub mod household;
pub mod tend;
pub mod lent;
pub mod heed;
pub mod shedding;
pub mod checkout;
pub mod upstream;
pub mod service;
pub mod replan;
pub mod dismiss;
pub mod desk;
pub mod fault;
pub mod reply;
pub mod replay;
mod tail;
pub mod outlet;
pub mod beginning;
pub mod relay;
pub mod held;
pub mod discard;
pub mod progress;
pub mod answer;
mod answer_head;
pub mod origin;
pub mod tunnel;
pub mod client;
pub mod introduce;
pub mod judge;
pub mod attempt;
pub mod account;
pub mod exchange;
mod choose;
mod failure;
mod attempts;
pub mod serve;
mod unfinished;
mod pipeline;
pub mod booth;
pub mod converse;
pub mod accept;
