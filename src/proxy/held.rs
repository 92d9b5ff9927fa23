//! A listed answer, held back while its request is tried again: if every further attempt fails, it is
//! what the client gets.
//!
//! It is held as it would have gone to the client, framed for it, so that passing it on later is one
//! write. Held is an answer with at most `retry.buffer` octets of content. A longer one is passed on
//! as it comes and its request is not tried again: memory stays bounded, and a real answer is
//! never dropped for the hope of a better one.
//! Absent on purpose: whether to try again, which is `policy/retry`'s.

use crate::h1::body::BodyReader;
use crate::h1::body::BodyWriter;
use crate::h1::chunked::Piece;
use crate::h1::framing::Framing;
use crate::observe::Counter;
use crate::proxy::relay::Source;
use crate::proxy::relay::Stuck;

/// What becomes of an answer with a listed status.
pub struct Holding<'a> {
    /// Whether one with this status would be tried again; a denial is counted.
    pub worth: &'a dyn Fn(u16) -> Worth,
    /// Most octets of content that are held.
    pub most: u64,
    /// Counts answers that are too long to hold.
    pub too_long: Counter,
}

/// Whether an answer is passed on as it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// It is.
    PassingOn,
    /// It is held, and its request tried again.
    AnotherTry,
}

/// How much of an answer's content was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// All of it.
    Whole,
    /// It is too long: what came of it waits in `out`, and the rest is to be passed on.
    Partly,
}

impl Holding<'_> {
    /// Whether an answer is held, as far as its head tells.
    #[must_use]
    pub fn begins(&self, status: u16, framing: Framing) -> Worth {
        let worth = (self.worth)(status);
        match framing {
            Framing::Length(length) if worth == Worth::AnotherTry && length > self.most => {
                self.too_long.inc();
                Worth::PassingOn
            }
            Framing::None | Framing::Length(_) | Framing::Chunked | Framing::UntilClose => worth,
        }
    }

    /// Gathers content in `out`, behind the head. The further attempt waits for it: the connection
    /// survives only if it is read whole, and passed on it would have come no sooner.
    /// Cancel: the source's connection is good only for closing.
    ///
    /// # Errors
    /// [`Stuck`].
    pub async fn gather(
        &self,
        source: &mut Source<'_>,
        (out, writer): (&mut Vec<u8>, &mut BodyWriter),
        content: &mut u64,
    ) -> Result<Held, Stuck> {
        loop {
            let piece = source.reader.next(source.buffer.unread());
            match piece.map_err(Stuck::Malformed)? {
                Piece::Data { skip, len } => {
                    source.buffer.consume(skip);
                    let octets = source.buffer.take(len);
                    writer
                        .chunk_head(out, octets.len())
                        .map_err(|_| Stuck::Misfit)?;
                    out.extend_from_slice(&octets);
                    writer.chunk_end(out, octets.len());
                    *content += octets.len() as u64;
                    if *content > self.most {
                        self.too_long.inc();
                        return Ok(Held::Partly);
                    }
                }
                Piece::More { skip } => {
                    source.buffer.consume(skip);
                    source.read_more().await?;
                }
                Piece::End { skip } => {
                    finish(out, writer, source.reader)?;
                    source.buffer.consume(skip);
                    return Ok(Held::Whole);
                }
            }
        }
    }
}

fn finish(out: &mut Vec<u8>, writer: &mut BodyWriter, reader: &BodyReader) -> Result<(), Stuck> {
    writer
        .finish(out, reader.trailers())
        .map_err(|_| Stuck::Misfit)
}
