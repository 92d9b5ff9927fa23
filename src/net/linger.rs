//! Closing in stages, so that the last answer is not destroyed by a reset (RFC 9112 §9.6).
//!
//! A close with unread octets in the receive buffer makes the kernel send RST, and a RST makes the
//! client's kernel throw away an answer that the client has not read yet. So: send FIN, read and
//! discard within bounds, then close. A RST of our own would throw away what our kernel has yet to
//! deliver; so who is only slow to take an answer is left to the kernel, which goes on.

use crate::net::buffer;
use crate::net::clock::Deadline;
use crate::net::stream::Fault;
use crate::net::stream::ReadEnd;
use crate::net::stream::Stream;

/// How a close in stages went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer sent its FIN: it has read everything.
    Clean,
    /// The peer did not close in time, or sent more than we care to discard: it was reset.
    TimedOut,
    /// The peer did not close in time, since it has yet to take what we sent.
    StillTaking,
    /// The peer reset the connection.
    Reset,
}

/// Sends FIN, discards at most `most` octets until `deadline`, then closes. Cancel: closes at once.
pub async fn linger(stream: Stream, most: u64, deadline: Deadline) -> Outcome {
    stream.shut_down_write();
    let mut left = most;
    let outcome = loop {
        match discard_some(&stream, deadline).await {
            Ok(ReadEnd::Fin) => break Outcome::Clean,
            Ok(ReadEnd::Octets(count)) => match left.checked_sub(count as u64) {
                Some(rest) => left = rest,
                None => break Outcome::TimedOut,
            },
            Err(Fault::TimedOut) if !stream.is_sent_out() => break Outcome::StillTaking,
            Err(Fault::TimedOut) => break Outcome::TimedOut,
            Err(Fault::Reset | Fault::Io(_)) => break Outcome::Reset,
        }
    };
    if outcome == Outcome::TimedOut {
        stream.reset();
    }
    outcome
}

/// Reads once. Storage is lent for the read only: who lingers costs no more than who idles.
async fn discard_some(stream: &Stream, deadline: Deadline) -> Result<ReadEnd, Fault> {
    loop {
        stream.readable(deadline).await?;
        let mut discard = buffer::lend();
        let read = stream.try_read(&mut discard);
        buffer::give_back(discard);
        if let Some(end) = read? {
            return Ok(end);
        }
    }
}
