//! The stage of the dialogues: a scripted client, a scripted origin, and the binary between them.
//!
//! Everything here blocks in plain threads and is bounded in time, so that a dialogue reads from top
//! to bottom and a hang is a failure with a place. Absent on purpose: sleeping for something to have
//! happened; tests wait for the event itself (`eventually`, [`gate::Gate`]).

pub mod gate;
pub mod wire;
pub mod client;
pub mod origin;
pub mod config;
pub mod metrics;
pub mod proxy;
pub mod upgrade;
pub mod vectors;
pub mod bodies;
pub mod program;

pub use client::Client;
pub use gate::Gate;
pub use origin::Origin;
pub use proxy::Proxy;
pub use wire::End;

use std::time::Duration;
use std::time::Instant;

/// Longest that any single step of a dialogue may take. Far above what a step needs on a busy
/// machine with two cores, where one that is due may wait for whole seconds; a test that comes near
/// it is broken, not slow.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until the answer is yes.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never came to be: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Octets as they may be read in a failure message.
pub fn shown(octets: &[u8]) -> String {
    octets
        .escape_ascii()
        .to_string()
        .replace("\\r\\n", "\\r\\n\n")
}
