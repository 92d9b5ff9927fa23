//! How long the origin keeps idle connections is found out, and Holdfast closes first.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::support::Origin;
use crate::support::PATIENCE;
use crate::support::Proxy;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::origin::OK;

/// An origin that closes connections idle for so many milliseconds, which the test may change; a
/// connection has the limit that holds when it becomes idle.
fn closing_after(millis: &Arc<AtomicU64>) -> Origin {
    let millis = Arc::clone(millis);
    Origin::playing(move |peer| {
        loop {
            let limit = Duration::from_millis(millis.load(Ordering::SeqCst));
            peer.wire.patience(limit);
            let Ok(head) = peer.wire.head() else { return };
            peer.wire.patience(PATIENCE);
            if peer.rest_of_request(head).is_none() {
                return;
            }
            peer.send(OK);
        }
    })
}

fn quick(config: &mut Config) {
    config.upstream("pool.idle_floor", "100ms");
    config.upstream("pool.idle_margin", "50ms");
}

fn limit(proxy: &Proxy, source: &str) -> f64 {
    let labels = [("upstream", "app"), ("source", source)];
    proxy.metric("holdfast_upstream_idle_limit_seconds", &labels)
}

#[track_caller]
fn limit_becomes(proxy: &Proxy, source: &str, wanted: std::ops::Range<f64>) {
    let what = format!("a limit of {wanted:?} s by {source}");
    eventually(&what, || wanted.contains(&limit(proxy, source)));
}

fn canaries_become(proxy: &Proxy, count: f64) {
    let labels = [("upstream", "app"), ("state", "canary")];
    proxy.metric_becomes("holdfast_upstream_connections", &labels, count);
}

/// Pauses around the limit that is learned, where a connection is about to close or has just closed,
/// and around the origin's own. They are slept, since they are what is tried; the margin is wide,
/// since how soon the machine lets a process run is not.
#[test]
fn the_learned_limit_settles_below_the_origins_and_requests_at_that_period_do_not_fail() {
    const PAUSES: [u64; 8] = [650, 680, 700, 720, 800, 1950, 2000, 2050];
    let origin = closing_after(&Arc::new(AtomicU64::new(2000)));
    let proxy = Proxy::configured(|c| {
        for nth in 0..PAUSES.len() {
            let upstream = format!("upstreams.at{nth}");
            c.set(&format!("{upstream}.servers"), [origin.address()]);
            c.set(&format!("{upstream}.pool.idle_floor"), "100ms");
            c.set(&format!("{upstream}.pool.idle_margin"), "1300ms");
            c.set(&format!("routes.at{nth}.upstream"), format!("at{nth}"));
            c.set(&format!("routes.at{nth}.path_prefix"), format!("/{nth}"));
        }
    });
    thread::scope(|scope| {
        for (nth, pause) in PAUSES.into_iter().enumerate() {
            let proxy = &proxy;
            scope.spawn(move || never_fails_after(pause, (nth, proxy)));
        }
    });
    let (status, told) = proxy.admin("/upstreams");
    assert_eq!(status, 200);
    assert!(told.contains("closes idle connections after "), "{told}");
    let ages = "holdfast_upstream_idle_close_age_seconds_count";
    assert!(proxy.metric(ages, &[]) >= 1.0);
}

fn never_fails_after(pause: u64, (nth, proxy): (usize, &Proxy)) {
    let mut client = proxy.client();
    let target = format!("/{nth}");
    assert_eq!(client.get(&target).status(), 200);
    let upstream = format!("at{nth}");
    let limit = |source: &str| {
        let labels = [("upstream", &*upstream), ("source", source)];
        proxy.metric("holdfast_upstream_idle_limit_seconds", &labels)
    };
    eventually("a limit is learned", || limit("learned") > 0.0);
    let learned = limit("learned");
    assert!(learned < 2.0 && limit("floor") == 0.0, "{learned}");
    for unsafe_method in [false, true] {
        thread::sleep(Duration::from_millis(pause));
        // Unsafe requests, too, meet connections that are about to be closed.
        let answer = match unsafe_method {
            false => client.get(&target),
            true => client.post(&target, b"x"),
        };
        assert_eq!(answer.status(), 200, "after {pause} ms");
    }
}

#[test]
fn an_origins_hint_is_honoured_less_the_margin_and_the_canary_carries_no_request() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.idle_margin", "800ms");
    });
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    limit_becomes(&proxy, "hint", 0.19..0.21);
    canaries_become(&proxy, 1.0);
    // The first is the canary: another is opened, and leaves when its time has come.
    assert_eq!(client.get("/").status(), 200);
    proxy.upstream_closed_becomes("learned_idle", 1.0);
    assert_eq!(client.get("/").status(), 200);
    let used: Vec<usize> = origin.requests().iter().map(|r| r.connection).collect();
    assert_eq!(used, [0, 1, 2]);
    canaries_become(&proxy, 1.0);
}

#[test]
fn the_canary_gives_its_place_to_a_request() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        quick(c);
        c.upstream("pool.max_connections", 1);
    });
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    canaries_become(&proxy, 1.0);
    assert_eq!(client.get("/").status(), 200);
    proxy.upstream_closed_becomes("pool_full", 1.0);
    assert_eq!(origin.connections(), 2);
}

#[test]
fn the_limit_rises_again_when_the_origins_does() {
    let millis = Arc::new(AtomicU64::new(400));
    let origin = closing_after(&millis);
    let proxy = Proxy::with(&origin, |c| {
        quick(c);
        c.upstream("pool.idle_timeout", "3s");
    });
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    limit_becomes(&proxy, "learned", 0.05..2.5);
    let first = limit(&proxy, "learned");
    millis.store((first * 1000.0) as u64 + 700, Ordering::SeqCst);
    assert_eq!(client.get("/").status(), 200);
    limit_becomes(&proxy, "learned", first + 0.3..2.99);
    millis.store(60_000, Ordering::SeqCst);
    assert_eq!(client.get("/").status(), 200);
    limit_becomes(&proxy, "config", 3.0..3.1);
    // The canary has found out what there was to find out.
    proxy.upstream_closed_becomes("idle_timeout", 1.0);
    canaries_become(&proxy, 0.0);
}

#[test]
fn without_learning_the_configured_limit_is_in_force_from_the_start() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        quick(c);
        c.upstream("pool.idle_learning", false);
        c.upstream("pool.idle_timeout", "300ms");
    });
    limit_becomes(&proxy, "config", 0.29..0.31);
    assert_eq!(proxy.client().get("/").status(), 200);
    proxy.upstream_closed_becomes("idle_timeout", 1.0);
    canaries_become(&proxy, 0.0);
}
