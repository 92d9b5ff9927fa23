//! Bodies of every framing and size, both ways at once, and everything that may come between a
//! request's head and its body.

use std::io::Write;
use std::time::Duration;

use crate::support::Client;
use crate::support::End;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::bodies;
use crate::support::origin::OK;
use crate::support::origin::Peer;
use crate::support::origin::answer;
use crate::support::wire::Framing;
use crate::support::wire::Head;

const SIZES: [u64; 5] = [0, 1, 65536, 65537, 10 << 20];

/// `/length/65536` is answered with a body of that size and framing; an upload with its hash.
fn library() -> Origin {
    Origin::playing(|peer| {
        while let Some(head) = peer.head() {
            let target = head.start.split(' ').nth(1).unwrap().to_owned();
            let Some((framing, size)) = target[1..].split_once('/') else {
                return;
            };
            if framing == "upload" {
                let hash = bodies::hash_upload(&mut peer.wire, &head);
                peer.send(answer(&hash));
            } else if !give(peer, framing, size.parse().unwrap()) {
                return;
            }
        }
    })
}

/// Sends a body; whether the connection may go on.
fn give(peer: &mut Peer, framing: &str, size: u64) -> bool {
    let head = match framing {
        "length" => format!("Content-Length: {size}\r\n"),
        "chunked" => "Transfer-Encoding: chunked\r\n".to_owned(),
        _ => "Connection: close\r\n".to_owned(),
    };
    peer.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n"));
    let mut stream = peer.wire.stream();
    let sent = match framing {
        "chunked" => bodies::send_chunked(&mut stream, size),
        _ => bodies::send(&mut stream, size),
    };
    sent.is_ok() && framing != "close"
}

/// The size and the hash of the body of the answer.
fn taken(client: &mut Client, head: &Head) -> (u64, String) {
    match head.response_framing("GET") {
        Framing::Length(size) => (size, bodies::hash_length(&mut client.wire, size).unwrap()),
        Framing::Chunked => bodies::hash_chunked(&mut client.wire).unwrap(),
        _ => {
            let (size, hash, end) = bodies::hash_to_end(&mut client.wire);
            assert_eq!(end, crate::support::End::Closed);
            (size, hash)
        }
    }
}

fn downloads(framing: &str) {
    let origin = library();
    let proxy = Proxy::to(&origin);
    for size in SIZES {
        let mut client = proxy.client();
        client.send(format!(
            "GET /{framing}/{size} HTTP/1.1\r\nHost: it.test\r\n\r\n"
        ));
        let head = client.head();
        assert_eq!(head.status(), 200);
        assert_eq!(
            taken(&mut client, &head),
            (size, bodies::hash_of_size(size)),
            "{size}"
        );
    }
}

#[test]
fn answers_with_a_length_arrive_whole() {
    downloads("length");
}

#[test]
fn answers_in_chunks_arrive_whole() {
    downloads("chunked");
}

#[test]
fn answers_that_end_with_the_connection_arrive_whole() {
    downloads("close");
}

const HEADS: [usize; 5] = [100, 2047, 2048, 2049, 6000];
const CONTENTS: [usize; 11] = [
    16384, 0, 14335, 14336, 5, 65536, 65537, 20480, 131_072, 12288, 64,
];

/// `/2048/65536` is answered with a head and a content of these sizes, in one write.
fn measured() -> Origin {
    Origin::playing(|peer| {
        while let Some(head) = peer.head() {
            let sizes = head.start.split(' ').nth(1).unwrap()[1..].split_once('/');
            let (head, content) = sizes.unwrap();
            let (head, content): (usize, usize) = (head.parse().unwrap(), content.parse().unwrap());
            let begun = format!("HTTP/1.1 200 OK\r\nContent-Length: {content}\r\nX: ");
            let fill = "x".repeat(head - begun.len() - 4);
            let mut whole = format!("{begun}{fill}\r\n\r\n").into_bytes();
            whole.extend(bodies::body(content));
            peer.send(whole);
        }
    })
}

/// How the next answer is read is told from the last one.
#[test]
fn answers_of_all_sizes_follow_one_another_on_a_connection() {
    let origin = measured();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for head in HEADS {
        for content in CONTENTS {
            let answer = client.get(&format!("/{head}/{content}"));
            assert!(answer.body == bodies::body(content), "{head} {content}");
        }
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn answers_of_all_sizes_follow_one_another_in_a_pipeline() {
    for mode in ["serial", "concurrent"] {
        let origin = measured();
        let proxy = Proxy::with(&origin, |c| {
            c.listener("pipelining", mode);
        });
        let mut client = proxy.client();
        for head in HEADS {
            CONTENTS
                .iter()
                .for_each(|content| client.ask(&format!("/{head}/{content}")));
            for content in CONTENTS {
                let answer = client.response();
                assert!(answer.body == bodies::body(content), "{head} {content}");
            }
        }
    }
}

#[test]
fn an_old_client_gets_a_large_answer_that_ends_with_the_connection_whole() {
    let origin = Origin::playing(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\n\r\n");
        peer.send(
            (0..1_000_000)
                .map(|at| (at % 251) as u8)
                .collect::<Vec<u8>>(),
        );
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let (octets, end) = client.wire.until_end();
    assert_eq!(end, End::Closed);
    let body = octets.len() - 1_000_000;
    assert!(
        octets[body..]
            .iter()
            .enumerate()
            .all(|(at, octet)| *octet == (at % 251) as u8)
    );
}

#[test]
fn an_answer_of_known_length_keeps_its_length() {
    let origin = library();
    let proxy = Proxy::to(&origin);
    let answer = proxy.client().get("/length/1000");
    assert_eq!(answer.framing, Framing::Length(1000));
}

#[test]
fn uploads_with_a_length_arrive_whole_on_one_connection() {
    let origin = library();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for size in SIZES {
        client.send(format!(
            "PUT /upload/x HTTP/1.1\r\nHost: it.test\r\nContent-Length: {size}\r\n\r\n"
        ));
        bodies::send(&mut client.wire.stream(), size).unwrap();
        assert_eq!(
            client.response().text(),
            bodies::hash_of_size(size),
            "{size}"
        );
    }
}

#[test]
fn uploads_in_chunks_arrive_whole_on_one_connection() {
    let origin = library();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for size in SIZES {
        client
            .send("PUT /upload/x HTTP/1.1\r\nHost: it.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        bodies::send_chunked(&mut client.wire.stream(), size).unwrap();
        assert_eq!(
            client.response().text(),
            bodies::hash_of_size(size),
            "{size}"
        );
    }
}

#[test]
fn the_client_sees_octets_as_they_arrive() {
    let seen = Gate::new();
    let wait = seen.clone();
    let origin = Origin::playing(move |peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
        wait.wait();
        peer.send("later");
        peer.until_closed();
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    client.head();
    assert_eq!(client.wire.take(5).unwrap(), b"first");
    seen.open();
    assert_eq!(client.wire.take(5).unwrap(), b"later");
}

#[test]
fn the_client_sees_each_chunk_as_it_arrives() {
    let seen = Gate::new();
    let wait = seen.clone();
    let origin = Origin::playing(move |peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst");
        wait.wait();
        peer.send("\r\n5\r\nlater\r\n0\r\n\r\n");
        peer.until_closed();
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    let head = client.head();
    // Even before the origin has ended its chunk.
    let mut came = Vec::new();
    while !came.windows(5).any(|part| part == b"first") {
        came.extend(client.wire.some().expect("the first chunk"));
    }
    seen.open();
    assert_eq!(head.response_framing("GET"), Framing::Chunked);
    while !came.ends_with(b"0\r\n\r\n") {
        came.extend(client.wire.some().expect("the last chunk"));
    }
    assert!(came.windows(5).any(|part| part == b"later"));
}

#[test]
fn the_origin_sees_the_request_body_as_it_arrives() {
    let seen = Gate::new();
    let open = seen.clone();
    let origin = Origin::playing(move |peer| {
        peer.head().unwrap();
        assert_eq!(peer.wire.take(5).unwrap(), b"first");
        open.open();
        assert_eq!(peer.wire.take(5).unwrap(), b"later");
        peer.send(OK);
        peer.until_closed();
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 10\r\n\r\nfirst");
    seen.wait();
    client.send("later");
    assert_eq!(client.response().status(), 200);
}

#[test]
fn a_body_that_comes_octet_by_octet_is_the_same_body() {
    let origin = library();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    let body = bodies::body(300);
    client.send("PUT /upload/x HTTP/1.1\r\nHost: it.test\r\nContent-Length: 300\r\n\r\n");
    client.send_octet_by_octet(&body);
    assert_eq!(client.response().text(), bodies::hash(&body));
    client.send("PUT /upload/x HTTP/1.1\r\nHost: it.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunks: Vec<u8> = body
        .iter()
        .flat_map(|o| [b'1', b'\r', b'\n', *o, b'\r', b'\n'])
        .collect();
    client.send_octet_by_octet(&chunks);
    client.send_octet_by_octet(b"0\r\n\r\n");
    assert_eq!(client.response().text(), bodies::hash(&body));
}

#[test]
fn an_answer_that_comes_octet_by_octet_is_the_same_answer() {
    let origin = Origin::playing(|peer| {
        while peer.request().is_some() {
            let octets: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\n\r\n";
            octets.iter().for_each(|octet| peer.send([*octet]));
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!(
            (answer.text().as_str(), answer.head.has("x-a")),
            ("hello", true)
        );
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn request_and_answer_flow_at_the_same_time() {
    let origin = Origin::playing(|peer| {
        peer.head().unwrap();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n");
        for _ in 0..3 {
            let piece = peer.wire.take(10).unwrap();
            peer.send(piece);
        }
        peer.until_closed();
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 30\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    for piece in [b"0123456789", b"abcdefghij", b"ABCDEFGHIJ"] {
        client.send(piece);
        assert_eq!(client.wire.take(10).unwrap(), piece);
    }
}

#[test]
fn large_bodies_flow_both_ways_at_the_same_time() {
    const SIZE: u64 = 8 << 20;
    let origin = Origin::playing(|peer| {
        peer.head().unwrap();
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
        let mut left = SIZE;
        while left > 0 {
            let Ok(some) = peer.wire.some_of(left) else {
                return;
            };
            left -= some.len() as u64;
            peer.send(some);
        }
        peer.until_closed();
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: {SIZE}\r\n\r\n"
    ));
    let mut writing = client.wire.stream().try_clone().unwrap();
    let writer = std::thread::spawn(move || bodies::send(&mut writing, SIZE));
    let head = client.head();
    assert_eq!(
        taken(&mut client, &head),
        (SIZE, bodies::hash_of_size(SIZE))
    );
    writer.join().unwrap().unwrap();
}

#[test]
fn a_slow_reader_holds_the_origin_back() {
    let written = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = std::sync::Arc::clone(&written);
    let origin = Origin::playing(move |peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 268435456\r\n\r\n");
        let piece = vec![b'a'; 65536];
        while peer.wire.stream().write_all(&piece).is_ok() {
            count.fetch_add(65536, std::sync::atomic::Ordering::SeqCst);
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    client.head();
    let now = || written.load(std::sync::atomic::Ordering::SeqCst);
    let mut last = 0;
    crate::support::eventually("the origin stands still", || {
        std::thread::sleep(Duration::from_millis(100));
        std::mem::replace(&mut last, now()) == now() && last > 0
    });
    // The kernel's buffers on four sockets, and little of ours.
    assert!(now() < 48 << 20, "{} octets are somewhere between", now());
}

#[test]
fn an_early_refusal_reaches_a_client_that_is_still_uploading() {
    let origin = Origin::playing(|peer| {
        peer.head().unwrap();
        peer.send(
            "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig",
        );
        peer.until_closed();
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 100000\r\n\r\nfirst");
    let answer = client.response();
    assert_eq!((answer.status(), answer.text().as_str()), (413, "big"));
    origin.waits_for_open(0);
}

#[test]
fn an_early_final_answer_of_200_reaches_the_client_and_nothing_is_mixed_up() {
    let origin = Origin::playing(|peer| {
        let head = peer.head().unwrap();
        if head.start.starts_with("POST") {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
            peer.until_closed();
            return;
        }
        while peer.rest_of_request(head.clone()).is_some() {
            peer.send(OK);
            if peer.head().is_none() {
                return;
            }
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 20\r\n\r\nfirst");
    let answer = client.response();
    assert_eq!(answer.text(), "early");
    // Whatever becomes of this connection, the rest of the body is never taken for a request.
    if !answer.head.lists("connection", "close") {
        client.send("123456789012345");
        assert_eq!(client.get("/next").text(), "ok");
    }
    assert_eq!(proxy.client().get("/other").text(), "ok");
    let starts: Vec<String> = origin
        .requests()
        .iter()
        .map(|seen| seen.message.head.start.clone())
        .collect();
    assert!(
        starts.iter().all(|start| start.starts_with("GET /")),
        "{starts:?}"
    );
}

const EXPECTING: &str =
    "POST / HTTP/1.1\r\nHost: it.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[test]
fn an_expectation_is_passed_on_and_the_origins_100_comes_back() {
    let origin = Origin::playing(|peer| {
        while let Some(head) = peer.head() {
            assert_eq!(head.field("expect").as_deref(), Some("100-continue"));
            peer.send("HTTP/1.1 100 Continue\r\n\r\n");
            peer.rest_of_request(head);
            peer.send(OK);
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send(EXPECTING);
        assert_eq!(client.head().status(), 100);
        client.send("hello");
        assert_eq!(client.response().status(), 200);
    }
    assert_eq!(origin.requests()[1].message.text(), "hello");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_client_that_does_not_wait_for_100_is_served_too() {
    let origin = Origin::playing(|peer| {
        while peer.request().is_some() {
            peer.send(OK);
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send([EXPECTING, "hello"].concat());
    assert_eq!(client.response().status(), 200);
    assert_eq!(origin.only_request().text(), "hello");
}

#[test]
fn a_final_answer_instead_of_100_reaches_the_client() {
    let origin = Origin::playing(|peer| {
        peer.head().unwrap();
        peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
        peer.until_closed();
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(EXPECTING);
    let answer = client.response();
    assert_eq!((answer.status(), answer.text().as_str()), (403, "no"));
    // The origin is owed a body that may never come: its connection is not used again.
    if !answer.head.lists("connection", "close") {
        client.send("hello");
    }
    origin.waits_for_open(0);
    assert_eq!(origin.request_count(), 0);
}

#[test]
fn early_hints_are_forwarded_before_the_final_answer() {
    let origin = Origin::playing(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
            peer.send(
                "HTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\nConnection: X\r\nX: 1\r\n\r\n",
            );
            peer.send(OK);
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    let (first, second) = (client.head(), client.head());
    assert_eq!((first.status(), second.status()), (103, 103));
    assert_eq!(first.field("link").unwrap(), "</a.css>; rel=preload");
    assert!(!second.has("x"), "hop-by-hop in interim answers too");
    assert_eq!(client.response().text(), "ok");
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    assert_eq!((client.head().status(), client.head().status()), (103, 103));
    assert_eq!(client.response().text(), "ok");
}

#[test]
fn an_old_client_gets_no_interim_answers() {
    let origin = Origin::playing(|peer| {
        while peer.request().is_some() {
            peer.send(["HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n", OK].concat());
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nHost: it.test\r\n\r\n");
    assert_eq!(client.response().text(), "ok");
}

/// Answers with this framing and this body, which a HEAD does not get.
fn answering_head_too(framing: &'static str, body: &'static str) -> Origin {
    Origin::playing(move |peer| {
        while let Some(request) = peer.request() {
            let body = match request.head.start.starts_with("HEAD") {
                true => "",
                false => body,
            };
            peer.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{body}"));
        }
    })
}

#[test]
fn the_answer_to_head_keeps_its_length_and_has_no_body() {
    let origin = answering_head_too("Content-Length: 5", "hello");
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: it.test\r\n\r\n");
        assert_eq!(
            client
                .response_to("HEAD")
                .head
                .field("content-length")
                .unwrap(),
            "5"
        );
        assert_eq!(client.get("/").text(), "hello");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn the_answer_to_head_may_be_chunked_in_name() {
    let origin = answering_head_too("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n");
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("HEAD / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    client.response_to("HEAD");
    assert_eq!(client.get("/").text(), "hello");
}

#[test]
fn answers_that_have_no_body_end_with_their_head() {
    let statuses = ["204 No Content", "304 Not Modified"];
    for status in statuses {
        let length = if status.starts_with("304") {
            "Content-Length: 1234\r\n"
        } else {
            ""
        };
        let origin = Origin::answering(format!("HTTP/1.1 {status}\r\n{length}X-A: b\r\n\r\n"));
        let proxy = Proxy::to(&origin);
        let mut client = proxy.client();
        for _ in 0..2 {
            let answer = client.get("/");
            assert!(status.starts_with(&answer.status().to_string()) && answer.head.has("x-a"));
            if !length.is_empty() {
                assert_eq!(answer.head.field("content-length").unwrap(), "1234");
            }
        }
        assert_eq!(origin.connections(), 1, "{status}");
    }
}

#[test]
fn announced_trailers_of_an_answer_pass() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n\r\n5\r\nhello\r\n0\r\nX-Checksum: abc\r\nContent-Length: 7\r\n\r\n",
    );
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.text(), "hello");
    assert_eq!(answer.head.field("trailer").unwrap(), "X-Checksum");
    assert_eq!(
        answer.trailers,
        [("X-Checksum".to_owned(), b"abc".to_vec())]
    );
    client.is_still_served_after_trailers();
}

impl Client {
    fn is_still_served_after_trailers(&mut self) {
        assert_eq!(self.get("/").text(), "hello");
    }
}

#[test]
fn announced_trailers_of_a_request_pass() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: it.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n\r\n5\r\nhello\r\n0\r\nX-Checksum: abc\r\nAuthorization: x\r\n\r\n",
    );
    assert_eq!(client.response().status(), 200);
    let request = origin.only_request();
    assert_eq!(request.text(), "hello");
    assert_eq!(
        request.trailers,
        [("X-Checksum".to_owned(), b"abc".to_vec())]
    );
}

#[test]
fn many_small_chunks_do_not_add_up_to_a_stall() {
    let origin = library();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("PUT /upload/x HTTP/1.1\r\nHost: it.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    let body = bodies::body(40_000);
    let mut octets = Vec::new();
    for piece in body.chunks(7) {
        octets.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        octets.extend_from_slice(piece);
        octets.extend_from_slice(b"\r\n");
    }
    octets.extend_from_slice(b"0\r\n\r\n");
    client.send(&octets);
    assert_eq!(client.response().text(), bodies::hash(&body));
}
