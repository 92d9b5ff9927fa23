//! One message's content from one peer to the other, in constant memory.
//!
//! What arrives is passed on as it arrives; while the recipient does not read, the sender is not
//! read from. Small pieces are gathered behind the head so that they leave in one write; large bodies
//! that need no looking at go past our memory. Every body is counted against its framing: a short one
//! is an error here, never an end.

use std::future::poll_fn;
use std::io::IoSlice;
use std::time::Duration;

use crate::h1::body::BodyEnd;
use crate::h1::body::BodyReader;
use crate::h1::body::BodyWriter;
use crate::h1::chunked::Piece;
use crate::h1::error::MessageError;
use crate::net::Deadline;
use crate::net::Stream;
use crate::net::buffer;
use crate::net::buffer::Fill;
use crate::net::buffer::ReadBuffer;
use crate::net::buffer::WIDE_OCTETS;
use crate::net::clock;
use crate::net::reactor::Gone;
use crate::net::splice::PIPE_OCTETS;
use crate::net::splice::Pipe;
use crate::net::splice::WORTH_OCTETS;
use crate::net::stream::Fault;
use crate::net::stream::ReadEnd;
use crate::net::worker;
use crate::policy::body_rate::BodyRate;
use crate::proxy::beginning::PAUSE;
use crate::proxy::outlet::Flow;
use crate::proxy::outlet::Outlet;
use crate::proxy::replay::Replay;

/// Where content comes from.
pub struct Source<'a> {
    /// The sender's connection.
    pub stream: &'a Stream,
    /// What has been read ahead of it.
    pub buffer: &'a mut ReadBuffer,
    /// Its framing.
    pub reader: &'a mut BodyReader,
    /// Until when the next octets must come.
    pub patience: Patience<'a>,
}

/// How long a sender may be silent.
pub enum Patience<'a> {
    /// So long between two reads; the other side is watched for leaving.
    Idle {
        /// So long.
        limit: Duration,
        /// Who waits for the content.
        recipient: &'a Stream,
        /// What counts as its having left.
        gone: Gone,
    },
    /// A request body: so long between two reads, and a least rate while we read.
    Rate {
        /// So long.
        limit: Duration,
        /// The least rate.
        rate: &'a mut BodyRate,
    },
}

/// Where content goes.
pub struct Sink<'a> {
    /// The way to the recipient.
    pub outlet: Outlet<'a>,
    /// What waits to be written, a head perhaps.
    pub out: &'a mut Vec<u8>,
    /// How the content is framed for the recipient.
    pub writer: SinkWriter,
    /// How long the recipient may take nothing.
    pub patience: Duration,
}

/// Where content ends up.
#[derive(Debug)]
pub enum SinkWriter {
    /// With the recipient, in this framing.
    Framed(BodyWriter),
    /// Nowhere: it is read to be rid of it.
    Discarded,
}

/// What is noted of content that passes.
pub struct Meter<'a> {
    /// Octets so far.
    pub count: &'a mut u64,
    /// Most octets.
    pub limit: Option<u64>,
    /// Where it is kept, should it have to be sent again.
    pub replay: Option<&'a mut Replay>,
}

/// Why content did not pass whole.
#[derive(Debug)]
pub enum Stuck {
    /// The sender closed before the end.
    SenderFin,
    /// The sender's connection broke.
    SenderBroke(Fault),
    /// The sender was silent, or too slow, for too long.
    SenderSlow,
    /// The framing is broken.
    Malformed(MessageError),
    /// It does not fit the framing that the recipient was told; a fault of our own.
    Misfit,
    /// There is more than allowed.
    TooLarge,
    /// The recipient left, reset, or did not read.
    Recipient(Fault),
    /// The recipient left while the sender was waited for.
    RecipientGone,
}

/// Passes a message's content on. The last octets may remain in the sink's `out`, unflushed.
/// Cancel: both sides are good only for closing.
///
/// # Errors
/// [`Stuck`].
pub async fn pass_on(
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    meter: &mut Meter<'_>,
) -> Result<(), Stuck> {
    let mut reads = 0_u32;
    loop {
        match source
            .reader
            .next(source.buffer.unread())
            .map_err(Stuck::Malformed)?
        {
            Piece::Data { skip, len } => {
                source.buffer.consume(skip);
                let content = source.buffer.take(len);
                meter.note(&content)?;
                sink.put(&content).await?;
            }
            Piece::More { skip } => {
                source.buffer.consume(skip);
                // What has come already may leave with what waits to be written; but of a request,
                // nothing is taken from the client before the origin has taken its head.
                let may_join = meter.replay.is_none() && source.stream.is_readable();
                if !may_join {
                    sink.flush_before_reading(source.buffer).await?;
                    source.stream.more_is_due();
                    if source.comes().await? == Comes::Later {
                        source.buffer.stow();
                        source.wait().await?;
                    }
                }
                if let Some((pipe, room)) = pipe_for(source, sink, meter) {
                    pass_by(pipe, room, source, sink, meter).await?;
                    continue;
                }
                sink.flush_before_reading(source.buffer).await?; // what has come joins nothing
                source.suit(sink, meter);
                source.read_more().await?;
                reads += 1;
                if reads.is_multiple_of(READS_IN_A_ROW) {
                    worker::yield_now().await;
                }
            }
            Piece::End { skip } => {
                sink.finish(source.reader)?;
                source.buffer.consume(skip);
                return Ok(());
            }
        }
    }
}

/// A pipe for the rest of a body, where it is worth one: much of it is left, nobody has to look at
/// it, and what is written leaves at once. With it, how much the recipient would take.
fn pipe_for(source: &Source<'_>, sink: &Sink<'_>, meter: &Meter<'_>) -> Option<(Pipe, usize)> {
    let plain = matches!(
        sink.writer,
        SinkWriter::Framed(BodyWriter::Length { .. } | BodyWriter::UntilClose)
    );
    let kept = |replay: &&mut Replay| replay.holds();
    let much = |least| source.reader.passable() >= least;
    let worth_it = WORTH_OCTETS.is_some_and(much)
        && sink.outlet.flows() == Flow::Now
        && !meter.replay.as_ref().is_some_and(kept);
    if !plain || !worth_it {
        return None;
    }
    let room = source.room_at(sink)?;
    Some((Pipe::lend()?, room))
}

/// Passes the rest of a body on by way of a pipe, behind what waits to be written: nothing does
/// unless something has come, so that this never waits for the sender meanwhile. What is in the pipe
/// has been counted, as received and as sent, whether it leaves or not: if it does not, both sides
/// are closed.
async fn pass_by(
    mut pipe: Pipe,
    mut room: usize,
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    meter: &mut Meter<'_>,
) -> Result<(), Stuck> {
    let mut bites = 0_u32;
    loop {
        let most = source.left().min(PIPE_OCTETS).min(room);
        let from = source.stream;
        let end = source.read(|_| pipe.fill(from, most).map_err(Fill::Fault));
        match end.await? {
            // A false alarm, or an end: it has been taken for one where it is one.
            None | Some(ReadEnd::Fin) => return Ok(()),
            Some(ReadEnd::Octets(_)) => {}
        }
        let count = pipe.held() as u64;
        source.reader.on_passed(count);
        meter.count(count)?;
        sink.pass_by(&mut pipe).await?;
        if source.left() == 0 {
            source.look_behind();
            return Ok(());
        }
        bites += 1;
        if bites.is_multiple_of(BITES_IN_A_ROW) {
            worker::yield_now().await;
        }
        let Some(now) = source.room_at(sink) else {
            return Ok(()); // it is the recipient that is waited for
        };
        if source.comes().await? == Comes::Later {
            return Ok(()); // the pipe is for others meanwhile
        }
        room = now;
    }
}

/// When a sender's next octets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    /// They are there, or its end is.
    Now,
    /// Not within moments.
    Later,
}

impl Source<'_> {
    /// Awaits the sender for moments only: whether what waits should be put aside.
    async fn comes(&mut self) -> Result<Comes, Stuck> {
        let deadline = self.deadline();
        match self.ready_by(deadline.min(Deadline::after(PAUSE))).await {
            Ok(()) => Ok(Comes::Now),
            Err(Stuck::SenderSlow) if !deadline.passed() => Ok(Comes::Later),
            Err(stuck) => Err(stuck),
        }
    }

    /// How much is left that nobody has to look at.
    fn left(&self) -> usize {
        usize::try_from(self.reader.passable()).unwrap_or(usize::MAX)
    }

    /// How much the recipient would take at once behind what waits, if that is all that is left, or
    /// much of it. What it does not take would lie in the pipe until it does: up to 256 KiB of the
    /// kernel's memory for one that reads a KiB a second.
    fn room_at(&self, sink: &Sink<'_>) -> Option<usize> {
        let room = sink.outlet.stream().send_room();
        let room = room.saturating_sub(sink.out.len());
        (room >= self.left().min(MUCH_ROOM)).then_some(room)
    }

    /// Takes larger storage for a large body, while its recipient takes what such a read brings.
    fn suit(&mut self, sink: &Sink<'_>, meter: &Meter<'_>) {
        if *meter.count < WIDEN_AFTER || sink.outlet.flows() != Flow::Now {
            return;
        }
        match sink.outlet.stream().send_room() < WIDE_OCTETS {
            true => self.buffer.narrow(),
            false => self.buffer.widen(),
        }
    }

    /// Reads once, waiting as long as the sender may be silent. It may bring nothing: look again.
    ///
    /// # Errors
    /// [`Stuck`].
    pub async fn read_more(&mut self) -> Result<(), Stuck> {
        let stream = self.stream;
        self.read(|buffer| buffer.try_fill(stream, BODY_AHEAD_MAX))
            .await
            .map(|_| ())
    }

    /// Reads what came behind a body, as reads of the body itself would have: whether the sender keeps
    /// to its framing shows before its connection is used again.
    fn look_behind(&mut self) {
        // What ended or broke meanwhile is remembered by the reactor, and nothing is missing here.
        let _what_came = self.buffer.try_fill_little(self.stream, BODY_AHEAD_MAX);
    }

    /// Waits for the sender and takes what it sent in the given way; nothing, if readiness was a
    /// false alarm. A FIN is an end only where the framing says so.
    async fn read(
        &mut self,
        take: impl FnOnce(&mut ReadBuffer) -> Result<Option<ReadEnd>, Fill>,
    ) -> Result<Option<ReadEnd>, Stuck> {
        self.wait().await?;
        match take(self.buffer) {
            Ok(None) => Ok(None),
            Ok(Some(ReadEnd::Octets(count))) => {
                if let Patience::Rate { rate, .. } = &mut self.patience {
                    rate.on_octets(count as u64);
                    rate.on_pause(clock::now());
                }
                Ok(Some(ReadEnd::Octets(count)))
            }
            Ok(Some(ReadEnd::Fin)) => match self.reader.on_eof() {
                BodyEnd::Complete => Ok(Some(ReadEnd::Fin)),
                BodyEnd::Truncated => Err(Stuck::SenderFin),
            },
            Err(Fill::Full) => Err(Stuck::TooLarge),
            Err(Fill::Fault(fault)) => Err(Stuck::SenderBroke(fault)),
        }
    }

    /// Waits for the sender, as long as it may be silent.
    async fn wait(&mut self) -> Result<(), Stuck> {
        let deadline = self.deadline();
        self.ready_by(deadline).await
    }

    /// Until when it may be silent, from now.
    fn deadline(&mut self) -> Deadline {
        match &mut self.patience {
            Patience::Rate { limit, rate } => {
                let now = clock::now();
                rate.on_resume(now);
                let slowest = rate.next_deadline().map_or(Deadline::NEVER, |due| {
                    Deadline::after(due.saturating_duration_since(now))
                });
                slowest.min(Deadline::after(*limit))
            }
            Patience::Idle { limit, .. } => Deadline::after(*limit),
        }
    }

    async fn ready_by(&self, deadline: Deadline) -> Result<(), Stuck> {
        match &self.patience {
            Patience::Rate { .. } => {
                let ready = self.stream.readable(deadline).await;
                ready.map_err(|_| Stuck::SenderSlow)
            }
            Patience::Idle {
                recipient, gone, ..
            } => wait_watching(self.stream, recipient, *gone, deadline).await,
        }
    }
}

/// Awaits octets of `sender` and notices if `recipient` leaves meanwhile.
async fn wait_watching(
    sender: &Stream,
    recipient: &Stream,
    gone: Gone,
    deadline: Deadline,
) -> Result<(), Stuck> {
    poll_fn(|context| {
        if let std::task::Poll::Ready(ready) = sender.poll_readable(context, deadline) {
            return std::task::Poll::Ready(ready.map_err(|_| Stuck::SenderSlow));
        }
        recipient
            .poll_gone(gone, context)
            .map(|()| Err(Stuck::RecipientGone))
    })
    .await
}

impl Sink<'_> {
    async fn put(&mut self, content: &[u8]) -> Result<(), Stuck> {
        let SinkWriter::Framed(writer) = &mut self.writer else {
            return Ok(());
        };
        buffer::furnish(self.out);
        writer
            .chunk_head(self.out, content.len())
            .map_err(|_| Stuck::Misfit)?;
        if self.out.len() + content.len() <= GATHER_MOST {
            self.out.extend_from_slice(content);
            writer.chunk_end(self.out, content.len());
            return Ok(());
        }
        let outlet = self.outlet;
        let written = write_behind(outlet, self.out, content, self.patience).await;
        written.map_err(Stuck::Recipient)?;
        buffer::furnish(self.out);
        writer.chunk_end(self.out, content.len());
        Ok(())
    }

    /// Writes what is in the pipe.
    async fn pass_by(&mut self, pipe: &mut Pipe) -> Result<(), Stuck> {
        if let SinkWriter::Framed(writer) = &mut self.writer {
            // Such a framing writes nothing around its content; the length is counted down.
            writer
                .chunk_head(self.out, pipe.held())
                .map_err(|_| Stuck::Misfit)?;
        }
        self.flush_ahead().await?;
        let stream = self.outlet.stream();
        while pipe.held() > 0 {
            if pipe.drain(stream).map_err(Stuck::Recipient)? == 0 {
                let room = stream.room(self.patience).await;
                room.map_err(Stuck::Recipient)?;
            }
        }
        Ok(())
    }

    /// Writes what has been gathered, ahead of what is in a pipe.
    async fn flush_ahead(&mut self) -> Result<(), Stuck> {
        if self.out.is_empty() {
            return Ok(());
        }
        let written = self.outlet.try_write_ahead(self.out);
        match rid_of(self.out, written) {
            Some(written) => written.map_err(Stuck::Recipient),
            None => self.flush().await,
        }
    }

    /// Writes what has been gathered, before more is read: one buffer waits for a slow recipient, not
    /// two.
    async fn flush_before_reading(&mut self, read: &mut ReadBuffer) -> Result<(), Stuck> {
        if !self.out.is_empty() {
            read.stow_small();
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes what has been gathered.
    async fn flush(&mut self) -> Result<(), Stuck> {
        flush(self.outlet, self.out, self.patience)
            .await
            .map_err(Stuck::Recipient)
    }

    fn finish(&mut self, reader: &BodyReader) -> Result<(), Stuck> {
        let SinkWriter::Framed(writer) = &mut self.writer else {
            return Ok(());
        };
        buffer::furnish(self.out);
        writer
            .finish(self.out, reader.trailers())
            .map_err(|_| Stuck::Misfit)
    }
}

/// Writes what waits in `out`, and content behind it. Cancel: a part may have gone out.
async fn write_behind(
    outlet: Outlet<'_>,
    out: &mut Vec<u8>,
    content: &[u8],
    patience: Duration,
) -> Result<(), Fault> {
    // Most often it is a chunk's head: a recipient that keeps us waiting costs that, not a buffer.
    let mut few = [0; FEW_OCTETS];
    if let Some(place) = few.get_mut(..out.len()) {
        place.copy_from_slice(out);
        buffer::give_back(std::mem::take(out));
        let mut slices = [IoSlice::new(place), IoSlice::new(content)];
        return outlet.write_all(&mut slices, patience).await;
    }
    let mut slices = [IoSlice::new(out), IoSlice::new(content)];
    let written = outlet.write_all(&mut slices, patience).await;
    out.clear();
    written
}

/// Writes what waits in `out`. Cancel: a part may have gone out.
///
/// # Errors
/// The stream's fault.
pub async fn flush(outlet: Outlet<'_>, out: &mut Vec<u8>, patience: Duration) -> Result<(), Fault> {
    if let Some(written) = flush_at_once(outlet, out) {
        return written;
    }
    if out.is_empty() {
        return Ok(());
    }
    let written = outlet.write_all(&mut [IoSlice::new(out)], patience).await;
    buffer::give_back(std::mem::take(out));
    written
}

/// The same, where all leaves at once: nearly always it does, and needs no future to wait in. None:
/// something waits, or nothing is to be written.
pub fn flush_at_once(outlet: Outlet<'_>, out: &mut Vec<u8>) -> Option<Result<(), Fault>> {
    if out.is_empty() {
        return None;
    }
    let written = outlet.try_write(out);
    rid_of(out, written)
}

/// Takes what was written out of `out`, and gives its storage back if that was all or nothing more
/// can be. None: something is left.
#[inline]
fn rid_of(out: &mut Vec<u8>, written: Result<usize, Fault>) -> Option<Result<(), Fault>> {
    let written = match written {
        Ok(count) if count < out.len() => {
            out.drain(..count);
            return None;
        }
        Ok(_) => Ok(()),
        Err(fault) => Err(fault),
    };
    buffer::give_back(std::mem::take(out));
    Some(written)
}

impl Meter<'_> {
    fn count(&mut self, octets: u64) -> Result<(), Stuck> {
        *self.count += octets;
        match self.limit {
            Some(limit) if *self.count > limit => Err(Stuck::TooLarge),
            _ => Ok(()),
        }
    }

    fn note(&mut self, content: &[u8]) -> Result<(), Stuck> {
        self.count(content.len() as u64)?;
        if let Some(replay) = &mut self.replay {
            replay.keep(content);
        }
        Ok(())
    }
}

/// Most octets gathered before a write: copying so much costs about as much as one more slice in a
/// writev, and less than another system call.
const GATHER_MOST: usize = 16 * 1024;

/// Reads after which others get their turn: two fast peers would otherwise never let go of the
/// worker. 16 wide reads are 2 MiB, about half a millisecond.
const READS_IN_A_ROW: u32 = 16;

/// Bites after which others get their turn: 8 of them are 2 MiB as well.
const BITES_IN_A_ROW: u32 = 8;

/// Room at a recipient that is worth a bite of a large body.
const MUCH_ROOM: usize = 64 * 1024;

/// Octets of framing that are written from the stack: the end of one chunk and the head of the next
/// are 20.
const FEW_OCTETS: usize = 32;

/// Octets after which a body is worth larger reads.
const WIDEN_AFTER: u64 = 16 * 1024;

/// Most octets of a body read ahead of its framing. A chunk-size line or a trailer section that
/// does not end within this is refused by their own, smaller limits.
const BODY_AHEAD_MAX: usize = 64 * 1024;
