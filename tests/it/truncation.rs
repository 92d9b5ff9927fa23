//! A body is counted against its framing: what is short is visibly broken off, what is too much
//! never reaches the next exchange (RFC 9112 §8).

use crate::support::End;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::origin::OK;

/// Sends these octets in answer to `/bad` and closes; answers anything else well.
fn breaking_off(octets: &'static str) -> Origin {
    Origin::playing(move |peer| {
        while let Some(request) = peer.request() {
            if request.head.start.contains("/bad") {
                peer.send(octets);
                return;
            }
            peer.send(OK);
        }
    })
}

const SHORT_LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort";

#[test]
fn a_body_shorter_than_its_length_is_passed_on_and_broken_off() {
    let origin = breaking_off(SHORT_LENGTH);
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET /bad HTTP/1.1\r\nHost: it.test\r\n\r\n");
    let answer = client.partial_response_to("GET");
    assert_eq!(answer.text(), "short");
    assert!(
        matches!(answer.cut, Some(End::Closed | End::Reset)),
        "{:?}",
        answer.cut
    );
    let labels = [("upstream", "app"), ("framing", "length")];
    proxy.metric_becomes("holdfast_upstream_truncated_responses_total", &labels, 1.0);
    proxy.upstream_closed_becomes("truncated", 1.0);
    proxy.errors_becomes("truncated", 1.0);
}

const MEDIUM: usize = 20_000;

/// Announces so much, and sends it; but in answer to `/bad` this much, and closes if it is too little.
fn sending_instead(sent: usize) -> Origin {
    Origin::playing(move |peer| {
        while let Some(request) = peer.request() {
            peer.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {MEDIUM}\r\n\r\n"
            ));
            if !request.head.start.contains("/bad") {
                peer.send(vec![b'a'; MEDIUM]);
                continue;
            }
            peer.send(vec![b'b'; sent]);
            if sent < MEDIUM {
                return;
            }
        }
    })
}

// In both, the first answer has the content of the second go another way than its head.

#[test]
fn a_body_that_goes_past_our_memory_is_broken_off_where_it_ends() {
    for sent in [0, 1000, 2000, 5000, MEDIUM - 1] {
        let origin = sending_instead(sent);
        let proxy = Proxy::to(&origin);
        let mut client = proxy.client();
        assert_eq!(client.get("/").body, [b'a'; MEDIUM]);
        client.ask("/bad");
        let answer = client.partial_response_to("GET");
        assert!(answer.cut.is_some(), "{sent}");
        assert_eq!(answer.body, vec![b'b'; sent]);
        proxy.upstream_closed_becomes("truncated", 1.0);
    }
}

#[test]
fn octets_behind_a_body_that_goes_past_our_memory_never_reach_the_next_exchange() {
    let origin = sending_instead(MEDIUM + 1);
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    assert_eq!(client.get("/").body, [b'a'; MEDIUM]);
    assert_eq!(client.get("/bad").body, [b'b'; MEDIUM]);
    assert_eq!(client.get("/").body, [b'a'; MEDIUM]);
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_large_body_shorter_than_its_length_is_passed_on_and_broken_off() {
    let origin = Origin::playing(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        peer.send(vec![b'a'; 700_000]);
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    let answer = client.partial_response_to("GET");
    assert!(answer.cut.is_some() && answer.body.len() == 700_000);
    let labels = [("upstream", "app"), ("framing", "length")];
    proxy.metric_becomes("holdfast_upstream_truncated_responses_total", &labels, 1.0);
    proxy.upstream_closed_becomes("truncated", 1.0);
}

#[test]
fn octets_behind_a_large_answer_never_reach_the_next_exchange() {
    let origin = Origin::playing(|peer| {
        while peer.request().is_some() {
            let mut octets = b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n".to_vec();
            octets.resize(octets.len() + 500_000, b'a');
            octets.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
            peer.send(&octets);
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for _ in 0..3 {
        let answer = client.get("/");
        assert!(answer.body == vec![b'a'; 500_000]);
    }
    assert_eq!(origin.connections(), 3);
    proxy.upstream_closed_becomes("extra_bytes", 3.0);
}

#[test]
fn a_client_that_breaks_off_a_large_body_leaves_no_whole_request_behind() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 1000000\r\n\r\n");
    client.send(vec![b'a'; 400_000]);
    crate::support::eventually("the origin has the beginning", || origin.open() == 1);
    client.wire.half_close();
    origin.waits_for_open(0);
    assert_eq!(origin.request_count(), 0);
    assert_eq!(proxy.client().get("/").status(), 200);
}

#[test]
fn chunks_that_stop_before_the_last_are_broken_off() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cuts = [
        "5\r\nhello\r\n",
        "5\r\nhello",
        "5\r\nhel",
        "5\r\nhello\r\n0\r\n",
        "5\r\nhello\r\n0",
        "",
    ];
    for cut in cuts {
        let octets = [head, cut].concat();
        let origin = Origin::answering_once(octets);
        let proxy = Proxy::to(&origin);
        let mut client = proxy.client();
        client.send("GET /bad HTTP/1.1\r\nHost: it.test\r\n\r\n");
        let answer = client.partial_response_to("GET");
        assert!(
            matches!(answer.cut, Some(End::Closed | End::Reset)),
            "{cut:?}: {answer:?}"
        );
        let labels = [("upstream", "app"), ("framing", "chunked")];
        proxy.metric_becomes("holdfast_upstream_truncated_responses_total", &labels, 1.0);
    }
}

#[test]
fn an_old_client_can_tell_by_a_reset_that_chunks_were_broken_off() {
    let origin =
        breaking_off("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET /bad HTTP/1.0\r\nHost: it.test\r\n\r\n");
    // A reset may overtake what was sent before it, the head included.
    let (_, end) = client.wire.until_end();
    assert_eq!(end, End::Reset, "a clean end would say that this was all");
}

#[test]
fn a_body_that_ends_by_reset_is_never_ended_cleanly() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::playing(move |peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\n\r\nhello");
        wait.wait();
        peer.reset();
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    let head = client.head();
    gate.open();
    let framing = head.response_framing("GET");
    let answer = client.wire.rest_of(head, framing);
    assert!(answer.cut.is_some(), "a clean end: {answer:?}");
}

#[test]
fn an_answer_broken_off_touches_no_other_exchange() {
    let origin = breaking_off(SHORT_LENGTH);
    let proxy = Proxy::to(&origin);
    for _ in 0..5 {
        let mut client = proxy.client();
        assert_eq!(client.get("/good").text(), "ok");
        client.send("GET /bad HTTP/1.1\r\nHost: it.test\r\n\r\n");
        assert!(client.partial_response_to("GET").cut.is_some());
        assert_eq!(proxy.client().get("/good").text(), "ok");
    }
}

#[test]
fn a_cut_answer_is_not_fetched_again() {
    let origin = breaking_off(SHORT_LENGTH);
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET /bad HTTP/1.1\r\nHost: it.test\r\n\r\n");
    assert!(client.partial_response_to("GET").cut.is_some());
    assert_eq!(origin.request_count(), 1);
}

#[test]
fn octets_behind_an_answer_never_reach_the_next_exchange() {
    let extras = [
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        "junk",
        "\r\n",
        "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n",
    ];
    for extra in extras {
        let octets = [OK, extra].concat();
        let origin = Origin::playing(move |peer| {
            while peer.request().is_some() {
                peer.send(&octets);
            }
        });
        let proxy = Proxy::to(&origin);
        let mut client = proxy.client();
        for _ in 0..3 {
            assert_eq!(client.get("/").text(), "ok", "behind {extra:?}");
        }
        assert_eq!(origin.connections(), 3, "behind {extra:?}");
        proxy.upstream_closed_becomes("extra_bytes", 3.0);
    }
}

#[test]
fn octets_that_come_on_an_idle_connection_retire_it() {
    let gate = Gate::new();
    let sent = Gate::new();
    let (wait, told) = (gate.clone(), sent.clone());
    let origin = Origin::playing(move |peer| {
        let mut first = peer.number == 0;
        while peer.request().is_some() {
            peer.send(OK);
            if std::mem::take(&mut first) {
                wait.wait();
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
                told.open();
            }
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "ok");
    gate.open();
    sent.wait();
    proxy.upstream_closed_becomes("extra_bytes", 1.0);
    assert_eq!(client.get("/").text(), "ok");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_body_where_none_belongs_never_reaches_the_next_exchange() {
    let answers = [
        "HTTP/1.1 204 No Content\r\n\r\npoison",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison",
    ];
    for octets in answers {
        let origin = Origin::answering(octets);
        let proxy = Proxy::to(&origin);
        let mut client = proxy.client();
        for _ in 0..3 {
            let answer = client.get("/");
            assert!([204, 304].contains(&answer.status()) && answer.body.is_empty());
        }
        assert_eq!(origin.connections(), 3, "{octets:?}");
    }
}

#[test]
fn a_body_in_answer_to_head_never_reaches_the_next_exchange() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for _ in 0..3 {
        client.send("HEAD / HTTP/1.1\r\nHost: it.test\r\n\r\n");
        assert_eq!(client.response_to("HEAD").status(), 200);
    }
    client.wire.half_close();
    client.sees_a_clean_end();
    assert_eq!(origin.connections(), 3);
}

#[test]
fn octets_that_come_later_than_an_answer_to_head_retire_its_connection() {
    let late = Gate::new();
    let wait = late.clone();
    let origin = Origin::playing(move |peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n");
            if peer.number == 0 {
                wait.wait();
                peer.send("poison");
                peer.until_closed();
                return;
            }
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("HEAD / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    assert_eq!(client.response_to("HEAD").status(), 200);
    let idle = [("upstream", "app"), ("state", "idle")];
    proxy.metric_becomes("holdfast_upstream_connections", &idle, 1.0);
    late.open();
    proxy.upstream_closed_becomes("extra_bytes", 1.0);
    client.send("HEAD / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    assert_eq!(client.response_to("HEAD").status(), 200);
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_client_that_breaks_off_its_body_leaves_no_whole_request_behind() {
    for reset in [false, true] {
        let origin = Origin::ok();
        let proxy = Proxy::to(&origin);
        let mut client = proxy.client();
        client.send("POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 10\r\n\r\nhello");
        crate::support::eventually("the origin has the beginning", || origin.open() == 1);
        if reset {
            client.wire.reset();
        } else {
            client.wire.half_close();
        }
        origin.waits_for_open(0);
        assert_eq!(origin.request_count(), 0);
        assert_eq!(proxy.client().get("/").status(), 200);
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_answer_frees_the_origin() {
    let origin = Origin::playing(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n");
        let piece = vec![b'a'; 65536];
        while peer.wire.send(&piece).is_ok() {}
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    client.head();
    client.wire.reset();
    origin.waits_for_open(0);
    proxy.metric_becomes("holdfast_upstream_connections", &[("upstream", "app")], 0.0);
    proxy.metric_becomes("holdfast_requests_in_flight", &[], 0.0);
}

#[test]
fn a_client_that_leaves_while_waiting_frees_the_origin() {
    let origin = Origin::silent();
    let proxy = Proxy::to(&origin);
    let client = proxy.client_waiting_for(&origin);
    client.wire.reset();
    origin.waits_for_open(0);
    proxy.errors_becomes("client_gone", 1.0);
}
