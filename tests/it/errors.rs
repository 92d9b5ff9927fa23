//! What a client is told when the origin fails: the status, `Proxy-Status` (RFC 9209) in the words of
//! the ledger, a counter, and a connection that goes on where it can.

use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use crate::support::Origin;
use crate::support::Proxy;
use crate::support::origin::Nowhere;
use crate::support::wire::Framing;
use crate::support::wire::Message;

#[track_caller]
fn told(answer: &Message, status: u16, error: &str) {
    assert_eq!(answer.status(), status, "{:?}", answer.head);
    let told = answer.head.field("proxy-status").expect("Proxy-Status");
    let expected = format!("holdfast; error={error}");
    let rest = told
        .strip_prefix(&expected)
        .unwrap_or_else(|| panic!("{told}"));
    assert!(rest.is_empty() || rest.starts_with(';'), "{told}");
    assert_ne!(answer.framing, Framing::UntilClose);
}

fn in_front_of(address: SocketAddr) -> Proxy {
    Proxy::configured(|c| {
        c.upstream("servers", [address]);
    })
}

#[test]
fn a_refused_connection_is_a_502() {
    let nowhere = Nowhere::new();
    let proxy = in_front_of(nowhere.address);
    let mut client = proxy.client();
    for _ in 0..2 {
        told(&client.get("/"), 502, "connection_refused");
    }
    proxy.errors_becomes("connect_refused", 2.0);
    let labels = [("upstream", "app")];
    proxy.metric_becomes("holdfast_upstream_connections", &labels, 0.0);
}

#[test]
fn an_origin_that_does_not_take_the_connection_is_a_504() {
    // A backlog of nothing, filled: the kernel then ignores further handshakes.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let short = Duration::from_millis(100);
    let filling: Vec<_> = (0..4)
        .map(|_| TcpStream::connect_timeout(&address, short))
        .collect();
    let proxy = Proxy::configured(|c| {
        c.upstream("servers", [address]);
        c.upstream("connect.timeout", "300ms");
    });
    told(&proxy.client().get("/"), 504, "connection_timeout");
    proxy.errors_becomes("connect_timeout", 1.0);
    drop(filling);
}

#[test]
fn an_answer_that_does_not_begin_in_time_is_a_504() {
    let origin = Origin::silent();
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("timeouts.response_header", "300ms");
    });
    let mut client = proxy.client();
    let since = Instant::now();
    told(&client.get("/"), 504, "http_response_timeout");
    assert!(since.elapsed() >= Duration::from_millis(280));
    origin.waits_for_open(0);
    // Whether the origin had come to read it is the machine's affair.
    assert_eq!(
        origin.connections(),
        1,
        "a timeout is not tried again unless listed"
    );
    proxy.errors_becomes("response_timeout", 1.0);
    proxy.upstream_closed_becomes("timeout", 1.0);
}

#[test]
fn a_head_that_does_not_end_in_time_is_a_504() {
    let origin = Origin::saying_only("HTTP/1.1 200 OK\r\nX-A: ");
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("timeouts.response_header", "300ms");
    });
    told(&proxy.client().get("/"), 504, "http_response_timeout");
}

#[test]
fn a_body_that_stalls_is_broken_off() {
    let origin = Origin::saying_only("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("timeouts.body_idle", "300ms");
    });
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    let answer = client.partial_response_to("GET");
    assert!(
        answer
            .cut
            .is_some_and(|end| end != crate::support::End::Silent)
    );
    proxy.errors_becomes("body_idle", 1.0);
    origin.waits_for_open(0);
}

#[test]
fn a_whole_exchange_can_be_bounded() {
    let origin = Origin::silent();
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("timeouts.request", "1s");
    });
    told(&proxy.client().get("/"), 504, "http_response_timeout");
    proxy.errors_becomes("request_deadline", 1.0);
}

/// Answers that break the rules, by what is wrong with them.
const BAD_ANSWERS: &[(&str, &str)] = &[
    ("no HTTP at all", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    ("only an empty line", "\r\n\r\n"),
    (
        "another protocol",
        "HTTPS/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a version of the future",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a version in lower case",
        "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a status of two digits",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a status of four digits",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a status below 100",
        "HTTP/1.1 099 No\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a status that is no number",
        "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a status with a sign",
        "HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "two spaces before the status",
        "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a control octet in the reason",
        "HTTP/1.1 200 O\u{1}K\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a leading space",
        " HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    ("bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    (
        "a bare CR in a value",
        "HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "NUL in a value",
        "HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a space before the colon",
        "HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a space before Content-Length's colon",
        "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    ),
    (
        "obs-fold",
        "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a line without a colon",
        "HTTP/1.1 200 OK\r\nfoo\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "an empty name",
        "HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "both framings",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    ),
    (
        "a list of lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
    ),
    (
        "a length with a sign",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    ),
    (
        "a negative length",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    ),
    (
        "a length beyond 64 bits",
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
    ),
    (
        "an unknown coding",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a coding behind chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked twice",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunks in HTTP/1.0",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "an upgrade nobody asked for",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ),
];

#[test]
fn an_answer_that_breaks_the_rules_is_a_502_and_its_connection_is_dropped() {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::playing(move |peer| {
        let nth = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        peer.request();
        peer.send(BAD_ANSWERS[nth].1);
        peer.until_closed();
    });
    let proxy = Proxy::to(&origin);
    let mut wrong = Vec::new();
    for (nth, (what, _)) in BAD_ANSWERS.iter().enumerate() {
        let mut client = proxy.client();
        let answer = client.get("/");
        let status = answer.head.field("proxy-status").unwrap_or_default();
        if answer.status() != 502 || !status.contains("error=http_protocol_error") {
            wrong.push(format!("{what}: {} {status}", answer.head.start));
        }
        // A POST nobody may repeat would do as well; no answer is fetched twice.
        assert_eq!(origin.connections(), nth + 1, "{what}");
        origin.waits_for_open(0);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let count = BAD_ANSWERS.len() as f64;
    proxy.errors_becomes("bad_response", count);
    proxy.upstream_closed_becomes("bad_response", count);
}

#[test]
fn a_bad_answer_is_bad_wherever_it_is_split() {
    let text =
        "HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let at = std::sync::atomic::AtomicUsize::new(1);
    let origin = Origin::playing(move |peer| {
        peer.request();
        let at = at.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        peer.send(&text[..at]);
        std::thread::sleep(Duration::from_millis(1));
        peer.send(&text[at..]);
        peer.until_closed();
    });
    let proxy = Proxy::to(&origin);
    for _ in 1..text.len() {
        told(&proxy.client().get("/"), 502, "http_protocol_error");
    }
}

#[test]
fn a_bad_chunk_breaks_the_answer_off() {
    for body in [
        "x\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
    ] {
        let octets =
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n{body}");
        let origin = Origin::saying_only(octets);
        let proxy = Proxy::to(&origin);
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
        // The head may not have left yet; then this is a 502 like any other bad answer.
        let answer = client.partial_response_to("GET");
        assert!(
            answer.status() == 502 || answer.cut.is_some(),
            "{body:?}: {answer:?}"
        );
        origin.waits_for_open(0);
    }
}

#[test]
fn a_head_larger_than_we_hold_is_a_502() {
    let origin = Origin::playing(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\n");
        for nth in 0..40_000 {
            if peer
                .wire
                .send(format!("X-{nth}: {}\r\n", "a".repeat(40)))
                .is_err()
            {
                return;
            }
        }
        peer.until_closed();
    });
    let proxy = Proxy::to(&origin);
    told(
        &proxy.client().get("/"),
        502,
        "http_response_header_section_size",
    );
    proxy.errors_becomes("response_head_too_large", 1.0);
    origin.waits_for_open(0);
}

#[test]
fn a_line_without_an_end_is_a_502() {
    let origin = Origin::playing(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nX-A: ");
        let piece = [b'a'; 65536];
        while peer.wire.send(piece).is_ok() {}
    });
    let proxy = Proxy::to(&origin);
    assert_eq!(proxy.client().get("/").status(), 502);
    origin.waits_for_open(0);
}

#[test]
fn interim_answers_without_end_are_a_502() {
    let origin = Origin::playing(|peer| {
        peer.request();
        while peer
            .wire
            .send("HTTP/1.1 100 Continue\r\n\r\n".repeat(1000))
            .is_ok()
        {}
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    for nth in 0.. {
        assert!(nth < 20_000, "they are forwarded without end");
        match client.wire.head() {
            Ok(head) if head.status() < 200 => {}
            Ok(head) => {
                assert_eq!(head.status(), 502);
                break;
            }
            Err(_) => break,
        }
    }
    origin.waits_for_open(0);
}

#[test]
fn an_answer_before_the_request_is_not_an_answer() {
    let origin = Origin::playing(|peer| {
        if peer.number == 0 {
            peer.request();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            // Unsolicited, for whoever comes next.
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
            peer.until_closed();
            return;
        }
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let proxy = Proxy::to(&origin);
    assert_eq!(proxy.client().get("/").text(), "ok");
    // From when on it is told apart: before its octets are here, nobody can.
    proxy.upstream_closed_becomes("extra_bytes", 1.0);
    for _ in 0..4 {
        assert_eq!(proxy.client().get("/").text(), "ok");
    }
}

#[test]
fn after_an_error_the_clients_connection_goes_on() {
    let origin = Origin::playing(|peer| {
        while let Some(request) = peer.request() {
            if request.head.start.contains("/bad") {
                return;
            }
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/bad").status(), 502);
        assert_eq!(client.get("/good").status(), 200);
    }
}

#[test]
fn an_error_in_answer_to_head_has_no_body() {
    let nowhere = Nowhere::new();
    let proxy = in_front_of(nowhere.address);
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: it.test\r\n\r\n");
        assert_eq!(client.response_to("HEAD").status(), 502);
    }
}

#[test]
fn a_name_that_does_not_resolve_is_a_502() {
    let proxy = Proxy::configured(|c| {
        c.upstream("servers", ["no-such-host.invalid:80"]);
    });
    let answer = proxy.client().get("/");
    assert_eq!(answer.status(), 502, "{}", answer.head.start);
    let told = answer.head.field("proxy-status").unwrap();
    assert!(told.ends_with("error=dns_error; details=\"dns\""), "{told}");
    proxy.errors_becomes("dns", 1.0);
}

#[test]
fn an_address_that_no_route_leads_to_is_told_as_such() {
    // RFC 1122 §4.2.3.10: TCP connects to no multicast address. The kernel refuses it as unreachable
    // by itself, whichever routes the machine has and whatever its networks say.
    let nowhere: SocketAddr = "224.0.0.1:80".parse().unwrap();
    let proxy = in_front_of(nowhere);
    assert_eq!(proxy.client().get("/").status(), 502);
    proxy.errors_becomes("connect_unreachable", 1.0);
}

#[test]
fn a_connect_that_fails_otherwise_is_told_as_such() {
    // RFC 4007 §6: a link-local address says nothing without its zone, and connect() refuses it as
    // an invalid argument; where there is no IPv6 at all, it is the socket that is refused.
    let nowhere: SocketAddr = "[fe80::1]:80".parse().unwrap();
    let proxy = in_front_of(nowhere);
    assert_eq!(proxy.client().get("/").status(), 502);
    proxy.errors_becomes("connect_failed", 1.0);
}
