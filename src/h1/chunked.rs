//! The chunked coding, read (RFC 9112 §7.1): an enum machine that takes octets as they come.
//!
//! ```text
//! Size ─► Extensions ─► SizeEnd ─► Data ─► DataEnd ─► DataEndLf ─► Size …
//!                          └─ size 0 ─► Trailers ─► Complete
//! ```
//!
//! Every framing octet is consumed when it is seen, so nothing waits in the caller's buffer and
//! nothing is looked at twice. Extensions are read over and dropped (§7.1.1): we write chunks of our
//! own. Trailer fields are kept apart and never merged into the head (RFC 9110 §6.5.1).

use crate::base::units::ByteCount;
use crate::h1::error::MessageError;
use crate::h1::fields::FieldSection;
use crate::h1::lines;
use crate::h1::lines::Lines;
use crate::h1::lines::NextLine;
use crate::h1::octets;

/// What stands at the front of the unread octets of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Drop `skip` octets of framing; nothing follows without more octets.
    More {
        /// Octets of framing.
        skip: usize,
    },
    /// Drop `skip` octets of framing; then `len` octets of content follow.
    Data {
        /// Octets of framing.
        skip: usize,
        /// Octets of content, at least one.
        len: usize,
    },
    /// The message is whole after `skip` octets of framing.
    End {
        /// Octets of framing.
        skip: usize,
    },
}

/// The reader of one chunked body.
#[derive(Debug)]
pub(super) struct Chunked {
    phase: Phase,
    /// Octets of content in chunks that were announced.
    content: u64,
    /// Octets of chunk-size lines and the line ends after data.
    framing: u64,
    /// Octets of chunk extensions.
    extensions: u64,
    /// Made only when there is a trailer field.
    trailers: Option<Box<Trailers>>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// In the digits of a chunk's size.
    Size { digits: usize, size: u64 },
    /// After the digits: the white space or the `;` of an extension.
    BeforeExtension { size: u64, line: u64 },
    /// After `;`: the name has to begin.
    ExtensionStart { size: u64, line: u64 },
    /// In an extension.
    Extension { size: u64, line: u64 },
    /// CR was seen at the end of the chunk-size line.
    SizeEnd { size: u64 },
    /// In the chunk's data.
    Data { left: u64 },
    /// After the data: CR.
    DataEnd,
    /// After the data's CR: LF.
    DataEndLf,
    /// In the trailer section.
    Trailers,
    /// After the CR of an empty trailer section.
    TrailersEndLf,
    /// The message is whole.
    Complete,
}

/// A trailer section.
#[derive(Debug, Default)]
struct Trailers {
    octets: Vec<u8>,
    fields: FieldSection,
    lines: Lines,
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Size { digits: 0, size: 0 },
            content: 0,
            framing: 0,
            extensions: 0,
            trailers: None,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.phase, Phase::Complete)
    }

    /// The trailer section, once the message is whole and if it has one.
    pub(super) fn trailers(&self) -> Option<(&FieldSection, &[u8])> {
        match self.phase {
            Phase::Complete => self
                .trailers
                .as_deref()
                .map(|t| (&t.fields, t.octets.as_slice())),
            Phase::Size { .. }
            | Phase::BeforeExtension { .. }
            | Phase::ExtensionStart { .. }
            | Phase::Extension { .. }
            | Phase::SizeEnd { .. }
            | Phase::Data { .. }
            | Phase::DataEnd
            | Phase::DataEndLf
            | Phase::Trailers
            | Phase::TrailersEndLf => None,
        }
    }

    /// What stands at the front; the caller consumes it.
    pub(super) fn next(&mut self, octets: &[u8]) -> Result<Piece, MessageError> {
        let mut rest = octets;
        loop {
            let skip = octets.len() - rest.len();
            match (self.phase, rest) {
                (Phase::Complete, _) => return Ok(Piece::End { skip }),
                (_, []) => return Ok(Piece::More { skip }),
                (Phase::Data { left }, _) => {
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    let left = left.saturating_sub(len as u64);
                    self.phase = if left == 0 {
                        Phase::DataEnd
                    } else {
                        Phase::Data { left }
                    };
                    return Ok(Piece::Data { skip, len });
                }
                (Phase::Trailers, _) => rest = self.trailer_octets(rest)?,
                (_, [octet, tail @ ..]) => {
                    self.phase = self.on_octet(*octet)?;
                    rest = tail;
                }
            }
        }
    }

    /// One octet of framing. `Data`, `Trailers` and `Complete` take none; they stay what they are.
    fn on_octet(&mut self, octet: u8) -> Result<Phase, MessageError> {
        self.framing += 1;
        match (self.phase, octet) {
            (Phase::Size { digits, size }, _) => self.on_size_octet(digits, size, octet),
            (Phase::BeforeExtension { size, line }, b' ' | b'\t') => {
                let line = self.on_extension_octet(line)?;
                Ok(Phase::BeforeExtension { size, line })
            }
            (Phase::BeforeExtension { size, line }, b';') => {
                let line = self.on_extension_octet(line)?;
                Ok(Phase::ExtensionStart { size, line })
            }
            (Phase::BeforeExtension { .. }, _) => Err(MessageError::ChunkSizeOctet { octet }),
            (Phase::ExtensionStart { size, line }, b' ' | b'\t') => {
                let line = self.on_extension_octet(line)?;
                Ok(Phase::ExtensionStart { size, line })
            }
            (Phase::ExtensionStart { size, line }, _) if octets::is_tchar(octet) => {
                let line = self.on_extension_octet(line)?;
                Ok(Phase::Extension { size, line })
            }
            (Phase::ExtensionStart { .. }, _) => Err(MessageError::ChunkExtensionOctet { octet }),
            (Phase::Extension { size, .. }, b'\r') => Ok(Phase::SizeEnd { size }),
            (Phase::Extension { size, line }, _) if octets::is_field_vchar(octet) => {
                let line = self.on_extension_octet(line)?;
                Ok(Phase::Extension { size, line })
            }
            (Phase::Extension { .. }, _) => Err(MessageError::ChunkExtensionOctet { octet }),
            (Phase::SizeEnd { size }, b'\n') => self.on_size(size),
            (Phase::SizeEnd { .. }, _) => Err(MessageError::BareCarriageReturn),
            (Phase::DataEnd, b'\r') => Ok(Phase::DataEndLf),
            (Phase::DataEndLf, b'\n') => Ok(Phase::Size { digits: 0, size: 0 }),
            (Phase::DataEnd | Phase::DataEndLf, _) => Err(MessageError::ChunkEnd { octet }),
            (Phase::TrailersEndLf, b'\n') => Ok(Phase::Complete),
            (Phase::TrailersEndLf, _) => Err(MessageError::BareCarriageReturn),
            (Phase::Data { .. } | Phase::Trailers | Phase::Complete, _) => Ok(self.phase),
        }
    }

    /// `chunk-size = 1*HEXDIG`. No sign, no `0x`, no space before it; sixteen digits fill the number.
    fn on_size_octet(
        &mut self,
        digits: usize,
        size: u64,
        octet: u8,
    ) -> Result<Phase, MessageError> {
        match (octets::hex_digit(octet), digits) {
            (Some(_), octets::HEX_DIGITS_MAX..) => {
                Err(MessageError::ChunkSizeTooLong { digits: digits + 1 })
            }
            (Some(digit), _) => Ok(Phase::Size {
                digits: digits + 1,
                size: size << 4 | u64::from(digit),
            }),
            (None, 0) if octet == b'\r' || octet == b'\n' || octet == b';' => {
                Err(MessageError::ChunkSizeMissing)
            }
            (None, 0) => Err(MessageError::ChunkSizeOctet { octet }),
            (None, _) => match octet {
                b'\r' => Ok(Phase::SizeEnd { size }),
                b'\n' => Err(MessageError::BareLineFeed),
                b';' => {
                    let line = self.on_extension_octet(digits as u64)?; // at most 16
                    Ok(Phase::ExtensionStart { size, line })
                }
                b' ' | b'\t' => {
                    let line = self.on_extension_octet(digits as u64)?; // at most 16
                    Ok(Phase::BeforeExtension { size, line })
                }
                _ => Err(MessageError::ChunkSizeOctet { octet }),
            },
        }
    }

    /// Counts an octet of an extension; answers how long the line is with it.
    fn on_extension_octet(&mut self, line: u64) -> Result<u64, MessageError> {
        self.extensions += 1;
        if line >= CHUNK_LINE_BYTES_MAX.0 {
            return Err(MessageError::ChunkLineTooLong {
                limit: CHUNK_LINE_BYTES_MAX,
            });
        }
        if self.extensions > CHUNK_EXTENSIONS_BYTES_MAX.0 {
            let limit = CHUNK_EXTENSIONS_BYTES_MAX;
            return Err(MessageError::ChunkExtensionsTooLong { limit });
        }
        Ok(line + 1)
    }

    /// A chunk-size line is whole.
    fn on_size(&mut self, size: u64) -> Result<Phase, MessageError> {
        let allowed = self.content.saturating_mul(CHUNK_OVERHEAD_RATIO_MAX);
        if self.framing > allowed.saturating_add(CHUNK_OVERHEAD_FREE.0) {
            return Err(MessageError::ChunkOverhead);
        }
        self.content = self.content.saturating_add(size);
        Ok(if size == 0 {
            Phase::Trailers
        } else {
            Phase::Data { left: size }
        })
    }

    /// Takes what belongs to the trailer section; answers what is left.
    fn trailer_octets<'a>(&mut self, octets: &'a [u8]) -> Result<&'a [u8], MessageError> {
        let trailers = match (&mut self.trailers, octets) {
            // The usual end, without a trailer field, takes no memory.
            (None, [b'\r', tail @ ..]) => {
                self.phase = Phase::TrailersEndLf;
                return Ok(tail);
            }
            (trailers, _) => trailers.get_or_insert_default(),
        };
        let line_end = octets
            .iter()
            .position(|octet| *octet == b'\n')
            .map(|at| at + 1);
        let (taken, rest) = octets
            .split_at_checked(line_end.unwrap_or(octets.len()))
            .unwrap_or_default();
        // One octet over the limit is enough to say so; the rest is not worth keeping.
        let room = (TRAILERS_BYTES_MAX.as_len() + 1).saturating_sub(trailers.octets.len());
        trailers
            .octets
            .extend_from_slice(taken.get(..room).unwrap_or(taken));
        match trailers
            .lines
            .next(&trailers.octets, TRAILERS_BYTES_MAX.as_len())?
        {
            NextLine::Partial => {}
            NextLine::Overrun => {
                return Err(MessageError::TrailersTooLong {
                    limit: TRAILERS_BYTES_MAX,
                });
            }
            NextLine::Broken { start, line } => return Err(lines::broken_field_line(line, start)),
            NextLine::Line { line: [], .. } => self.phase = Phase::Complete,
            NextLine::Line { start, line } => {
                let line = lines::field_line(line, start)?;
                if trailers.fields.lines().len() >= TRAILER_FIELDS_MAX as usize {
                    return Err(MessageError::TrailersTooMany {
                        limit: TRAILER_FIELDS_MAX,
                    });
                }
                trailers.fields.push(line);
            }
        }
        Ok(rest)
    }
}

/// Most octets of one chunk-size line. Sixteen digits say any length; the rest is room for
/// extensions, which recipients may ignore (RFC 9112 §7.1.1). Longer: `ChunkLineTooLong`, 400, close.
pub const CHUNK_LINE_BYTES_MAX: ByteCount = ByteCount(256);

/// Most octets of extensions in one body. Nobody is known to use any; whoever sends more pads.
/// RFC 9112 §7.1.1 asks for a limit on the total. Longer: `ChunkExtensionsTooLong`, 400, close.
pub const CHUNK_EXTENSIONS_BYTES_MAX: ByteCount = ByteCount(4 << 10);

/// Most octets of framing for each octet of content. Chunks of one octet, the honest worst, cost
/// five; sixteen is what Go chose after CVE-2023-39326. More: `ChunkOverhead`, 400, close.
pub const CHUNK_OVERHEAD_RATIO_MAX: u64 = 16;

/// Octets of framing that are not held against the ratio, so that small bodies are not judged.
pub const CHUNK_OVERHEAD_FREE: ByteCount = ByteCount(8 << 10);

/// Most octets of a trailer section. Longer: `TrailersTooLong`, 400, close.
pub const TRAILERS_BYTES_MAX: ByteCount = ByteCount(8 << 10);

/// Most fields of a trailer section. More: `TrailersTooMany`, 400, close.
pub const TRAILER_FIELDS_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a whole body; answers its content and what was left unread.
    fn read(octets: &[u8]) -> Result<(Vec<u8>, usize), MessageError> {
        let (mut body, mut content, mut rest) = (Chunked::new(), Vec::new(), octets);
        loop {
            match body.next(rest)? {
                Piece::More { .. } => return Ok((content, usize::MAX)),
                Piece::Data { skip, len } => {
                    content.extend_from_slice(&rest[skip..skip + len]);
                    rest = &rest[skip + len..];
                }
                Piece::End { skip } => return Ok((content, rest.len() - skip)),
            }
        }
    }

    #[test]
    fn octets_after_the_last_chunk_are_left_for_the_next_message() {
        assert_eq!(read(b"3\r\nabc\r\n0\r\n\r\nGET"), Ok((b"abc".to_vec(), 3)));
        assert_eq!(
            read(b"3\r\nabc\r\n0\r\nA: b\r\n\r\nGET"),
            Ok((b"abc".to_vec(), 3))
        );
    }

    #[test]
    fn a_chunk_line_of_just_the_limit_passes_and_one_octet_more_does_not() {
        let with = |length: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(length - 2));
        assert!(read(with(256).as_bytes()).is_ok());
        let limit = CHUNK_LINE_BYTES_MAX;
        assert_eq!(
            read(with(257).as_bytes()),
            Err(MessageError::ChunkLineTooLong { limit })
        );
    }

    #[test]
    fn extensions_of_just_the_limit_pass_and_one_octet_more_does_not() {
        let chunk = format!("1;{}\r\nx\r\n", "e".repeat(127));
        let full = chunk.repeat(32);
        assert!(read(format!("{full}0\r\n\r\n").as_bytes()).is_ok());
        let limit = CHUNK_EXTENSIONS_BYTES_MAX;
        let error = MessageError::ChunkExtensionsTooLong { limit };
        assert_eq!(read(format!("{full}0;\r\n\r\n").as_bytes()), Err(error));
    }

    #[test]
    fn chunks_of_one_octet_are_honest_and_padded_ones_are_not() {
        assert!(read(format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(10_000)).as_bytes()).is_ok());
        let padded = "0000000000000001\r\nx\r\n".repeat(10_000);
        assert_eq!(read(padded.as_bytes()), Err(MessageError::ChunkOverhead));
    }

    #[test]
    fn a_trailer_section_of_just_the_limit_passes_and_one_octet_more_does_not() {
        let with = |length: usize| format!("0\r\nA: {}\r\n\r\n", "v".repeat(length - 7));
        assert!(read(with(8192).as_bytes()).is_ok());
        let limit = TRAILERS_BYTES_MAX;
        assert_eq!(
            read(with(8193).as_bytes()),
            Err(MessageError::TrailersTooLong { limit })
        );
        assert_eq!(
            read(with(80_000).as_bytes()),
            Err(MessageError::TrailersTooLong { limit })
        );
    }

    #[test]
    fn as_many_trailer_fields_as_allowed_pass_and_one_more_does_not() {
        let with = |count: usize| format!("0\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert!(read(with(64).as_bytes()).is_ok());
        let limit = TRAILER_FIELDS_MAX;
        assert_eq!(
            read(with(65).as_bytes()),
            Err(MessageError::TrailersTooMany { limit })
        );
    }

    #[test]
    fn a_body_without_trailer_fields_takes_no_memory_for_them() {
        let mut body = Chunked::new();
        assert_eq!(body.next(b"0\r\n\r\n"), Ok(Piece::End { skip: 5 }));
        assert!(body.trailers.is_none());
    }
}
