//! Several requests before the first answer: answers in order, nothing lost, nothing pipelined on.

use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::origin::answer;

fn gets(count: usize) -> String {
    (0..count)
        .map(|nth| format!("GET /{nth} HTTP/1.1\r\nHost: it.test\r\n\r\n"))
        .collect()
}

#[test]
fn answers_leave_in_the_order_of_the_requests() {
    let origin = Origin::echoing_targets();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(gets(50));
    for nth in 0..50 {
        assert_eq!(client.response().text(), format!("/{nth}"));
    }
    assert_eq!(
        origin.connections(),
        1,
        "one exchange at a time needs one connection"
    );
    let labels = [("listener", "web"), ("mode", "serial")];
    assert!(proxy.metric("holdfast_client_pipelined_requests_total", &labels) > 0.0);
}

#[test]
fn nothing_is_pipelined_towards_an_origin() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::playing(move |peer| {
        let mut first = true;
        while let Some(request) = peer.request() {
            if std::mem::take(&mut first) {
                wait.wait();
            }
            peer.send(answer(request.head.start.split(' ').nth(1).unwrap()));
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(gets(3));
    origin.waits_for_requests(1);
    // The others are with us already; give them a moment to go wrong.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let octets = origin.octets();
    assert_eq!(octets.windows(4).filter(|part| part == b"GET ").count(), 1);
    gate.open();
    for nth in 0..3 {
        assert_eq!(client.response().text(), format!("/{nth}"));
    }
}

#[test]
fn a_post_in_the_middle_keeps_its_body_and_its_place() {
    let origin = Origin::playing(|peer| {
        while let Some(request) = peer.request() {
            let method = request.head.start.split(' ').next().unwrap();
            peer.send(answer(&format!("{method} {}", request.text())));
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: it.test\r\n\r\n\
         POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 5\r\n\r\nhello\
         POST / HTTP/1.1\r\nHost: it.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbye\r\n0\r\n\r\n\
         DELETE / HTTP/1.1\r\nHost: it.test\r\n\r\n",
    );
    for expected in ["GET ", "POST hello", "POST bye", "DELETE "] {
        assert_eq!(client.response().text(), expected);
    }
}

#[test]
fn a_pipeline_that_comes_octet_by_octet_is_the_same_pipeline() {
    let origin = Origin::echoing_targets();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send_octet_by_octet(gets(5).as_bytes());
    for nth in 0..5 {
        assert_eq!(client.response().text(), format!("/{nth}"));
    }
}

#[test]
fn where_a_pipeline_is_split_makes_no_difference() {
    let origin = Origin::echoing_targets();
    let proxy = Proxy::to(&origin);
    let octets = gets(3);
    for at in 1..octets.len() {
        let mut client = proxy.client();
        client.send_split(octets.as_bytes(), at);
        for nth in 0..3 {
            assert_eq!(client.response().text(), format!("/{nth}"), "split at {at}");
        }
    }
}

#[test]
fn octets_read_ahead_survive_an_answer_that_has_no_length() {
    let origin = Origin::playing(|peer| {
        while let Some(request) = peer.request() {
            if request.head.start.contains("/close") {
                peer.send("HTTP/1.1 200 OK\r\n\r\nuntil the end");
                return;
            }
            peer.send(answer("next"));
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(
        "GET /close HTTP/1.1\r\nHost: it.test\r\n\r\nGET /next HTTP/1.1\r\nHost: it.test\r\n\r\n",
    );
    assert_eq!(client.response().text(), "until the end");
    assert_eq!(client.response().text(), "next");
}

#[test]
fn nothing_behind_a_request_to_close_is_answered() {
    let origin = Origin::echoing_targets();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(
        "GET /last HTTP/1.1\r\nHost: it.test\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\nHost: it.test\r\n\r\n",
    );
    assert_eq!(client.response().text(), "/last");
    client.sees_a_clean_end();
    assert_eq!(origin.request_count(), 1);
}

#[test]
fn a_client_may_end_its_side_behind_its_pipeline() {
    let origin = Origin::echoing_targets();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(gets(4));
    client.wire.half_close();
    for nth in 0..4 {
        assert_eq!(client.response().text(), format!("/{nth}"));
    }
    client.sees_a_clean_end();
}

#[test]
fn a_broken_answer_in_the_middle_ends_the_pipeline_there() {
    let origin = Origin::playing(|peer| {
        while let Some(request) = peer.request() {
            if request.head.start.contains("/1 ") {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort");
                return;
            }
            peer.send(answer("whole"));
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(gets(3));
    assert_eq!(client.response().text(), "whole");
    let cut = client.partial_response_to("GET");
    assert!(cut.cut.is_some() && cut.text() == "short");
}

#[test]
fn pipelining_can_be_answered_with_the_end() {
    let origin = Origin::echoing_targets();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("pipelining", "close");
    });
    let mut client = proxy.client();
    client.send(gets(2));
    let answer = client.response();
    assert_eq!(answer.text(), "/0");
    assert!(answer.head.lists("connection", "close"));
    client.sees_a_clean_end();
    proxy.client_closed_becomes("pipelining_off", 1.0);
    assert_eq!(origin.request_count(), 1);
}
