//! An origin that answers each request with the nonce it carried, and misbehaves at random.

use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use super::ledger::Ledger;
use super::ledger::pattern;
use crate::support::End;
use crate::support::wire::Framing;
use crate::support::wire::Head;
use crate::support::wire::Wire;

/// What an origin does with one request. The weights are in [`Mood::drawn`].
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Length,
    Chunked,
    InPieces,
    UntilClose,
    Http10,
    Http10Persistent,
    NoContent,
    Interim,
    InterimMany,
    Slow,
    TooSlow,
    EarlyThenReads,
    EarlyAndEnds,
    SaysClose,
    ClosesUnsaid,
    ExtraAnswer,
    ExtraGarbage,
    Garbage,
    EndsBeforeReading,
    EndsUnanswered,
    ResetsBeforeReading,
    ResetsUnanswered,
    ResetsWithin,
    CutLength,
    CutChunk,
}

impl Mood {
    /// Of a thousand requests, so many are met with each; the rest with a plain length.
    const WEIGHTS: [(Self, u32); 24] = [
        (Self::Chunked, 120),
        (Self::InPieces, 30),
        (Self::UntilClose, 8),
        (Self::Http10, 4),
        (Self::Http10Persistent, 10),
        (Self::NoContent, 20),
        (Self::Interim, 20),
        (Self::InterimMany, 3),
        (Self::Slow, 10),
        (Self::TooSlow, 0),
        (Self::EarlyThenReads, 10),
        (Self::EarlyAndEnds, 5),
        (Self::SaysClose, 8),
        (Self::ClosesUnsaid, 8),
        (Self::ExtraAnswer, 8),
        (Self::ExtraGarbage, 4),
        (Self::Garbage, 4),
        (Self::EndsBeforeReading, 4),
        (Self::EndsUnanswered, 4),
        (Self::ResetsBeforeReading, 4),
        (Self::ResetsUnanswered, 4),
        (Self::ResetsWithin, 4),
        (Self::CutLength, 6),
        (Self::CutChunk, 6),
    ];

    fn drawn(dice: &mut Rng) -> Self {
        // Rarer than one in a thousand: it costs a second.
        if dice.u32(..20_000) == 0 {
            return Self::TooSlow;
        }
        let mut at = dice.u32(..1000);
        for (mood, weight) in Self::WEIGHTS {
            if at < weight {
                return mood;
            }
            at -= weight;
        }
        Self::Length
    }
}

/// What to do with the connection after a request.
#[derive(PartialEq)]
enum Then {
    GoesOn,
    Ends,
    Resets,
}

/// Starts one; its threads end with the test's process or when the proxy closes.
pub fn misbehaving(seed: u64, ledger: &Arc<Ledger>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&listener).listen(1024).unwrap();
    let address = listener.local_addr().unwrap();
    let ledger = Arc::clone(ledger);
    thread::spawn(move || {
        for (nth, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let ledger = Arc::clone(&ledger);
            let dice = Rng::with_seed(seed << 32 | nth as u64);
            let play = move || converse(stream, dice, &ledger);
            thread::Builder::new()
                .stack_size(512 * 1024)
                .spawn(play)
                .unwrap();
        }
    });
    address
}

fn converse(stream: TcpStream, mut dice: Rng, ledger: &Ledger) {
    let mut wire = Wire::new(stream);
    loop {
        let head = match wire.head() {
            Ok(head) => head,
            Err(End::Silent) => continue,
            Err(_) => return,
        };
        ledger.begins();
        match one(&mut wire, head, &mut dice, ledger) {
            Then::GoesOn => {}
            Then::Ends => return,
            Then::Resets => return wire.reset(),
        }
    }
}

fn one(wire: &mut Wire, head: Head, dice: &mut Rng, ledger: &Ledger) -> Then {
    let nonce: u64 = head.field("x-nonce").expect("a nonce").parse().unwrap();
    let method = head.start.split(' ').next().unwrap().to_owned();
    let mood = Mood::drawn(dice);
    let mut answer = Answer::new(nonce, &method, dice);
    match mood {
        Mood::EndsBeforeReading => return Then::Ends,
        Mood::ResetsBeforeReading => return Then::Resets,
        Mood::EarlyThenReads | Mood::EarlyAndEnds => {
            drop(wire.send(answer.with_length("HTTP/1.1", "")));
            if mood == Mood::EarlyAndEnds {
                return Then::Ends;
            }
        }
        _ if head.has("expect") => drop(wire.send("HTTP/1.1 100 Continue\r\n\r\n")),
        _ => {}
    }
    let framing = head.request_framing();
    assert_ne!(framing, Framing::UntilClose);
    let message = wire.rest_of(head, framing);
    if message.cut.is_some() {
        return Then::Ends;
    }
    ledger.executes(nonce, &method, &message.body);
    if mood == Mood::EarlyThenReads {
        return Then::GoesOn;
    }
    answer.give(wire, mood, dice)
}

/// The answer to one request, in whatever shape.
struct Answer {
    nonce: u64,
    is_head: bool,
    content: Vec<u8>,
}

impl Answer {
    fn new(nonce: u64, method: &str, dice: &mut Rng) -> Self {
        let times = [1, 1, 1, 1, 1, 50, 50, 1000, 4000][dice.usize(..9)];
        Self {
            nonce,
            is_head: method == "HEAD",
            content: pattern(nonce, 10 * times),
        }
    }

    fn sent(&self) -> &[u8] {
        if self.is_head { &[] } else { &self.content }
    }

    fn head(&self, version: &str, fields: &str) -> Vec<u8> {
        let nonce = self.nonce;
        format!("{version} 200 OK\r\nX-Echo: {nonce}\r\n{fields}\r\n").into_bytes()
    }

    fn with_length(&self, version: &str, fields: &str) -> Vec<u8> {
        let fields = format!("Content-Length: {}\r\n{fields}", self.content.len());
        [&self.head(version, &fields), self.sent()].concat()
    }

    fn chunk(octets: &[u8]) -> Vec<u8> {
        [
            format!("{:x}\r\n", octets.len()).as_bytes(),
            octets,
            b"\r\n",
        ]
        .concat()
    }

    /// Head and content in chunks, and the last chunk apart.
    fn chunked(&self, dice: &mut Rng) -> (Vec<u8>, &'static [u8]) {
        let head = self.head("HTTP/1.1", "Transfer-Encoding: chunked\r\n");
        if self.is_head {
            return (head, b"");
        }
        let (first, second) = self.content.split_at(dice.usize(1..self.content.len()));
        let chunks = [head, Self::chunk(first), Self::chunk(second)].concat();
        (chunks, b"0\r\n\r\n")
    }

    /// The ones of good will.
    fn give(&mut self, wire: &mut Wire, mood: Mood, dice: &mut Rng) -> Then {
        let plain = self.with_length("HTTP/1.1", "");
        let interim = format!("HTTP/1.1 103 Early Hints\r\nX-Echo: {}\r\n\r\n", self.nonce);
        let sent = match mood {
            Mood::Length => wire.send(plain),
            Mood::Chunked => {
                let (chunks, last) = self.chunked(dice);
                wire.send([&chunks, last].concat())
            }
            Mood::InPieces => plain.chunks(plain.len() / 4 + 1).try_for_each(|piece| {
                thread::yield_now();
                wire.send(piece)
            }),
            Mood::Http10Persistent => {
                wire.send(self.with_length("HTTP/1.0", "Connection: keep-alive\r\n"))
            }
            Mood::NoContent => {
                let status = ["204 No Content", "304 Not Modified"][dice.usize(..2)];
                wire.send(format!(
                    "HTTP/1.1 {status}\r\nX-Echo: {}\r\n\r\n",
                    self.nonce
                ))
            }
            Mood::Interim => wire.send([interim.as_bytes(), &plain].concat()),
            Mood::InterimMany => wire.send([interim.repeat(5).as_bytes(), &plain].concat()),
            Mood::Slow | Mood::TooSlow => {
                let millis = if mood == Mood::Slow { 5 } else { 1300 };
                thread::sleep(Duration::from_millis(millis));
                wire.send(plain)
            }
            _ => return self.misbehave(wire, mood, dice),
        };
        sent.map_or(Then::Ends, |()| Then::GoesOn)
    }

    /// The ones after which the connection is not to be used again, said or unsaid.
    fn misbehave(&self, wire: &mut Wire, mood: Mood, dice: &mut Rng) -> Then {
        let plain = self.with_length("HTTP/1.1", "");
        let poison = b"HTTP/1.1 200 OK\r\nX-Echo: 0\r\nContent-Length: 6\r\n\r\npoison";
        // Whether the proxy still takes it is the proxy's to decide.
        let mut send = |octets: &[u8]| drop(wire.send(octets));
        match mood {
            Mood::UntilClose => {
                send(&self.head("HTTP/1.1", ""));
                send(self.sent());
            }
            Mood::Http10 => send(&self.with_length("HTTP/1.0", "")),
            Mood::SaysClose => send(&self.with_length("HTTP/1.1", "Connection: close\r\n")),
            Mood::ExtraAnswer if plain.len() < 10_000 => {
                send(&[&plain[..], poison].concat());
                return Then::GoesOn;
            }
            Mood::ExtraGarbage => {
                send(&plain);
                thread::yield_now();
                send(b"\x16\x03nonsense\r\n\r\n");
                return Then::GoesOn;
            }
            Mood::Garbage => send(b"\x16\x03nonsense\r\n\r\n"),
            Mood::EndsUnanswered => {}
            Mood::ResetsUnanswered => return Then::Resets,
            Mood::ResetsWithin | Mood::CutLength if !self.is_head => {
                send(&plain[..plain.len() - dice.usize(1..self.content.len())]);
                if mood == Mood::ResetsWithin {
                    return Then::Resets;
                }
            }
            Mood::CutChunk if !self.is_head => {
                let (chunks, _) = self.chunked(dice);
                send(&chunks[..chunks.len() - dice.usize(..4)]);
            }
            // ClosesUnsaid, and those of the above that are nothing for this answer.
            _ => send(&plain),
        }
        Then::Ends
    }
}
