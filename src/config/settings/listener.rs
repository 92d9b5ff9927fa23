//! What one listener does, and the TCP options that listeners and upstreams share.

use std::time::Duration;

use ipnet::IpNet;

use crate::base::names::Name;
use crate::base::units::ByteCount;
use crate::base::units::Limit;

use super::values::Bind;
use super::values::ClientKey;
use super::values::Ratio;
use super::words::ClientLimitAction;
use super::words::HalfClose;
use super::words::Pipelining;
use super::words::ProxyProtocol;
use super::words::QuickAck;

/// `[listeners.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The name of its table.
    pub name: Name,
    /// Where it accepts; at least one.
    pub bind: Vec<Bind>,
    /// Connections the kernel keeps until they are accepted.
    pub backlog: u32,
    /// Most connections of this listener.
    pub max_connections: Limit<u32>,
    /// Most connections of one client.
    pub max_connections_per_client: Limit<u32>,
    /// Who is one client.
    pub client_key: ClientKey,
    /// Leading bits of an IPv4 address that make one client.
    pub client_prefix_v4: u8,
    /// Leading bits of an IPv6 address that make one client.
    pub client_prefix_v6: u8,
    /// Addresses that the limit per client does not count.
    pub client_exempt: Vec<IpNet>,
    /// The answer to a client beyond its limit.
    pub client_limit_action: ClientLimitAction,
    /// What `Retry-After` says then.
    pub retry_after: Duration,
    /// Whether connections begin with a PROXY protocol header.
    pub proxy_protocol: ProxyProtocol,
    /// Peers whose word about the client is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// From the first octet of a head to its end.
    pub header_timeout: Duration,
    /// Between two reads of a request body.
    pub body_timeout: Duration,
    /// Octets a second of a request body, after a grace.
    pub min_body_rate: Limit<ByteCount>,
    /// A client that does not read.
    pub write_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// Whether `Keep-Alive` is sent.
    pub keep_alive_header: bool,
    /// Most requests of one connection.
    pub max_requests: Limit<u32>,
    /// Greatest age of a connection.
    pub max_age: Limit<Duration>,
    /// The share of `max_age` by which connections differ.
    pub max_age_jitter: Ratio,
    /// Longest head.
    pub max_header_bytes: ByteCount,
    /// Most field lines of a head.
    pub max_headers: u32,
    /// Longest request body.
    pub max_body_bytes: Limit<ByteCount>,
    /// Whether HTTP/1.0 is spoken.
    pub http10: bool,
    /// What happens to requests that arrive early.
    pub pipelining: Pipelining,
    /// Most exchanges of one connection at once, when concurrent.
    pub pipeline_depth: u32,
    /// What a client's FIN after a complete request means.
    pub half_close: HalfClose,
    /// How long a staged close reads on.
    pub linger_timeout: Duration,
    /// How much a staged close reads on.
    pub linger_bytes: ByteCount,
    /// Options of accepted sockets.
    pub tcp: Tcp,
}

/// `[listeners.NAME.tcp]` and `[upstreams.NAME.tcp]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tcp {
    /// `TCP_NODELAY`.
    pub nodelay: bool,
    /// Idle time before the first keep-alive probe.
    pub keepalive_time: Limit<Duration>,
    /// Between two probes.
    pub keepalive_interval: Duration,
    /// Unanswered probes until the connection is given up.
    pub keepalive_retries: u32,
    /// `TCP_USER_TIMEOUT`: how long sent octets may stay unacknowledged.
    pub user_timeout: Limit<Duration>,
    /// Whether acknowledgements are sent at once.
    pub quickack: QuickAck,
}
