//! The settings as the rest of the house gets them: typed, whole, and unable to hold a bad value.
//!
//! Plain data, named as in the file. Deliberately absent: where a value came from (that is
//! `source`), and any rule (that is `check`).

pub mod words;
pub mod values;
pub mod listener;
pub mod upstream;
pub mod route;

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::units::Limit;

pub use listener::Listener;
pub use route::Route;
pub use upstream::Upstream;

use values::AccessFile;
use values::Secret;
use values::Workers;
use words::AccessLog;
use words::AddressFamily;
use words::AtDeadline;
use words::LogFormat;
use words::LogLevel;

/// Everything an operator decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `[server]`.
    pub server: Server,
    /// `[admin]`.
    pub admin: Admin,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[log]`.
    pub log: Log,
    /// `[drain]`.
    pub drain: Drain,
    /// `[dns]`.
    pub dns: Dns,
    /// `[listeners.*]`, in the order of their names; at least one.
    pub listeners: Vec<Listener>,
    /// `[upstreams.*]`, in the order of their names; at least one.
    pub upstreams: Vec<Upstream>,
    /// `[routes.*]`, in the order of their names; at least one.
    pub routes: Vec<Route>,
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Worker threads.
    pub workers: Workers,
    /// Most client connections of all listeners.
    pub max_connections: u32,
    /// Descriptors kept for the admin plane, DNS and logs.
    pub fd_reserve: u32,
    /// Whether a changed file is read again by itself.
    pub watch_config: bool,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens; `None`: nowhere.
    pub bind: Option<SocketAddr>,
    /// Whether it may kill, drain and reload.
    pub allow_changes: bool,
    /// What must be presented on everything but the probes.
    pub token: Option<Secret>,
}

/// `[metrics]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Endpoints with a series of their own; the rest are `other`.
    pub max_endpoint_series: u32,
    /// How often `TCP_INFO` is sampled.
    pub tcp_info_interval: Limit<Duration>,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least severe line that is written.
    pub level: LogLevel,
    /// How lines are written.
    pub format: LogFormat,
    /// Which exchanges are logged.
    pub access: AccessLog,
    /// Where the access log goes.
    pub access_file: AccessFile,
    /// Whether responses carry `Server-Timing`.
    pub server_timing: bool,
}

/// `[drain]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long it is announced before listeners close.
    pub delay: Duration,
    /// How long idle clients are kept then.
    pub idle_grace: Duration,
    /// Over how long their closes are spread.
    pub spread: Duration,
    /// How long exchanges in flight may take.
    pub timeout: Duration,
    /// How long tunnels may take after that.
    pub tunnel_timeout: Duration,
    /// Whether WebSockets are told (RFC 6455 §7.4.1, 1001).
    pub websocket_close: bool,
    /// How the rest ends.
    pub at_deadline: AtDeadline,
}

/// `[dns]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Between two look-ups of a name.
    pub refresh_interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// How long the last good answer serves when look-ups fail.
    pub keep_last_good: Duration,
    /// How long connections to an address stay after it was removed; it gets no new requests.
    pub removal_grace: Duration,
    /// Which addresses are used.
    pub family: AddressFamily,
}
