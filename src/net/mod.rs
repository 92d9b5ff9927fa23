//! Floor 4: sockets and the clock; the one floor that names the runtime.

pub mod admin_serve;
pub mod admin_client;
