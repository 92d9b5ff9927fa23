//! The one account of an exchange, from which the access log and later readers tell it.
//!
//! Plain data that a connection owns and fills anew for each exchange: octets are copied into
//! buffers that keep their storage, so the steady state allocates nothing. Absent on purpose:
//! formatting, counting and the clock.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::SystemTime;

use crate::base::ConnId;
use crate::base::ProxyError;
use crate::base::close::Close;
use crate::base::names::Name;
use crate::base::reason::OpenReason;
use crate::base::reason::Outcome;
use crate::observe::words::RetryReason;

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct ExchangeRecord {
    /// When the first octet of the request came.
    pub began: SystemTime,
    /// The same in microseconds since the process began, from which the parts are told.
    pub since: u64,
    /// The client connection.
    pub client_conn: ConnId,
    /// Which request on it, from 1.
    pub client_nth: u64,
    /// The client's address.
    pub client: SocketAddr,
    /// The listener's name.
    pub listener: Option<Name>,
    /// The route that matched.
    pub route: Option<Name>,
    /// The method, as it came.
    pub method: Octets,
    /// The host, as it came.
    pub host: Octets,
    /// The request target, as it came.
    pub target: Octets,
    /// The minor version of the request: HTTP/1.x.
    pub minor_version: u8,
    /// `User-Agent`, for the combined format.
    pub user_agent: Octets,
    /// `Referer`, for the combined format.
    pub referer: Octets,
    /// The final status code; `None` when no answer was begun.
    pub status: Option<u16>,
    /// Octets of request content.
    pub bytes_in: u64,
    /// Octets of response content.
    pub bytes_out: u64,
    /// What happened on the origin side; `None` when it was not asked.
    pub origin: Option<OriginRecord>,
    /// How many attempts were made.
    pub attempts: u32,
    /// Why the last further attempt was made.
    pub retry: Option<RetryReason>,
    /// Whether the client's connection was kept, and if not, why.
    pub client_kept: Kept,
    /// Durations of the parts.
    pub timeline: Timeline,
    /// How it ended.
    pub end: End,
}

/// The origin side of an exchange: of the last attempt, if there were several.
#[derive(Clone, Debug)]
pub struct OriginRecord {
    /// The upstream's name.
    pub upstream: Name,
    /// The endpoint's address, once one was picked.
    pub endpoint: Option<SocketAddr>,
    /// The connection, once there was one.
    pub conn: Option<ConnId>,
    /// Which request on it, from 1.
    pub nth: u64,
    /// How the request came by its connection; `None`: the one for it could not be opened.
    pub outcome: Option<Outcome>,
    /// Why one was opened, if it was.
    pub opened: Option<OpenReason>,
    /// How long it had been parked, if it was reused.
    pub idle: Option<Duration>,
    /// Whether it was kept afterwards, and if not, why.
    pub kept: Kept,
}

/// Whether a connection outlived the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It serves the next one.
    Persists,
    /// It was closed.
    Closed(Close),
    /// There was none.
    Never,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The whole answer was sent.
    Complete,
    /// It became a tunnel, which then ended.
    Tunnelled,
    /// Something went wrong; the reason knows whose doing it was.
    Failed(ProxyError),
}

/// How long the parts of an exchange took, in microseconds. On a reused connection `connect` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    /// Resolving the endpoint's name.
    pub dns: u64,
    /// Waiting for a connection.
    pub queue: u64,
    /// The handshake.
    pub connect: u64,
    /// Sending the request.
    pub send: u64,
    /// From the request's last octet to the answer's first.
    pub wait: u64,
    /// The answer's content.
    pub body: u64,
    /// From the request's first octet to the answer's last.
    pub total: u64,
}

/// Octets a peer sent, kept up to a limit; the log says where they were cut.
#[derive(Clone, Debug, Default)]
pub struct Octets {
    kept: Vec<u8>,
    cut: usize,
}

impl Octets {
    /// Most octets kept of one field. Longer targets are legal and seen; a log line of 2 KiB still
    /// tells which they were.
    pub const KEPT_MAX: usize = 2048;

    /// Replaces what is kept; the storage stays.
    pub fn set(&mut self, octets: &[u8]) {
        let kept = &octets[..octets.len().min(Self::KEPT_MAX)];
        self.kept.clear();
        self.kept.extend_from_slice(kept);
        self.cut = octets.len() - kept.len();
    }

    /// Forgets them; the storage stays.
    pub fn clear(&mut self) {
        self.kept.clear();
        self.cut = 0;
    }

    /// What is kept.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.kept
    }

    /// How many octets did not fit.
    #[must_use]
    pub fn cut(&self) -> usize {
        self.cut
    }
}

impl ExchangeRecord {
    /// A record to fill, for one client connection.
    #[must_use]
    pub fn new(client_conn: ConnId, client: SocketAddr, listener: Option<Name>) -> Self {
        Self {
            began: SystemTime::UNIX_EPOCH,
            since: 0,
            client_conn,
            client_nth: 0,
            client,
            listener,
            route: None,
            method: Octets::default(),
            host: Octets::default(),
            target: Octets::default(),
            minor_version: 1,
            user_agent: Octets::default(),
            referer: Octets::default(),
            status: None,
            bytes_in: 0,
            bytes_out: 0,
            origin: None,
            attempts: 0,
            retry: None,
            client_kept: Kept::Persists,
            timeline: Timeline::default(),
            end: End::Complete,
        }
    }

    /// Notes what became of the origin's connection.
    pub fn note_kept(&mut self, kept: Kept) {
        if let Some(origin) = &mut self.origin {
            origin.kept = kept;
        }
    }

    /// Forgets the last exchange; the connection's own facts and all storage stay.
    pub fn restart(&mut self, nth: u64, began: SystemTime) {
        self.client_nth = nth;
        self.began = began;
        self.route = None;
        for octets in [
            &mut self.method,
            &mut self.host,
            &mut self.target,
            &mut self.user_agent,
            &mut self.referer,
        ] {
            octets.clear();
        }
        self.minor_version = 1;
        self.status = None;
        (self.bytes_in, self.bytes_out) = (0, 0);
        self.origin = None;
        self.attempts = 0;
        self.retry = None;
        self.client_kept = Kept::Persists;
        self.timeline = Timeline::default();
        self.end = End::Complete;
    }
}

impl Default for ExchangeRecord {
    fn default() -> Self {
        Self::new(
            ConnId(0),
            SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            None,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_kept_up_to_the_limit_and_the_rest_is_counted() {
        let mut octets = Octets::default();
        octets.set(&[b'a'; Octets::KEPT_MAX]);
        assert_eq!(
            (octets.as_slice().len(), octets.cut()),
            (Octets::KEPT_MAX, 0)
        );
        octets.set(&[b'a'; Octets::KEPT_MAX + 1]);
        assert_eq!(
            (octets.as_slice().len(), octets.cut()),
            (Octets::KEPT_MAX, 1)
        );
    }

    #[test]
    fn a_record_that_restarts_remembers_nothing_of_the_exchange_before() {
        let mut record = ExchangeRecord::default();
        record.target.set(b"/secret");
        record.status = Some(200);
        record.end = End::Failed(ProxyError::Truncated);
        record.restart(2, SystemTime::UNIX_EPOCH);
        assert!(record.target.as_slice().is_empty());
        assert_eq!(
            (record.status, record.end, record.client_nth),
            (None, End::Complete, 2)
        );
    }
}
