//! Which failed requests are sent again, and which never (RFC 9110 §9.2.2, RFC 9112 §9.3.1).

use std::net::SocketAddr;

use crate::support::Origin;
use crate::support::Proxy;
use crate::support::config::Config;
use crate::support::origin::Nowhere;
use crate::support::origin::OK;
use crate::support::origin::Peer;
use crate::support::wire::Message;

/// How an origin ends a connection that it should have answered on.
#[derive(Clone, Copy, PartialEq)]
enum Ending {
    Fin,
    Reset,
}

/// Answers the first request on its first connection; the second is read whole and not answered.
/// Later connections are good.
fn going_stale(ending: Ending) -> Origin {
    Origin::playing(move |peer| {
        while peer.request().is_some() {
            if peer.number == 0 && peer.requests == 2 {
                end(peer, ending);
                return;
            }
            peer.send(OK);
        }
    })
}

fn end(peer: &mut Peer, ending: Ending) {
    if ending == Ending::Reset {
        peer.reset();
    }
}

fn ask(proxy: &Proxy, method: &str) -> Message {
    let mut client = proxy.client();
    assert_eq!(client.get("/first").status(), 200);
    let body = if ["POST", "PATCH", "PUT"].contains(&method) {
        "hello"
    } else {
        ""
    };
    let length = body.len();
    client.send(format!(
        "{method} /again HTTP/1.1\r\nHost: it.test\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    client.response_to(method)
}

fn app(c: &mut Config, addresses: &[SocketAddr]) {
    c.upstream("servers", addresses.to_vec());
    c.upstream("balance", "round_robin");
}

#[test]
fn an_idempotent_request_on_a_stale_connection_is_sent_again_on_a_fresh_one() {
    for ending in [Ending::Fin, Ending::Reset] {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            let origin = going_stale(ending);
            let proxy = Proxy::to(&origin);
            assert_eq!(ask(&proxy, method).status(), 200, "{method}");
            assert_eq!(origin.connections(), 2);
            assert_eq!(origin.request_count(), 3, "{:?}", origin.request_lines());
            assert_eq!(origin.requests()[2].connection, 1);
            let app = [("upstream", "app")];
            proxy.metric_becomes("holdfast_upstream_retries_total", &app, 1.0);
            let labels = [("upstream", "app"), ("reason", "retry")];
            proxy.metric_becomes("holdfast_upstream_connections_opened_total", &labels, 1.0);
        }
    }
}

#[test]
fn a_request_sent_again_is_the_same_to_the_octet() {
    let origin = going_stale(Ending::Fin);
    let proxy = Proxy::to(&origin);
    assert_eq!(ask(&proxy, "PUT").status(), 200);
    let requests = origin.requests();
    assert_eq!(
        requests[1].message.head.octets,
        requests[2].message.head.octets
    );
    assert_eq!(requests[1].message.body, requests[2].message.body);
}

#[test]
fn an_unsafe_request_on_a_stale_connection_is_never_sent_twice() {
    for ending in [Ending::Fin, Ending::Reset] {
        for method in ["POST", "PATCH", "BREW"] {
            let origin = going_stale(ending);
            let proxy = Proxy::to(&origin);
            let answer = ask(&proxy, method);
            assert_eq!(answer.status(), 502, "{method}");
            let told = answer.head.field("proxy-status").unwrap();
            assert!(
                told.starts_with("holdfast; error=connection_terminated"),
                "{told}"
            );
            assert_eq!(origin.request_count(), 2, "{:?}", origin.request_lines());
            proxy.errors_becomes("stale_connection", 1.0);
            let labels = [("upstream", "app"), ("reason", "unsafe_method")];
            proxy.metric_becomes("holdfast_upstream_retries_denied_total", &labels, 1.0);
        }
    }
}

#[test]
fn a_fresh_connection_that_ends_without_an_answer_is_a_502_and_not_tried_again() {
    for (ending, reason) in [
        (Ending::Fin, "empty_response"),
        (Ending::Reset, "upstream_reset"),
    ] {
        for method in ["GET", "POST"] {
            let origin = Origin::playing(move |peer| {
                peer.request();
                end(peer, ending);
            });
            let proxy = Proxy::to(&origin);
            let mut client = proxy.client();
            client.send(format!(
                "{method} / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 0\r\n\r\n"
            ));
            let answer = client.response();
            assert_eq!(answer.status(), 502);
            assert_eq!(origin.request_count(), 1);
            proxy.errors_becomes(reason, 1.0);
        }
    }
}

#[test]
fn an_empty_answer_is_tried_again_where_that_is_asked_for() {
    let origin = Origin::playing(|peer| {
        while peer.request().is_some() {
            if peer.number == 0 {
                return;
            }
            peer.send(OK);
        }
    });
    let proxy = Proxy::with(&origin, |c| {
        c.upstream(
            "retry.on",
            ["connect_failure", "stale_connection", "empty_response"],
        );
    });
    assert_eq!(proxy.client().get("/").status(), 200);
    assert_eq!(origin.request_count(), 2);
}

#[test]
fn a_request_is_not_tried_more_often_than_allowed() {
    let origin = Origin::playing(|peer| {
        peer.request();
    });
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("retry.on", ["empty_response"]);
        c.upstream("retry.attempts", 3);
    });
    assert_eq!(proxy.client().get("/").status(), 502);
    assert_eq!(origin.request_count(), 3);
    let labels = [("upstream", "app"), ("reason", "attempts")];
    proxy.metric_becomes("holdfast_upstream_retries_denied_total", &labels, 1.0);
}

#[test]
fn a_second_stale_connection_is_not_met_since_the_second_attempt_is_fresh() {
    let gate = crate::support::Gate::new();
    let wait = gate.clone();
    let origin = Origin::playing(move |peer| {
        while peer.request().is_some() {
            if peer.number < 4 && peer.requests == 1 {
                wait.wait();
            } else if peer.number < 4 {
                return;
            }
            peer.send(OK);
        }
    });
    let proxy = Proxy::to(&origin);
    let mut clients: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    }
    origin.waits_for_requests(4);
    gate.open();
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.response().status(), 200));
    // Four idle connections, all of which fail their next request.
    assert_eq!(clients[0].get("/again").status(), 200);
    assert_eq!(origin.connections(), 5);
    assert_eq!(origin.request_count(), 6);
}

#[test]
fn refused_connections_send_every_request_to_the_next_endpoint() {
    let origin = Origin::ok();
    let good = origin.address();
    let nowhere = Nowhere::new();
    let proxy = Proxy::configured(|c| app(c, &[nowhere.address, good]));
    let mut client = proxy.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").status(), 200);
        assert_eq!(
            client.post("/", b"hello").status(),
            200,
            "nothing was sent: safe for a POST"
        );
    }
    assert_eq!(origin.request_count(), 10);
    let refused = [("upstream", "app"), ("reason", "refused")];
    assert!(proxy.metric("holdfast_upstream_connect_errors_total", &refused) > 0.0);
}

#[test]
fn a_body_beyond_the_buffer_is_not_sent_again() {
    let origin = going_stale(Ending::Fin);
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("retry.buffer", "1KiB");
    });
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    let body = "a".repeat(100_000);
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: it.test\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(client.response().status(), 502);
    assert_eq!(origin.request_count(), 2);
    let labels = [("upstream", "app"), ("reason", "body_not_buffered")];
    proxy.metric_becomes("holdfast_upstream_retries_denied_total", &labels, 1.0);
}

#[test]
fn an_answer_of_503_is_an_answer() {
    let origin = Origin::answering("HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy");
    let proxy = Proxy::to(&origin);
    let answer = proxy.client().get("/");
    assert_eq!((answer.status(), answer.text().as_str()), (503, "busy"));
    assert!(!answer.head.has("proxy-status"), "the origin's own answer");
    assert_eq!(origin.request_count(), 1);
}

#[test]
fn a_listed_status_is_tried_again_and_the_connection_survives() {
    let origin = Origin::playing(|peer| {
        while let Some(request) = peer.request() {
            let first = peer.number == 0 && peer.requests == 1;
            let busy = "HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy";
            peer.send(if first && request.head.start.starts_with("GET") {
                busy
            } else {
                OK
            });
        }
    });
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("retry.on", ["503"]);
    });
    assert_eq!(proxy.client().get("/").status(), 200);
    assert_eq!(origin.request_count(), 2);
    assert_eq!(origin.open(), 2, "the body of the 503 was drained");
}

#[test]
fn if_all_attempts_fail_the_last_real_answer_is_returned() {
    let origin = Origin::answering("HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy");
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("retry.on", ["503"]);
    });
    let answer = proxy.client().get("/");
    assert_eq!((answer.status(), answer.text().as_str()), (503, "busy"));
    assert_eq!(origin.request_count(), 2);
}

#[test]
fn a_listed_status_never_sends_a_post_again() {
    let origin = Origin::answering("HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy");
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("retry.on", ["503"]);
    });
    assert_eq!(proxy.client().post("/", b"x").status(), 503);
    assert_eq!(origin.request_count(), 1);
}

#[test]
fn retries_stop_when_their_budget_is_spent() {
    let origin = Origin::playing(|peer| {
        peer.request();
    });
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("retry.on", ["empty_response"]);
        c.upstream("retry.budget_ratio", 0.0);
        c.upstream("retry.budget_min_per_second", 1);
    });
    let since = std::time::Instant::now();
    let mut client = proxy.client();
    let labels = [("upstream", "app"), ("reason", "budget")];
    let mut asked = 0.0;
    crate::support::eventually("retries are denied", || {
        assert_eq!(client.get("/").status(), 502);
        asked += 1.0;
        proxy.metric("holdfast_upstream_retries_denied_total", &labels) >= 4.0
    });
    // One a second at most, and what had been saved up at first.
    let again = origin.request_count() as f64 - asked;
    let most = since.elapsed().as_secs_f64() + 1.0;
    assert!(again <= most, "{again} of {asked}, and not {most}");
}

#[test]
fn one_attempt_means_no_retry() {
    let origin = going_stale(Ending::Fin);
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("retry.attempts", 1);
    });
    assert_eq!(ask(&proxy, "GET").status(), 502);
    assert_eq!(origin.request_count(), 2);
}

#[test]
fn an_answer_that_has_begun_is_never_tried_again() {
    let origin = Origin::playing(|peer| {
        while peer.request().is_some() {
            if peer.requests == 2 {
                peer.send("HTTP/1.1 200 OK\r\nContent-Le");
                return;
            }
            peer.send(OK);
        }
    });
    let proxy = Proxy::to(&origin);
    assert_eq!(ask(&proxy, "POST").status(), 502);
    assert_eq!(origin.request_count(), 2);
}
