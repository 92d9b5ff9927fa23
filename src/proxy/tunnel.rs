//! After a switch of protocols: octets both ways, each direction ending by itself.
//!
//! A FIN from one side is passed on as a FIN to the other, which may go on sending (a half-close).
//! The tunnel ends when both directions have, when one breaks, or when nothing moved for the idle
//! limit. Back-pressure is by not reading: a direction holds one buffer at most.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::net::Deadline;
use crate::net::Stream;
use crate::net::buffer;
use crate::net::stream::Fault;
use crate::net::stream::ReadEnd;
use crate::net::worker;

/// How a tunnel ended.
#[derive(Debug)]
pub enum TunnelEnd {
    /// Both sides sent their FIN.
    Finished,
    /// Nothing moved for the idle limit.
    Idle,
    /// The client's side broke.
    ClientBroke,
    /// The origin reset its side.
    OriginReset,
    /// The origin's side broke otherwise.
    OriginBroke,
}

/// What each direction carried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Carried {
    /// From the client to the origin.
    pub up: u64,
    /// From the origin to the client.
    pub down: u64,
}

/// Carries octets both ways until the end. `early_up` and `early_down` were read before the switch.
/// Cancel: both sides are good only for closing.
pub async fn tunnel(
    client: &Stream,
    origin: &Stream,
    early: (&[u8], &[u8]),
    idle: Duration,
    carried: &Cell<Carried>,
) -> TunnelEnd {
    let (early_up, early_down) = early;
    let last_moved = Cell::new(Deadline::after(idle));
    let count_up = |count: u64| {
        last_moved.set(Deadline::after(idle));
        let now = carried.get();
        carried.set(Carried {
            up: now.up + count,
            ..now
        });
    };
    let count_down = |count: u64| {
        last_moved.set(Deadline::after(idle));
        let now = carried.get();
        carried.set(Carried {
            down: now.down + count,
            ..now
        });
    };
    let mut up = pin!(carry(client, origin, early_up, &last_moved, count_up));
    let mut down = pin!(carry(origin, client, early_down, &last_moved, count_down));
    let (mut up_ended, mut down_ended) = (Direction::Flows, Direction::Flows);
    poll_fn(|context| {
        if up_ended == Direction::Flows
            && let Poll::Ready(end) = up.as_mut().poll(context)
        {
            match end {
                Ok(()) => up_ended = Direction::Ended,
                Err(end) => {
                    return Poll::Ready(
                        end.seen_from(TunnelEnd::ClientBroke, TunnelEnd::OriginBroke),
                    );
                }
            }
        }
        if down_ended == Direction::Flows
            && let Poll::Ready(end) = down.as_mut().poll(context)
        {
            match end {
                Ok(()) => down_ended = Direction::Ended,
                Err(Broke::Reset) => return Poll::Ready(TunnelEnd::OriginReset),
                Err(end) => {
                    return Poll::Ready(
                        end.seen_from(TunnelEnd::OriginBroke, TunnelEnd::ClientBroke),
                    );
                }
            }
        }
        if up_ended == Direction::Ended && down_ended == Direction::Ended {
            return Poll::Ready(TunnelEnd::Finished);
        }
        Poll::Pending
    })
    .await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Flows,
    Ended,
}

enum Broke {
    Reset,
    Reading,
    Writing,
    Idle,
}

impl Broke {
    fn seen_from(self, source: TunnelEnd, sink: TunnelEnd) -> TunnelEnd {
        match self {
            Self::Reset | Self::Reading => source,
            Self::Writing => sink,
            Self::Idle => TunnelEnd::Idle,
        }
    }
}

async fn carry(
    from: &Stream,
    to: &Stream,
    early: &[u8],
    last_moved: &Cell<Deadline>,
    moved: impl Fn(u64),
) -> Result<(), Broke> {
    let mut held = buffer::lend();
    held.extend_from_slice(early);
    let mut reads = 0_u32;
    loop {
        if !held.is_empty() {
            write_all(to, &held, last_moved).await?;
            moved(held.len() as u64);
            held.clear();
        }
        match read(from, &mut held, last_moved).await? {
            ReadEnd::Octets(_) => {}
            ReadEnd::Fin => break,
        }
        reads = reads.wrapping_add(1);
        if reads.is_multiple_of(READS_IN_A_ROW) {
            worker::yield_now().await;
        }
    }
    to.shut_down_write();
    buffer::give_back(held);
    Ok(())
}

/// Reads once; the deadline is the tunnel's, which the other direction may move meanwhile.
async fn read(
    from: &Stream,
    into: &mut Vec<u8>,
    last_moved: &Cell<Deadline>,
) -> Result<ReadEnd, Broke> {
    loop {
        match from.read(into, last_moved.get()).await {
            Ok(end) => return Ok(end),
            Err(Fault::TimedOut) if !last_moved.get().passed() => {}
            Err(Fault::TimedOut) => return Err(Broke::Idle),
            Err(Fault::Reset) => return Err(Broke::Reset),
            Err(Fault::Io(_)) => return Err(Broke::Reading),
        }
    }
}

async fn write_all(to: &Stream, octets: &[u8], last_moved: &Cell<Deadline>) -> Result<(), Broke> {
    let mut left = octets;
    while !left.is_empty() {
        let count = to
            .try_write(&[IoSlice::new(left)])
            .map_err(|_| Broke::Writing)?;
        left = left.get(count..).unwrap_or_default();
        if count == 0 {
            match to.writable(last_moved.get()).await {
                Ok(()) => {}
                Err(_) if !last_moved.get().passed() => {}
                Err(_) => return Err(Broke::Idle),
            }
        }
    }
    Ok(())
}

/// Reads after which the other direction, and other connections, get their turn.
const READS_IN_A_ROW: u32 = 16;
