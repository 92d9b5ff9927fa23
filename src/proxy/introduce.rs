//! Who the client is: the PROXY protocol header that a connection may begin with, and the client's
//! place among its own connections where that needs more than the peer's address.
//!
//! `client_key` says when the place is taken. By `peer`: on accepting. By `proxy_protocol`: when
//! the header has come, or it is clear that none will. By a field: from a trusted peer when the
//! first request's head has come, and the connection keeps that place though later requests on it
//! may be other clients'; from any other peer under its address. Until then a connection counts in
//! the limits of the process and of its listener, and the header's deadline bounds how long. A
//! request that is closed, reset or held beyond its patience here is counted and not logged.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::base::reason::By;
use crate::base::reason::Phase;
use crate::net::Deadline;
use crate::net::buffer::Fill;
use crate::net::clock;
use crate::net::reactor::Seen;
use crate::net::stream::Fault;
use crate::net::stream::ReadEnd;
use crate::net::stream::Reset;
use crate::net::worker;
use crate::observe::error_log::Severity;
use crate::observe::words::RejectReason;
use crate::policy::client_key;
use crate::policy::client_key::ClientKey;
use crate::policy::forwarded::Trust;
use crate::policy::proxy_protocol;
use crate::policy::proxy_protocol::HEADER_OCTETS_MAX;
use crate::policy::proxy_protocol::Preamble;
use crate::policy::proxy_protocol::Refusal;
use crate::proxy::client::Admitted;
use crate::proxy::client::Client;
use crate::proxy::client::Ending;
use crate::proxy::client::Leave;
use crate::proxy::client::Opening;
use crate::proxy::desk::Desk;
use crate::proxy::draining::Standing;
use crate::proxy::service::LimitAction;
use crate::proxy::service::Listener;
use crate::proxy::service::Taken;
use crate::proxy::settings::ProxyProtocol;

/// When it is known who the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// On accepting: it is the peer.
    AtOnce,
    /// Once more of what it says has come.
    Later,
}

/// When it is known who the client behind a peer is.
#[must_use]
pub fn known(listener: &Listener, peer: IpAddr) -> Known {
    let is_introduced = listener.settings.proxy_protocol != ProxyProtocol::Off;
    let is_later = match &listener.settings.client_key {
        ClientKey::Peer => false,
        ClientKey::ProxyProtocol => is_introduced,
        ClientKey::Field(_) => is_introduced || listener.trust(peer) == Trust::Trusted,
    };
    match is_later {
        true => Known::Later,
        false => Known::AtOnce,
    }
}

/// Turns a peer away that must send a header and would not be believed.
///
/// # Errors
/// How its connection ends.
pub fn check_peer(client: &Client) -> Result<(), Ending> {
    let is_due = client.opening == Opening::Due
        && client.listener.settings.proxy_protocol == ProxyProtocol::Required;
    if is_due && believes(client) == Trust::Untrusted {
        return Err(refuse(client, By::Holdfast, UNTRUSTED));
    }
    Ok(())
}

/// How long a client may be silent: where a header is due, it comes at once, and one that will be
/// refused holds its place no longer than it takes to say so.
#[must_use]
pub fn patience(client: &Client) -> Duration {
    let settings = &client.listener.settings;
    match (awaited(client), client.admitted) {
        (Awaited::Header, _) => settings.header_timeout,
        (Awaited::Request, Admitted::No(_)) => settings.header_timeout.min(settings.idle_timeout),
        (Awaited::Request, Admitted::Yes | Admitted::Undecided) => settings.idle_timeout,
    }
}

/// How the connection of a client ends that was silent for so long.
#[must_use]
pub fn on_silence(client: &Client) -> Ending {
    match awaited(client) {
        Awaited::Header => late(client),
        Awaited::Request => Ending::linger(CloseReason::IdleTimeout),
    }
}

/// Reads what a connection begins with before its first request, and takes its place if it is then
/// known whose it is. Cancel: the connection is good only for closing.
///
/// # Errors
/// How the connection ends.
pub async fn open(client: &mut Client, desk: &mut Desk) -> Result<(), Ending> {
    read_header(client, desk).await?;
    client.opening = Opening::Past;
    let is_known = match client.listener.settings.client_key {
        ClientKey::Peer | ClientKey::ProxyProtocol => true,
        ClientKey::Field(_) => client.trust == Trust::Untrusted,
    };
    if client.admitted == Admitted::Undecided && is_known {
        return admit(client, client.address.ip()).await;
    }
    Ok(())
}

/// Notes whose request this is, as a trusted peer names it.
pub fn identify(client: &Client, desk: &mut Desk) -> SocketAddr {
    let ClientKey::Field(name) = &client.listener.settings.client_key else {
        return client.address;
    };
    let head = (&desk.request.fields, desk.input.held());
    let trust = |address| client.listener.trust(address);
    desk.record.client = client_key::named_by(name, head, client.address, trust);
    desk.record.client
}

/// Takes a client's place among its own connections, or does what the operator chose.
///
/// # Errors
/// How the connection ends. Cancel: the connection is good only for closing.
pub async fn admit(client: &mut Client, address: IpAddr) -> Result<(), Ending> {
    client.admitted = Admitted::Yes;
    if client.places.take(address) == Taken::Place {
        return Ok(());
    }
    let rejected = &client.listener.metrics.rejected;
    rejected.of(RejectReason::ClientLimit).inc();
    match client.listener.client_limit_action {
        LimitAction::TooManyRequests => {
            client.admitted = Admitted::No(ProxyError::ClientLimit);
            Ok(())
        }
        LimitAction::Close => Err(Ending::linger(CloseReason::ClientLimit)),
        LimitAction::Reset => Err(Ending::abort(CloseReason::ClientLimit)),
        LimitAction::Hold => hold(client, address).await,
    }
}

/// Waits for a place, as long as an idle client may wait. What it has sent stays where it is.
async fn hold(client: &mut Client, address: IpAddr) -> Result<(), Ending> {
    let deadline = Deadline::after(client.listener.settings.idle_timeout);
    while !deadline.passed() && client.service.standing() < Standing::Closing {
        if client.places.take(address) == Taken::Place {
            return Ok(());
        }
        worker::sleep_until(Deadline::after(HOLD_LOOK)).await;
        if client.stream.peer_has_ended() || client.stream.look() == Seen::Closed {
            return Err(Ending::by_peer(match client.stream.was_reset() {
                Reset::Yes => CloseReason::PeerRst,
                Reset::No => CloseReason::PeerFin,
            }));
        }
    }
    Err(Ending::linger(CloseReason::ClientLimit))
}

/// What a silent client has yet to send.
enum Awaited {
    Header,
    Request,
}

fn awaited(client: &Client) -> Awaited {
    match (client.opening, client.listener.settings.proxy_protocol) {
        (Opening::Due, ProxyProtocol::Required) => Awaited::Header,
        _ => Awaited::Request,
    }
}

async fn read_header(client: &mut Client, desk: &mut Desk) -> Result<(), Ending> {
    let needed = client.listener.settings.proxy_protocol;
    let silent_until = Deadline::after(patience(client));
    let deadline = Deadline::after(client.listener.settings.header_timeout);
    loop {
        let unread = desk.input.unread();
        let until = match unread.is_empty() {
            true => silent_until,
            false => {
                client.enter(Phase::RequestHead);
                deadline
            }
        };
        match (proxy_protocol::read(unread), needed) {
            (Preamble::NeedMore, _) => {}
            (Preamble::Refused(Refusal::Absent), ProxyProtocol::Optional) => return Ok(()),
            (Preamble::Refused(why), _) => {
                return Err(refuse(client, By::Holdfast, why.label()));
            }
            (Preamble::Header { .. }, _) if believes(client) == Trust::Untrusted => {
                return Err(refuse(client, By::Holdfast, UNTRUSTED));
            }
            (Preamble::Header { source, consumed }, _) => {
                desk.input.consume(consumed);
                source.into_iter().for_each(|source| client.becomes(source));
                return Ok(());
            }
        }
        let filled = desk.input.fill(&client.stream, HEADER_OCTETS_MAX, until);
        match filled.await {
            Ok(ReadEnd::Octets(_)) => {}
            // A look at whether the port is open, as balancers take it.
            Ok(ReadEnd::Fin) if desk.input.unread().is_empty() => {
                return Err(Ending::by_peer(CloseReason::PeerFin));
            }
            Ok(ReadEnd::Fin) => return Err(refuse(client, By::Peer, "it ended in the middle")),
            Err(Fill::Fault(Fault::TimedOut)) if desk.input.unread().is_empty() => {
                return Err(on_silence(client));
            }
            Err(Fill::Fault(Fault::TimedOut)) => return Err(late(client)),
            Err(Fill::Fault(Fault::Reset)) => return Err(Ending::by_peer(CloseReason::PeerRst)),
            Err(Fill::Fault(Fault::Io(_))) => return Err(Ending::abort(CloseReason::IoError)),
            // A decision is made long before the buffer is full.
            Err(Fill::Full) => return Err(Ending::abort(CloseReason::Ours)),
        }
    }
}

/// Whether a header from this peer is believed. Without a list all are, which the configuration
/// allows only where every connection must bring one: then only the balancer is meant to come.
fn believes(client: &Client) -> Trust {
    match client.listener.trusted_proxies.is_empty() {
        true => Trust::Trusted,
        // Before its header has been read, the client is its peer.
        false => client.trust,
    }
}

/// Counts and tells a refusal. The connection closes in stages: nobody knows what it speaks, so it
/// gets no answer.
fn refuse(client: &Client, by: By, why: &'static str) -> Ending {
    let metrics = &client.listener.metrics;
    metrics.rejected.of(RejectReason::ProxyProtocol).inc();
    let message = "a connection did not begin with a PROXY protocol header to believe";
    let name = &client.listener.settings.name;
    let facts: [(&'static str, &dyn std::fmt::Display); 3] = [
        ("listener", name),
        ("peer", &client.address),
        ("error", &why),
    ];
    let errors = &client.service.errors;
    errors.log(
        clock::wall(),
        Severity::Warn,
        "proxy_protocol",
        message,
        &facts,
    );
    Ending {
        by,
        ..Ending::linger(CloseReason::ProxyProtocol)
    }
}

/// The same of a header that did not come in time.
fn late(client: &Client) -> Ending {
    let why = "it did not come within header_timeout";
    Ending {
        leave: Leave::LingerLate,
        ..refuse(client, By::Holdfast, why)
    }
}

/// Why a header is not believed.
const UNTRUSTED: &str = "the peer is none of trusted_proxies";

/// Between two looks for a free place of a client that is held.
const HOLD_LOOK: Duration = Duration::from_millis(50);
