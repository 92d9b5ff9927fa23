//! What RFC 9110 and RFC 9112 ask of a gateway and no other file here tells: early answers, empty
//! lines, expectations, targets and methods at the edge, and the phase in which a connection broke.

use std::time::Duration;

use crate::support::Client;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::eventually;
use crate::support::origin::OK;
use crate::support::origin::answer;

/// A client that has sent this much of its request and has its answer: the origin answers as soon
/// as it has the head, then reads the content all the same.
fn answered_early(sent: &str) -> (Origin, Proxy, Client) {
    let origin = Origin::playing(|peer| {
        while let Some(head) = peer.head() {
            peer.send(answer("early"));
            if peer.rest_of_request(head).is_none() {
                return;
            }
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(sent);
    // It is read before the rest is sent: the answer does not wait for the request's end.
    assert_eq!(client.response().text(), "early");
    (origin, proxy, client)
}

const HALF: &str = "POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 10\r\n\r\n12345";
const CHUNK: &str =
    "POST / HTTP/1.1\r\nHost: it.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";

#[test]
fn the_rest_of_a_request_that_was_answered_early_still_reaches_its_origin() {
    let (origin, proxy, mut client) = answered_early(HALF);
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
    let (origin, _proxy, mut client) = answered_early(CHUNK);
    client.send("3\r\ndef\r\n0\r\n\r\n");
    origin.waits_for_requests(1);
    assert_eq!(origin.only_request().text(), "abcdef");
    client.is_still_served();
}

#[test]
fn a_client_that_breaks_the_framing_behind_an_early_answer_is_not_read_any_further() {
    let (origin, proxy, mut client) = answered_early(CHUNK);
    client.send("zz\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: it.test\r\n\r\n");
    client.sees_a_clean_end();
    proxy.upstream_closed_becomes("client_unfinished", 1.0);
    assert_eq!(origin.request_count(), 0);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_client_that_leaves_behind_an_early_answer_leaves_no_connection_in_the_pool() {
    let (origin, proxy, client) = answered_early(HALF);
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
fn a_second_empty_line_is_refused_also_if_the_first_came_by_itself() {
    for rest in ["\r\n", "\r\nGET / HTTP/1.1\r\nHost: it.test\r\n\r\n"] {
        let origin = Origin::ok();
        let proxy = Proxy::to(&origin);
        let mut client = proxy.client();
        client.send("\r\n");
        // It is skipped and the connection idles again.
        let labels = [("side", "client"), ("direction", "rx")];
        proxy.metric_becomes("holdfast_bytes_total", &labels, 2.0);
        client.send(rest);
        assert_eq!(client.response().status(), 400);
        client.sees_a_clean_end();
        assert_eq!(origin.request_count(), 0);
    }
}

#[test]
fn an_old_clients_expectation_is_ignored_and_not_passed_on() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab");
    assert_eq!(client.response().status(), 200);
    let request = origin.only_request();
    assert_eq!(
        (request.head.field("expect"), request.text()),
        (None, "ab".to_owned())
    );
}

#[test]
fn an_expectation_that_is_said_twice_is_known_and_another_is_not() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    for (expect, status) in [
        ("100-continue, 100-Continue", 200),
        ("100-continue\r\nExpect: 100-continue", 200),
        ("100-continue, more", 417),
        ("100-continue;q=1", 417),
    ] {
        let mut client = proxy.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: it.test\r\nExpect: {expect}\r\nContent-Length: 2\r\n\r\nab"
        ));
        assert_eq!(client.response().status(), status, "{expect}");
    }
}

#[test]
fn a_100_that_was_asked_for_passes_although_the_client_did_not_wait() {
    let origin = Origin::playing(|peer| {
        while peer.request().is_some() {
            peer.send(["HTTP/1.1 100 Continue\r\n\r\n", OK].concat());
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: it.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    );
    assert_eq!(client.head().status(), 100);
    assert_eq!(client.response().status(), 200);
    // Who did not ask gets none.
    assert_eq!(client.post("/", b"ab").status(), 200);
}

#[test]
fn a_method_longer_than_any_that_is_known_is_a_501() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    for (length, status) in [(32, 200), (33, 501)] {
        let mut client = proxy.client();
        let method = "M".repeat(length);
        client.send(format!("{method} / HTTP/1.1\r\nHost: it.test\r\n\r\n"));
        assert_eq!(client.response().status(), status);
    }
    assert_eq!(origin.request_count(), 1);
}

#[test]
fn an_absolute_target_with_a_query_and_no_path_is_served() {
    let origin = Origin::echoing_targets();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET http://it.test?q=/1 HTTP/1.1\r\nHost: it.test\r\n\r\n");
    assert_eq!(client.response().text(), "/?q=/1");
}

#[test]
fn an_answer_that_demands_an_upgrade_says_which() {
    let demands = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.0, HTTP/1.1\r\n\
        Connection: Upgrade\r\nContent-Length: 0\r\n\r\n";
    let offers =
        "HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n";
    let origin = Origin::answering(demands);
    let proxy = Proxy::to(&origin);
    let answer = proxy.client().get("/");
    assert_eq!(
        answer.head.field("upgrade").as_deref(),
        Some("TLS/1.0, HTTP/1.1")
    );
    assert!(answer.head.lists("connection", "upgrade"));
    assert!(!answer.head.lists("connection", "close"));
    let origin = Origin::answering(offers);
    let proxy = Proxy::to(&origin);
    assert!(!proxy.client().get("/").head.has("upgrade"));
}

#[test]
fn an_origin_connection_carries_no_more_than_its_origin_says_it_takes() {
    let origin = Origin::playing(|peer| {
        for left in (0..4).rev() {
            if peer.request().is_none() {
                return;
            }
            peer.send(format!(
                "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=60, max={left}\r\nContent-Length: 2\r\n\r\nok"
            ));
        }
    });
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.idle_learning", false);
    });
    let mut client = proxy.client();
    for _ in 0..6 {
        client.is_still_served();
    }
    // Four requests each by its own word, and one less for the margin.
    proxy.upstream_closed_becomes("max_requests", 2.0);
    assert_eq!(origin.connections(), 2);
}

/// The reset of an origin behind `sent`, counted in this phase; the close is the origin's doing.
fn counted_reset(sent: &'static str, phase: &str, reason: &str) {
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = Origin::playing(move |peer| {
        peer.head().unwrap();
        peer.send(sent);
        opened.wait();
        peer.reset();
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    eventually("it is in its phase", || {
        proxy.admin("/connections").1.contains(phase)
    });
    gate.open();
    let labels = [("upstream", "app"), ("by", "peer"), ("reason", reason)];
    proxy.metric_becomes("holdfast_upstream_connections_closed_total", &labels, 1.0);
    let labels = [("side", "upstream"), ("origin", "peer"), ("phase", phase)];
    proxy.metric_becomes("holdfast_connection_resets_total", &labels, 1.0);
}

#[test]
fn an_origins_reset_is_counted_in_the_phase_in_which_it_came() {
    counted_reset("", "wait", "peer_rst");
    counted_reset("HTTP/1.1 200 OK\r\nContent-", "response_head", "peer_rst");
    counted_reset(
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "response_body",
        "truncated",
    );
}

#[test]
fn a_head_that_ends_with_its_connection_is_an_incomplete_answer() {
    let origin = Origin::playing(|peer| {
        peer.head().unwrap();
        peer.send("HTTP/1.1 200 OK\r\nContent-");
    });
    let proxy = Proxy::to(&origin);
    let answer = proxy.client().get("/");
    answer.is_ours(502, "error=http_response_incomplete");
    proxy.upstream_closed_becomes("peer_fin", 1.0);
}

// A reset while nobody reads is told by epoll; the portable form takes it for an end until it reads
// or writes there (see net/poller_portable).
#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[test]
fn a_client_that_resets_while_it_waits_is_no_half_closed_one() {
    let origin = Origin::silent();
    let proxy = Proxy::to(&origin);
    let client = proxy.client_waiting_for(&origin);
    client.wire.reset();
    let labels = [("side", "client"), ("origin", "peer"), ("phase", "wait")];
    proxy.metric_becomes("holdfast_connection_resets_total", &labels, 1.0);
    let labels = [("listener", "web")];
    let half_closed = proxy.metric("holdfast_client_half_closed_total", &labels);
    assert_eq!(half_closed, 0.0);
}

#[test]
fn an_exchange_cut_by_its_deadline_is_counted_with_the_status_that_its_client_saw() {
    let origin = Origin::saying_only("HTTP/1.1 203 Perhaps\r\nContent-Length: 10\r\n\r\nhalf");
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("timeouts.request", "2s");
    });
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    client.head();
    proxy.client_closed_becomes("truncated", 1.0);
    let line = &proxy.log(1)[0];
    assert_eq!(
        (&line["status"], &line["end"]),
        (&203.into(), &"request_deadline".into())
    );
    proxy.metric_becomes("holdfast_requests_total", &[("code", "2xx")], 1.0);
}

#[test]
fn a_connection_field_may_name_many_others() {
    let named: Vec<String> = (0..100).map(|nth| format!("X-{nth}")).collect();
    let list = named.join(", ");
    let fields = "X-0: a\r\nX-15: a\r\nx-16: a\r\nX-99: a\r\nX-100: a\r\n";
    let origin = Origin::answering(format!(
        "HTTP/1.1 200 OK\r\nConnection: {list}\r\nConnection: Date\r\n{fields}\
         Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 2\r\n\r\nok"
    ));
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: it.test\r\nConnection: {list}\r\n{fields}\r\n"
    ));
    let answer = client.response();
    assert_eq!(answer.status(), 200);
    // RFC 9110 §6.6.1: an answer has a Date, whatever its Connection field names.
    assert_eq!(answer.head.all("date"), ["Thu, 01 Jan 1970 00:00:00 GMT"]);
    for head in [answer.head, origin.only_request().head] {
        let passed: Vec<usize> = (0..=100)
            .filter(|nth| head.has(&format!("x-{nth}")))
            .collect();
        assert_eq!(passed, [100]);
    }
}
