//! What a suite found that was written from the outside, from the RFCs and the contracts alone:
//! the words of limits, announcements of a close, probes in HTTP/1.0, and what comes of a listener
//! that is taken away.

use std::net::TcpListener;
use std::time::Duration;

use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::support::Client;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::eventually;
use crate::support::origin::OK;
use crate::support::origin::holds_little;
use crate::support::proxy;
use crate::support::wire::Head;
use crate::support::wire::Wire;

/// What an origin with one request after the other on it was told about its connection each time.
fn told(origin: &Origin) -> Vec<bool> {
    let closes = |head: &Head| head.lists("connection", "close");
    let requests = origin.requests();
    requests.iter().map(|r| closes(&r.message.head)).collect()
}

#[test]
fn a_listeners_limit_is_told_to_its_client_by_its_own_name() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("max_connections", 1);
    });
    let mut first = proxy.client();
    first.is_still_served();
    let refused = proxy.client().response();
    refused.is_ours(503, "details=\"listener_limit\"");
    proxy.errors_becomes("listener_limit", 1.0);
    proxy.errors_becomes("global_limit", 0.0);
}

#[test]
fn an_origin_is_told_with_the_last_request_that_its_connection_closes() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.max_requests", 2);
    });
    let mut client = proxy.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(told(&origin), [false, true, false, true]);
    proxy.upstream_closed_becomes("max_requests", 2.0);
}

#[test]
fn an_origin_that_repeats_the_close_it_was_told_does_not_become_its_reason() {
    let origin =
        Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.max_requests", 1);
    });
    assert_eq!(proxy.client().get("/").status(), 200);
    proxy.upstream_closed_becomes("max_requests", 1.0);
    proxy.upstream_closed_becomes("upstream_close_header", 0.0);
}

#[test]
fn a_client_of_a_listener_that_was_taken_away_is_told_to_close() {
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("listeners.extra.bind", "127.0.0.1:0");
    });
    let mut client = Client::to(proxy.listener("extra"));
    client.is_still_served();
    proxy.reloads(|c| {
        c.forget("listeners.extra.bind");
    });
    eventually("an answer says close", || {
        client.get("/").head.lists("connection", "close")
    });
    client.sees_a_clean_end();
    proxy.client().is_still_served();
}

#[test]
fn a_request_that_came_whole_keeps_its_connection_though_no_origin_is_there() {
    // Given back at once: whoever connects is refused.
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let proxy = Proxy::to_address(nobody);
    let mut client = proxy.client();
    for body in [
        "Content-Length: 3\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        client.send(format!("POST / HTTP/1.1\r\nHost: it.test\r\n{body}"));
        let answer = client.response();
        assert_eq!(answer.status(), 502);
        assert!(!answer.head.lists("connection", "close"), "{body}");
    }
    // The rest of this one might never come.
    client.send("POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 4\r\n\r\nabc");
    assert!(client.response().head.lists("connection", "close"));
    client.sees_a_clean_end();
}

#[test]
fn a_header_with_many_extensions_is_taken() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("proxy_protocol", "required");
    });
    let mut octets = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    octets.extend(4080_u16.to_be_bytes());
    octets.extend([192, 0, 2, 8, 192, 0, 2, 1, 0x12, 0x68, 0, 80, 0x04]);
    octets.extend(4065_u16.to_be_bytes());
    octets.resize(4096, 0);
    octets.extend(b"GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    let mut client = proxy.client();
    client.send(octets);
    assert_eq!(client.response().status(), 200);
    let heard = origin.only_request().head.field("x-forwarded-for");
    assert_eq!(heard.as_deref(), Some("192.0.2.8"));
}

#[test]
fn an_infinity_is_written_as_the_text_format_has_it() {
    let origin = Origin::answering(OK);
    let proxy = Proxy::to(&origin);
    let (_, text) = proxy.admin("/metrics");
    let limit = "holdfast_client_connections_limit{listener=\"web\"} +Inf\n";
    assert!(text.contains(limit), "{text}");
    assert!(!text.contains(" inf\n"));
}

#[test]
fn a_client_that_reads_slowly_is_no_client_that_does_not_read() {
    let origin = Origin::playing(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n");
        peer.send(vec![b'a'; 64 << 20]);
    });
    let proxy = Proxy::with(&origin, |c| {
        c.listener("write_timeout", "2s");
    });
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    holds_little(&socket);
    socket.connect(&proxy.address().into()).unwrap();
    let mut client = Wire::new(socket.into());
    client
        .send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n")
        .unwrap();
    // Longer than twice the timeout, and far too slow to empty a third of what the kernel holds.
    for _ in 0..100 {
        client.some_of(1000).unwrap();
        std::thread::sleep(Duration::from_millis(45));
    }
    proxy.client_closed_becomes("write_timeout", 0.0);
    // And now it does not read.
    proxy.client_closed_becomes("write_timeout", 1.0);
}

#[test]
fn a_probe_may_speak_http_1_0() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut probe = Client::to(proxy.listener("admin"));
    probe.send("GET /readyz HTTP/1.0\r\n\r\n");
    let answer = probe.response();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ready\n"));
    probe.sees_a_clean_end();
}

#[test]
fn a_path_that_is_none_is_told_only_to_who_knows_the_token() {
    let token = proxy::fresh_folder().join("token");
    std::fs::write(&token, "open\n").unwrap();
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.set("admin.token_file", token.to_str().unwrap());
    });
    for (field, status) in [("", 401), ("Authorization: Bearer open\r\n", 404)] {
        let mut client = Client::to(proxy.listener("admin"));
        client.send(format!("GET /none HTTP/1.1\r\nHost: a\r\n{field}\r\n"));
        assert_eq!(client.response().status(), status);
    }
}

#[test]
fn an_answer_whose_framing_breaks_before_anything_of_it_left_is_a_502() {
    for body in ["zz\r\nok\r\n", "2\r\nok\r\nzz\r\n"] {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let origin = Origin::answering(format!("{head}{body}"));
        let proxy = Proxy::with(&origin, |c| {
            c.listener("pipelining", "concurrent");
            c.upstream("health.failures", "off");
        });
        let mut client = proxy.client();
        assert_eq!(client.get("/").status(), 502);
        // The same where answers wait for their turn.
        client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n".repeat(2));
        assert_eq!(client.response().status(), 502);
        assert_eq!(client.response().status(), 502);
        proxy.errors_becomes("bad_response", 3.0);
    }
}

#[test]
fn what_is_removed_from_a_request_counts_once_however_often_it_is_sent() {
    let origin = Origin::answering("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("retry.on", ["503"]);
    });
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\nConnection: x-a\r\nX-A: 1\r\n\r\n");
    assert_eq!(client.response().status(), 503);
    assert_eq!(origin.request_count(), 2);
    let named = [("listener", "web"), ("field", "named")];
    proxy.metric_becomes("holdfast_hop_by_hop_removed_total", &named, 1.0);
}

/// What the admin listener shows of the two connections of the one exchange under way.
fn shown(proxy: &Proxy, side: &str) -> serde_json::Value {
    let (_, text) = proxy.admin(&format!("/connections?side={side}"));
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    all["connections"][0].clone()
}

#[test]
fn what_has_moved_is_shown_while_content_is_still_to_come() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::playing(move |peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n");
        peer.send(vec![b'a'; 1000]);
        held.wait();
        peer.send(vec![b'a'; 1000]);
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    let octets = |conn: &serde_json::Value, way: &str| conn[way].as_u64().unwrap_or(0);
    eventually("the client's connection shows what it was sent", || {
        octets(&shown(&proxy, "client"), "tx") > 1000
    });
    eventually("the origin's shows what it brought", || {
        octets(&shown(&proxy, "upstream"), "rx") > 1000
    });
    let conn = shown(&proxy, "client");
    assert_eq!(conn["local"], proxy.address().to_string(), "{conn}");
    gate.open();
    assert_eq!(client.response().body.len(), 2000);
}

#[test]
fn an_upstream_without_names_shows_that_none_was_looked_up() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let (_, text) = proxy.admin("/metrics");
    for series in [
        "holdfast_dns_refresh_total{upstream=\"app\",result=\"success\"} 0\n",
        "holdfast_dns_addresses{upstream=\"app\"} 0\n",
        "holdfast_dns_last_success_timestamp_seconds{upstream=\"app\"} 0\n",
    ] {
        assert!(text.contains(series), "{series}");
    }
}
