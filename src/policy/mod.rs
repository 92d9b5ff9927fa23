//! Floor 2: decisions. Pure functions and small structs; time and dice are arguments, and what is
//! decided is returned as a value with its reason.

pub mod balance;
pub mod route;
pub mod backoff;
pub mod health;
pub mod retry;
pub mod answers;
pub mod admission;
pub mod budget;
pub mod shedding;
pub mod body_rate;
pub mod drain;
pub mod websocket;
pub mod watchdog;
pub mod idle_learning;
pub mod header_rules;
pub mod forwarded;
pub mod client_key;
pub mod proxy_protocol;
pub mod hops;
