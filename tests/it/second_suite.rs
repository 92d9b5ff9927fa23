//! What a second suite found that was written from the outside: who closed, how and why, in all
//! the places where that is told; and two ways in which an answer was lost.

use std::net::TcpStream;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::support::End;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::eventually;
use crate::support::origin::OK;
use crate::support::origin::answer;
use crate::support::origin::holds_little;
use crate::support::upgrade::SWITCHING;
use crate::support::upgrade::tunnel;

/// One connection was closed so, as `holdfast_connections_closed_total` tells it.
#[track_caller]
fn closes(proxy: &Proxy, [side, by, how, phase]: [&str; 4], count: f64) {
    let labels = [("side", side), ("by", by), ("how", how), ("phase", phase)];
    proxy.metric_becomes("holdfast_connections_closed_total", &labels, count);
}

/// One GET that says close, and what may follow it nevertheless.
const LAST: &str = "GET / HTTP/1.1\r\nHost: it.test\r\nConnection: close\r\n\r\n";
const MORE: &str = "GET /more HTTP/1.1\r\nHost: it.test\r\n\r\n";

#[test]
fn a_client_that_said_close_and_sends_more_still_reads_its_whole_answer() {
    let gate = Gate::new();
    let large = "a".repeat(3_000_000);
    let origin = Origin::gated(&gate, answer(&large));
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(LAST);
    origin.waits_for_requests(1);
    client.send(MORE);
    gate.open();
    assert_eq!(client.response().body.len(), large.len());
    client.sees_a_clean_end();
    assert_eq!(origin.request_count(), 1);
}

#[test]
fn a_client_that_said_close_may_send_more_while_a_large_answer_is_on_its_way() {
    let large = "a".repeat(80_000);
    let origin = Origin::answering(answer(&large));
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    holds_little(client.wire.stream());
    client.send(LAST);
    // The kernel has it all and the client has not: a reset would be the end of it.
    let answered = [("code", "2xx")];
    proxy.metric_becomes("holdfast_requests_total", &answered, 1.0);
    client.send(MORE);
    assert_eq!(client.response().body.len(), large.len());
    client.sees_a_clean_end();
}

#[test]
fn a_get_that_meets_a_warm_connection_as_it_closes_is_sent_again() {
    let requests = AtomicUsize::new(0);
    let origin = Origin::playing(move |peer| {
        // The keep-alive race: it gives the connection up just as its first request comes.
        if peer.request().is_some() && requests.fetch_add(1, Ordering::SeqCst) > 0 {
            peer.send(OK);
            peer.until_closed();
        }
    });
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.min_idle", 1);
    });
    let opened = [("reason", "warm")];
    proxy.metric_becomes("holdfast_upstream_connections_opened_total", &opened, 1.0);
    origin.waits_for_open(1);
    assert_eq!(proxy.client().get("/").status(), 200);
    let retried = [("reason", "stale"), ("result", "success")];
    proxy.metric_becomes("holdfast_upstream_retries_total", &retried, 1.0);
    assert_eq!(origin.request_count(), 2);
}

#[test]
fn a_tunnel_that_its_client_ends_first_is_told_so_on_both_sides() {
    let origin = Origin::playing(|peer| {
        peer.head();
        peer.send(SWITCHING);
        drop(peer.wire.until_end());
    });
    let proxy = Proxy::to(&origin);
    let mut client = tunnel(&proxy);
    client.wire.half_close();
    client.sees_a_clean_end();
    closes(&proxy, ["client", "peer", "fin", "tunnel"], 1.0);
    closes(&proxy, ["upstream", "holdfast", "fin", "tunnel"], 1.0);
}

#[test]
fn a_tunnel_that_its_origin_ends_first_is_told_so_on_both_sides() {
    let origin = Origin::playing(|peer| {
        peer.head();
        peer.send(SWITCHING);
    });
    let proxy = Proxy::to(&origin);
    let mut client = tunnel(&proxy);
    client.sees_a_clean_end();
    drop(client);
    closes(&proxy, ["upstream", "peer", "fin", "tunnel"], 1.0);
    closes(&proxy, ["client", "holdfast", "fin", "tunnel"], 1.0);
}

#[test]
fn a_retry_that_meets_the_same_listed_status_has_failed() {
    let origin = Origin::answering("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy");
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("retry.on", ["503"]);
        c.upstream("retry.attempts", 3);
    });
    assert_eq!(proxy.client().get("/").status(), 503);
    let labels = |result| [("reason", "status"), ("result", result)];
    let name = "holdfast_upstream_retries_total";
    proxy.metric_becomes(name, &labels("failure"), 2.0);
    proxy.metric_becomes(name, &labels("success"), 0.0);
}

#[test]
fn octets_on_an_idle_connection_do_not_pass_for_its_origin_closing_it() {
    let (served, go) = (Gate::new(), Gate::new());
    let (has_served, may_go) = (served.clone(), go.clone());
    let origin = Origin::playing(move |peer| {
        peer.request();
        peer.send(OK);
        has_served.open();
        may_go.wait();
        peer.send("HTTP/1.1 408 Too late\r\n\r\n");
        peer.until_closed();
    });
    let proxy = Proxy::to(&origin);
    assert_eq!(proxy.client().get("/").status(), 200);
    served.wait();
    let idle = [("state", "idle")];
    proxy.metric_becomes("holdfast_upstream_connections", &idle, 1.0);
    go.open();
    proxy.upstream_closed_becomes("extra_bytes", 1.0);
    let ages = "holdfast_upstream_idle_close_age_seconds_count";
    proxy.metric_becomes(ages, &[], 0.0);
}

#[test]
fn a_refused_connection_is_among_the_closed_ones_with_how_it_was_closed() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("max_connections", 1);
    });
    let mut first = proxy.client();
    first.is_still_served();
    proxy
        .client()
        .response()
        .is_ours(503, "details=\"listener_limit\"");
    closes(&proxy, ["client", "holdfast", "fin", "connect"], 1.0);
}

#[test]
fn a_connection_refused_by_reset_is_told_as_one_reset_and_one_close() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("max_connections_per_client", 1);
        c.listener("client_limit_action", "reset");
    });
    let mut first = proxy.client();
    first.is_still_served();
    // The reset can be here before the connect returns, and says so.
    let _refused = TcpStream::connect(proxy.address());
    closes(&proxy, ["client", "holdfast", "rst", "connect"], 1.0);
    let resets = [
        ("side", "client"),
        ("origin", "holdfast"),
        ("phase", "connect"),
    ];
    proxy.metric_becomes("holdfast_connection_resets_total", &resets, 1.0);
}

#[test]
fn a_proxy_protocol_header_that_does_not_come_in_time_is_told_as_a_timeout() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("proxy_protocol", "required");
        c.listener("header_timeout", "200ms");
    });
    let mut client = proxy.client();
    client.send("PROXY TCP4 ");
    client.sees_a_clean_end();
    proxy.client_closed_becomes("proxy_protocol_error", 1.0);
    closes(
        &proxy,
        ["client", "holdfast", "timeout", "request_head"],
        1.0,
    );
}

#[test]
fn a_cut_answer_behind_another_in_a_pipeline_is_told_as_cut_in_its_body() {
    let origin = Origin::playing(|peer| {
        let Some(request) = peer.request() else {
            return;
        };
        match request.head.start.contains("/cut") {
            true => peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
            false => {
                peer.send(OK);
                peer.until_closed();
            }
        }
    });
    let proxy = Proxy::with(&origin, |c| {
        c.listener("pipelining", "concurrent");
    });
    let mut client = proxy.client();
    let get = |target| format!("GET {target} HTTP/1.1\r\nHost: it.test\r\n\r\n");
    client.send([get("/whole"), get("/cut")].concat());
    assert_eq!(client.response().status(), 200);
    assert_eq!(client.wire.until_end().1, End::Reset);
    closes(&proxy, ["client", "holdfast", "rst", "response_body"], 1.0);
}

#[test]
fn a_method_that_is_refused_is_not_among_the_allowed_ones() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    for (request, allows_trace) in [
        ("TRACE / HTTP/1.1\r\nMax-Forwards: 0\r\n", false),
        ("CONNECT it.test:80 HTTP/1.1\r\n", true),
    ] {
        let mut client = proxy.client();
        client.send(format!("{request}Host: it.test\r\n\r\n"));
        let head = client.response().head;
        assert_eq!(head.status(), 405, "{request}");
        assert!(head.lists("allow", "get"), "{request}");
        assert_eq!(head.lists("allow", "trace"), allows_trace, "{request}");
        assert!(!head.lists("allow", "connect"), "{request}");
    }
    assert_eq!(origin.request_count(), 0);
}

#[test]
fn a_request_in_line_is_told_as_waiting_and_not_as_still_being_read() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.max_connections", 1);
        c.upstream("pool.queue_timeout", "60s");
    });
    let mut first = proxy.client_waiting_for(&origin);
    let mut second = proxy.client();
    second.ask("/");
    proxy.queue_becomes(1.0);
    for (phase, count) in [("wait", 2), ("request_head", 0)] {
        let (status, said) = proxy.admin(&format!("/connections?side=client&phase={phase}"));
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!((status, &said["matching"]), (200, &count.into()), "{said}");
    }
    gate.open();
    for client in [&mut first, &mut second] {
        assert_eq!(client.response().status(), 200);
    }
}

#[test]
fn an_answer_that_stops_in_the_middle_counts_as_truncated() {
    let origin = Origin::playing(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        peer.until_closed();
    });
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("timeouts.body_idle", "200ms");
    });
    let mut client = proxy.client();
    client.ask("/");
    let (_, end) = client.wire.until_end();
    assert_eq!(end, End::Reset);
    let framing = [("framing", "length")];
    let name = "holdfast_upstream_truncated_responses_total";
    proxy.metric_becomes(name, &framing, 1.0);
    proxy.upstream_closed_becomes("timeout", 1.0);
    proxy.errors_becomes("body_idle", 1.0);
    eventually("it is logged", || !proxy.log_lines(1).is_empty());
}
