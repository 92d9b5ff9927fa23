//! Closing in stages (RFC 9112 §9.6), half-closed clients, and who gets to read a last answer.

use crate::support::Client;
use crate::support::End;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::origin::OK;
use crate::support::origin::answer;
use crate::support::origin::holds_little;
use crate::support::wire::Wire;

#[test]
fn a_413_reaches_a_client_that_is_still_uploading() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("max_body_bytes", "1KiB");
        c.listener("linger_timeout", "60s");
    });
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 150000\r\n\r\n");
    // It does not look for an answer before it has sent all; a reset would destroy the answer.
    for _ in 0..15 {
        std::thread::sleep(std::time::Duration::from_millis(5));
        client.send([b'a'; 10_000]);
    }
    let answer = client.response();
    assert_eq!(answer.status(), 413);
    assert!(answer.head.lists("connection", "close"));
    client.sees_a_clean_end();
    drop(client); // its FIN is what makes the close clean
    assert_eq!(origin.request_count(), 0);
    proxy.client_closed_becomes("body_too_large", 1.0);
    proxy.errors_becomes("body_too_large", 1.0);
    let labels = [("side", "client"), ("outcome", "clean")];
    proxy.metric_becomes("holdfast_graceful_closes_total", &labels, 1.0);
}

#[test]
fn a_chunked_body_beyond_the_limit_is_a_413_too() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("max_body_bytes", "1KiB");
        c.listener("linger_timeout", "60s");
    });
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: it.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..30 {
        client.send(format!("64\r\n{}\r\n", "a".repeat(100)));
    }
    assert_eq!(client.response().status(), 413);
    client.sees_a_clean_end();
    assert_eq!(origin.request_count(), 0);
    proxy.upstream_closed_becomes("client_unfinished", 1.0);
}

#[test]
fn a_body_of_exactly_the_limit_passes() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("max_body_bytes", "1KiB");
    });
    let mut client = proxy.client();
    assert_eq!(client.post("/", &[b'a'; 1024]).status(), 200);
    assert_eq!(client.post("/", &[b'a'; 1025]).status(), 413);
    assert_eq!(origin.request_count(), 1);
}

#[test]
fn a_431_reaches_a_client_that_is_still_sending() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("linger_timeout", "60s");
    });
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n");
    for nth in 0..100 {
        client.send(format!("X-{nth}: {}\r\n", "a".repeat(1000)));
    }
    assert_eq!(client.response().status(), 431);
    client.sees_a_clean_end();
    proxy.client_closed_becomes("head_too_large", 1.0);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_404_reaches_a_client_that_is_still_uploading() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.route("path_prefix", "/only");
    });
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 100000\r\n\r\n");
    client.send(vec![b'a'; 100_000]);
    assert_eq!(client.response().status(), 404);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn lingering_does_not_last_for_ever() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("linger_timeout", "300ms");
        c.set("listeners.patient.bind", "127.0.0.1:0");
        c.set("listeners.patient.linger_timeout", "60s");
    });
    let mut patient = Client::to(proxy.listener("patient"));
    let mut client = proxy.client();
    for client in [&mut patient, &mut client] {
        client.send("bad\r\n\r\n");
        assert_eq!(client.response().status(), 400);
        client.sees_a_clean_end();
    }
    // The clients keep their sides open and silent.
    proxy.metric_becomes("holdfast_client_connections", &[("listener", "web")], 0.0);
    let listener = [("listener", "patient")];
    assert_eq!(proxy.metric("holdfast_client_connections", &listener), 1.0);
    let labels = [("side", "client"), ("outcome", "timed_out")];
    proxy.metric_becomes("holdfast_graceful_closes_total", &labels, 1.0);
    let reset = [
        ("side", "client"),
        ("origin", "holdfast"),
        ("phase", "closing"),
    ];
    proxy.metric_becomes("holdfast_connection_resets_total", &reset, 1.0);
}

/// The kernel has taken all of the answer from us, and its client has yet to: a reset would throw it
/// away.
#[test]
fn an_answer_that_is_still_on_its_way_when_lingering_ends_arrives_whole() {
    const SIZE: usize = 20_000;
    let origin = Origin::answering(answer(&"a".repeat(SIZE)));
    let proxy = Proxy::with(&origin, |c| {
        c.listener("linger_timeout", "100ms");
    });
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    holds_little(&socket);
    socket.connect(&proxy.address().into()).unwrap();
    let mut client = Client {
        wire: Wire::new(socket.into()),
    };
    client.send("GET / HTTP/1.0\r\nHost: it.test\r\n\r\n");
    let labels = [("side", "client"), ("outcome", "timed_out")];
    proxy.metric_becomes("holdfast_graceful_closes_total", &labels, 1.0);
    let answer = client.response();
    assert_eq!(answer.body.len(), SIZE);
    client.sees_a_clean_end();
}

#[test]
fn what_is_read_while_lingering_is_bounded() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("linger_bytes", "64KiB");
        c.listener("linger_timeout", "10s");
    });
    let mut client = proxy.client();
    client.send("bad\r\n\r\n");
    let piece = [b'a'; 65536];
    let sent = (0..1000)
        .take_while(|_| client.send_what_it_takes(piece).is_ok())
        .count();
    assert!(sent < 1000, "it reads on and on");
}

#[test]
fn a_client_that_has_sent_all_and_ends_its_side_gets_its_answer() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    client.wire.half_close();
    origin.waits_for_requests(1);
    let labels = [("listener", "web"), ("action", "finish")];
    proxy.metric_becomes("holdfast_client_half_closed_total", &labels, 1.0);
    gate.open();
    assert_eq!(client.response().text(), "ok");
    client.sees_a_clean_end();
    assert_eq!(origin.open(), 1, "the origin's connection is kept");
    proxy.client_closed_becomes("peer_fin", 1.0);
}

#[test]
fn a_client_that_ends_its_side_can_be_taken_for_gone() {
    let origin = Origin::silent();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("half_close", "abort");
    });
    let mut client = proxy.client_waiting_for(&origin);
    client.wire.half_close();
    let (rest, end) = client.wire.until_end();
    assert!(rest.is_empty() && end != End::Silent, "{end:?}");
    origin.waits_for_open(0);
    let labels = [("listener", "web"), ("action", "abort")];
    proxy.metric_becomes("holdfast_client_half_closed_total", &labels, 1.0);
}

#[test]
fn a_client_that_leaves_in_its_head_is_no_error_to_anyone() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    for sent in ["", "GET", "GET / HTTP/1.1\r\nHost: it.test\r\n"] {
        let mut client = proxy.client();
        client.send(sent);
        client.wire.half_close();
        let (_, end) = client.wire.until_end();
        assert_ne!(end, End::Silent, "{sent:?}");
    }
    assert_eq!(origin.connections(), 0);
    proxy.metric_becomes("holdfast_client_connections", &[("listener", "web")], 0.0);
}

#[test]
fn a_client_that_resets_is_counted_as_such() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.get("/");
    client.wire.reset();
    proxy.client_closed_becomes("peer_rst", 1.0);
    let labels = [("side", "client"), ("origin", "peer"), ("phase", "idle")];
    proxy.metric_becomes("holdfast_connection_resets_total", &labels, 1.0);
}

#[test]
fn a_client_that_leaves_while_idle_is_counted_as_such() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.get("/");
    drop(client);
    proxy.client_closed_becomes("peer_fin", 1.0);
    assert_eq!(origin.open(), 1);
}

#[test]
fn every_client_connection_is_closed_for_exactly_one_reason() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    for _ in 0..5 {
        proxy.client().get("/");
        let mut client = proxy.client();
        client.send("bad\r\n\r\n");
        client.response();
        let mut client = proxy.client();
        client.send("GET / HTTP/1.0\r\n\r\n");
        client.response();
    }
    let labels = [("listener", "web")];
    proxy.metric_becomes("holdfast_client_connections", &labels, 0.0);
    let accepted = proxy.metric("holdfast_client_connections_accepted_total", &labels);
    let closed = proxy.metric("holdfast_client_connections_closed_total", &labels);
    assert_eq!((accepted, closed), (15.0, 15.0));
}
