//! A panic costs one connection, and a worker that stalls is named. The faults are asked for by a
//! field that debug builds know (`proxy/fault`).

use crate::support::Client;
use crate::support::End;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::eventually;
use crate::support::metrics;

fn asks_for(client: &mut Client, fault: &str) {
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: it.test\r\nX-Holdfast-Fault: {fault}\r\n\r\n"
    ));
}

#[test]
fn a_panic_costs_its_connection_only_and_gives_back_what_it_held() {
    if !cfg!(debug_assertions) {
        return; // the program under test knows no faults
    }
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.max_connections", 1);
        c.listener("max_connections_per_client", 2);
        c.set("server.workers", 1);
    });
    proxy.may_panic();
    let mut bystander = proxy.client();
    bystander.is_still_served();
    for fault in ["panic", "panic_lent", "panic", "panic_lent"] {
        let mut client = proxy.client();
        asks_for(&mut client, fault);
        assert_ne!(client.wire.until_end().1, End::Silent);
    }
    // One connection to the origin and one place for a second client: had any been lost, this
    // would wait in vain.
    bystander.is_still_served();
    proxy.client().is_still_served();
    assert_eq!(proxy.metric("holdfast_panics_total", &[]), 4.0);
    drop(bystander);
    let web = [("listener", "web")];
    proxy.metric_becomes("holdfast_client_connections", &web, 0.0);
    let app = [("upstream", "app"), ("state", "active")];
    proxy.metric_becomes("holdfast_upstream_connections", &app, 0.0);
    proxy.metric_becomes("holdfast_requests_in_flight", &[], 0.0);
    proxy.tells("only that connection ended");
}

#[test]
fn a_worker_that_stalls_is_named_within_six_seconds_and_others_go_on() {
    if !cfg!(debug_assertions) {
        return; // as above
    }
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.set("server.workers", 2);
    });
    let mut client = proxy.client();
    asks_for(&mut client, "stall");
    // By one scrape, since a stall ends.
    let mut stalled = None;
    eventually("a worker that stalls is counted", || {
        let samples = proxy.samples();
        let sum = |name| metrics::sum(&samples, name, &[]).unwrap();
        stalled = Some(sum("holdfast_worker_stalled_seconds"));
        sum("holdfast_worker_stalls_total") == 1.0
    });
    assert!(
        stalled.is_some_and(|seconds| (3.0..6.0).contains(&seconds)),
        "{stalled:?}"
    );
    let line: serde_json::Value = serde_json::from_str(&proxy.tells("worker_stalled")).unwrap();
    let worker = line["worker"].as_str().unwrap().to_owned();
    let labels = [("worker", worker.as_str())];
    assert_eq!(proxy.metric("holdfast_worker_stalls_total", &labels), 1.0);
    // It ends, and what waited is served.
    assert_eq!(client.response().status(), 200);
    proxy.metric_becomes("holdfast_worker_stalled_seconds", &[], 0.0);
}
