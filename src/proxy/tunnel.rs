//! After a switch of protocols: octets both ways, each direction ending by itself.
//!
//! A FIN from one side is passed on as a FIN to the other, which may go on sending (a half-close).
//! The tunnel ends when both directions have, when one breaks, or when nothing moved for the idle
//! limit. Back-pressure is by not reading: a direction holds one buffer at most.
//!
//! A WebSocket that a drain ends is told so on both sides by a Close frame, each at the end of a
//! frame. After it nothing more is sent there (RFC 6455 §5.5.1): what still comes from the other
//! side is discarded until that side has answered with its own Close, which ends the handshake.

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
use crate::policy::drain::WebSockets;
use crate::policy::websocket;
use crate::policy::websocket::Closing;
use crate::policy::websocket::Frames;
use crate::proxy::draining::Draining;

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
    /// Both sides were told that we go away, and have answered.
    GoneAway,
}

/// What the octets of a tunnel are, as far as we look at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Frames of a WebSocket, which can be told of a drain.
    WebSocket,
    /// Anything.
    Opaque,
}

/// What a tunnel is carried by.
#[derive(Clone, Copy)]
pub struct Terms<'t> {
    /// How long nothing may move.
    pub idle: Duration,
    /// What it carries.
    pub protocol: Protocol,
    /// The drain of the process.
    pub draining: &'t Draining,
}

/// Carries octets both ways until the end. The first of each pair is for the client's way to the
/// origin: what was read before the switch, and where octets are counted as they pass.
/// Cancel: both sides are good only for closing.
pub async fn tunnel(
    client: &Stream,
    origin: &Stream,
    early: (&[u8], &[u8]),
    terms: Terms<'_>,
    carried: (&Cell<u64>, &Cell<u64>),
) -> TunnelEnd {
    let (early_up, early_down) = early;
    let idle = terms.idle;
    let last_moved = Cell::new(Deadline::after(idle));
    let count_up = |count: u64| {
        last_moved.set(Deadline::after(idle));
        carried.0.update(|before| before + count);
    };
    let count_down = |count: u64| {
        last_moved.set(Deadline::after(idle));
        carried.1.update(|before| before + count);
    };
    let key = fastrand::u32(..).to_ne_bytes();
    let (to_origin, to_client) = (websocket::going_away_masked(key), websocket::GOING_AWAY);
    let up = Way::new(client, origin, &last_moved, (terms, &to_origin));
    let down = Way::new(origin, client, &last_moved, (terms, &to_client));
    let mut up = pin!(up.carry(early_up, count_up));
    let mut down = pin!(down.carry(early_down, count_down));
    let (mut up_ended, mut down_ended) = (Direction::Flows, Direction::Flows);
    poll_fn(|context| {
        if up_ended == Direction::Flows
            && let Poll::Ready(end) = up.as_mut().poll(context)
        {
            match end {
                Ok(how) => up_ended = how,
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
                Ok(how) => down_ended = how,
                Err(Broke::Reset) => return Poll::Ready(TunnelEnd::OriginReset),
                Err(end) => {
                    return Poll::Ready(
                        end.seen_from(TunnelEnd::OriginBroke, TunnelEnd::ClientBroke),
                    );
                }
            }
        }
        match (up_ended, down_ended) {
            (Direction::Flows, _) | (_, Direction::Flows) => Poll::Pending,
            (Direction::Ended, Direction::Ended) => Poll::Ready(TunnelEnd::Finished),
            (Direction::Told, _) | (_, Direction::Told) => Poll::Ready(TunnelEnd::GoneAway),
        }
    })
    .await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Flows,
    /// By the sender's FIN.
    Ended,
    /// By our Close frame to the recipient, and the sender's own.
    Told,
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

/// One direction.
struct Way<'t> {
    from: &'t Stream,
    to: &'t Stream,
    last_moved: &'t Cell<Deadline>,
    terms: Terms<'t>,
    /// The Close frame for the recipient.
    farewell: &'t [u8],
    frames: Frames,
}

/// What reading came to.
enum Heard {
    Read(ReadEnd),
    /// The drain has come to the tunnels, and the recipient can be told now.
    Drain,
}

impl<'t> Way<'t> {
    fn new(
        from: &'t Stream,
        to: &'t Stream,
        last_moved: &'t Cell<Deadline>,
        (terms, farewell): (Terms<'t>, &'t [u8]),
    ) -> Self {
        Self {
            from,
            to,
            last_moved,
            terms,
            farewell,
            frames: Frames::default(),
        }
    }

    async fn carry(mut self, early: &[u8], moved: impl Fn(u64)) -> Result<Direction, Broke> {
        let mut held = buffer::lend();
        held.extend_from_slice(early);
        let mut reads = 0_u32;
        let end = loop {
            if !held.is_empty() {
                // The rest of a frame goes out before the recipient is told.
                let cut = match self.may_tell() {
                    MayTell::Now => self.frames.to_boundary(&held),
                    MayTell::Not => None,
                };
                let whole = held.get(..cut.unwrap_or(held.len())).unwrap_or_default();
                write_all(self.to, whole, self.last_moved).await?;
                self.note(whole);
                moved(whole.len() as u64);
                let rest = held.get(whole.len()..).unwrap_or_default();
                if cut.is_some() {
                    break self.tell(rest).await;
                }
                held.clear();
            }
            match self.read(&mut held).await? {
                Heard::Read(ReadEnd::Octets(_)) => {}
                Heard::Read(ReadEnd::Fin) => {
                    self.to.shut_down_write();
                    break Ok(Direction::Ended);
                }
                Heard::Drain => break self.tell(&[]).await,
            }
            reads = reads.wrapping_add(1);
            if reads.is_multiple_of(READS_IN_A_ROW) {
                worker::yield_now().await;
            }
        };
        buffer::give_back(held);
        end
    }

    fn note(&mut self, octets: &[u8]) {
        if self.terms.protocol == Protocol::WebSocket {
            self.frames.pass(octets);
        }
    }

    /// Whether a Close frame of ours has a place in this direction: not after the sender's own.
    fn may_tell(&self) -> MayTell {
        let asked = self.terms.protocol == Protocol::WebSocket
            && self.frames.closing() == Closing::NotYet
            && self.terms.draining.tells_websockets() == WebSockets::Told;
        if asked { MayTell::Now } else { MayTell::Not }
    }

    /// Tells the recipient, and waits for the sender's own Close or FIN; then it gets our FIN.
    /// `unsent` is what had come of the sender's next frames.
    async fn tell(&mut self, unsent: &[u8]) -> Result<Direction, Broke> {
        write_all(self.to, self.farewell, self.last_moved).await?;
        self.frames.pass(unsent);
        let mut discard = buffer::lend();
        while self.frames.closing() != Closing::Past {
            discard.clear();
            match read(self.from, &mut discard, self.last_moved).await? {
                ReadEnd::Octets(_) => self.frames.pass(&discard),
                ReadEnd::Fin => break,
            }
        }
        buffer::give_back(discard);
        self.from.shut_down_write();
        Ok(Direction::Told)
    }

    /// Reads once, unless the drain comes to the tunnels between two frames.
    async fn read(&self, into: &mut Vec<u8>) -> Result<Heard, Broke> {
        if self.terms.protocol == Protocol::Opaque || self.frames.to_boundary(&[]).is_none() {
            return read(self.from, into, self.last_moved)
                .await
                .map(Heard::Read);
        }
        let mut reading = pin!(read(self.from, into, self.last_moved));
        poll_fn(|context| match self.may_tell() {
            MayTell::Now => Poll::Ready(Ok(Heard::Drain)),
            MayTell::Not => reading.as_mut().poll(context).map_ok(Heard::Read),
        })
        .await
    }
}

enum MayTell {
    Now,
    Not,
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
