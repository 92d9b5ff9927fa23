//! Bodies: content counted against its framing, read and written.
//!
//! Neither side holds content. The reader says where in the caller's buffer it lies; the writer
//! says which octets stand around it. A body that is shorter or longer than its framing says is an
//! error value, never a message that reads otherwise (RFC 9112 §6.3, §8).

use std::fmt;

use crate::h1::chunked::Chunked;
use crate::h1::chunked::Piece;
use crate::h1::encode;
use crate::h1::encode::Unwritable;
use crate::h1::error::MessageError;
use crate::h1::fields::FieldSection;
use crate::h1::framing::Framing;

/// What the end of the connection means for a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// The body is whole.
    Complete,
    /// The body is cut short, and must not pass for whole (RFC 9112 §8).
    Truncated,
}

/// The reader of one body.
#[derive(Debug)]
pub struct BodyReader {
    state: Reading,
    received: u64,
}

#[derive(Debug)]
enum Reading {
    Length { left: u64 },
    Chunked(Chunked),
    UntilClose,
    Complete,
}

impl BodyReader {
    /// A reader of a body framed so.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => Reading::Complete,
            Framing::Length(left) => Reading::Length { left },
            Framing::Chunked => Reading::Chunked(Chunked::new()),
            Framing::UntilClose => Reading::UntilClose,
        };
        Self { state, received: 0 }
    }

    /// What stands at the front of the unread octets. The caller drops the framing, takes the
    /// content, all of it, and asks again; after `End` nothing of this message is left.
    ///
    /// # Errors
    /// The rule that the coding breaks; the connection cannot be trusted any further.
    pub fn next(&mut self, octets: &[u8]) -> Result<Piece, MessageError> {
        let piece = match &mut self.state {
            Reading::Complete => Piece::End { skip: 0 },
            Reading::Chunked(chunked) => chunked.next(octets)?,
            Reading::Length { .. } | Reading::UntilClose if octets.is_empty() => {
                Piece::More { skip: 0 }
            }
            Reading::Length { left } => {
                let len = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(octets.len());
                *left = left.saturating_sub(len as u64);
                if *left == 0 {
                    self.state = Reading::Complete;
                }
                Piece::Data { skip: 0, len }
            }
            Reading::UntilClose => Piece::Data {
                skip: 0,
                len: octets.len(),
            },
        };
        if let Piece::Data { len, .. } = piece {
            self.received = self.received.saturating_add(len as u64);
        }
        Ok(piece)
    }

    /// Counts `len` octets of content that passed by another way than [`BodyReader::next`], such as
    /// splice. Answers how many of them belong to the body.
    pub fn on_passed(&mut self, len: u64) -> u64 {
        let counted = match &mut self.state {
            Reading::Length { left } => {
                let counted = len.min(*left);
                *left -= counted;
                if *left == 0 {
                    self.state = Reading::Complete;
                }
                counted
            }
            Reading::UntilClose => len,
            Reading::Chunked(_) | Reading::Complete => 0,
        };
        self.received = self.received.saturating_add(counted);
        counted
    }

    /// The peer closed its side.
    pub fn on_eof(&mut self) -> BodyEnd {
        match &self.state {
            Reading::Complete => BodyEnd::Complete,
            Reading::UntilClose => {
                self.state = Reading::Complete;
                BodyEnd::Complete
            }
            Reading::Chunked(chunked) if chunked.is_complete() => BodyEnd::Complete,
            Reading::Length { .. } | Reading::Chunked(_) => BodyEnd::Truncated,
        }
    }

    /// Whether the message is whole.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match &self.state {
            Reading::Complete => true,
            Reading::Chunked(chunked) => chunked.is_complete(),
            Reading::Length { .. } | Reading::UntilClose => false,
        }
    }

    /// The trailer section and the octets it lies in, once the message is whole and if it has one.
    #[must_use]
    pub fn trailers(&self) -> Option<(&FieldSection, &[u8])> {
        match &self.state {
            Reading::Chunked(chunked) => chunked.trailers(),
            Reading::Complete | Reading::Length { .. } | Reading::UntilClose => None,
        }
    }

    /// How much content may still come that needs no looking at, nothing being unread: none where
    /// framing stands between its parts.
    #[must_use]
    pub fn passable(&self) -> u64 {
        match &self.state {
            Reading::Length { left } => *left,
            Reading::UntilClose => u64::MAX,
            Reading::Complete | Reading::Chunked(_) => 0,
        }
    }

    /// How much content came.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }
}

/// Content that does not fit the framing that was announced. The connection must be closed, so that
/// the recipient can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyMisfit {
    /// More content than announced.
    TooLong {
        /// How many octets too many.
        excess: u64,
    },
    /// Less content than announced.
    TooShort {
        /// How many octets are missing.
        missing: u64,
    },
    /// A trailer field that cannot be written.
    Trailer(Unwritable),
}

impl fmt::Display for BodyMisfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { excess } => {
                write!(f, "the body is {excess} octets longer than announced")
            }
            Self::TooShort { missing } => {
                write!(f, "the body is {missing} octets shorter than announced")
            }
            Self::Trailer(unwritable) => write!(f, "a trailer field cannot be sent: {unwritable}"),
        }
    }
}

impl std::error::Error for BodyMisfit {}

/// The writer of one body: what stands before, between and after its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyWriter {
    /// No content.
    None,
    /// So much content is still to be written.
    Length {
        /// Octets left.
        left: u64,
    },
    /// Chunks.
    Chunked,
    /// Content until we close.
    UntilClose,
}

impl BodyWriter {
    /// A writer of a body framed so.
    #[must_use]
    pub const fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::None,
            Framing::Length(left) => Self::Length { left },
            Framing::Chunked => Self::Chunked,
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Writes what stands before `len` octets of content, which the caller sends next, followed by
    /// [`BodyWriter::chunk_end`]. No content needs nothing before it.
    ///
    /// # Errors
    /// [`BodyMisfit::TooLong`]; then nothing is written or counted.
    pub fn chunk_head(&mut self, out: &mut Vec<u8>, len: usize) -> Result<(), BodyMisfit> {
        let added = len as u64; // addresses have at most 64 bits
        match self {
            Self::None if len > 0 => return Err(BodyMisfit::TooLong { excess: added }),
            Self::Length { left } => match left.checked_sub(added) {
                Some(rest) => *left = rest,
                None => {
                    return Err(BodyMisfit::TooLong {
                        excess: added - *left,
                    });
                }
            },
            Self::Chunked => encode::chunk_head(out, len),
            Self::None | Self::UntilClose => {}
        }
        Ok(())
    }

    /// Writes what stands after `len` octets of content.
    pub fn chunk_end(&self, out: &mut Vec<u8>, len: usize) {
        match self {
            Self::Chunked => encode::chunk_end(out, len),
            Self::None | Self::Length { .. } | Self::UntilClose => {}
        }
    }

    /// Writes what stands after all content: for chunks the last one, the given trailer fields but
    /// those that may not be there ([`crate::h1::Field::may_trail`]), and the empty line. Other
    /// framings have no place for trailer fields; they are dropped (RFC 9110 §6.5.1).
    ///
    /// # Errors
    /// [`BodyMisfit::TooShort`], or a trailer field that cannot be written.
    pub fn finish(
        &mut self,
        out: &mut Vec<u8>,
        trailers: Option<(&FieldSection, &[u8])>,
    ) -> Result<(), BodyMisfit> {
        match *self {
            Self::Length { left } if left > 0 => {
                return Err(BodyMisfit::TooShort { missing: left });
            }
            Self::Chunked => {
                let start = out.len();
                encode::last_chunk(out);
                let (fields, octets) = trailers.map_or((&[][..], &[][..]), |(fields, octets)| {
                    (fields.lines(), octets)
                });
                for line in fields.iter().filter(|line| line.field.may_trail()) {
                    if let Err(unwritable) = encode::field_line(out, line, octets) {
                        out.truncate(start);
                        return Err(BodyMisfit::Trailer(unwritable));
                    }
                }
                encode::end_of_head(out);
            }
            Self::None | Self::Length { .. } | Self::UntilClose => {}
        }
        *self = Self::None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_cut_short_is_truncated_and_one_until_close_is_whole() {
        assert_eq!(BodyReader::new(Framing::None).on_eof(), BodyEnd::Complete);
        assert_eq!(
            BodyReader::new(Framing::UntilClose).on_eof(),
            BodyEnd::Complete
        );
        assert_eq!(
            BodyReader::new(Framing::Chunked).on_eof(),
            BodyEnd::Truncated
        );
        let mut body = BodyReader::new(Framing::Length(3));
        assert_eq!(body.next(b"ab"), Ok(Piece::Data { skip: 0, len: 2 }));
        assert_eq!((body.passable(), body.received()), (1, 2));
        assert_eq!(body.on_eof(), BodyEnd::Truncated);
    }

    #[test]
    fn a_chunked_body_cut_before_its_last_line_is_truncated() {
        let mut body = BodyReader::new(Framing::Chunked);
        assert_eq!(
            body.next(b"1\r\nx\r\n0\r\n"),
            Ok(Piece::Data { skip: 3, len: 1 })
        );
        assert_eq!(body.next(b"\r\n0\r\n"), Ok(Piece::More { skip: 5 }));
        assert_eq!(body.on_eof(), BodyEnd::Truncated);
        assert_eq!(body.next(b"\r\n"), Ok(Piece::End { skip: 2 }));
        assert_eq!(body.on_eof(), BodyEnd::Complete);
    }

    #[test]
    fn a_length_takes_its_octets_and_no_more() {
        let mut body = BodyReader::new(Framing::Length(3));
        assert_eq!(body.next(b"abcGET"), Ok(Piece::Data { skip: 0, len: 3 }));
        assert_eq!(body.next(b"GET"), Ok(Piece::End { skip: 0 }));
        assert!(body.is_complete());
    }

    #[test]
    fn octets_that_passed_by_splice_are_counted() {
        let mut body = BodyReader::new(Framing::Length(10));
        assert_eq!(body.on_passed(4), 4);
        assert_eq!(body.passable(), 6);
        assert_eq!(body.on_passed(9), 6);
        assert!(body.is_complete());
        assert_eq!(body.received(), 10);
    }

    #[test]
    fn a_body_longer_or_shorter_than_announced_is_an_error() {
        let mut out = Vec::new();
        let mut body = BodyWriter::new(Framing::Length(3));
        assert_eq!(
            body.chunk_head(&mut out, 4),
            Err(BodyMisfit::TooLong { excess: 1 })
        );
        assert_eq!(body.chunk_head(&mut out, 2), Ok(()));
        assert_eq!(
            body.finish(&mut out, None),
            Err(BodyMisfit::TooShort { missing: 1 })
        );
        let mut body = BodyWriter::new(Framing::None);
        assert_eq!(
            body.chunk_head(&mut out, 1),
            Err(BodyMisfit::TooLong { excess: 1 })
        );
        assert_eq!(body.chunk_head(&mut out, 0), Ok(()));
        assert!(out.is_empty());
    }

    #[test]
    fn a_trailer_field_that_frames_routes_or_authenticates_is_not_passed_on() {
        let octets =
            b"0\r\nContent-Length: 5\r\nHost: evil\r\nX-Sum: 1\r\nAuthorization: x\r\n\r\n";
        let mut reader = BodyReader::new(Framing::Chunked);
        assert_eq!(reader.next(octets), Ok(Piece::End { skip: octets.len() }));
        let mut out = Vec::new();
        BodyWriter::Chunked
            .finish(&mut out, reader.trailers())
            .unwrap();
        assert_eq!(out, b"0\r\nX-Sum: 1\r\n\r\n");
    }

    #[test]
    fn a_reader_is_small() {
        assert!(size_of::<BodyReader>() <= 80);
    }
}
