//! The settings whose values are words: each an enum, each with its table of words.
//!
//! One table serves reading, showing and the "what is allowed" of a complaint, so that the three
//! cannot differ.

/// A setting written as one of a few words.
pub trait Word: Copy + PartialEq + Sized + 'static {
    /// Every word with what it means, in the order in which a complaint lists them.
    const WORDS: &'static [(&'static str, Self)];

    /// The meaning of a word.
    fn from_word(text: &str) -> Option<Self> {
        Self::WORDS
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, meaning)| *meaning)
    }

    /// The word for a meaning.
    fn word(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(_, meaning)| *meaning == self)
            .map_or("", |(word, _)| word)
    }
}

/// `log.level`: the least severe line that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what is likely to fail.
    Warn,
    /// And what changed.
    Info,
    /// And why.
    Debug,
    /// And every step.
    Trace,
}

impl Word for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

/// `log.format`: how a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// `key=value` pairs.
    Logfmt,
    /// The combined log format; for the access log only.
    Combined,
}

impl Word for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("json", Self::Json),
        ("logfmt", Self::Logfmt),
        ("combined", Self::Combined),
    ];
}

/// `log.access`: which exchanges are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Each one.
    All,
    /// Those that failed.
    Errors,
    /// None.
    Off,
}

impl Word for AccessLog {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("all", Self::All),
        ("errors", Self::Errors),
        ("off", Self::Off),
    ];
}

/// `drain.at_deadline`: how connections end that a drain did not see finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtDeadline {
    /// By RST, so that the cut is visible.
    Reset,
    /// By FIN.
    Fin,
}

impl Word for AtDeadline {
    const WORDS: &'static [(&'static str, Self)] = &[("reset", Self::Reset), ("fin", Self::Fin)];
}

/// `dns.family`: which addresses of a name are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFamily {
    /// Whatever the resolver returns.
    Auto,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl Word for AddressFamily {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("ipv4", Self::Ipv4),
        ("ipv6", Self::Ipv6),
    ];
}

/// `tcp.quickack`: whether acknowledgements are sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuickAck {
    /// As the kernel decides.
    Auto,
    /// At once.
    On,
    /// Delayed.
    Off,
}

impl Word for QuickAck {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("on", Self::On), ("off", Self::Off)];
}

/// `listeners.*.client_limit_action`: the answer to a client with too many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientLimitAction {
    /// 429 with `Retry-After` (RFC 6585 §4), then a staged close.
    TooManyRequests,
    /// FIN without an answer.
    Close,
    /// RST.
    Reset,
    /// Accepted and not read until another of the client's connections ends.
    Hold,
}

impl Word for ClientLimitAction {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("429", Self::TooManyRequests),
        ("close", Self::Close),
        ("reset", Self::Reset),
        ("hold", Self::Hold),
    ];
}

/// `listeners.*.proxy_protocol`: whether connections begin with a PROXY protocol header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Never; one would be a bad request.
    Off,
    /// Those from trusted proxies may.
    Optional,
    /// All do.
    Required,
}

impl Word for ProxyProtocol {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("off", Self::Off),
        ("optional", Self::Optional),
        ("required", Self::Required),
    ];
}

/// `listeners.*.pipelining`: what happens to requests that arrive before the answer before them
/// has left (RFC 9112 §9.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipelining {
    /// One exchange at a time; read-ahead waits.
    Serial,
    /// A leading run of safe methods is dispatched at once.
    Concurrent,
    /// The connection ends after the answer.
    Close,
}

impl Word for Pipelining {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("serial", Self::Serial),
        ("concurrent", Self::Concurrent),
        ("close", Self::Close),
    ];
}

/// `listeners.*.half_close`: what a client's FIN after a complete request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfClose {
    /// It still gets its answer.
    Finish,
    /// It left.
    Abort,
}

impl Word for HalfClose {
    const WORDS: &'static [(&'static str, Self)] =
        &[("finish", Self::Finish), ("abort", Self::Abort)];
}

/// `upstreams.*.balance`: how an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The less loaded of two drawn at random.
    P2c,
    /// In turn.
    RoundRobin,
    /// The one with the fewest requests in flight.
    LeastRequests,
    /// The one with the lowest moving average of latency.
    Ewma,
    /// By `hash_key`, consistently.
    Hash,
}

impl Word for Balance {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("p2c", Self::P2c),
        ("round_robin", Self::RoundRobin),
        ("least_requests", Self::LeastRequests),
        ("ewma", Self::Ewma),
        ("hash", Self::Hash),
    ];
}

/// `upstreams.*.pool.order`: which idle connection is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolOrder {
    /// The newest: windows stay open, the rest may age out.
    Lifo,
    /// The oldest: all stay in use.
    Fifo,
}

impl Word for PoolOrder {
    const WORDS: &'static [(&'static str, Self)] = &[("lifo", Self::Lifo), ("fifo", Self::Fifo)];
}

/// `upstreams.*.pool.reuse`: which requests may take a used connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// None; a connection for each request.
    Never,
    /// All but the first of a client's connection, which a client cannot know to repeat.
    Safe,
    /// All.
    Always,
}

impl Word for Reuse {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("never", Self::Never),
        ("safe", Self::Safe),
        ("always", Self::Always),
    ];
}

/// `upstreams.*.pool.queue`: who of the waiting is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueOrder {
    /// The oldest.
    Fifo,
    /// Clients in turn.
    Fair,
}

impl Word for QueueOrder {
    const WORDS: &'static [(&'static str, Self)] = &[("fifo", Self::Fifo), ("fair", Self::Fair)];
}

/// An entry of `upstreams.*.retry.on`: a failure after which a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// The connection could not be made; nothing was sent.
    ConnectFailure,
    /// A reused connection turned out closed.
    StaleConnection,
    /// A fresh connection ended without an octet of a response.
    EmptyResponse,
    /// No response head within `timeouts.response_header`.
    Timeout,
    /// 502 from the origin.
    BadGateway,
    /// 503 from the origin.
    ServiceUnavailable,
    /// 504 from the origin.
    GatewayTimeout,
}

impl Word for RetryOn {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("connect_failure", Self::ConnectFailure),
        ("stale_connection", Self::StaleConnection),
        ("empty_response", Self::EmptyResponse),
        ("timeout", Self::Timeout),
        ("502", Self::BadGateway),
        ("503", Self::ServiceUnavailable),
        ("504", Self::GatewayTimeout),
    ];
}

/// `upstreams.*.retry.unsafe_methods`: when a request that is not idempotent is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsafeMethods {
    /// Not once an octet of it may have gone out.
    Never,
    /// Only when the origin provably did not have it.
    Proven,
    /// Like idempotent ones.
    Always,
}

impl Word for UnsafeMethods {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("never", Self::Never),
        ("proven", Self::Proven),
        ("always", Self::Always),
    ];
}

/// `routes.*.forwarded`: which fields tell the origin about the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// `X-Forwarded-For`, `-Proto` and `-Host`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// Both kinds.
    Both,
    /// None of them.
    Off,
}

impl Word for Forwarded {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("x-forwarded", Self::XForwarded),
        ("forwarded", Self::Forwarded),
        ("both", Self::Both),
        ("off", Self::Off),
    ];
}
