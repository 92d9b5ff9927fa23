//! A request's content, kept as long as the request might have to be sent again.

use crate::net::buffer;

/// What has been sent of a request's content so far, or that it grew too large to keep.
pub struct Replay {
    kept: Kept,
    most: usize,
}

enum Kept {
    Whole(Vec<u8>),
    TooLarge,
}

impl Replay {
    /// Nothing yet; at most so many octets will be kept.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            kept: Kept::Whole(Vec::new()),
            most,
        }
    }

    /// Keeps a further piece, or forgets everything when it becomes too much.
    pub fn keep(&mut self, content: &[u8]) {
        let Kept::Whole(octets) = &mut self.kept else {
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

    /// The content that was sent so far. `None`: it cannot be sent again.
    #[must_use]
    pub fn whole(&self) -> Option<&[u8]> {
        match &self.kept {
            Kept::Whole(octets) => Some(octets),
            Kept::TooLarge => None,
        }
    }

    /// Keeps nothing from now on: the request will not be sent again.
    pub fn give_up(&mut self) {
        if let Kept::Whole(octets) = &mut self.kept {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_kept_up_to_the_buffer_and_not_an_octet_more() {
        let mut replay = Replay::new(4);
        replay.keep(b"ab");
        replay.keep(b"cd");
        assert_eq!(replay.whole(), Some(&b"abcd"[..]));
        replay.keep(b"e");
        assert_eq!(replay.whole(), None);
    }

    #[test]
    fn what_was_given_up_stays_forgotten() {
        let mut replay = Replay::new(4);
        replay.give_up();
        replay.keep(b"a");
        assert_eq!(replay.whole(), None);
    }
}
