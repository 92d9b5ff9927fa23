//! A close, told whole: by whom, how, why, and in which phase.
//!
//! Who spoke first ended a connection, and that side keeps its port in TIME_WAIT (RFC 9293 §3.6): a
//! reason alone does not say it. Absent on purpose: the client's side, where who ends a conversation
//! is known when it ends (`proxy/client`).

use crate::base::reason::By;
use crate::base::reason::CloseReason;
use crate::base::reason::How;
use crate::base::reason::Phase;

/// A close, told whole: by whom, how, why, and in which phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Close {
    /// Who ended it.
    pub by: By,
    /// How it ended on the wire.
    pub how: How,
    /// Why.
    pub reason: CloseReason,
    /// What it was doing.
    pub phase: Phase,
}

/// What a connection's socket had heard of its peer when it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// That it is still there.
    Nothing,
    /// Its FIN.
    Fin,
    /// Its reset.
    Rst,
}

impl Close {
    /// The close of an origin's connection that is retired for `reason`. Who spoke first ended it,
    /// since it is that side which keeps the port in TIME_WAIT (RFC 9293 §3.6).
    #[must_use]
    pub const fn of_origin(reason: CloseReason, heard: Heard, phase: Phase) -> Self {
        // Two look like a reset and are none: a tunnel that ended by a FIN each way, and a socket
        // that the kernel gave up (`tcp.user_timeout`, keep-alive probes, ICMP).
        let heard = match (reason, heard) {
            (CloseReason::Upgraded, Heard::Rst) => Heard::Fin,
            (CloseReason::Timeout | CloseReason::IoError, Heard::Rst) => Heard::Nothing,
            (_, heard) => heard,
        };
        let by = match (reason, heard) {
            (CloseReason::PeerFin | CloseReason::PeerRst | CloseReason::CloseDelimited, _)
            | (_, Heard::Fin | Heard::Rst) => By::Peer,
            (_, Heard::Nothing) => By::Holdfast,
        };
        let how = match (reason, heard) {
            (CloseReason::PeerRst, _) | (_, Heard::Rst) => How::Rst,
            _ if reason.is_a_deadline() => How::Timeout,
            _ => How::Fin,
        };
        Self {
            by,
            how,
            reason,
            phase,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(reason: CloseReason, heard: Heard) -> (By, How) {
        let close = Close::of_origin(reason, heard, Phase::Idle);
        assert_eq!((close.reason, close.phase), (reason, Phase::Idle));
        (close.by, close.how)
    }

    #[test]
    fn a_connection_was_ended_by_whoever_spoke_first() {
        let closes = CloseReason::UpstreamCloseHeader;
        assert_eq!(origin(closes, Heard::Fin), (By::Peer, How::Fin));
        assert_eq!(origin(closes, Heard::Nothing), (By::Holdfast, How::Fin));
        let delimited = CloseReason::CloseDelimited;
        assert_eq!(origin(delimited, Heard::Nothing), (By::Peer, How::Fin));
    }

    #[test]
    fn a_reset_is_told_as_one_whatever_it_broke() {
        let cut = CloseReason::Truncated;
        assert_eq!(origin(cut, Heard::Rst), (By::Peer, How::Rst));
        assert_eq!(origin(cut, Heard::Fin), (By::Peer, How::Fin));
        let parked = CloseReason::PeerRst;
        assert_eq!(origin(parked, Heard::Nothing), (By::Peer, How::Rst));
    }

    #[test]
    fn a_tunnel_that_ended_as_one_was_not_reset_though_its_socket_looks_so() {
        let ended = CloseReason::Upgraded;
        assert_eq!(origin(ended, Heard::Rst), (By::Peer, How::Fin));
    }

    #[test]
    fn a_socket_that_the_kernel_gave_up_was_not_reset_though_it_looks_so() {
        let given_up = CloseReason::Timeout;
        let told = origin(given_up, Heard::Rst);
        assert_eq!(told, (By::Holdfast, How::Timeout));
    }

    #[test]
    fn a_deadline_that_passed_is_told_as_one() {
        let passed = [CloseReason::Timeout, CloseReason::IdleTimeout];
        for reason in passed {
            assert_eq!(origin(reason, Heard::Nothing), (By::Holdfast, How::Timeout));
        }
    }
}
