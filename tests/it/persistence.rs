//! Whether a connection outlives an exchange (RFC 9112 §9.3), on either side, and how it is told.

use std::time::Duration;
use std::time::Instant;

use crate::support::Gate;
use crate::support::Origin;
use crate::support::PATIENCE;
use crate::support::Proxy;
use crate::support::eventually;
use crate::support::origin::OK;

#[test]
fn a_client_connection_carries_many_requests_and_so_does_the_origins() {
    let origin = Origin::echoing_targets();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for nth in 0..20 {
        assert_eq!(client.get(&format!("/{nth}")).text(), format!("/{nth}"));
    }
    assert_eq!(origin.connections(), 1);
    let labels = [("listener", "web")];
    proxy.metric_becomes("holdfast_client_keepalive_requests_total", &labels, 19.0);
    assert_eq!(
        proxy.metric("holdfast_client_connections_accepted_total", &labels),
        1.0
    );
}

#[test]
fn a_client_that_asks_to_close_is_told_so_and_closed() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    for option in ["close", "Close", "x, close", "CLOSE ,y"] {
        let mut client = proxy.client();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: it.test\r\nConnection: {option}\r\n\r\n"
        ));
        assert!(
            client.response().head.lists("connection", "close"),
            "{option}"
        );
        client.sees_a_clean_end();
    }
    assert_eq!(
        origin.connections(),
        1,
        "the origin's connection is kept nevertheless"
    );
    proxy.client_closed_becomes("client_close_header", 4.0);
}

#[test]
fn an_origin_that_asks_to_close_is_not_used_again() {
    let origin = Origin::playing(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Close\r\n\r\nok");
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(origin.connections(), 3);
    proxy.upstream_closed_becomes("upstream_close_header", 3.0);
    origin.waits_for_open(0);
}

#[test]
fn an_old_client_gets_one_answer_and_the_end() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    for extra in [
        "",
        "Connection: close\r\n",
        "Proxy-Connection: keep-alive\r\n",
    ] {
        let mut client = proxy.client();
        client.send(format!("GET / HTTP/1.0\r\n{extra}\r\n"));
        let answer = client.response();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
        assert!(!answer.head.lists("connection", "keep-alive"));
        client.sees_a_clean_end();
    }
    proxy.client_closed_becomes("http10", 2.0);
}

#[test]
fn an_old_client_that_asks_for_it_is_kept_and_told_so() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nHost: it.test\r\nConnection: Keep-Alive\r\n\r\n");
        let answer = client.response();
        assert_eq!(answer.text(), "ok");
        assert!(answer.head.lists("connection", "keep-alive"));
    }
}

#[test]
fn an_old_client_is_not_kept_when_only_the_end_can_delimit_its_answer() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nHost: it.test\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.response();
    assert!(
        !answer.head.has("transfer-encoding"),
        "an old client knows no chunks"
    );
    assert!(!answer.head.lists("connection", "keep-alive"));
    assert_eq!(answer.text(), "hello");
}

#[test]
fn old_clients_can_be_refused() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("http10", false);
    });
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nHost: it.test\r\n\r\n");
    assert_eq!(client.response().status(), 505);
    client.sees_a_clean_end();
    assert_eq!(origin.connections(), 0);
}

#[test]
fn an_old_origin_is_not_used_again_unless_it_says_so() {
    let origin = Origin::answering("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for _ in 0..2 {
        assert_eq!(client.get("/").text(), "ok");
    }
    assert_eq!(origin.connections(), 2);
    proxy.upstream_closed_becomes("http10", 2.0);
}

#[test]
fn an_old_origin_that_says_so_is_used_again() {
    let origin = Origin::answering(
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "ok");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_old_origins_keep_alive_without_a_length_is_no_promise() {
    let origin = Origin::answering_once("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nok");
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for _ in 0..2 {
        assert_eq!(client.get("/").text(), "ok");
    }
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_body_that_ends_with_the_connection_does_not_end_the_clients() {
    let origin = Origin::answering_once("HTTP/1.1 200 OK\r\n\r\nhello");
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "hello");
    assert_eq!(client.get("/").text(), "hello");
    proxy.upstream_closed_becomes("close_delimited", 2.0);
}

#[test]
fn the_keep_alive_field_promises_a_little_less_than_we_hold() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("idle_timeout", "20s");
        c.listener("max_requests", 100);
    });
    let mut client = proxy.client();
    client.get("/");
    let promise = client
        .get("/")
        .head
        .field("keep-alive")
        .expect("a Keep-Alive field");
    let number = |key: &str| {
        let found = promise
            .split(',')
            .find_map(|part| part.trim().strip_prefix(key));
        found.and_then(|text| text.trim_start_matches('=').parse::<u32>().ok())
    };
    assert!(
        number("timeout").is_some_and(|s| (1..20).contains(&s)),
        "{promise}"
    );
    // How many more there may be is told only where there is a limit: 100, and two are gone.
    assert!(number("max").is_none_or(|left| left <= 98), "{promise}");
}

#[test]
fn the_keep_alive_field_can_be_left_out() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("keep_alive_header", false);
    });
    assert!(!proxy.client().get("/").head.has("keep-alive"));
}

#[test]
fn the_last_request_a_connection_may_carry_is_announced_as_such() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("max_requests", 3);
    });
    let mut client = proxy.client();
    for last in [false, false, true] {
        assert_eq!(client.get("/").head.lists("connection", "close"), last);
    }
    client.sees_a_clean_end();
    proxy.client_closed_becomes("max_requests", 1.0);
}

#[test]
fn an_origin_connection_carries_as_many_requests_as_it_may() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.max_requests", 2);
    });
    let mut client = proxy.client();
    for _ in 0..6 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(origin.connections(), 3);
    proxy.upstream_closed_becomes("max_requests", 3.0);
}

#[test]
fn an_origins_connection_carries_no_more_requests_than_its_keep_alive_field_lets_it() {
    // As Apache counts down to 0; and as one does that says it once. One less for the margin.
    for says_once in [false, true] {
        let origin = Origin::playing(move |peer| {
            while peer.request().is_some() {
                let left = 2_usize.saturating_sub(peer.requests - 1);
                let field = match says_once && peer.requests > 1 {
                    true => String::new(),
                    false => format!("Keep-Alive: timeout=60, max={left}\r\n"),
                };
                peer.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{field}\r\nok"
                ));
            }
        });
        let proxy = Proxy::to(&origin);
        let mut client = proxy.client();
        for _ in 0..7 {
            assert_eq!(client.get("/").status(), 200);
        }
        let carried: Vec<_> = origin
            .requests()
            .iter()
            .map(|seen| seen.connection)
            .collect();
        assert_eq!(carried, [0, 0, 1, 1, 2, 2, 3], "says_once: {says_once}");
        proxy.upstream_closed_becomes("max_requests", 3.0);
    }
}

#[test]
fn an_answer_of_our_own_announces_the_close_as_any_other() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.route("path_prefix", "/only");
        c.listener("max_requests", 2);
    });
    let mut client = proxy.client();
    for last in [false, true] {
        let answer = client.get("/");
        assert_eq!(answer.status(), 404);
        assert_eq!(answer.head.lists("connection", "close"), last);
    }
    client.sees_a_clean_end();
    proxy.client_closed_becomes("max_requests", 1.0);
}

#[test]
fn an_answer_of_our_own_that_comes_when_a_drain_has_begun_is_announced_as_the_last() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::playing(move |peer| {
        peer.request();
        wait.wait();
    });
    let mut proxy = Proxy::to(&origin);
    let mut client = proxy.client_waiting_for(&origin);
    proxy.terminate();
    proxy.drain_becomes("waiting");
    gate.open();
    let answer = client.response();
    assert_eq!(answer.status(), 502);
    assert!(answer.head.lists("connection", "close"));
    client.sees_a_clean_end();
}

#[test]
fn a_client_without_a_request_is_closed_by_fin_after_the_idle_timeout() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("idle_timeout", "1s");
    });
    let mut client = proxy.client();
    // It idles no sooner than this.
    let since = Instant::now();
    client.get("/");
    client.sees_a_clean_end();
    assert!(
        since.elapsed() >= Duration::from_millis(990),
        "too early: {:?}",
        since.elapsed()
    );
    proxy.client_closed_becomes("idle_timeout", 1.0);
}

#[test]
fn a_head_that_does_not_end_in_time_is_answered_with_408() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("header_timeout", "1s");
    });
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.te");
    let answer = client.response();
    assert_eq!(answer.status(), 408);
    assert!(answer.head.lists("connection", "close"));
    client.sees_a_clean_end();
    assert_eq!(origin.connections(), 0);
    proxy.client_closed_becomes("header_timeout", 1.0);
    proxy.errors_becomes("request_timeout", 1.0);
}

#[test]
fn a_head_that_trickles_gets_no_more_time() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("header_timeout", "1s");
    });
    let mut client = proxy.client();
    client.wire.patience(Duration::from_millis(100));
    let since = Instant::now();
    client.send("GET / HTTP/1.1\r\n");
    while let Err(crate::support::End::Silent) = client.wire.some() {
        drop(client.send_what_it_takes("X-A: b\r\n"));
        assert!(since.elapsed() < PATIENCE, "trickling keeps it open");
    }
    proxy.client_closed_becomes("header_timeout", 1.0);
}

#[test]
fn a_body_that_stalls_is_answered_with_408() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("body_timeout", "1s");
    });
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: it.test\r\nContent-Length: 10\r\n\r\nhello");
    let answer = client.response();
    assert_eq!(answer.status(), 408);
    assert!(answer.head.lists("connection", "close"));
    client.sees_a_clean_end();
    proxy.client_closed_becomes("body_timeout", 1.0);
    // The origin's connection had half a request on it and cannot be used again.
    proxy.upstream_closed_becomes("client_unfinished", 1.0);
    assert_eq!(origin.request_count(), 0);
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let origin = Origin::playing(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n");
            peer.send(vec![b'a'; 64 << 20]);
        }
    });
    let proxy = Proxy::with(&origin, |c| {
        c.listener("write_timeout", "1s");
    });
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    proxy.client_closed_becomes("write_timeout", 1.0);
    origin.waits_for_open(0);
}

#[test]
fn an_old_relay_that_forwards_connection_blindly_is_not_left_hanging() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(
        "GET / HTTP/1.0\r\nHost: it.test\r\nVia: 1.0 relay\r\nConnection: keep-alive\r\n\r\n",
    );
    let answer = client.response();
    assert!(answer.head.lists("connection", "close"));
    client.sees_a_clean_end();
    proxy.client_closed_becomes("blind_relay", 1.0);
}

#[test]
fn a_connection_the_origin_closed_while_idle_costs_nobody_an_error() {
    let close = Gate::new();
    let wait = close.clone();
    let origin = Origin::playing(move |peer| {
        if peer.number == 0 {
            peer.request();
            peer.send(OK);
            wait.wait();
            return;
        }
        while peer.request().is_some() {
            peer.send(OK);
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    close.open();
    origin.waits_for_open(0);
    // Even a POST: the FIN was there before the request was sent.
    assert_eq!(client.post("/", b"once").status(), 200);
    assert_eq!(origin.request_count(), 2);
    eventually("the dead connection is out of the gauge", || {
        let labels = [("upstream", "app")];
        proxy.metric("holdfast_upstream_connections", &labels) == 1.0
    });
    proxy.upstream_closed_becomes("peer_fin", 1.0);
}

#[test]
fn origin_connections_that_were_opened_together_do_not_end_together() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        // Opened at the start, all at once, and opened again as they end.
        c.upstream("pool.min_idle", 24);
        c.upstream("pool.max_age", "2s");
        c.upstream("pool.max_age_jitter", 0.5);
        c.upstream("pool.idle_learning", false);
    });
    let until = |bound: &str| {
        let labels = [("upstream", "app"), ("le", bound)];
        proxy.metric("holdfast_upstream_connection_age_seconds_bucket", &labels)
    };
    // Between 1 s and 3 s of age. Without chance none would end before 2 s, nor one after the other.
    eventually("some end early and some late", || {
        let early = until("2");
        early >= 1.0 && until("+Inf") > early
    });
    assert_eq!(until("1"), 0.0);
    let aged = [("upstream", "app"), ("reason", "max_age")];
    let closed = "holdfast_upstream_connections_closed_total";
    assert!(proxy.metric(closed, &aged) >= 2.0);
}
