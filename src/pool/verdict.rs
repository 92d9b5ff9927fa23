//! Whether a connection may carry another exchange, from what was seen on the last one.
//!
//! One function, so that reuse can be read and tested in one place (RFC 9112 §9.3, §9.6): it goes
//! through the rules of persistence in the RFC's order. They speak of what comes after a complete
//! answer. Absent on purpose: answers that broke off and tunnels, after which nothing is asked
//! (`proxy/failure` and `proxy/serve` retire those by name), and the pool's own wishes (`PoolFull`,
//! removal, drain), which the ledger adds.

use crate::base::CloseReason;
use crate::pool::lease::Allowance;

/// What becomes of a connection that is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may carry another exchange.
    Reusable,
    /// It closes, and why.
    Retire(CloseReason),
}

/// What the socket itself said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Nothing of note.
    Open,
    /// The origin closed its side.
    Fin,
    /// The origin reset the connection.
    Rst,
    /// The operating system reported an error.
    Failed,
}

/// How the answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerEnd {
    /// Where its framing said.
    Complete,
    /// With the connection (RFC 9112 §6.3, last case).
    UntilClose,
}

/// What the answer's head said about persistence (RFC 9112 §9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerPersistence {
    /// The connection persists.
    Persist,
    /// It carried the `close` option.
    Close,
    /// It was HTTP/1.0 without `keep-alive`.
    Http10,
}

/// How much of the request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestSent {
    /// All of it.
    Whole,
    /// Not all: a further request would be read as the rest of this one.
    Partly,
}

/// What came after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// Nothing.
    Empty,
    /// Octets that belong to no exchange.
    ExtraOctets,
}

/// Whether the pool reuses connections at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It does.
    On,
    /// `reuse = "never"`.
    Off,
}

/// What was seen on an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What the socket said.
    pub wire: Wire,
    /// How the answer ended.
    pub answer: AnswerEnd,
    /// What the answer said about persistence.
    pub persistence: AnswerPersistence,
    /// How much of the request was sent.
    pub request: RequestSent,
    /// What came after the answer.
    pub leftover: Leftover,
    /// Whether the pool reuses.
    pub reuse: Reuse,
    /// What its limits leave to the connection.
    pub allowance: Allowance,
}

/// Judges. The first rule that refuses gives the reason.
#[must_use]
pub fn verdict(seen: &Seen) -> Verdict {
    match refusal(seen) {
        Some(reason) => Verdict::Retire(reason),
        None => Verdict::Reusable,
    }
}

fn refusal(seen: &Seen) -> Option<CloseReason> {
    match seen.wire {
        Wire::Rst => return Some(CloseReason::PeerRst),
        Wire::Failed => return Some(CloseReason::IoError),
        Wire::Open | Wire::Fin => {}
    }
    // RFC 9112 §9.3: the close option ends it; else HTTP/1.1 persists; else HTTP/1.0 persists only
    // when it says so.
    match seen.persistence {
        // An origin that is told `close` says it too (RFC 9112 §9.6); the reason is still ours.
        AnswerPersistence::Close => {
            return Some(announced(seen).unwrap_or(CloseReason::UpstreamCloseHeader));
        }
        AnswerPersistence::Http10 | AnswerPersistence::Persist => {}
    }
    // RFC 9112 §9.3: a client that does not send the whole request must close.
    if seen.request == RequestSent::Partly {
        return Some(CloseReason::ClientUnfinished);
    }
    if seen.persistence == AnswerPersistence::Http10 {
        return Some(CloseReason::Http10);
    }
    // RFC 9112 §9.3: to persist, every message needs a self-defined length, read to its end.
    match seen.answer {
        AnswerEnd::UntilClose => return Some(CloseReason::CloseDelimited),
        AnswerEnd::Complete => {}
    }
    // RFC 9112 §9.2: unsolicited octets are no valid answer to whatever is asked next.
    if seen.leftover == Leftover::ExtraOctets {
        return Some(CloseReason::ExtraBytes);
    }
    if seen.wire == Wire::Fin {
        return Some(CloseReason::PeerFin);
    }
    announced(seen).or(seen.allowance.refusal())
}

/// Why we told the origin with the request that its connection closes, if we did.
fn announced(seen: &Seen) -> Option<CloseReason> {
    match (seen.reuse, seen.allowance) {
        (Reuse::Off, _) => Some(CloseReason::ReuseOff),
        (Reuse::On, Allowance::RequestsSpent) => Some(CloseReason::MaxRequests),
        (Reuse::On, Allowance::Left | Allowance::AgeSpent) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean() -> Seen {
        Seen {
            wire: Wire::Open,
            answer: AnswerEnd::Complete,
            persistence: AnswerPersistence::Persist,
            request: RequestSent::Whole,
            leftover: Leftover::Empty,
            reuse: Reuse::On,
            allowance: Allowance::Left,
        }
    }

    fn retires(change: impl FnOnce(&mut Seen)) -> CloseReason {
        let mut seen = clean();
        change(&mut seen);
        match verdict(&seen) {
            Verdict::Retire(reason) => reason,
            Verdict::Reusable => panic!("{seen:?} was reusable"),
        }
    }

    #[test]
    fn a_whole_exchange_leaves_its_connection_reusable() {
        assert_eq!(verdict(&clean()), Verdict::Reusable);
    }

    #[test]
    fn a_body_that_ends_with_the_connection_ends_the_connection() {
        let reason = retires(|s| {
            s.answer = AnswerEnd::UntilClose;
            s.wire = Wire::Fin;
        });
        assert_eq!(reason, CloseReason::CloseDelimited);
    }

    #[test]
    fn a_request_not_sent_whole_retires_the_connection() {
        assert_eq!(
            retires(|s| s.request = RequestSent::Partly),
            CloseReason::ClientUnfinished
        );
    }

    #[test]
    fn what_the_origin_says_about_persistence_is_obeyed() {
        let close = retires(|s| s.persistence = AnswerPersistence::Close);
        assert_eq!(close, CloseReason::UpstreamCloseHeader);
        assert_eq!(
            retires(|s| s.persistence = AnswerPersistence::Http10),
            CloseReason::Http10
        );
    }

    #[test]
    fn a_close_that_was_announced_with_the_request_keeps_its_own_reason() {
        let spent = retires(|s| {
            s.persistence = AnswerPersistence::Close;
            s.allowance = Allowance::RequestsSpent;
        });
        assert_eq!(spent, CloseReason::MaxRequests);
        let off = retires(|s| {
            s.persistence = AnswerPersistence::Close;
            s.reuse = Reuse::Off;
        });
        assert_eq!(off, CloseReason::ReuseOff);
    }

    #[test]
    fn extra_octets_never_reach_the_next_exchange() {
        assert_eq!(
            retires(|s| s.leftover = Leftover::ExtraOctets),
            CloseReason::ExtraBytes
        );
    }

    #[test]
    fn what_the_wire_said_retires_the_connection() {
        assert_eq!(retires(|s| s.wire = Wire::Fin), CloseReason::PeerFin);
        assert_eq!(retires(|s| s.wire = Wire::Rst), CloseReason::PeerRst);
        assert_eq!(retires(|s| s.wire = Wire::Failed), CloseReason::IoError);
    }

    #[test]
    fn spent_allowances_and_reuse_switched_off_retire_a_sound_connection() {
        assert_eq!(retires(|s| s.reuse = Reuse::Off), CloseReason::ReuseOff);
        let spent = retires(|s| s.allowance = Allowance::RequestsSpent);
        assert_eq!(spent, CloseReason::MaxRequests);
        assert_eq!(
            retires(|s| s.allowance = Allowance::AgeSpent),
            CloseReason::MaxAge
        );
    }
}
