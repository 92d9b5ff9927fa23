//! What RFC 9110 and RFC 9112 ask of a gateway and no other file here tells: early answers, empty
//! lines, expectations, targets and methods at the edge, and the phase in which a connection broke.

use std::time::Duration;

use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::origin::OK;
use crate::support::origin::answer;

/// Answers as soon as it has the head, then reads the content all the same.
fn answering_early() -> Origin {
    Origin::playing(|peer| {
        while let Some(head) = peer.head() {
            peer.send(answer("early"));
            if peer.rest_of_request(head).is_none() {
                return;
            }
        }
    })
}

const HALF: &str = "POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 10\r\n\r\n12345";

#[test]
fn the_rest_of_a_request_that_was_answered_early_still_reaches_its_origin() {
    let origin = answering_early();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(HALF);
    // It is read before the rest is sent: the answer does not wait for the request's end.
    assert_eq!(client.response().text(), "early");
    client.send("67890");
    origin.waits_for_requests(1);
    assert_eq!(origin.only_request().text(), "1234567890");
    assert_eq!(client.get("/next").text(), "early");
    // An origin that had not read the rest would have taken it for the next request.
    proxy.upstream_closed_becomes("client_unfinished", 1.0);
    assert_eq!(origin.connections(), 2);
}

#[test]
fn chunks_behind_an_early_answer_still_reach_the_origin() {
    let origin = answering_early();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client
        .send("POST / HTTP/1.1\r\nHost: it.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    assert_eq!(client.response().text(), "early");
    client.send("3\r\ndef\r\n0\r\n\r\n");
    origin.waits_for_requests(1);
    assert_eq!(origin.only_request().text(), "abcdef");
    client.is_still_served();
}

#[test]
fn a_client_that_breaks_the_framing_behind_an_early_answer_is_not_read_any_further() {
    let origin = answering_early();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client
        .send("POST / HTTP/1.1\r\nHost: it.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    assert_eq!(client.response().text(), "early");
    client.send("zz\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: it.test\r\n\r\n");
    client.sees_a_clean_end();
    proxy.upstream_closed_becomes("client_unfinished", 1.0);
    assert_eq!(origin.request_count(), 0);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_client_that_leaves_behind_an_early_answer_leaves_no_connection_in_the_pool() {
    let origin = answering_early();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(HALF);
    assert_eq!(client.response().text(), "early");
    drop(client);
    proxy.upstream_closed_becomes("client_unfinished", 1.0);
    assert_eq!(origin.request_count(), 0);
}

#[test]
fn an_origin_that_closes_behind_its_early_answer_does_not_cost_the_client_its_connection() {
    let origin = Origin::playing(|peer| {
        let head = peer.head().unwrap();
        peer.send(answer("early"));
        if head.start.starts_with("GET") {
            peer.until_closed();
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(HALF);
    assert_eq!(client.response().text(), "early");
    origin.waits_for_open(0);
    client.send("67890");
    assert_eq!(client.get("/next").text(), "early");
}

#[test]
fn a_reset_is_counted_in_the_phase_in_which_it_came() {
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = Origin::playing(move |peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            opened.wait();
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    client.head();
    gate.open();
    proxy.client_closed_becomes("truncated", 1.0);
    let labels = [
        ("side", "client"),
        ("origin", "holdfast"),
        ("phase", "response_body"),
    ];
    proxy.metric_becomes("holdfast_connection_resets_total", &labels, 1.0);
}

#[test]
fn an_empty_line_behind_a_request_is_no_request_that_is_late() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("header_timeout", "200ms");
    });
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 2\r\n\r\nab\r\n");
    assert_eq!(client.response().status(), 200);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(client.get("/").status(), 200);
    let labels = [("listener", "web")];
    let pipelined = proxy.metric("holdfast_client_pipelined_requests_total", &labels);
    assert_eq!(pipelined, 0.0, "nothing was pipelined");
}

#[test]
fn empty_lines_without_end_begin_a_request_that_is_late() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("header_timeout", "200ms");
    });
    let mut client = proxy.client();
    client.send("\r\n");
    // The first one is skipped and the connection idles again; a second one is not.
    proxy.metric_becomes(
        "holdfast_client_connections",
        &[("listener", "web"), ("state", "idle")],
        1.0,
    );
    std::thread::sleep(Duration::from_millis(50));
    client.send("\r\n");
    assert_eq!(client.response().status(), 408);
    client.sees_a_clean_end();
}
