//! Heads of requests and responses: no panic, the same outcome however they are split, and what is
//! accepted is written so that it reads the same again.
#![no_main]

use holdfast::base::units::ByteCount;
use holdfast::h1::Field;
use holdfast::h1::MessageError;
use holdfast::h1::encode;
use holdfast::h1::framing;
use holdfast::h1::framing::Framing;
use holdfast::h1::head::HeadLimits;
use holdfast::h1::head::Method;
use holdfast::h1::head::Parsed;
use holdfast::h1::head::RequestHead;
use holdfast::h1::head::ResponseHead;
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits =
    HeadLimits { octets: ByteCount(1024), fields: 24, target: ByteCount(256) };

fuzz_target!(|octets: &[u8]| {
    request(octets);
    response(octets);
});

/// Parses a growing buffer: one octet more each time, or all at once.
fn grow(
    octets: &[u8],
    step: usize,
    mut parse: impl FnMut(&[u8]) -> Result<Parsed, MessageError>,
) -> Result<Parsed, MessageError> {
    let mut len = 0;
    while len < octets.len() {
        len = (len + step).min(octets.len());
        match parse(&octets[..len]) {
            Ok(Parsed::Partial) => {}
            done => return done,
        }
    }
    Ok(Parsed::Partial)
}

fn request(octets: &[u8]) {
    let (mut head, mut slow) = (RequestHead::new(), RequestHead::new());
    let outcome = grow(octets, octets.len(), |octets| head.parse(octets, &LIMITS));
    assert_eq!(outcome, grow(octets, 1, |octets| slow.parse(octets, &LIMITS)));
    if outcome != Ok(Parsed::Complete) {
        return;
    }
    assert_eq!(head.octets, slow.octets);
    assert_eq!(head.fields.lines(), slow.fields.lines());
    let Ok(framing) = framing::request_framing(&head, octets) else { return };
    assert_ne!(framing, Framing::UntilClose);
    if head.method == Method::Connect {
        return;
    }
    let (method, path) = (head.method_octets.of(octets), head.target.path(octets));
    let mut again = Vec::new();
    encode::request_line(&mut again, method, path).expect("what was accepted can be written");
    for line in head.fields.lines() {
        encode::field_line(&mut again, line, octets).expect("what was accepted can be written");
    }
    // An HTTP/1.0 request may say its host in the target alone.
    if !head.fields.has(Field::Host) {
        encode::field(&mut again, b"Host", b"a").expect("a host can be written");
    }
    encode::end_of_head(&mut again);
    let roomy = HeadLimits { octets: ByteCount(4096), fields: 25, target: ByteCount(256) };
    let mut second = RequestHead::new();
    assert_eq!(second.parse(&again, &roomy), Ok(Parsed::Complete));
    assert_eq!(second.octets, again.len());
    assert_eq!(second.method_octets.of(&again), method);
    assert_eq!(second.target.path(&again), path);
    assert_eq!(framing::request_framing(&second, &again), Ok(framing));
    for (line, first) in second.fields.lines().iter().zip(head.fields.lines()) {
        assert_eq!(line.name.of(&again), first.name.of(octets));
        assert_eq!(line.value.of(&again), first.value.of(octets));
    }
}

fn response(octets: &[u8]) {
    let (mut head, mut slow) = (ResponseHead::new(), ResponseHead::new());
    let outcome = grow(octets, octets.len(), |octets| head.parse(octets, &LIMITS));
    assert_eq!(outcome, grow(octets, 1, |octets| slow.parse(octets, &LIMITS)));
    if outcome != Ok(Parsed::Complete) {
        return;
    }
    assert_eq!(head.octets, slow.octets);
    assert_eq!(head.fields.lines(), slow.fields.lines());
    let Ok(framing) = framing::response_framing(Method::Get, &head, octets) else { return };
    let reason = head.reason.of(octets);
    let mut again = Vec::new();
    encode::status_line(&mut again, head.status, reason).expect("what was accepted can be written");
    for line in head.fields.lines() {
        encode::field_line(&mut again, line, octets).expect("what was accepted can be written");
    }
    encode::end_of_head(&mut again);
    let roomy = HeadLimits { octets: ByteCount(4096), fields: 25, target: ByteCount(256) };
    let mut second = ResponseHead::new();
    assert_eq!(second.parse(&again, &roomy), Ok(Parsed::Complete));
    assert_eq!((second.status, second.reason.of(&again)), (head.status, reason));
    assert_eq!(framing::response_framing(Method::Get, &second, &again), Ok(framing));
}
