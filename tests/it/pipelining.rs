//! Several requests before the first answer: answers in order, nothing lost, nothing pipelined on.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::support::Client;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::eventually;
use crate::support::origin::answer;

fn gets(count: usize) -> String {
    (0..count)
        .map(|nth| format!("GET /{nth} HTTP/1.1\r\nHost: it.test\r\n\r\n"))
        .collect()
}

/// The answers to [`gets`] come, in order.
#[track_caller]
fn are_answered(client: &mut Client, count: usize) {
    for nth in 0..count {
        assert_eq!(client.response().text(), format!("/{nth}"));
    }
}

#[track_caller]
fn where_it_is_split_makes_no_difference(proxy: &Proxy) {
    let octets = gets(3);
    for at in 1..octets.len() {
        let mut client = proxy.client();
        client.send_split(octets.as_bytes(), at);
        for nth in 0..3 {
            assert_eq!(client.response().text(), format!("/{nth}"), "split at {at}");
        }
    }
}

#[track_caller]
fn octet_by_octet_it_is_the_same(proxy: &Proxy) {
    let mut client = proxy.client();
    client.send_octet_by_octet(gets(5).as_bytes());
    are_answered(&mut client, 5);
}

#[test]
fn answers_leave_in_the_order_of_the_requests() {
    let origin = Origin::echoing_targets();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(gets(50));
    are_answered(&mut client, 50);
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
    are_answered(&mut client, 3);
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
    octet_by_octet_it_is_the_same(&proxy);
}

#[test]
fn where_a_pipeline_is_split_makes_no_difference() {
    let origin = Origin::echoing_targets();
    let proxy = Proxy::to(&origin);
    where_it_is_split_makes_no_difference(&proxy);
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
    are_answered(&mut client, 4);
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
fn an_answer_does_not_wait_for_a_slow_one_behind_it() {
    let gates = gates::<2>();
    let origin = gated(&gates);
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(gets(2));
    gates[0].open();
    assert_eq!(client.response().text(), "/0");
    gates[1].open();
    assert_eq!(client.response().text(), "/1");
}

#[test]
fn an_answer_does_not_wait_for_a_request_of_which_there_is_only_a_part() {
    let origin = Origin::echoing_targets();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(gets(2) + "GET /2 HT");
    are_answered(&mut client, 2);
    client.send("TP/1.1\r\nHost: it.test\r\n\r\n");
    assert_eq!(client.response().text(), "/2");
}

#[test]
fn bad_octets_behind_a_pipeline_are_refused_after_its_answers() {
    let origin = Origin::echoing_targets();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(gets(2) + "GET  / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    are_answered(&mut client, 2);
    assert_eq!(client.response().head.status(), 400);
    client.sees_a_clean_end();
}

#[test]
fn a_large_answer_leaves_behind_the_small_one_that_waited_for_it() {
    let long = "long".repeat(64 * 1024);
    let origin = Origin::playing({
        let long = long.clone();
        move |peer| {
            while let Some(request) = peer.request() {
                match request.head.start.contains("/1 ") {
                    true => peer.send(answer(&long)),
                    false => peer.send(answer("short")),
                };
            }
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    client.send(gets(3));
    for expected in ["short", &long, "short"] {
        assert!(client.response().text() == expected);
    }
}

#[test]
fn an_exchange_that_takes_too_long_is_answered_for_though_the_answer_before_it_waited() {
    let gates = gates::<2>();
    gates[0].open();
    let origin = gated(&gates);
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("timeouts.request", "300ms");
    });
    let mut client = proxy.client();
    client.send(gets(2));
    assert_eq!(client.response().text(), "/0");
    assert_eq!(client.response().head.status(), 504);
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

#[test]
fn a_request_behind_content_is_pipelined_like_any_other() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("pipelining", "close");
    });
    let post = "POST /0 HTTP/1.1\r\nHost: it.test\r\nContent-Length: 2\r\n\r\nab";
    let mut client = proxy.client();
    client.send([post, &gets(1)].concat());
    assert!(client.response().head.lists("connection", "close"));
    client.sees_a_clean_end();
    assert_eq!(origin.request_count(), 1);
    // An empty line behind a body is none.
    let mut client = proxy.client();
    client.send([post, "\r\n"].concat());
    assert!(!client.response().head.lists("connection", "close"));
    client.is_still_served();
}

/// Answers `/n` only when its gate is open; everything else at once. Gates are opened by number.
fn gated(gates: &[Gate]) -> Origin {
    let gates = gates.to_vec();
    Origin::playing(move |peer| {
        while let Some(request) = peer.request() {
            let mut words = request.head.start.split(' ');
            let (method, target) = (words.next().unwrap(), words.next().unwrap());
            let number: Option<usize> = target.trim_start_matches('/').parse().ok();
            if let Some(gate) = number.and_then(|number| gates.get(number)) {
                gate.wait();
            }
            match method {
                "HEAD" => peer.send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"),
                "POST" => peer.send(answer(&format!("posted {}", request.text()))),
                _ => peer.send(answer(target)),
            }
        }
    })
}

fn gates<const COUNT: usize>() -> [Gate; COUNT] {
    std::array::from_fn(|_| Gate::new())
}

fn concurrently(origin: &Origin, depth: i64) -> Proxy {
    Proxy::with(origin, |c| {
        c.listener("pipelining", "concurrent")
            .listener("pipeline_depth", depth);
    })
}

#[test]
fn safe_requests_run_at_the_same_time_and_their_answers_wait_for_their_turn() {
    let gates = gates::<2>();
    let origin = gated(&gates);
    let proxy = concurrently(&origin, 8);
    let mut client = proxy.client();
    client.send(gets(2));
    origin.waits_for_requests(2);
    assert_eq!(origin.connections(), 2, "nothing is pipelined on");
    gates[1].open();
    // The second answer is with us and its connection free again, and still the client has nothing.
    let labels = [("upstream", "app"), ("state", "idle")];
    proxy.metric_becomes("holdfast_upstream_connections", &labels, 1.0);
    assert!(!client.wire.some_is_here());
    gates[0].open();
    assert_eq!(client.response().text(), "/0");
    assert_eq!(client.response().text(), "/1");
    client.is_still_served();
    let labels = [("listener", "web"), ("mode", "concurrent")];
    proxy.metric_becomes("holdfast_client_pipelined_requests_total", &labels, 1.0);
}

#[test]
fn a_long_pipeline_is_served_in_order_and_never_deeper_than_allowed() {
    let origin = Origin::echoing_targets();
    let proxy = concurrently(&origin, 3);
    let mut client = proxy.client();
    client.send(gets(200));
    are_answered(&mut client, 200);
    assert!(origin.open_most() <= 3, "{} were open", origin.open_most());
    assert_eq!(origin.request_count(), 200);
}

#[test]
fn the_next_request_joins_when_the_first_of_a_full_line_is_answered() {
    let gates = gates::<3>();
    let origin = gated(&gates);
    let proxy = concurrently(&origin, 2);
    let mut client = proxy.client();
    client.send(gets(3));
    origin.waits_for_requests(2);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(origin.request_count(), 2, "the depth is kept");
    gates[0].open();
    origin.waits_for_requests(3);
    assert_eq!(client.response().text(), "/0");
    gates[2].open();
    gates[1].open();
    assert_eq!(client.response().text(), "/1");
    assert_eq!(client.response().text(), "/2");
}

#[test]
fn a_post_begins_when_every_answer_before_it_was_sent() {
    let gates = gates::<1>();
    let origin = gated(&gates);
    let proxy = concurrently(&origin, 8);
    let mut client = proxy.client();
    let post = "POST /p HTTP/1.1\r\nHost: it.test\r\nContent-Length: 5\r\n\r\nhello";
    client.send([gets(2).as_str(), post, gets(2).as_str()].concat());
    origin.waits_for_requests(2);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(origin.request_count(), 2, "what is behind the POST waits");
    gates[0].open();
    for expected in ["/0", "/1", "posted hello", "/0", "/1"] {
        assert_eq!(client.response().text(), expected);
    }
    let third = &origin.requests()[2].message.head.start;
    assert!(third.starts_with("POST"), "{third}");
}

#[test]
fn an_answer_to_head_keeps_its_place_and_has_no_content() {
    let gates = gates::<1>();
    let origin = gated(&gates);
    let proxy = concurrently(&origin, 8);
    let mut client = proxy.client();
    client.send("GET /0 HTTP/1.1\r\nHost: it.test\r\n\r\nHEAD /a HTTP/1.1\r\nHost: it.test\r\n\r\nOPTIONS /b HTTP/1.1\r\nHost: it.test\r\n\r\n");
    origin.waits_for_requests(3);
    gates[0].open();
    assert_eq!(client.response().text(), "/0");
    let head = client.response_to("HEAD");
    assert_eq!(head.head.field("content-length").as_deref(), Some("7"));
    assert_eq!(client.response().text(), "/b");
}

#[test]
fn an_origin_is_not_read_from_while_too_much_of_its_answer_is_held_back() {
    const LARGE: usize = 64 * 1024 * 1024;
    let gate = Gate::new();
    let sent = Arc::new(AtomicUsize::new(0));
    let (wait, count) = (gate.clone(), Arc::clone(&sent));
    let origin = Origin::playing(move |peer| {
        while let Some(request) = peer.request() {
            if request.head.start.contains("/0 ") {
                wait.wait();
                peer.send(answer("/0"));
                continue;
            }
            peer.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"
            ));
            let block = [b'x'; 64 * 1024];
            for _ in 0..LARGE / block.len() {
                peer.send(block);
                count.fetch_add(block.len(), Ordering::SeqCst);
            }
        }
    });
    let proxy = concurrently(&origin, 8);
    let mut client = proxy.client();
    client.send(gets(2));
    origin.waits_for_requests(2);
    // It is stuck when a while brings nothing new: what it could send is in the kernel's buffers.
    let mut before = usize::MAX;
    eventually("an origin that cannot send on", || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let now = sent.load(Ordering::SeqCst);
        std::mem::replace(&mut before, now) == now && now > 0
    });
    assert!(before < LARGE / 2, "{before} octets were taken");
    gate.open();
    assert_eq!(client.response().text(), "/0");
    let large = client.response();
    assert_eq!(large.body.len(), LARGE);
    assert!(large.body.iter().all(|&octet| octet == b'x'));
    assert_eq!(client.get("/0").text(), "/0");
}

#[test]
fn interim_answers_wait_for_the_turn_of_their_exchange() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::playing(move |peer| {
        while let Some(request) = peer.request() {
            if request.head.start.contains("/0 ") {
                wait.wait();
                peer.send(answer("/0"));
            } else {
                peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
                peer.send(answer("/1"));
            }
        }
    });
    let proxy = concurrently(&origin, 8);
    let mut client = proxy.client();
    client.send(gets(2));
    origin.waits_for_requests(2);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!client.wire.some_is_here());
    gate.open();
    assert_eq!(client.response().text(), "/0");
    assert_eq!(client.head().status(), 103);
    assert_eq!(client.response().text(), "/1");
}

#[test]
fn a_request_to_close_is_the_last_of_its_line() {
    let origin = Origin::echoing_targets();
    let proxy = concurrently(&origin, 8);
    let mut client = proxy.client();
    client.send(
        gets(2) + "GET /last HTTP/1.1\r\nHost: it.test\r\nConnection: close\r\n\r\n" + &gets(1),
    );
    assert_eq!(client.response().text(), "/0");
    assert_eq!(client.response().text(), "/1");
    let last = client.response();
    assert_eq!(last.text(), "/last");
    assert!(last.head.lists("connection", "close"));
    client.sees_a_clean_end();
    assert_eq!(origin.request_count(), 3, "what is behind it is not begun");
}

#[test]
fn an_answer_cut_short_drops_what_is_behind_it_and_says_so() {
    let gates = gates::<4>();
    let theirs = gates.to_vec();
    let origin = Origin::playing(move |peer| {
        while let Some(request) = peer.request() {
            let target = request.head.start.split(' ').nth(1).unwrap().to_owned();
            let number: usize = target[1..].parse().unwrap();
            if number == 1 {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort");
                return;
            }
            if number == 3 {
                peer.until_closed(); // dropped before it answered
                return;
            }
            theirs[number].wait();
            peer.send(answer(&target));
        }
    });
    let proxy = concurrently(&origin, 8);
    let mut client = proxy.client();
    client.send(gets(4));
    origin.waits_for_requests(4);
    gates[2].open();
    let labels = [("upstream", "app"), ("state", "idle")];
    proxy.metric_becomes("holdfast_upstream_connections", &labels, 1.0);
    gates[0].open();
    assert_eq!(client.response().text(), "/0");
    let cut = client.partial_response_to("GET");
    assert!(cut.cut.is_some() && cut.text() == "short");
    proxy.upstream_closed_becomes("truncated", 1.0);
    proxy.upstream_closed_becomes("client_gone", 1.0);
    let log = proxy.log(4);
    let told = |nth: usize, field: &str| {
        let line = log.iter().find(|line| line["client_nth"] == nth);
        line.unwrap_or_else(|| panic!("nothing of {nth} in {log:#?}"))[field].clone()
    };
    assert_eq!(told(1, "end"), "complete");
    assert_eq!(told(2, "end"), "truncated");
    for unanswered in [3, 4] {
        assert_eq!(told(unanswered, "end"), "truncated");
        assert!(told(unanswered, "status").is_null(), "{log:#?}");
    }
    assert_eq!(log.len(), 4);
    assert_eq!(origin.request_count(), 4, "nothing is repeated");
}

#[test]
fn a_client_that_leaves_takes_its_whole_line_with_it() {
    let gates = gates::<3>();
    let origin = gated(&gates);
    let proxy = concurrently(&origin, 8);
    let mut client = proxy.client();
    client.send(gets(3));
    origin.waits_for_requests(3);
    client.wire.reset();
    proxy.upstream_closed_becomes("client_gone", 3.0);
    let log = proxy.log(3);
    assert!(
        log.iter().all(|line| line["end"] == "client_gone"),
        "{log:#?}"
    );
    let labels = [("upstream", "app"), ("state", "active")];
    proxy.metric_becomes("holdfast_upstream_connections", &labels, 0.0);
    gates.iter().for_each(Gate::open);
}

#[test]
fn an_error_in_the_line_is_answered_in_its_turn_and_the_line_goes_on() {
    let origin = Origin::playing(|peer| {
        while let Some(request) = peer.request() {
            if request.head.start.contains("/1 ") {
                peer.send("nonsense\r\n\r\n");
                return;
            }
            peer.send(answer("whole"));
        }
    });
    let proxy = concurrently(&origin, 8);
    let mut client = proxy.client();
    client.send(gets(3));
    assert_eq!(client.response().text(), "whole");
    assert_eq!(client.response().status(), 502);
    assert_eq!(client.response().text(), "whole");
}

#[test]
fn an_exchange_that_takes_too_long_in_line_is_answered_for_though_some_of_it_was_held() {
    let gates = gates::<1>();
    let first = gates[0].clone();
    let origin = Origin::playing(move |peer| {
        while let Some(request) = peer.request() {
            if request.head.start.contains("/0 ") {
                first.wait();
                peer.send(answer("/0"));
                continue;
            }
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            peer.until_closed();
            first.open();
            return;
        }
    });
    let proxy = Proxy::with(&origin, |c| {
        c.listener("pipelining", "concurrent");
        c.set("upstreams.app.timeouts.request", "300ms");
    });
    let mut client = proxy.client();
    client.send(gets(2));
    // Both are late; the half that was held of the second is forgotten, so it has a whole answer.
    assert_eq!(client.response().status(), 504);
    assert_eq!(client.response().status(), 504);
    proxy.errors_becomes("request_deadline", 2.0);
}

#[test]
fn a_concurrent_pipeline_that_is_split_anywhere_is_the_same_pipeline() {
    let origin = Origin::echoing_targets();
    let proxy = concurrently(&origin, 8);
    where_it_is_split_makes_no_difference(&proxy);
    octet_by_octet_it_is_the_same(&proxy);
}

#[test]
fn the_last_request_that_a_connection_may_carry_ends_the_line() {
    let origin = Origin::echoing_targets();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("pipelining", "concurrent")
            .listener("max_requests", 3);
    });
    let mut client = proxy.client();
    client.send(gets(5));
    assert_eq!(client.response().text(), "/0");
    assert_eq!(client.response().text(), "/1");
    assert!(client.response().head.lists("connection", "close"));
    client.sees_a_clean_end();
    assert_eq!(origin.request_count(), 3);
}

#[test]
fn bad_octets_behind_a_line_are_refused_after_its_answers() {
    let gates = gates::<1>();
    let origin = gated(&gates);
    let proxy = concurrently(&origin, 8);
    let mut client = proxy.client();
    client.send(gets(2) + "GET /x HTTP/1.1\r\nHost : it.test\r\n\r\n");
    origin.waits_for_requests(2);
    gates[0].open();
    assert_eq!(client.response().text(), "/0");
    assert_eq!(client.response().text(), "/1");
    assert_eq!(client.response().status(), 400);
    client.sees_a_clean_end();
}
