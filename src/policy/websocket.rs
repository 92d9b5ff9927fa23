//! Where a WebSocket's frames end, in one direction, and the frame that ends it (RFC 6455 §5.2).
//!
//! Only headers are looked at, and of payloads only the length, so that a Close can be put between
//! two frames and nowhere else. A control frame may stand between the fragments of a message
//! (§5.4), so the end of any frame will do. Absent on purpose: what is in the frames.

/// The frames of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    place: Place,
    closing: Closing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Between two frames.
    #[default]
    Boundary,
    /// After the first octet of a header.
    Length,
    /// In the extended length; so many octets of it are to come.
    Extended { left: u8, length: u64, mask: u8 },
    /// In the mask and the payload.
    Payload { left: u64 },
}

/// Whether the sender has ended the conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Closing {
    /// No Close frame has gone by.
    #[default]
    NotYet,
    /// A Close frame has begun.
    Begun,
    /// A Close frame has gone by whole.
    Past,
}

impl Frames {
    /// Goes on over what the sender sends next.
    pub fn pass(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() {
            rest = self.step(rest);
        }
    }

    /// How many of these octets belong to the frame that is under way; `None`: more than these.
    #[must_use]
    pub fn to_boundary(&self, octets: &[u8]) -> Option<usize> {
        let mut probe = *self;
        let mut rest = octets;
        while probe.place != Place::Boundary {
            if rest.is_empty() {
                return None;
            }
            rest = probe.step(rest);
        }
        Some(octets.len() - rest.len())
    }

    /// Whether its sender has said its last.
    #[must_use]
    pub fn closing(&self) -> Closing {
        self.closing
    }

    /// One step of the header, or as much of the payload as there is; answers what is left over.
    /// Never called with nothing.
    fn step<'o>(&mut self, octets: &'o [u8]) -> &'o [u8] {
        let Some((&first, rest)) = octets.split_first() else {
            return octets;
        };
        match self.place {
            Place::Boundary => {
                if first & OPCODE == CLOSE && self.closing == Closing::NotYet {
                    self.closing = Closing::Begun;
                }
                self.place = Place::Length;
                rest
            }
            Place::Length => {
                let mask = if first & MASKED == 0 { 0 } else { MASK_OCTETS };
                self.place = match first & !MASKED {
                    126 => extended(2, mask),
                    127 => extended(8, mask),
                    short => payload(u64::from(short), mask),
                };
                self.note_end();
                rest
            }
            Place::Extended { left, length, mask } => {
                let length = length << 8 | u64::from(first);
                self.place = match left {
                    0 | 1 => payload(length, mask),
                    _ => Place::Extended {
                        left: left - 1,
                        length,
                        mask,
                    },
                };
                self.note_end();
                rest
            }
            Place::Payload { left } => {
                let here =
                    usize::try_from(left).map_or(octets.len(), |left| left.min(octets.len()));
                let (_, rest) = octets.split_at(here);
                self.place = match left - here as u64 {
                    0 => Place::Boundary,
                    left => Place::Payload { left },
                };
                self.note_end();
                rest
            }
        }
    }

    fn note_end(&mut self) {
        if self.place == Place::Boundary && self.closing == Closing::Begun {
            self.closing = Closing::Past;
        }
    }
}

fn extended(octets: u8, mask: u8) -> Place {
    Place::Extended {
        left: octets,
        length: 0,
        mask,
    }
}

fn payload(length: u64, mask: u8) -> Place {
    match length.saturating_add(u64::from(mask)) {
        0 => Place::Boundary,
        left => Place::Payload { left },
    }
}

/// A Close with 1001 as a server sends it to a client: unmasked (RFC 6455 §5.1).
pub const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xE9];

/// The same as a client sends it to a server: masked. `key` is to be unpredictable (§5.3).
#[must_use]
pub fn going_away_masked(key: [u8; 4]) -> [u8; 8] {
    let [k0, k1, k2, k3] = key;
    let [_, _, high, low] = GOING_AWAY;
    [0x88, 0x80 | 2, k0, k1, k2, k3, high ^ k0, low ^ k1]
}

/// The lower half of a header's first octet.
const OPCODE: u8 = 0x0F;

/// The opcode of Close (RFC 6455 §5.5.1).
const CLOSE: u8 = 0x8;

/// The bit that says that a mask follows.
const MASKED: u8 = 0x80;

/// The length of a mask.
const MASK_OCTETS: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, masked: bool, length: usize) -> Vec<u8> {
        let bit = if masked { MASKED } else { 0 };
        let mut octets = vec![first];
        match length {
            0..126 => octets.push(bit | u8::try_from(length).unwrap()),
            126..65_536 => {
                octets.push(bit | 126);
                octets.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                octets.push(bit | 127);
                octets.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        octets.extend(vec![0xAB; length + if masked { 4 } else { 0 }]);
        octets
    }

    #[test]
    fn a_frame_of_any_length_ends_where_its_header_says_and_not_before() {
        for masked in [false, true] {
            for length in [0, 1, 125, 126, 65_535, 65_536] {
                let octets = frame(0x82, masked, length);
                let mut frames = Frames::default();
                for octet in &octets[..octets.len() - 1] {
                    frames.pass(&[*octet]);
                    assert_eq!(frames.to_boundary(&[]), None, "{masked} {length}");
                }
                assert_eq!(frames.to_boundary(&[0, 0, 0]), Some(1));
                frames.pass(&octets[octets.len() - 1..]);
                assert_eq!(frames.to_boundary(&[]), Some(0), "{masked} {length}");
            }
        }
    }

    #[test]
    fn octets_fed_whole_or_one_by_one_come_to_the_same_place() {
        let mut octets = frame(0x01, true, 300);
        octets.extend(frame(0x89, true, 5));
        octets.extend(frame(0x80, true, 70_000));
        octets.extend(&frame(0x82, true, 9)[..7]);
        let (mut whole, mut single) = (Frames::default(), Frames::default());
        whole.pass(&octets);
        octets.iter().for_each(|octet| single.pass(&[*octet]));
        assert_eq!(whole, single);
        assert_eq!(whole.to_boundary(&[0; 100]), Some(8));
    }

    #[test]
    fn a_length_of_all_ones_is_not_exceeded_in_counting() {
        let mut frames = Frames::default();
        frames.pass(&[0x82, 0xFF]);
        frames.pass(&[0xFF; 8]);
        frames.pass(&[0; 1000]);
        assert_eq!(frames.to_boundary(&[0; 1000]), None);
    }

    #[test]
    fn a_close_is_past_once_it_is_whole() {
        let mut frames = Frames::default();
        frames.pass(&frame(0x82, false, 3));
        assert_eq!(frames.closing(), Closing::NotYet);
        frames.pass(&GOING_AWAY[..3]);
        assert_eq!(frames.closing(), Closing::Begun);
        frames.pass(&GOING_AWAY[3..]);
        assert_eq!(frames.closing(), Closing::Past);
        let mut empty = Frames::default();
        empty.pass(&[0x88, 0]);
        assert_eq!(empty.closing(), Closing::Past);
    }

    #[test]
    fn our_own_close_frames_are_whole_and_say_1001() {
        let masked = going_away_masked([1, 2, 3, 4]);
        let code = u16::from_be_bytes([masked[6] ^ 1, masked[7] ^ 2]);
        assert_eq!(code, 1001);
        for octets in [&GOING_AWAY[..], &masked[..]] {
            let mut frames = Frames::default();
            frames.pass(octets);
            assert_eq!(
                (frames.to_boundary(&[]), frames.closing()),
                (Some(0), Closing::Past)
            );
        }
    }
}
