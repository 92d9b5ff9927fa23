//! Faults on demand, for the tests of isolation: in debug builds only.
//!
//! A request asks for one by `X-Holdfast-Fault`. In a release build this is nothing at all: the
//! field is a field like any other.

use crate::proxy::desk::Desk;

/// Where an exchange stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// Its head was read; it holds nothing.
    Head,
    /// Its answer has begun; it holds an origin's connection.
    Lent,
}

/// Does what the request asks for, if it asks for something here.
#[cfg(debug_assertions)]
#[expect(
    clippy::panic,
    clippy::disallowed_methods,
    reason = "this is where the tests have a panic and a stall from"
)]
pub fn on_demand(at: Where, desk: &Desk) {
    let octets = desk.input.held();
    let asks = |fault: &[u8]| {
        let mut lines = octets.split(|octet| *octet == b'\n');
        lines.any(|line| {
            line.strip_prefix(b"X-Holdfast-Fault: ")
                .is_some_and(|rest| rest.trim_ascii() == fault)
        })
    };
    match at {
        Where::Head if asks(b"panic") => panic!("as the test wants it, after the head"),
        Where::Head if asks(b"stall") => std::thread::sleep(std::time::Duration::from_secs(7)),
        Where::Lent if asks(b"panic_lent") => panic!("as the test wants it, with a connection"),
        Where::Head | Where::Lent => {}
    }
}

/// Nothing: this is no debug build.
#[cfg(not(debug_assertions))]
#[inline]
pub fn on_demand(_at: Where, _desk: &Desk) {}
