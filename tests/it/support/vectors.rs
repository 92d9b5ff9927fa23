//! Vectors: exact octets in, and what must come of them. `tests/it/vectors/*.txt` tells the format.

use super::Client;
use super::Origin;
use super::wire::End;
use super::wire::Framing;
use super::wire::Message;
use std::net::SocketAddr;

pub struct Vector {
    pub name: String,
    pub octets: Vec<u8>,
    pub statuses: Vec<u16>,
    pub origin: AtOrigin,
}

/// What the origin may see of a vector.
pub enum AtOrigin {
    /// Not one octet.
    Nothing,
    /// The beginning of a request whose body then turned out to be wrong; never a whole one.
    Begun,
    /// One request: its line and fields, then its body with the framing taken off.
    Request(Vec<u8>),
}

/// Reads a file of vectors.
pub fn read(text: &str) -> Vec<Vector> {
    let mut vectors: Vec<Vector> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("== ") {
            vectors.push(Vector {
                name: name.to_owned(),
                octets: Vec::new(),
                statuses: Vec::new(),
                origin: AtOrigin::Nothing,
            });
        } else if let Some(expected) = line.strip_prefix("-- ") {
            let vector = vectors.last_mut().expect("a name comes first");
            match expected {
                "begun" => vector.origin = AtOrigin::Begun,
                "origin" => vector.origin = AtOrigin::Request(Vec::new()),
                statuses => vector.statuses = statuses.split(' ').map(number).collect(),
            }
        } else if let Some(vector) = vectors.last_mut() {
            match &mut vector.origin {
                AtOrigin::Request(octets) => unescaped(line, octets),
                _ => unescaped(line, &mut vector.octets),
            }
        }
    }
    assert!(
        vectors
            .iter()
            .all(|v| !v.statuses.is_empty() && !v.octets.is_empty())
    );
    vectors
}

fn number(text: &str) -> u16 {
    text.parse()
        .unwrap_or_else(|_| panic!("`{text}` is no status"))
}

/// `\r \n \t \\ \xNN`, and `\*40000(a)` for so many of an octet; the file's own line ends do not count.
fn unescaped(line: &str, octets: &mut Vec<u8>) {
    let mut rest = line.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            octets.push(*first);
            continue;
        }
        let (what, after) = rest.split_first().expect("something after a backslash");
        rest = after;
        match what {
            b'r' => octets.push(b'\r'),
            b'n' => octets.push(b'\n'),
            b't' => octets.push(b'\t'),
            b'\\' => octets.push(b'\\'),
            b'x' => {
                let hex = std::str::from_utf8(&rest[..2]).unwrap();
                octets.push(u8::from_str_radix(hex, 16).unwrap());
                rest = &rest[2..];
            }
            b'*' => {
                let open = rest.iter().position(|o| *o == b'(').expect("a parenthesis");
                let count: usize = std::str::from_utf8(&rest[..open]).unwrap().parse().unwrap();
                octets.extend(std::iter::repeat_n(rest[open + 1], count));
                rest = &rest[open + 3..];
            }
            other => panic!("`\\{}` is no escape", *other as char),
        }
    }
}

/// How a vector's octets reach the proxy.
#[derive(Clone, Copy, Debug)]
pub enum Delivery {
    /// In one write.
    Whole,
    /// Each octet in a write of its own.
    OctetByOctet,
    /// In two parts with time between them.
    SplitAt(usize),
    /// Right behind a good request, in the same write.
    BehindAnother,
}

/// The good request of [`Delivery::BehindAnother`].
pub const ANOTHER: &str = "GET /another HTTP/1.1\r\nHost: it.test\r\n\r\n";

impl Vector {
    pub fn is_refused(&self) -> bool {
        !matches!(self.origin, AtOrigin::Request(_))
    }

    /// Every place worth splitting at: all of them, or an even choice where there are too many.
    pub fn splits(&self) -> Vec<Delivery> {
        let step = (self.octets.len() / 400).max(1) * if self.octets.len() > 400 { 8 } else { 1 };
        (1..self.octets.len())
            .step_by(step)
            .map(Delivery::SplitAt)
            .collect()
    }

    /// Plays it and judges the answer; what the origin saw is judged by the caller.
    pub fn play(&self, to: SocketAddr, delivery: Delivery) -> Result<(), String> {
        // The strict reader fails by panicking; here that is one complaint of many.
        let played = std::panic::catch_unwind(|| self.answer_is_right(to, delivery));
        let judged = played.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.unwrap_or_else(|| "the answer is malformed".to_owned()))
        });
        judged.map_err(|what| format!("{} ({delivery:?}): {what}", self.name))
    }

    fn answer_is_right(&self, to: SocketAddr, delivery: Delivery) -> Result<(), String> {
        let mut client = Client::to(to);
        match delivery {
            Delivery::Whole => drop(client.send_what_it_takes(&self.octets)),
            Delivery::OctetByOctet => client.send_octet_by_octet(&self.octets),
            Delivery::SplitAt(at) => client.send_split(&self.octets, at),
            Delivery::BehindAnother => {
                drop(client.send_what_it_takes([ANOTHER.as_bytes(), &self.octets].concat()));
                let first = client.response();
                if first.status() != 200 {
                    return Err(format!("the request before it got {}", first.head.start));
                }
            }
        }
        let head = client
            .wire
            .head()
            .map_err(|end| format!("no answer, {end:?}"))?;
        let method = if self.octets.starts_with(b"HEAD ") {
            "HEAD"
        } else {
            "GET"
        };
        let framing = head.response_framing(method);
        let answer = client.wire.rest_of(head, framing);
        if !self.statuses.contains(&answer.status()) || answer.cut.is_some() {
            return Err(format!("got {} {:?}", answer.head.start, answer.cut));
        }
        if !self.is_refused() {
            return Ok(());
        }
        if framing == Framing::UntilClose || !answer.head.lists("connection", "close") {
            return Err(format!(
                "not a framed answer with `Connection: close`: {:?}",
                answer.head
            ));
        }
        match client.wire.until_end() {
            (rest, End::Closed) if rest.is_empty() => Ok(()),
            (rest, end) => Err(format!("{end:?} after `{}`", rest.escape_ascii())),
        }
    }

    /// Whether the request that reached the origin is the expected one.
    pub fn is_canonical(&self, got: &Message) -> Result<(), String> {
        let AtOrigin::Request(expected) = &self.origin else {
            return Ok(());
        };
        let end = expected
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .expect("an end of the head");
        let mut lines: Vec<Vec<u8>> = vec![got.head.start.clone().into_bytes()];
        for (name, value) in &got.head.fields {
            // What every request gets from us on its way is the business of other dialogues.
            let ours = [
                "via",
                "x-forwarded-for",
                "x-forwarded-proto",
                "x-forwarded-host",
            ];
            if !ours.contains(&name.to_ascii_lowercase().as_str()) {
                lines.push([name.as_bytes(), b": ", value].concat());
            }
        }
        let head = lines.join(&b"\r\n"[..]);
        if head != expected[..end] || got.body != expected[end + 4..] {
            let body = got.body.escape_ascii();
            return Err(format!(
                "{}: the origin got {} {body}",
                self.name,
                head.escape_ascii()
            ));
        }
        Ok(())
    }
}

/// Does `work` for every item on several threads and collects the complaints.
pub fn all<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<(), String> + Sync) -> Vec<String> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let complaints = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    if let Err(complaint) = work(item) {
                        complaints.lock().unwrap().push(complaint);
                    }
                }
            });
        }
    });
    complaints.into_inner().unwrap()
}

/// Connections at a time. Most of each one's life is waiting.
const THREADS: usize = 32;

/// The origin must not have seen an octet.
pub fn saw_nothing(origin: &Origin) -> Result<(), String> {
    let octets = origin.octets();
    if octets.is_empty() {
        Ok(())
    } else {
        Err(format!("it saw {}", super::shown(&octets)))
    }
}
