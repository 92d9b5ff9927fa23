//! The laws of the codec, as properties over generated messages.
//!
//! Law 1: fed octet by octet, or split anywhere, equals fed whole, for legal and for any octets.
//! Law 2: encode, then parse, is the identity. Law 3: framing out equals framing in.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::base::units::ByteCount;
use crate::h1::body::BodyReader;
use crate::h1::body::BodyWriter;
use crate::h1::chunked::Piece;
use crate::h1::encode;
use crate::h1::framing;
use crate::h1::framing::Framing;
use crate::h1::head::HeadLimits;
use crate::h1::head::Method;
use crate::h1::head::Parsed;
use crate::h1::head::RequestHead;
use crate::h1::head::ResponseHead;
use crate::h1::vectors::play_request;
use crate::h1::vectors::play_response;

const LIMITS: HeadLimits = HeadLimits {
    octets: ByteCount(16 << 10),
    fields: 100,
    target: ByteCount(8 << 10),
};

type Lines = Vec<(String, Vec<u8>)>;

/// Names that no framing hangs on, so that any value is legal.
fn name() -> impl Strategy<Value = String> {
    "[Xx]-[!#$%&'*+.^_`|~0-9A-Za-z-]{0,12}"
}

/// A value, trimmed, with tabs and octets from 0x80 up.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![Just(b'\t'), Just(b' '), 0x21..0x7F_u8, 0x80..=0xFF_u8];
    vec(octet, 0..40).prop_map(|octets| crate::h1::octets::trim_ows(&octets).to_vec())
}

fn lines() -> impl Strategy<Value = Lines> {
    vec((name(), value()), 0..12)
}

fn framing() -> impl Strategy<Value = Framing> {
    prop_oneof![
        Just(Framing::None),
        (1..200_u64).prop_map(Framing::Length),
        Just(Framing::Chunked)
    ]
}

/// Writes a message from its parts, the body in pieces as `sizes` say.
fn write(start: &[u8], lines: &Lines, framing: Framing, sizes: &[usize]) -> (Vec<u8>, Vec<u8>) {
    let mut out = start.to_vec();
    for (name, value) in lines {
        encode::field(&mut out, name.as_bytes(), value).unwrap();
    }
    match framing {
        Framing::Length(length) => encode::content_length(&mut out, length),
        Framing::Chunked => encode::chunked_coding(&mut out),
        Framing::None | Framing::UntilClose => {}
    }
    encode::end_of_head(&mut out);
    let (mut content, mut writer) = (Vec::new(), BodyWriter::new(framing));
    let pieces = match framing {
        Framing::None | Framing::UntilClose => vec![],
        Framing::Length(length) => vec![usize::try_from(length).unwrap()],
        Framing::Chunked => sizes.to_vec(),
    };
    for size in pieces {
        let data: Vec<u8> = (0..size).map(|at| b"0\r\n\r\nGET "[at % 9]).collect();
        writer.chunk_head(&mut out, size).unwrap();
        out.extend_from_slice(&data);
        writer.chunk_end(&mut out, size);
        content.extend_from_slice(&data);
    }
    writer.finish(&mut out, None).unwrap();
    (out, content)
}

/// Takes a body from its octets; answers content and what is left.
fn take(framing: Framing, mut octets: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut body, mut content) = (BodyReader::new(framing), Vec::new());
    loop {
        match body.next(octets).unwrap() {
            Piece::Data { skip, len } => {
                content.extend_from_slice(&octets[skip..skip + len]);
                octets = &octets[skip + len..];
            }
            Piece::End { skip } => return (content, octets[skip..].to_vec()),
            Piece::More { .. } => panic!("a body that was written whole is read as cut short"),
        }
    }
}

/// Octets that look enough like a message to get far, with faults in any place.
fn almost_a_message() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "GET ",
        "POST ",
        "/ ",
        "HTTP/1.1",
        "HTTP/1.0",
        "HTTP/1.1 200 OK",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        "Host: a\r\n",
        "Host: a",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Transfer\rEncoding: chunked\r\n",
        "Content\rLength: 5\r\n",
        " ",
        "\t",
        ":",
        "5\r\nhello\r\n",
        "0\r\n",
        "0\r\n\r\n",
        "3;a=b\r\nabc\r\n",
        "X: y\r\n",
        "\0",
        "\u{e9}",
        "http://a",
        "*",
        "a",
        "ffffffffffffffff\r\n",
    ]);
    let begin = prop::sample::select(vec![
        "",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ]);
    (begin, vec(word, 0..14))
        .prop_map(|(begin, words)| [begin, &words.concat()].concat().into_bytes())
}

fn parts(octets: &[u8], at: usize) -> [&[u8]; 2] {
    let (head, tail) = octets.split_at(at % (octets.len() + 1));
    [head, tail]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fed_octet_by_octet_equals_fed_whole(octets in almost_a_message(), at: usize) {
        let whole = play_request([&octets[..]]);
        prop_assert_eq!(&play_request(octets.chunks(1)), &whole);
        prop_assert_eq!(&play_request(parts(&octets, at)), &whole);
        let whole = play_response(Method::Get, [&octets[..]]);
        prop_assert_eq!(&play_response(Method::Get, octets.chunks(1)), &whole);
        prop_assert_eq!(&play_response(Method::Get, parts(&octets, at)), &whole);
    }

    #[test]
    fn any_octets_at_all_are_taken_without_panic(octets in vec(any::<u8>(), 0..300), at: usize) {
        let whole = play_request([&octets[..]]);
        prop_assert_eq!(play_request(parts(&octets, at)), whole);
        let whole = play_response(Method::Head, [&octets[..]]);
        prop_assert_eq!(play_response(Method::Head, parts(&octets, at)), whole);
    }

    #[test]
    fn a_request_that_is_written_reads_as_it_was(
        method in "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}",
        target in "/[!-\"$-~]{0,60}",
        lines in lines(),
        framing in framing(),
        sizes in vec(0..90_usize, 0..5),
    ) {
        prop_assume!(method != "CONNECT");
        let mut start = Vec::new();
        encode::request_line(&mut start, method.as_bytes(), target.as_bytes()).unwrap();
        encode::field(&mut start, b"Host", b"a").unwrap();
        let (octets, content) = write(&start, &lines, framing, &sizes);
        let mut head = RequestHead::new();
        prop_assert_eq!(head.parse(&octets, &LIMITS), Ok(Parsed::Complete));
        prop_assert_eq!(head.method_octets.of(&octets), method.as_bytes());
        prop_assert_eq!(head.target.path(&octets), target.as_bytes());
        let read: Vec<_> = head.fields.lines().iter().skip(1).take(lines.len()).map(|line| {
            (line.name.of(&octets).to_vec(), line.value.of(&octets).to_vec())
        }).collect();
        let written: Vec<_> = lines.into_iter().map(|(n, v)| (n.into_bytes(), v)).collect();
        prop_assert_eq!(read, written);
        prop_assert_eq!(framing::request_framing(&head, &octets), Ok(framing));
        prop_assert_eq!(take(framing, &octets[head.octets..]), (content, vec![]));
    }

    #[test]
    fn a_response_that_is_written_reads_as_it_was(
        status in prop_oneof![200..=203_u16, 205..=303_u16, 305..=599_u16],
        reason in value(),
        lines in lines(),
        framing in prop_oneof![(1..200_u64).prop_map(Framing::Length), Just(Framing::Chunked)],
        sizes in vec(0..90_usize, 0..5),
    ) {
        let mut start = Vec::new();
        encode::status_line(&mut start, status, &reason).unwrap();
        let (octets, content) = write(&start, &lines, framing, &sizes);
        let mut head = ResponseHead::new();
        prop_assert_eq!(head.parse(&octets, &LIMITS), Ok(Parsed::Complete));
        prop_assert_eq!(head.status, status);
        prop_assert_eq!(head.reason.of(&octets), &reason[..]);
        prop_assert_eq!(framing::response_framing(Method::Get, &head, &octets), Ok(framing));
        prop_assert_eq!(take(framing, &octets[head.octets..]), (content, vec![]));
    }

    #[test]
    fn what_is_read_and_written_again_reads_the_same(octets in almost_a_message()) {
        let mut head = RequestHead::new();
        let octets = [&octets[..], b"\r\n\r\n"].concat();
        // Most are broken; that is the other laws' matter.
        if head.parse(&octets, &LIMITS) != Ok(Parsed::Complete) || head.method == Method::Connect {
            return Ok(());
        }
        let Ok(framing) = framing::request_framing(&head, &octets) else { return Ok(()) };
        let mut again = Vec::new();
        let target = head.target.to_origin(&octets);
        encode::request_line(&mut again, head.method_octets.of(&octets), &target).unwrap();
        for line in head.fields.lines() {
            encode::field_line(&mut again, line, &octets).unwrap();
        }
        if head.fields.count(crate::h1::Field::Host) == 0 {
            encode::field(&mut again, b"Host", b"a").unwrap();
        }
        encode::end_of_head(&mut again);
        let mut second = RequestHead::new();
        prop_assert_eq!(second.parse(&again, &LIMITS), Ok(Parsed::Complete));
        prop_assert_eq!(framing::request_framing(&second, &again), Ok(framing));
        prop_assert_eq!(second.target.to_origin(&again), target);
    }
}
