//! An exchange that was dropped before its end, and is told all the same.
//!
//! The deadline of a drain drops whatever is under way, and the end of a client's connection drops
//! what is in line behind (`pipeline`). The story that `serve` was telling breaks off then; the desk
//! knows how far it was, because octets are counted there as they pass.

use crate::base::CloseReason;
use crate::base::ProxyError;
use crate::base::close::Close;
use crate::base::reason::Phase;
use crate::observe::record::End;
use crate::observe::record::Kept;
use crate::proxy::account;
use crate::proxy::client::Client;
use crate::proxy::desk::Desk;
use crate::proxy::outlet::Reached;

/// Tells the exchange whose head is held on this desk and that was dropped as the client's
/// connection is closed so. Its answer had come so far.
pub(super) fn tell(client: &Client, desk: &mut Desk, (close, end): (Close, End), reached: Reached) {
    if !client.service.access_log.is_off() {
        account::note_head(&mut desk.record, &desk.request, desk.input.held());
    }
    let record = &mut desk.record;
    account::note_dropped(record);
    match reached {
        Reached::Nobody => {
            record.status = None;
            record.bytes_out = 0;
        }
        // The client saw this status, if its head was the last one.
        Reached::Client => {
            let seen = Some(desk.response.status).filter(|status| *status >= 200);
            record.status = record.status.or(seen);
        }
    }
    let octets = desk.input.held();
    let plan = client.service.plan_here();
    let path = desk.request.target.path(octets);
    let found = plan.table.find(desk.request.host(octets), path);
    let route = found
        .and_then(|at| plan.routes.get(at))
        .map(|route| &**route);
    record.end = end;
    if let End::Failed(error) = end {
        account::count_error(client, route, error);
    }
    account::finish(record, client, route, (record.since, Kept::Closed(close)));
}

/// How an exchange ended that had its client to itself, when that client's connection was closed so.
pub(super) const fn end(close: Close) -> End {
    match close.phase {
        Phase::Tunnel => End::Tunnelled,
        // The answer is whole; what was left of the request was being read.
        Phase::Idle => End::Complete,
        _ => unanswered(close.reason),
    }
}

/// What kept a request from its answer, when the connection ended so before it.
pub(super) const fn unanswered(reason: CloseReason) -> End {
    End::Failed(match reason {
        CloseReason::Drain => ProxyError::Draining,
        CloseReason::Admin => ProxyError::Dismissed,
        CloseReason::Truncated => ProxyError::Truncated,
        CloseReason::FramingError => ProxyError::BadRequest,
        CloseReason::Ours => ProxyError::Internal,
        _ => ProxyError::ClientGone,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connections_end_kept_from_its_answer_is_told_by_the_reason() {
        let told = [
            (CloseReason::Drain, ProxyError::Draining),
            (CloseReason::Truncated, ProxyError::Truncated),
            (CloseReason::PeerRst, ProxyError::ClientGone),
        ];
        for (reason, error) in told {
            assert_eq!(unanswered(reason), End::Failed(error));
        }
    }
}
