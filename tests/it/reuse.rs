//! The pool seen from outside: how many connections the origin ever sees, in which order they are
//! used, and who waits for one.

use std::time::Duration;

use crate::support::Client;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::origin::OK;
use crate::support::proxy::descriptors;

/// Three connections that become idle at once, and the clients to use them.
fn three_idle(origin: &Origin, gate: &Gate, proxy: &Proxy) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    for (nth, client) in clients.iter_mut().enumerate() {
        client.ask("/");
        origin.waits_for_requests(nth + 1);
    }
    gate.open();
    all_are_answered(&mut clients);
    origin.forget();
    clients
}

fn all_are_answered(clients: &mut [Client]) {
    for client in clients {
        assert_eq!(client.response().status(), 200);
    }
}

/// On which connection each request came.
fn connections_used(origin: &Origin) -> Vec<usize> {
    let requests = origin.requests();
    requests.iter().map(|seen| seen.connection).collect()
}

/// One connection, whose first answer waits for the gate; so everyone else waits in line.
fn one_connection(origin: &Origin, change: impl FnOnce(&mut Config)) -> Proxy {
    Proxy::with(origin, |c| {
        c.upstream("pool.max_connections", 1);
        change(c);
    })
}
#[test]
fn ten_thousand_requests_of_64_clients_open_at_most_64_connections() {
    const CLIENTS: usize = 64;
    const REQUESTS: usize = 10_000;
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        // However long it takes, none is closed for resting.
        c.upstream("pool.idle_learning", false);
        c.upstream("pool.idle_timeout", "10m");
    });
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| proxy.client()).collect();
    let mut left = REQUESTS;
    while left > 0 {
        let now = left.min(CLIENTS);
        clients[..now].iter_mut().for_each(|client| client.ask("/"));
        for client in &mut clients[..now] {
            assert_eq!(client.response().status(), 200);
        }
        left -= now;
    }
    let opened = origin.connections();
    assert!(opened <= CLIENTS, "{opened} connections");
    assert_eq!(origin.request_count(), REQUESTS);
    let app = [("upstream", "app")];
    let of = |outcome| [("upstream", "app"), ("outcome", outcome)];
    proxy.metric_becomes("holdfast_upstream_requests_total", &app, REQUESTS as f64);
    proxy.metric_becomes(
        "holdfast_requests_total",
        &[("code", "2xx")],
        REQUESTS as f64,
    );
    assert_eq!(proxy.opened(), opened as f64);
    let new = proxy.metric("holdfast_upstream_requests_total", &of("new"))
        + proxy.metric("holdfast_upstream_requests_total", &of("new_after_wait"));
    assert!(
        new <= opened as f64,
        "{new} requests said they had opened {opened} connections"
    );
    assert_eq!(
        proxy.metric("holdfast_upstream_connections", &app),
        opened as f64
    );
    assert_eq!(
        proxy.metric("holdfast_client_connections", &[("listener", "web")]),
        64.0
    );
    assert_eq!(
        proxy.metric("holdfast_upstream_connections_closed_total", &app),
        0.0
    );
}

#[test]
fn under_a_thousand_concurrent_requests_the_origin_never_sees_an_eleventh_connection() {
    if descriptors() < 2500 {
        println!("skipped: a thousand connections cannot be had here");
        return;
    }
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.max_connections", 10);
        c.upstream("pool.queue_timeout", "5m");
    });
    let mut clients: Vec<Client> = (0..1000).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.ask("/"));
    // All ten are busy, and the rest is in line.
    origin.waits_for_requests(10);
    proxy.queue_becomes(990.0);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().status(), 200);
    }
    assert_eq!(origin.request_count(), 1000);
    assert!(origin.open_most() <= 10, "{} at a time", origin.open_most());
    assert_eq!(origin.connections(), 10);
    assert_eq!(proxy.opened(), 10.0);
    assert_eq!(
        proxy.metric(
            "holdfast_upstream_connections_limit",
            &[("upstream", "app")]
        ),
        10.0
    );
    let waited = [("upstream", "app"), ("outcome", "reused_after_wait")];
    proxy.metric_becomes("holdfast_upstream_requests_total", &waited, 990.0);
    proxy.queue_becomes(0.0);
}

#[test]
fn the_newest_idle_connection_is_used_first() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = Proxy::with(&origin, |c| {
        c.set("server.workers", 1);
    });
    let mut clients = three_idle(&origin, &gate, &proxy);
    for _ in 0..6 {
        assert_eq!(clients[0].get("/").status(), 200);
    }
    let used = connections_used(&origin);
    assert!(
        used.iter().all(|connection| *connection == used[0]),
        "{used:?}"
    );
}

#[test]
fn the_oldest_idle_connection_is_used_first_where_that_is_asked_for() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = Proxy::with(&origin, |c| {
        c.set("server.workers", 1);
        c.upstream("pool.order", "fifo");
    });
    let mut clients = three_idle(&origin, &gate, &proxy);
    for _ in 0..3 {
        assert_eq!(clients[0].get("/").status(), 200);
    }
    let mut used = connections_used(&origin);
    used.sort_unstable();
    assert_eq!(used, [0, 1, 2]);
}

#[test]
fn an_idle_origin_connection_is_closed_after_its_limit() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.idle_timeout", "1s");
    });
    assert_eq!(proxy.client().get("/").status(), 200);
    assert_eq!(origin.connections(), 1);
    origin.waits_for_open(0);
    proxy.upstream_closed_becomes("idle_timeout", 1.0);
    proxy.metric_becomes("holdfast_upstream_connections", &[("upstream", "app")], 0.0);
}

#[test]
fn a_floor_of_idle_connections_is_kept_ready_before_anyone_asks_and_as_they_end() {
    let millis = Duration::from_millis(300);
    let origin = Origin::playing(move |peer| {
        // The first one is closed by the origin; the rest stay.
        match peer.number {
            0 => std::thread::sleep(millis),
            _ => {
                while peer.request().is_some() {
                    peer.send(OK);
                }
            }
        }
    });
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.min_idle", 3);
        c.upstream("pool.idle_learning", false);
    });
    let warm = [("upstream", "app"), ("reason", "warm")];
    let opened = "holdfast_upstream_connections_opened_total";
    proxy.metric_becomes(opened, &warm, 4.0);
    let idle = [("upstream", "app"), ("state", "idle")];
    proxy.metric_becomes("holdfast_upstream_connections", &idle, 3.0);
    assert_eq!(proxy.client().get("/").status(), 200);
    assert_eq!(origin.connections(), 4);
}

#[test]
fn more_idle_connections_than_the_pool_keeps_are_closed() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.max_idle", 1);
    });
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.ask("/"));
    origin.waits_for_requests(4);
    gate.open();
    all_are_answered(&mut clients);
    origin.waits_for_open(1);
    proxy.upstream_closed_becomes("pool_full", 3.0);
}

#[test]
fn a_pool_told_never_to_reuse_opens_one_for_every_request() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.reuse", "never");
    });
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(origin.connections(), 3);
    proxy.upstream_closed_becomes("reuse_off", 3.0);
    let labels = [("upstream", "app"), ("reason", "never_mode")];
    assert_eq!(
        proxy.metric("holdfast_upstream_connections_opened_total", &labels),
        3.0
    );
}

#[test]
fn an_unsafe_request_does_not_take_a_connection_idle_for_too_long() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.unsafe_max_idle", "100ms");
    });
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    // From now on it idles.
    let idle = [("upstream", "app"), ("state", "idle")];
    proxy.metric_becomes("holdfast_upstream_connections", &idle, 1.0);
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(client.post("/", b"x").status(), 200);
    assert_eq!(origin.connections(), 2);
    let labels = [("upstream", "app"), ("reason", "unsafe_guard")];
    assert_eq!(
        proxy.metric("holdfast_upstream_connections_opened_total", &labels),
        1.0
    );
}

#[test]
fn waiting_requests_are_served_in_the_order_of_their_coming() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = one_connection(&origin, |_| ());
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    clients[0].ask("/0");
    origin.waits_for_requests(1);
    for (nth, client) in clients.iter_mut().enumerate().skip(1) {
        client.ask(&format!("/{nth}"));
        proxy.queue_becomes(nth as f64);
    }
    gate.open();
    all_are_answered(&mut clients);
    let expected: Vec<String> = (0..6).map(|nth| format!("GET /{nth} HTTP/1.1")).collect();
    assert_eq!(origin.request_lines(), expected);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn who_waits_too_long_gets_503_and_the_reason() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = one_connection(&origin, |c| {
        c.upstream("pool.queue_timeout", "200ms");
    });
    let mut first = proxy.client_waiting_for(&origin);
    let mut second = proxy.client();
    let answer = second.get("/");
    assert_eq!(answer.status(), 503);
    let told = answer.head.field("proxy-status").unwrap();
    assert!(
        told.starts_with("holdfast; error=connection_limit_reached"),
        "{told}"
    );
    let labels = [("upstream", "app"), ("reason", "timeout")];
    proxy.metric_becomes("holdfast_upstream_queue_rejected_total", &labels, 1.0);
    proxy.errors_becomes("queue_timeout", 1.0);
    gate.open();
    assert_eq!(first.response().status(), 200);
    let idle = [("upstream", "app"), ("state", "idle")];
    proxy.metric_becomes("holdfast_upstream_connections", &idle, 1.0);
    second.is_still_served();
}

#[test]
fn who_finds_the_queue_full_gets_503_at_once() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = one_connection(&origin, |c| {
        c.upstream("pool.max_pending", 1);
    });
    let (mut first, mut second, mut third) = (proxy.client(), proxy.client(), proxy.client());
    first.ask("/");
    origin.waits_for_requests(1);
    second.ask("/");
    proxy.queue_becomes(1.0);
    assert_eq!(third.get("/").status(), 503);
    proxy.errors_becomes("queue_full", 1.0);
    let labels = [("upstream", "app"), ("reason", "full")];
    proxy.metric_becomes("holdfast_upstream_queue_rejected_total", &labels, 1.0);
    gate.open();
    assert_eq!(first.response().status(), 200);
    assert_eq!(second.response().status(), 200);
}

#[test]
fn a_client_that_leaves_frees_its_place_in_the_queue() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = one_connection(&origin, |c| {
        c.upstream("pool.max_pending", 1);
    });
    let (mut first, mut second, mut third) = (proxy.client(), proxy.client(), proxy.client());
    first.ask("/1");
    origin.waits_for_requests(1);
    second.ask("/2");
    proxy.queue_becomes(1.0);
    second.wire.reset();
    proxy.queue_becomes(0.0);
    let labels = [("upstream", "app"), ("reason", "client_gone")];
    proxy.metric_becomes("holdfast_upstream_queue_rejected_total", &labels, 1.0);
    third.ask("/3");
    proxy.queue_becomes(1.0);
    gate.open();
    assert_eq!(first.response().status(), 200);
    assert_eq!(third.response().status(), 200);
    assert_eq!(
        origin.request_lines(),
        ["GET /1 HTTP/1.1", "GET /3 HTTP/1.1"]
    );
}

#[test]
fn a_connection_past_its_age_is_not_used_again() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.max_age", "1s");
        c.upstream("pool.max_age_jitter", 0.0);
    });
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(client.get("/").status(), 200);
    assert_eq!(origin.connections(), 2);
    // The second may be as old by the time somebody looks.
    let aged = [("upstream", "app"), ("reason", "max_age")];
    let closed = "holdfast_upstream_connections_closed_total";
    eventually("the first is closed", || proxy.metric(closed, &aged) >= 1.0);
}
