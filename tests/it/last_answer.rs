//! If every further attempt fails, the last real answer is the client's (behaviour 4.7.3), and what
//! is held for that is bounded.

use crate::support::Origin;
use crate::support::Proxy;
use crate::support::config::Config;
use crate::support::config::Raw;
use crate::support::origin::Nowhere;
use crate::support::origin::OK;
use crate::support::origin::Peer;
use std::net::SocketAddr;

const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nX-Origin: first\r\n\r\nbusy";

/// How a second attempt fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Second {
    Refused,
    Empty,
    Reset,
    Silent,
    Garbage,
}

fn failing(how: Second) -> Origin {
    Origin::playing(move |peer: &mut Peer| {
        while peer.request().is_some() {
            match how {
                Second::Refused => return,
                Second::Empty => return,
                Second::Reset => return peer.reset(),
                Second::Silent => drop(peer.until_closed()),
                Second::Garbage => peer.send("HTTP/1.1 what\r\n\r\n"),
            }
        }
    })
}

/// The first attempt goes to `first`, every other one to `second`.
fn first_then(c: &mut Config, first: SocketAddr, second: SocketAddr) {
    let servers = format!("[\"{first}\", {{ address = \"{second}\", backup = true }}]");
    c.upstream("servers", Raw(servers));
    c.upstream("retry.on", ["503"]);
}

/// One origin that plays its answers in order, one a request, over any connections.
fn saying(answers: &'static [&'static str]) -> Origin {
    let next = std::sync::atomic::AtomicUsize::new(0);
    Origin::playing(move |peer| {
        while peer.request().is_some() {
            let at = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            match answers.get(at) {
                Some(answer) => peer.send(answer),
                None => return,
            }
            if answers[at].contains("Connection: close") {
                return;
            }
        }
    })
}

fn retrying(origin: &Origin, attempts: i64) -> Proxy {
    Proxy::with(origin, |c| {
        c.upstream("retry.on", ["502", "503"]);
        c.upstream("retry.attempts", attempts);
        c.upstream("retry.buffer", "64B");
    })
}

#[test]
fn the_origins_own_answer_comes_back_however_the_second_attempt_fails() {
    for how in [
        Second::Refused,
        Second::Empty,
        Second::Reset,
        Second::Silent,
        Second::Garbage,
    ] {
        let (first, second) = (Origin::answering(BUSY), failing(how));
        let nowhere = Nowhere::new();
        let at = match how {
            Second::Refused => nowhere.address,
            _ => second.address(),
        };
        let proxy = Proxy::configured(|c| {
            first_then(c, first.address(), at);
            if how == Second::Silent {
                // Long enough for the first, however busy the machine is.
                c.upstream("timeouts.response_header", "3s");
            }
        });
        let mut client = proxy.client();
        let answer = client.get("/");
        let told = (answer.status(), answer.text());
        assert_eq!(told, (503, "busy".to_owned()), "{how:?}");
        assert_eq!(answer.head.field("x-origin").as_deref(), Some("first"));
        assert!(!answer.head.has("proxy-status"), "{how:?}: it is not ours");
        assert_eq!(first.request_count(), 1, "{how:?}");
        let failed = [("reason", "status"), ("result", "failure")];
        proxy.metric_becomes("holdfast_upstream_retries_total", &failed, 1.0);
        // The client's connection goes on, and so does the origin's: its body was read.
        assert_eq!(client.get("/again").status(), 503, "{how:?}");
        assert_eq!(first.connections(), 1, "{how:?}");
        let entry = &proxy.log(1)[0];
        assert_eq!(entry["status"], 503, "{entry}");
    }
}

#[test]
fn the_last_of_two_real_answers_is_the_one_that_comes_back() {
    let origin = saying(&[
        BUSY,
        "HTTP/1.1 502 Worse\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nworse\r\n0\r\n\r\n",
    ]);
    let proxy = retrying(&origin, 3);
    let answer = proxy.client().get("/");
    assert_eq!((answer.status(), answer.text().as_str()), (502, "worse"));
    assert_eq!(origin.request_count(), 3);
}

#[test]
fn a_good_second_answer_forgets_the_first() {
    let origin = saying(&[BUSY, OK, OK]);
    let proxy = retrying(&origin, 2);
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "ok");
    assert_eq!(client.get("/").text(), "ok");
}

#[test]
fn an_answer_to_head_is_held_without_content() {
    let nowhere = Nowhere::new();
    let first = Origin::answering("HTTP/1.1 503 Busy\r\nContent-Length: 400\r\n\r\n");
    let proxy = Proxy::configured(|c| first_then(c, first.address(), nowhere.address));
    let mut client = proxy.client();
    client.send("HEAD / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    let answer = client.response_to("HEAD");
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.head.field("content-length").as_deref(), Some("400"));
}

#[test]
fn an_answer_longer_than_the_buffer_is_passed_on_and_not_tried_again() {
    // Framed by length, by chunks, by the end of the connection; at the limit and one beyond it.
    for framing in ["length", "chunked", "close"] {
        for (octets, requests) in [(64, 2), (65, 1)] {
            let body = "a".repeat(octets);
            let answer = match framing {
                "length" => {
                    format!("HTTP/1.1 503 Busy\r\nContent-Length: {octets}\r\n\r\n{body}")
                }
                "chunked" => format!(
                    "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n{octets:x}\r\n{body}\r\n0\r\n\r\n"
                ),
                _ => format!("HTTP/1.1 503 Busy\r\nConnection: close\r\n\r\n{body}"),
            };
            let origin = Origin::playing(move |peer| {
                while peer.request().is_some() {
                    peer.send(&answer);
                    if framing == "close" {
                        return;
                    }
                }
            });
            let proxy = retrying(&origin, 2);
            let answer = proxy.client().get("/");
            assert_eq!((answer.status(), answer.text()), (503, body), "{framing}");
            assert_eq!(origin.request_count(), requests, "{framing} {octets}");
            // The second of two attempts is denied as such; the first, for its length.
            let reason = if requests == 2 {
                "attempts"
            } else {
                "body_not_buffered"
            };
            let denied = [("upstream", "app"), ("reason", reason)];
            proxy.metric_becomes("holdfast_upstream_retries_denied_total", &denied, 1.0);
        }
    }
}

#[test]
fn a_listed_answer_that_is_cut_short_is_tried_again_and_never_held() {
    const SHORT: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 9\r\nConnection: close\r\n\r\nbusy";
    let origin = saying(&[SHORT, OK]);
    let proxy = retrying(&origin, 2);
    assert_eq!(proxy.client().get("/").text(), "ok");
    assert_eq!(origin.request_count(), 2);

    let origin = saying(&[SHORT]);
    let proxy = retrying(&origin, 2);
    let answer = proxy.client().get("/");
    assert_eq!(answer.status(), 502);
    assert!(answer.head.has("proxy-status"), "half an answer is none");
    assert_eq!(origin.request_count(), 2);
    let app = [("upstream", "app")];
    proxy.metric_becomes("holdfast_upstream_truncated_responses_total", &app, 1.0);
}

#[test]
fn a_client_that_leaves_while_an_answer_is_held_ends_the_exchange() {
    let origin = Origin::playing(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nbusy");
            peer.until_closed();
        }
    });
    let proxy = retrying(&origin, 2);
    let client = proxy.client_waiting_for(&origin);
    client.wire.reset();
    origin.waits_for_open(0);
    assert_eq!(origin.request_count(), 1);
}

#[test]
fn the_deadline_of_a_request_leaves_it_its_last_real_answer() {
    let (first, second) = (Origin::answering(BUSY), failing(Second::Silent));
    let proxy = Proxy::configured(|c| {
        first_then(c, first.address(), second.address());
        c.upstream("timeouts.request", "3s");
    });
    let answer = proxy.client().get("/");
    assert_eq!((answer.status(), answer.text().as_str()), (503, "busy"));
}

#[test]
fn an_empty_budget_passes_on_what_was_held() {
    let origin = Origin::answering(BUSY);
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("retry.on", ["503"]);
        c.upstream("retry.budget_ratio", 0.0);
        c.upstream("retry.budget_min_per_second", 0);
    });
    let answer = proxy.client().get("/");
    assert_eq!((answer.status(), answer.text().as_str()), (503, "busy"));
    assert_eq!(origin.request_count(), 1);
    let denied = [("upstream", "app"), ("reason", "budget")];
    proxy.metric_becomes("holdfast_upstream_retries_denied_total", &denied, 1.0);
}

#[test]
fn a_small_chunked_upload_is_sent_again_after_a_listed_answer() {
    let origin = saying(&[BUSY, OK]);
    let proxy = retrying(&origin, 2);
    let mut client = proxy.client();
    client.send("PUT / HTTP/1.1\r\nHost: it.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    assert_eq!(origin.requests()[1].message.text(), "hello");
}
