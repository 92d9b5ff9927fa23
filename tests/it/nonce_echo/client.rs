//! Clients that pipeline, upload, wait for 100, end their side, and leave in every phase.

use std::fmt;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::ops::AddAssign;
use std::thread;
use std::time::Instant;

use fastrand::Rng;

use super::ledger::pattern;
use crate::support::End;
use crate::support::wire::Framing;
use crate::support::wire::Head;
use crate::support::wire::Wire;

/// A crowd with a number of requests to make between them.
pub struct Clients {
    pub listeners: [SocketAddr; 2],
    pub count: u64,
    pub requests: u64,
    pub seed: u64,
    pub until: Instant,
}

/// What became of the requests.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    sent: u64,
    posts: u64,
    whole: u64,
    cut: u64,
    /// Answers of the proxy's own.
    errors: u64,
    interim: u64,
    /// Left by their client, or behind one that ended the connection.
    left: u64,
    mixed: u64,
}

impl Tally {
    pub fn sent(&self) -> u64 {
        self.sent
    }

    pub fn mixed(&self) -> u64 {
        self.mixed
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.posts += other.posts;
        self.whole += other.whole;
        self.cut += other.cut;
        self.errors += other.errors;
        self.interim += other.interim;
        self.left += other.left;
        self.mixed += other.mixed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sent ({} POSTs), {} whole, {} cut, {} answered by the proxy, {} left, {} interim, {} mixed up",
            self.sent,
            self.posts,
            self.whole,
            self.cut,
            self.errors,
            self.left,
            self.interim,
            self.mixed
        )
    }
}

impl Clients {
    /// Makes all the requests.
    pub fn run(&self) -> Tally {
        let mut all = Tally::default();
        thread::scope(|scope| {
            let running: Vec<_> = (0..self.count)
                .map(|nth| scope.spawn(move || self.one(nth)))
                .collect();
            for client in running {
                all += client.join().expect("what it reads is well formed");
            }
        });
        all
    }

    fn one(&self, nth: u64) -> Tally {
        let share = self.requests.div_ceil(self.count);
        let mut client = Client {
            dice: Rng::with_seed(self.seed << 32 | nth),
            // Nonces of different clients never meet.
            next: 1 + nth * 100_000_000,
            tally: Tally::default(),
        };
        while client.tally.sent < share && Instant::now() < self.until {
            let listener = self.listeners[client.dice.usize(..2)];
            let stream = TcpStream::connect(listener).expect("the proxy accepts");
            client.talk(Wire::new(stream));
        }
        client.tally
    }
}

/// One request to make.
struct Request {
    nonce: u64,
    method: &'static str,
    head: Vec<u8>,
    content: Vec<u8>,
    expects: bool,
}

/// Where in an exchange a client leaves.
#[derive(Clone, Copy)]
enum Leaving {
    WithinHead,
    BeforeContent,
    WithinContent,
    BeforeAnswer,
    AfterHead,
    WithinAnswer,
}

/// What follows an answer.
#[derive(PartialEq)]
enum Next {
    GoesOn,
    Ends,
}

struct Client {
    dice: Rng,
    next: u64,
    tally: Tally,
}

impl Client {
    /// One connection's worth of exchanges. Dropped, the wire closes; what is unread makes that a reset.
    fn talk(&mut self, mut wire: Wire) {
        for _ in 0..self.dice.u32(1..40) {
            match self.dice.u32(..100) {
                0..3 => return self.leave(wire),
                3 => return self.end_my_side(wire),
                4..12 => {
                    if self.line(&mut wire) == Next::Ends {
                        return;
                    }
                }
                _ => {
                    let request = self.request(40_000);
                    if self.exchange(&mut wire, &request) == Next::Ends {
                        return;
                    }
                }
            }
        }
    }

    fn request(&mut self, most: usize) -> Request {
        let nonce = self.next;
        self.next += 1;
        self.tally.sent += 1;
        let method =
            ["GET", "GET", "GET", "GET", "HEAD", "POST", "POST", "PUT"][self.dice.usize(..8)];
        let mut fields = format!("Host: it.test\r\nX-Nonce: {nonce}\r\n");
        let (mut content, mut expects) = (Vec::new(), false);
        let mut version = if self.dice.u32(..30) == 0 {
            "HTTP/1.0"
        } else {
            "HTTP/1.1"
        };
        if matches!(method, "POST" | "PUT") {
            self.tally.posts += u64::from(method == "POST");
            content = pattern(
                nonce,
                [0, 1, 100, 5_000, most][self.dice.usize(..5)].min(most),
            );
            if self.dice.bool() {
                fields += &format!("Content-Length: {}\r\n", content.len());
                expects = self.dice.u32(..20) == 0 && version == "HTTP/1.1" && !content.is_empty();
                if expects {
                    fields += "Expect: 100-continue\r\n";
                }
            } else {
                version = "HTTP/1.1";
                fields += "Transfer-Encoding: chunked\r\n";
                content = chunked(&content);
            }
        }
        if version == "HTTP/1.0" {
            fields += "Connection: keep-alive\r\n";
        }
        let head = format!("{method} /{nonce} {version}\r\n{fields}\r\n").into_bytes();
        Request {
            nonce,
            method,
            head,
            content,
            expects,
        }
    }

    /// One request and its answer.
    fn exchange(&mut self, wire: &mut Wire, request: &Request) -> Next {
        if !request.expects {
            // An answer may be there although not all was taken.
            drop(wire.send([&request.head[..], &request.content].concat()));
            return self.answered(wire, request);
        }
        drop(wire.send(&request.head));
        match wire.head() {
            Ok(head) if head.status() == 100 => {
                self.tally.interim += 1;
                drop(wire.send(&request.content));
                self.answered(wire, request)
            }
            // The content was not sent, so this is the last exchange here.
            Ok(head) if head.status() >= 200 => {
                self.judge(wire, request, head);
                Next::Ends
            }
            Ok(head) => {
                self.is_mine(request, &head);
                self.left_behind(1)
            }
            Err(end) => self.cut(end),
        }
    }

    /// Several requests before the first answer.
    fn line(&mut self, wire: &mut Wire) -> Next {
        let count = self.dice.usize(2..7);
        let mut requests: Vec<Request> = (0..count).map(|_| self.request(1000)).collect();
        // Whoever waits for 100 does not send on.
        requests
            .iter_mut()
            .for_each(|request| request.expects = false);
        let octets: Vec<u8> = requests
            .iter()
            .flat_map(|request| [&request.head[..], &request.content].concat())
            .collect();
        drop(wire.send(octets));
        for (nth, request) in requests.iter().enumerate() {
            if self.answered(wire, request) == Next::Ends {
                return self.left_behind(count - nth - 1);
            }
        }
        Next::GoesOn
    }

    /// Sends all and then a FIN: an answer comes all the same.
    fn end_my_side(&mut self, mut wire: Wire) {
        let mut request = self.request(5_000);
        request.expects = false;
        drop(wire.send([&request.head[..], &request.content].concat()));
        wire.half_close();
        self.answered(&mut wire, &request);
    }

    /// Leaves in the middle of something, in order or rudely.
    fn leave(&mut self, mut wire: Wire) {
        use Leaving::*;
        const PHASES: [Leaving; 6] = [
            WithinHead,
            BeforeContent,
            WithinContent,
            BeforeAnswer,
            AfterHead,
            WithinAnswer,
        ];
        let request = self.request(40_000);
        let (head, content) = (&request.head[..], &request.content[..]);
        let within = |octets: &[u8], dice: &mut Rng| dice.usize(..octets.len().max(1));
        match PHASES[self.dice.usize(..PHASES.len())] {
            WithinHead => drop(wire.send(&head[..within(head, &mut self.dice)])),
            BeforeContent => drop(wire.send(head)),
            WithinContent => {
                let some = &content[..within(content, &mut self.dice)];
                drop(wire.send([head, some].concat()));
            }
            BeforeAnswer => drop(wire.send([head, content].concat())),
            AfterHead => {
                drop(wire.send([head, content].concat()));
                drop(wire.head());
            }
            WithinAnswer => {
                drop(wire.send([head, content].concat()));
                let head = wire.head().ok();
                let content = head.map(|head| head.response_framing(request.method));
                if content.is_some_and(|framing| framing != Framing::None) {
                    drop(wire.some());
                }
            }
        }
        self.left_behind(1);
        if self.dice.bool() {
            wire.reset();
        }
    }

    fn left_behind(&mut self, count: usize) -> Next {
        self.tally.left += count as u64;
        Next::Ends
    }

    fn cut(&mut self, end: End) -> Next {
        assert_ne!(end, End::Silent, "neither answered nor closed");
        self.tally.cut += 1;
        Next::Ends
    }

    fn answered(&mut self, wire: &mut Wire, request: &Request) -> Next {
        loop {
            match wire.head() {
                Ok(head) if head.status() >= 200 => return self.judge(wire, request, head),
                Ok(head) if head.status() == 100 => {}
                Ok(head) => {
                    self.tally.interim += 1;
                    self.is_mine(request, &head);
                }
                Err(end) => return self.cut(end),
            }
        }
    }

    /// Whether this head is of an answer to this request.
    fn is_mine(&mut self, request: &Request, head: &Head) -> bool {
        let mine = head.field("x-echo") == Some(request.nonce.to_string());
        if !mine {
            println!("mixed up: {} got {head:?}", request.nonce);
            self.tally.mixed += 1;
        }
        mine
    }

    /// Looks at a final answer, whole or cut: whose is it?
    fn judge(&mut self, wire: &mut Wire, request: &Request, head: Head) -> Next {
        let framing = head.response_framing(request.method);
        let closes = head.lists("connection", "close");
        let ours = head.has("proxy-status");
        let mine = ours || self.is_mine(request, &head);
        let message = wire.rest_of(head, framing);
        if mine && !ours && message.body != pattern(request.nonce, message.body.len()) {
            println!("mixed up: {} got {:?}", request.nonce, message.text());
            self.tally.mixed += 1;
        }
        match message.cut {
            Some(end) => return self.cut(end),
            None if ours => self.tally.errors += 1,
            None => self.tally.whole += u64::from(mine),
        }
        if closes { Next::Ends } else { Next::GoesOn }
    }
}

/// The content in two chunks.
fn chunked(content: &[u8]) -> Vec<u8> {
    let chunk = |octets: &[u8]| match octets {
        [] => Vec::new(),
        _ => [
            format!("{:x}\r\n", octets.len()).as_bytes(),
            octets,
            b"\r\n",
        ]
        .concat(),
    };
    let (first, second) = content.split_at(content.len() / 3);
    [chunk(first), chunk(second), b"0\r\n\r\n".to_vec()].concat()
}
