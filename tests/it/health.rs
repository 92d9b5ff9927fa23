//! Which endpoints get requests: by their own failures, by checks, and how they come back.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::support::Client;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::origin::Nowhere;
use crate::support::origin::answer;

/// Whether an origin is ill; a test changes its mind.
#[derive(Clone, Default)]
struct Ill(Arc<AtomicBool>);

impl Ill {
    fn yes() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    fn set(&self, ill: bool) {
        self.0.store(ill, Ordering::SeqCst);
    }

    fn is_so(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

const UNAVAILABLE: &str = "HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy";

/// Answers with its name; while it is ill, it closes without an answer.
fn closing_while(ill: &Ill, name: &'static str) -> Origin {
    let ill = ill.clone();
    Origin::playing(move |peer| {
        while peer.request().is_some() {
            if ill.is_so() {
                return;
            }
            peer.send(answer(name));
        }
    })
}

/// Answers with its name; while it is ill, with 503.
fn unavailable_while(ill: &Ill, name: &'static str) -> Origin {
    let ill = ill.clone();
    Origin::playing(move |peer| {
        while peer.request().is_some() {
            match ill.is_so() {
                true => peer.send(UNAVAILABLE),
                false => peer.send(answer(name)),
            }
        }
    })
}

fn in_turn(c: &mut Config, failures: i64) {
    c.upstream("balance", "round_robin");
    c.upstream("health.failures", failures);
}

fn get(client: &mut Client) -> (u16, String) {
    let answer = client.get("/");
    (answer.status(), answer.text())
}

fn endpoints(proxy: &Proxy, state: &str, count: f64) {
    let labels = [("upstream", "app"), ("state", state)];
    proxy.metric_becomes("holdfast_upstream_endpoints", &labels, count);
}

fn up(proxy: &Proxy, origin: &Origin) -> f64 {
    let at = origin.address().to_string();
    let labels = [("upstream", "app"), ("endpoint", at.as_str())];
    proxy.metric("holdfast_upstream_endpoint_up", &labels)
}

fn count(text: &str, of: &str) -> usize {
    text.matches(of).count()
}

#[test]
fn an_endpoint_that_fails_so_often_in_a_row_gets_no_requests_and_it_is_told() {
    let (bad, good) = (closing_while(&Ill::yes(), "bad"), Origin::named("good"));
    let proxy = Proxy::over(&[&bad, &good], |c| {
        in_turn(c, 3);
        c.upstream("health.eject", "90s");
    });
    let mut client = proxy.client();
    endpoints(&proxy, "healthy", 2.0);
    let failed = (0..60).filter(|_| get(&mut client).0 != 200).count();
    assert_eq!((failed, bad.request_count()), (3, 3));
    endpoints(&proxy, "ejected", 1.0);
    assert_eq!((up(&proxy, &bad), up(&proxy, &good)), (0.0, 1.0));
    let (_, shown) = proxy.admin("/upstreams");
    let says = "it gets no requests for 90s, after 3 failures in a row: it closed the connection \
                without an answer (until ";
    assert!(
        shown.contains("ejected since 2") && shown.contains(says),
        "{shown}"
    );
    proxy.tells("endpoint_ejected");
    assert_eq!(count(&proxy.stderr(), "endpoint_ejected"), 1);
}

#[test]
fn an_ejected_endpoint_loses_its_idle_connections() {
    let ill = Ill::default();
    let (bad, good) = (unavailable_while(&ill, "bad"), Origin::named("good"));
    let proxy = Proxy::over(&[&bad, &good], |c| {
        in_turn(c, 2);
        c.upstream("health.eject", "90s");
    });
    let mut client = proxy.client();
    while bad.request_count() == 0 {
        get(&mut client);
    }
    assert_eq!(bad.open(), 1);
    ill.set(true);
    let statuses: Vec<u16> = (0..20).map(|_| get(&mut client).0).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 2);
    proxy.upstream_closed_becomes("ejected", 1.0);
    bad.waits_for_open(0);
}

#[test]
fn a_reused_connection_that_the_origin_closed_is_not_held_against_it() {
    let racing = || {
        Origin::playing(|peer| {
            while peer.request().is_some() {
                if peer.requests == 2 {
                    return;
                }
                peer.send(answer("x"));
            }
        })
    };
    let (a, b) = (racing(), racing());
    let proxy = Proxy::over(&[&a, &b], |c| in_turn(c, 1));
    let mut client = proxy.client();
    // Three retries a second are free, and twenty more for a hundred requests.
    for _ in 0..8 {
        assert_eq!(get(&mut client).0, 200);
    }
    endpoints(&proxy, "healthy", 2.0);
    assert_eq!(count(&proxy.stderr(), "endpoint_"), 0);
}

#[test]
fn an_error_that_is_an_answer_is_not_held_against_the_endpoint() {
    let origin = || Origin::answering("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n");
    let (a, b) = (origin(), origin());
    let proxy = Proxy::over(&[&a, &b], |c| in_turn(c, 1));
    let mut client = proxy.client();
    assert!((0..20).all(|_| get(&mut client).0 == 500));
    assert_eq!((a.request_count(), b.request_count()), (10, 10));
    endpoints(&proxy, "healthy", 2.0);
}

#[test]
fn the_last_endpoint_stays_in_use_and_the_log_says_so_once() {
    let origin = Origin::answering(UNAVAILABLE);
    let proxy = Proxy::with(&origin, |c| in_turn(c, 1));
    let mut client = proxy.client();
    assert!((0..20).all(|_| get(&mut client).0 == 503));
    assert_eq!(origin.request_count(), 20);
    proxy.tells("endpoint_not_ejected");
    assert_eq!(count(&proxy.stderr(), "endpoint_not_ejected"), 1);
    endpoints(&proxy, "healthy", 1.0);
}

#[test]
fn no_more_than_its_share_of_an_upstream_is_ejected() {
    let origins: Vec<Origin> = (0..4).map(|_| Origin::answering(UNAVAILABLE)).collect();
    let proxy = Proxy::over(&origins.iter().collect::<Vec<_>>(), |c| {
        in_turn(c, 1);
        c.upstream("health.max_eject_ratio", 0.25);
    });
    let mut client = proxy.client();
    assert!((0..20).all(|_| get(&mut client).0 == 503));
    endpoints(&proxy, "ejected", 1.0);
    endpoints(&proxy, "healthy", 3.0);
}

/// Two endpoints in turn, of which one was ejected, is well again and answers again.
fn recovered(change: impl FnOnce(&mut Config)) -> ([Origin; 2], Proxy, Client) {
    let ill = Ill::yes();
    let (bad, good) = (closing_while(&ill, "bad"), Origin::named("good"));
    let proxy = Proxy::over(&[&bad, &good], |c| {
        in_turn(c, 1);
        change(c);
    });
    let mut client = proxy.client();
    while bad.request_count() == 0 {
        get(&mut client);
    }
    ill.set(false);
    eventually("it answers again", || get(&mut client).1 == "bad");
    ([bad, good], proxy, client)
}

#[test]
fn an_endpoint_that_recovered_comes_back_with_one_request() {
    let ([_bad, _good], proxy, mut client) = recovered(|c| {
        c.upstream("health.eject", "50ms");
    });
    let names: Vec<String> = (0..10).map(|_| get(&mut client).1).collect();
    assert_eq!(names.iter().filter(|name| *name == "bad").count(), 5);
    endpoints(&proxy, "healthy", 2.0);
    proxy.tells("endpoint_returned");
}

#[test]
fn one_that_fails_its_trial_costs_one_request_a_time() {
    let (bad, good) = (closing_while(&Ill::yes(), "bad"), Origin::named("good"));
    let proxy = Proxy::over(&[&bad, &good], |c| {
        in_turn(c, 1);
        c.upstream("health.eject", "30ms");
    });
    let mut client = proxy.client();
    let mut failed = 0;
    eventually("it was tried again and again", || {
        failed += usize::from(get(&mut client).0 != 200);
        bad.request_count() == 4
    });
    assert_eq!(failed, 4);
    eventually("each time it is told", || {
        count(&proxy.stderr(), "endpoint_ejected") == 4
    });
}

#[test]
fn one_that_comes_back_gets_a_small_share_at_first() {
    let ([bad, _good], proxy, mut client) = recovered(|c| {
        c.upstream("health.eject", "20ms");
        c.upstream("slow_start", "1h");
    });
    endpoints(&proxy, "slow_start", 1.0);
    let names: Vec<String> = (0..400).map(|_| get(&mut client).1).collect();
    let share = names.iter().filter(|name| *name == "bad").count();
    // A tenth of its 200 turns.
    assert!((1..70).contains(&share), "{share}");
    assert_eq!(up(&proxy, &bad), 1.0);
}

#[test]
fn an_endpoint_whose_connects_fail_is_passed_over_long_before_it_is_ejected() {
    let nowhere = Nowhere::new();
    let good = Origin::ok();
    let proxy = Proxy::configured(|c| {
        c.upstream("servers", [nowhere.address, good.address()]);
        in_turn(c, 1000);
    });
    let mut client = proxy.client();
    assert!((0..40).all(|_| get(&mut client).0 == 200));
    let labels = [("upstream", "app"), ("reason", "refused")];
    let refused = proxy.metric("holdfast_upstream_connect_errors_total", &labels);
    assert!((1.0..10.0).contains(&refused), "{refused}");
    endpoints(&proxy, "healthy", 2.0);
}

/// An origin whose checks fail while it is ill; requests it answers in any case.
fn checked(ill: &Ill, name: &'static str) -> Origin {
    let ill = ill.clone();
    Origin::playing(move |peer| {
        while let Some(request) = peer.request() {
            let is_check = request.head.start.starts_with("GET /up ");
            match is_check && ill.is_so() {
                true => peer.send(UNAVAILABLE),
                false => peer.send(answer(name)),
            }
        }
    })
}

fn checks(c: &mut Config) {
    c.upstream("balance", "round_robin");
    c.upstream("health.failures", "off");
    c.upstream("health.active_path", "/up");
    c.upstream("health.interval", "20ms");
}

#[test]
fn an_endpoint_that_fails_checks_is_out_until_it_passes_them() {
    let ill = Ill::default();
    let (a, b) = (checked(&ill, "a"), checked(&Ill::default(), "b"));
    let proxy = Proxy::over(&[&a, &b], checks);
    let mut client = proxy.client();
    assert_eq!(get(&mut client).0, 200);
    ill.set(true);
    endpoints(&proxy, "ejected", 1.0);
    assert!((0..20).all(|_| get(&mut client).1 == "b"));
    let (_, shown) = proxy.admin("/upstreams");
    assert!(
        shown.contains("it gets no requests until checks pass"),
        "{shown}"
    );
    ill.set(false);
    eventually("it is back", || get(&mut client).1 == "a");
    endpoints(&proxy, "healthy", 2.0);
    let labels = [("upstream", "app"), ("reason", "health")];
    assert!(proxy.metric("holdfast_upstream_connections_opened_total", &labels) > 3.0);
    let closed = proxy.metric("holdfast_upstream_connections_closed_total", &labels);
    assert!(closed > 3.0, "CloseReason::CheckDone: {closed}");
    let mut heads = a.requests().into_iter().map(|seen| seen.message.head);
    let check = heads.find(|head| head.start == "GET /up HTTP/1.1");
    let host = check.unwrap().field("host").unwrap().to_owned();
    assert_eq!(host, a.address().to_string());
}

#[test]
fn a_status_that_is_expected_of_a_check_passes_it() {
    let ill = Ill::yes();
    let (a, b) = (checked(&ill, "a"), checked(&ill, "b"));
    let proxy = Proxy::over(&[&a, &b], |c| {
        checks(c);
        c.upstream("health.expected_status", ["200-299", "503"]);
    });
    a.waits_for_requests(5);
    b.waits_for_requests(5);
    endpoints(&proxy, "healthy", 2.0);
}

#[test]
fn an_endpoint_that_is_silent_fails_its_checks_in_time() {
    let silent = Origin::playing(|peer| {
        peer.until_closed();
    });
    let good = Origin::named("good");
    let proxy = Proxy::over(&[&silent, &good], |c| {
        checks(c);
        // The good one must answer in time, however busy the machine is.
        c.upstream("health.timeout", "3s");
        c.upstream("health.unhealthy_after", 1);
    });
    endpoints(&proxy, "ejected", 1.0);
    let mut client = proxy.client();
    assert!((0..20).all(|_| get(&mut client).1 == "good"));
}

#[test]
fn checks_come_from_the_source_addresses_and_their_ends_are_counted() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&seen);
    let origin = Origin::playing(move |peer| {
        let from = peer.wire.stream().peer_addr().unwrap().ip().to_string();
        noted.lock().unwrap().push(from);
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let proxy = Proxy::with(&origin, |c| {
        checks(c);
        c.upstream("connect.source_addresses", ["127.0.0.2", "127.0.0.3"]);
    });
    eventually("from each of them", || {
        let seen = seen.lock().unwrap();
        ["127.0.0.2", "127.0.0.3"]
            .iter()
            .all(|at| seen.iter().any(|from| from == at))
    });
    let others = |from: &String| from != "127.0.0.2" && from != "127.0.0.3";
    assert!(!seen.lock().unwrap().iter().any(others));
    // The origin says that it closes, and does so first.
    let labels = [
        ("side", "upstream"),
        ("by", "peer"),
        ("how", "fin"),
        ("phase", "idle"),
    ];
    eventually("their ends are counted", || {
        proxy.metric("holdfast_connections_closed_total", &labels) > 1.0
    });
}
