//! A request's content, kept as long as the request might have to be sent again.
//!
//! A content of known length that is small enough stays where it was read, behind its head: copying
//! 64 KiB was a tenth of what such an upload cost. One in chunks lies between its framing, and is
//! copied.

use crate::h1::framing::Framing;
use crate::net::buffer;
use crate::net::buffer::ReadBuffer;

/// What has been sent of a request's content so far, or that it grew too large to keep.
pub struct Replay {
    kept: Kept,
    most: usize,
}

enum Kept {
    /// In the client's read buffer.
    InPlace,
    Copied(Vec<u8>),
    TooLarge,
}

impl Replay {
    /// Nothing yet of a content framed so; at most `most` octets will be kept.
    #[must_use]
    pub fn of(framing: Framing, most: usize) -> Self {
        let kept = match framing {
            // What is known not to fit is not kept in part either.
            Framing::Length(length) if length > most as u64 => Kept::TooLarge,
            Framing::Length(length) if length <= IN_PLACE_MOST => Kept::InPlace,
            Framing::None | Framing::Length(_) | Framing::Chunked | Framing::UntilClose => {
                Kept::Copied(Vec::new())
            }
        };
        Self { kept, most }
    }

    /// Whether the content is to stay where it is read.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        matches!(self.kept, Kept::InPlace)
    }

    /// Keeps a further piece, or forgets everything when it becomes too much.
    pub fn keep(&mut self, content: &[u8]) {
        let Kept::Copied(octets) = &mut self.kept else {
            return;
        };
        if octets.len() + content.len() > self.most {
            buffer::give_back(std::mem::take(octets));
            self.kept = Kept::TooLarge;
            return;
        }
        buffer::furnish(octets);
        if octets.capacity() - octets.len() < content.len() {
            buffer::widen(octets); // storage that is kept, instead of storage that grows
        }
        octets.extend_from_slice(content);
    }

    /// Whether what was sent so far can be sent again.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self.kept {
            Kept::InPlace | Kept::Copied(_) => true,
            Kept::TooLarge => false,
        }
    }

    /// The content that was sent so far, which was read from `input`. `None`: it cannot be sent
    /// again.
    #[must_use]
    pub fn whole<'a>(&'a self, input: &'a ReadBuffer) -> Option<&'a [u8]> {
        match &self.kept {
            Kept::InPlace => Some(input.kept()),
            Kept::Copied(octets) => Some(octets),
            Kept::TooLarge => None,
        }
    }

    /// Keeps nothing from now on: the request will not be sent again.
    pub fn give_up(&mut self) {
        if let Kept::Copied(octets) = &mut self.kept {
            buffer::give_back(std::mem::take(octets));
        }
        self.kept = Kept::TooLarge;
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Most octets of a content that stays where it is read: with a head of 30 KiB it fits a wide buffer,
/// which is kept; beyond that the buffer would grow, and be thrown away.
const IN_PLACE_MOST: u64 = (buffer::WIDE_OCTETS - 32 * 1024) as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_in_chunks_is_kept_up_to_the_buffer_and_not_an_octet_more() {
        let input = ReadBuffer::default();
        let mut replay = Replay::of(Framing::Chunked, 4);
        replay.keep(b"ab");
        replay.keep(b"cd");
        assert_eq!(replay.whole(&input), Some(&b"abcd"[..]));
        replay.keep(b"e");
        assert_eq!(replay.whole(&input), None);
    }

    #[test]
    fn content_of_known_length_is_kept_where_it_was_read() {
        let mut input = ReadBuffer::default();
        input.put(b"headbodynext");
        input.hold(4);
        let replay = Replay::of(Framing::Length(4), 4);
        assert!(replay.is_in_place());
        input.keep_consumed();
        drop(input.take(2));
        assert_eq!(replay.whole(&input), Some(&b"bo"[..]));
        drop(input.take(2));
        assert_eq!(replay.whole(&input), Some(&b"body"[..]));
        assert_eq!((input.held(), input.unread()), (&b"head"[..], &b"next"[..]));
        input.release();
        assert_eq!((input.kept(), input.unread()), (&b""[..], &b"next"[..]));
    }

    #[test]
    fn content_whose_length_is_more_than_the_buffer_is_not_kept_at_all() {
        assert!(!Replay::of(Framing::Length(5), 4).holds());
        let long = IN_PLACE_MOST + 1;
        assert!(!Replay::of(Framing::Length(long), usize::MAX).is_in_place());
        assert!(Replay::of(Framing::Length(IN_PLACE_MOST), usize::MAX).is_in_place());
    }

    #[test]
    fn what_was_given_up_stays_forgotten() {
        let mut replay = Replay::of(Framing::Length(1), 4);
        replay.give_up();
        replay.keep(b"a");
        assert!(!replay.holds());
    }
}
