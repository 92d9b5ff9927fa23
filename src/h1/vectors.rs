//! Plays `tests/vectors/*.txt`: each vector whole, split in two at every octet, and octet by octet.
//!
//! The player stands for a caller: it keeps a buffer, drops what is consumed, and writes down what
//! it was told. The files are the specification; the player has no opinion.

use std::fmt::Write as _;

use crate::base::units::ByteCount;
use crate::h1::body::BodyEnd;
use crate::h1::body::BodyReader;
use crate::h1::chunked::Piece;
use crate::h1::error::MessageError;
use crate::h1::framing;
use crate::h1::framing::Framing;
use crate::h1::head::HeadLimits;
use crate::h1::head::Method;
use crate::h1::head::Parsed;
use crate::h1::head::RequestHead;
use crate::h1::head::ResponseHead;
use crate::h1::persistence;
use crate::h1::persistence::Persistence;

const LIMITS: HeadLimits = HeadLimits {
    octets: ByteCount(16 << 10),
    fields: 100,
    target: ByteCount(8 << 10),
};

#[derive(Default)]
struct Vector {
    name: String,
    asked: String,
    octets: Vec<u8>,
    outcome: Vec<u8>,
}

fn read(text: &str) -> Vec<Vector> {
    let mut vectors = Vec::new();
    let mut vector = Vector::default();
    for line in text.lines() {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            "#" => rest.clone_into(&mut vector.name),
            "?" => rest.clone_into(&mut vector.asked),
            "<" => vector.octets.extend(unescape(rest)),
            ">" => {
                vector.outcome = unescape(rest);
                vectors.push(std::mem::take(&mut vector));
            }
            "" | "##" => {}
            other => panic!("no such mark: {other}"),
        }
    }
    vectors
}

fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        octets.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        let (octet, used) = match escape.as_bytes()[0] {
            b'r' => (b'\r', 1),
            b'n' => (b'\n', 1),
            b't' => (b'\t', 1),
            b'0' => (0, 1),
            b'\\' => (b'\\', 1),
            b'x' => (u8::from_str_radix(&escape[1..3], 16).unwrap(), 3),
            b'<' => {
                let end = escape.find('>').unwrap();
                let (what, times) = escape[1..end].rsplit_once('*').unwrap();
                octets.extend(unescape(what).repeat(times.parse().unwrap()));
                rest = &escape[end + 1..];
                continue;
            }
            other => panic!("no such escape: {}", char::from(other)),
        };
        octets.push(octet);
        rest = &escape[used..];
    }
    octets.extend_from_slice(rest.as_bytes());
    octets
}

fn rule(error: MessageError) -> String {
    let debug = format!("{error:?}");
    debug.split(' ').next().unwrap_or_default().to_owned()
}

enum Head {
    Request(RequestHead),
    Response(Method, ResponseHead),
}

/// A caller of the codec, and what it was told.
struct Player {
    head: Head,
    body: Option<BodyReader>,
    unread: Vec<u8>,
    told: Vec<u8>,
    content: Vec<u8>,
    failed: Option<String>,
}

impl Player {
    fn new(head: Head) -> Self {
        let (unread, told, content) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            head,
            body: None,
            unread,
            told,
            content,
            failed: None,
        }
    }

    fn feed(&mut self, octets: &[u8]) {
        self.unread.extend_from_slice(octets);
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.advance() {
            self.failed = Some(match self.head {
                Head::Request(_) => {
                    format!("error {} {}", rule(error), error.proxy_error().status())
                }
                Head::Response(..) => format!("error {}", rule(error)),
            });
        }
    }

    fn advance(&mut self) -> Result<(), MessageError> {
        if self.body.is_none() && !self.on_head()? {
            return Ok(());
        }
        let Some(body) = &mut self.body else {
            return Ok(());
        };
        loop {
            match body.next(&self.unread)? {
                Piece::More { skip } => {
                    self.unread.drain(..skip);
                    return Ok(());
                }
                Piece::Data { skip, len } => {
                    self.content
                        .extend_from_slice(&self.unread[skip..skip + len]);
                    self.unread.drain(..skip + len);
                }
                Piece::End { skip } => {
                    self.unread.drain(..skip);
                    return Ok(());
                }
            }
        }
    }

    fn on_head(&mut self) -> Result<bool, MessageError> {
        let octets = &self.unread;
        let (framing, persistence, used) = match &mut self.head {
            Head::Request(head) => {
                if head.parse(octets, &LIMITS)? == Parsed::Partial {
                    return Ok(false);
                }
                let framing = framing::request_framing(head, octets)?;
                self.told.extend_from_slice(head.method_octets.of(octets));
                self.told.push(b' ');
                self.told.extend_from_slice(&head.target.to_origin(octets));
                self.told.extend_from_slice(b" for ");
                self.told.extend_from_slice(head.host(octets));
                (
                    framing,
                    persistence::request_persistence(head, octets),
                    head.octets,
                )
            }
            Head::Response(asked, head) => {
                if head.parse(octets, &LIMITS)? == Parsed::Partial {
                    return Ok(false);
                }
                let framing = framing::response_framing(*asked, head, octets)?;
                self.told
                    .extend_from_slice(format!("{} \"", head.status).as_bytes());
                self.told.extend_from_slice(head.reason.of(octets));
                self.told.push(b'"');
                (
                    framing,
                    persistence::response_persistence(head, framing, octets),
                    head.octets,
                )
            }
        };
        let mut told = String::new();
        match framing {
            Framing::None => told.push_str(", none"),
            Framing::Length(length) => write!(told, ", length {length}").unwrap(),
            Framing::Chunked => told.push_str(", chunked"),
            Framing::UntilClose => told.push_str(", until close"),
        }
        match persistence {
            Persistence::Persist => told.push_str(", persist"),
            Persistence::Close(reason) => write!(told, ", close {reason}").unwrap(),
        }
        self.told.extend_from_slice(told.as_bytes());
        self.unread.drain(..used);
        self.body = Some(BodyReader::new(framing));
        Ok(true)
    }

    fn tell(mut self) -> Vec<u8> {
        if let Some(error) = self.failed {
            return error.into_bytes();
        }
        let Some(mut body) = self.body else {
            return b"partial".to_vec();
        };
        let mut quote = |name: &str, octets: &[u8]| {
            self.told
                .extend_from_slice(format!(", {name} \"").as_bytes());
            self.told.extend_from_slice(octets);
            self.told.push(b'"');
        };
        assert_eq!(body.received(), self.content.len() as u64);
        if !self.content.is_empty() {
            quote("content", &self.content);
        }
        if let Some((fields, octets)) = body.trailers() {
            let mut lines = Vec::new();
            for line in fields.lines() {
                let (name, value) = (line.name.of(octets), line.value.of(octets));
                lines.push([name, b": ", value].concat());
            }
            quote("trailers", &lines.join(&b"; "[..]));
        }
        if body.on_eof() == BodyEnd::Truncated {
            self.told.extend_from_slice(b", truncated");
        } else if !self.unread.is_empty() {
            quote("rest", &self.unread);
        }
        self.told
    }
}

/// What a caller is told when `octets` come in these parts.
pub(super) fn play_request<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut player = Player::new(Head::Request(RequestHead::new()));
    parts.into_iter().for_each(|part| player.feed(part));
    player.tell()
}

/// The same of an answer to a request with this method.
pub(super) fn play_response<'a>(
    asked: Method,
    parts: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut player = Player::new(Head::Response(asked, ResponseHead::new()));
    parts.into_iter().for_each(|part| player.feed(part));
    player.tell()
}

/// Plays one vector every way; answers the first complaint.
fn complaint(vector: &Vector, play: impl Fn(&[&[u8]]) -> Vec<u8>) -> Option<String> {
    let octets = vector.octets.as_slice();
    let whole = [(play(&[octets]), "whole".to_owned())];
    // Splitting long vectors everywhere would take minutes; their beginnings and every 61st octet do.
    let near = |at: &usize| octets.len() < 600 || at.is_multiple_of(61) || *at < 80;
    let split = (0..octets.len()).filter(near).map(|at| {
        let (head, tail) = octets.split_at(at);
        (play(&[head, tail]), format!("split at {at}"))
    });
    let single = [(
        play(&octets.chunks(1).collect::<Vec<_>>()),
        "octet by octet".to_owned(),
    )];
    let mut told = whole.into_iter().chain(split).chain(single);
    let (told, fed) = told.find(|(told, _)| *told != vector.outcome)?;
    let (told, outcome) = (told.escape_ascii(), vector.outcome.escape_ascii());
    Some(format!(
        "{} ({fed})\n    told:     {told}\n    expected: {outcome}",
        vector.name
    ))
}

#[test]
fn every_request_vector_reads_as_written_however_it_is_split() {
    let vectors = read(include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/vectors/requests.txt"
    )));
    assert!(vectors.len() >= 200, "{} vectors", vectors.len());
    let play = |parts: &[&[u8]]| play_request(parts.iter().copied());
    let complaints: Vec<_> = vectors.iter().filter_map(|v| complaint(v, play)).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn every_response_vector_reads_as_written_however_it_is_split() {
    let vectors = read(include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/vectors/responses.txt"
    )));
    assert!(vectors.len() >= 60, "{} vectors", vectors.len());
    let complaints = vectors.iter().filter_map(|vector| {
        let asked = match vector.asked.as_str() {
            "" => Method::Get,
            asked => Method::of(asked.as_bytes()),
        };
        complaint(vector, |parts| play_response(asked, parts.iter().copied()))
    });
    let complaints: Vec<_> = complaints.collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
