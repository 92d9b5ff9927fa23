//! Reading what nobody wants any more, to keep the connection it comes on.

use std::time::Duration;

use crate::h1::body::BodyReader;
use crate::h1::chunked::Piece;
use crate::h1::framing::Framing;
use crate::net::Stream;
use crate::net::buffer::ReadBuffer;
use crate::net::reactor::Gone;
use crate::proxy::outlet::Outlet;
use crate::proxy::relay;
use crate::proxy::relay::Meter;
use crate::proxy::relay::Patience;
use crate::proxy::relay::Sink;
use crate::proxy::relay::SinkWriter;
use crate::proxy::relay::Source;
use crate::proxy::relay::Stuck;

/// Reads and discards what is left of an answer, up to `most` octets, to keep the connection.
/// Cancel: the connection is good only for closing.
///
/// # Errors
/// [`Stuck`].
pub async fn discard(
    origin: &Stream,
    input: &mut ReadBuffer,
    framing: Framing,
    most: u64,
    idle: Duration,
) -> Result<(), Stuck> {
    discard_rest(origin, input, &mut BodyReader::new(framing), most, idle).await
}

/// Discards what is at hand of a message, without waiting for more. What breaks its framing stays.
pub fn discard_at_hand(input: &mut ReadBuffer, reader: &mut BodyReader) {
    loop {
        match reader.next(input.unread()) {
            Ok(Piece::Data { skip, len }) => input.consume(skip + len),
            Ok(Piece::More { skip } | Piece::End { skip }) => return input.consume(skip),
            Err(_) => return,
        }
    }
}

/// The same, of a message whose reading has begun.
///
/// # Errors
/// [`Stuck`].
pub async fn discard_rest(
    origin: &Stream,
    input: &mut ReadBuffer,
    reader: &mut BodyReader,
    most: u64,
    idle: Duration,
) -> Result<(), Stuck> {
    let mut count = 0;
    let mut nowhere = Vec::new();
    let mut source = Source {
        stream: origin,
        buffer: input,
        reader,
        patience: Patience::Idle {
            limit: idle,
            recipient: origin,
            gone: Gone::Reset,
        },
    };
    let mut sink = Sink {
        outlet: Outlet::Direct(origin),
        out: &mut nowhere,
        writer: SinkWriter::Discarded,
        patience: idle,
    };
    let mut meter = Meter {
        count: &mut count,
        limit: Some(most),
        replay: None,
    };
    relay::pass_on(&mut source, &mut sink, &mut meter).await
}
