//! Floor 1: octets to messages and back, HTTP/1.1 as RFC 9112 has it. Strict in, canonical out.
//!
//! Sans-IO: buffers come in, places and decisions go out. No sockets, no clock, no tasks, no
//! logging; what is wrong is a [`MessageError`] that says which rule.

pub mod octets;
pub mod fields;
pub mod error;
mod lines;
pub mod target;
pub mod head;
pub mod framing;
pub mod chunked;
pub mod encode;
pub mod body;
pub mod persistence;
pub mod exchange;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod laws;

pub use chunked::Piece;
pub use error::MessageError;
pub use fields::Field;
pub use fields::FieldSection;
pub use fields::Span;
