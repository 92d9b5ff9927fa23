//! Chunked bodies: no panic, the same outcome however they are split, and what is accepted is
//! written so that it reads the same again.
#![no_main]

use holdfast::h1::MessageError;
use holdfast::h1::Piece;
use holdfast::h1::body::BodyReader;
use holdfast::h1::body::BodyWriter;
use holdfast::h1::framing::Framing;
use libfuzzer_sys::fuzz_target;

/// What a caller learns of a body.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    outcome: Result<bool, MessageError>,
    content: Vec<u8>,
    /// Octets after the body; counted only where it is whole.
    rest: usize,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
}

fuzz_target!(|octets: &[u8]| {
    let (told, _) = read(octets, octets.len());
    let (slow, body) = read(octets, 1);
    assert_eq!(told, slow);
    if told.outcome != Ok(true) {
        return;
    }
    let mut again = Vec::new();
    let mut writer = BodyWriter::new(Framing::Chunked);
    for data in told.content.chunks(7) {
        writer.chunk_head(&mut again, data.len()).expect("chunks have no length to exceed");
        again.extend_from_slice(data);
        writer.chunk_end(&mut again, data.len());
    }
    writer.finish(&mut again, body.trailers()).expect("what was accepted can be written");
    let (second, _) = read(&again, again.len());
    assert_eq!((second.outcome, second.content, second.rest), (Ok(true), told.content, 0));
    assert!(second.trailers.iter().all(|line| told.trailers.contains(line)));
});

fn read(octets: &[u8], step: usize) -> (Told, BodyReader) {
    let mut body = BodyReader::new(Framing::Chunked);
    let (mut content, mut unread, mut fed) = (Vec::new(), Vec::new(), 0);
    let outcome = loop {
        match body.next(&unread) {
            Ok(Piece::More { skip }) => {
                assert_eq!(skip, unread.len(), "framing is consumed when it is seen");
                unread.clear();
                if fed == octets.len() {
                    break Ok(false);
                }
                let end = (fed + step).min(octets.len());
                unread.extend_from_slice(&octets[fed..end]);
                fed = end;
            }
            Ok(Piece::Data { skip, len }) => {
                assert!(len > 0);
                content.extend_from_slice(&unread[skip..skip + len]);
                unread.drain(..skip + len);
            }
            Ok(Piece::End { skip }) => {
                unread.drain(..skip);
                break Ok(true);
            }
            Err(error) => break Err(error),
        }
    };
    assert_eq!(body.received(), content.len() as u64);
    assert_eq!(body.is_complete(), outcome == Ok(true));
    let rest = if outcome == Ok(true) { unread.len() + octets.len() - fed } else { 0 };
    let mut trailers = Vec::new();
    if let Some((fields, octets)) = body.trailers() {
        for line in fields.lines() {
            trailers.push((line.name.of(octets).to_vec(), line.value.of(octets).to_vec()));
        }
    }
    (Told { outcome, content, rest, trailers }, body)
}
