//! Dialogues with the running binary: scripted clients and origins around it, over loopback.
//!
//! Each test is a sentence of the contract. The stage is in `support`; real programs play in `real`.
//! Another binary than the one just built is tested by naming it in `HOLDFAST_BIN`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::let_underscore_must_use,
    reason = "a test fails by panicking, and its peers are plain threads that ask the clock"
)]
#![allow(unreachable_pub, missing_docs, reason = "a test binary offers nothing")]
#![allow(dead_code, reason = "the stage has more doors than every play needs")]

mod support;
mod framing;
mod hops;
mod persistence;
mod reuse;
mod idle_learning;
mod bodies;
mod pipelining;
mod truncation;
mod retries;
mod retry_matrix;
mod last_answer;
mod errors;
mod closing;
mod segments;
mod tunnels;
mod balance;
mod health;
mod routes;
mod limits;
mod overload;
mod ports;
mod total;
mod proxy_protocol;
mod names;
mod admin;
mod access_log;
mod cut_short;
mod shutdown;
mod drain;
mod reload;
mod sockets;
mod handover;
mod isolation;
mod slow_peers;
mod settings;
mod gateway;
mod outside;
mod second_suite;
mod nonce_echo;
mod review;
mod reasons;
#[cfg(target_os = "linux")]
mod tcp;
mod real;
