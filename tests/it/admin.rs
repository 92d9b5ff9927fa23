//! The admin listener: probes, metrics, connections and upstreams.

use serde_json::Value;

use crate::support::Client;
use crate::support::End;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::origin::OK;

fn json(proxy: &Proxy, path: &str) -> Value {
    let (status, text) = proxy.admin(path);
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}\n{text}"))
}

#[test]
fn the_probes_say_that_it_lives_and_is_ready() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    assert_eq!(proxy.admin("/livez").0, 200);
    assert_eq!(proxy.admin("/readyz").0, 200);
    assert_eq!(origin.connections(), 0, "a probe asks no origin");
}

#[test]
fn a_path_that_is_not_there_is_a_404() {
    let origin = Origin::ok();
    assert_eq!(Proxy::to(&origin).admin("/no-such-path").0, 404);
}

#[test]
fn every_series_of_a_closed_set_is_there_from_the_start() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let web = [("listener", "web")];
    let app = [("upstream", "app")];
    for name in ["accepted_total", "rejected_total", "closed_total"] {
        assert_eq!(
            proxy.metric(&format!("holdfast_client_connections_{name}"), &web),
            0.0
        );
    }
    for reason in [
        "client_limit",
        "listener_limit",
        "global_limit",
        "fd_pressure",
        "draining",
    ] {
        let labels = [("listener", "web"), ("reason", reason)];
        assert_eq!(
            proxy.metric("holdfast_client_connections_rejected_total", &labels),
            0.0
        );
    }
    for state in ["active", "idle", "tunnel", "closing"] {
        let labels = [("listener", "web"), ("state", state)];
        assert_eq!(proxy.metric("holdfast_client_connections", &labels), 0.0);
    }
    for state in ["connecting", "active", "idle"] {
        let labels = [("upstream", "app"), ("state", state)];
        assert_eq!(proxy.metric("holdfast_upstream_connections", &labels), 0.0);
    }
    for outcome in [
        "reused",
        "new",
        "reused_after_wait",
        "new_after_wait",
        "rejected",
    ] {
        let labels = [("upstream", "app"), ("outcome", outcome)];
        assert_eq!(
            proxy.metric("holdfast_upstream_requests_total", &labels),
            0.0
        );
    }
    for reason in [
        "idle_timeout",
        "max_requests",
        "extra_bytes",
        "peer_fin",
        "truncated",
    ] {
        let labels = [("upstream", "app"), ("reason", reason)];
        assert_eq!(
            proxy.metric("holdfast_upstream_connections_closed_total", &labels),
            0.0
        );
    }
    for code in ["1xx", "2xx", "3xx", "4xx", "5xx"] {
        assert_eq!(
            proxy.metric("holdfast_requests_total", &[("code", code)]),
            0.0
        );
    }
    let others = [
        "connections_opened_total",
        "retries_total",
        "retries_denied_total",
    ];
    for name in others
        .into_iter()
        .chain(["queue_length", "queue_rejected_total"])
    {
        assert_eq!(
            proxy.metric(&format!("holdfast_upstream_{name}"), &app),
            0.0
        );
    }
    assert_eq!(
        proxy.metric("holdfast_upstream_connections_limit", &app),
        128.0
    );
    assert_eq!(proxy.metric("holdfast_upstream_queue_limit", &app), 1024.0);
    assert!(proxy.metric("holdfast_build_info", &[]) >= 1.0);
    assert!(proxy.metric("holdfast_open_fds", &[]) > 0.0);
}

#[test]
fn metrics_are_text_that_prometheus_reads() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    proxy.client().get("/");
    let (_, text) = proxy.admin("/metrics");
    let mut typed = std::collections::BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(typed.insert(name, kind).is_none(), "{name} is told twice");
        }
    }
    for sample in proxy.samples() {
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| {
                sample
                    .name
                    .strip_suffix(end)
                    .filter(|base| typed.contains_key(base))
            })
            .unwrap_or(&sample.name);
        let kind = typed
            .get(base)
            .unwrap_or_else(|| panic!("{base} has no TYPE"));
        assert_eq!(
            *kind == "counter",
            sample.name.ends_with("_total"),
            "{}",
            sample.name
        );
        assert!(!sample.value.is_nan(), "{}", sample.name);
    }
}

#[test]
fn histograms_count_what_happened() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    for _ in 0..5 {
        client.get("/");
    }
    drop(client);
    proxy.metric_becomes("holdfast_request_duration_seconds_count", &[], 5.0);
    let app = [("upstream", "app")];
    proxy.metric_becomes("holdfast_upstream_first_byte_seconds_count", &app, 5.0);
    proxy.metric_becomes(
        "holdfast_upstream_connect_duration_seconds_count",
        &app,
        1.0,
    );
    proxy.metric_becomes(
        "holdfast_upstream_idle_before_reuse_seconds_count",
        &app,
        4.0,
    );
    let web = [("listener", "web")];
    proxy.metric_becomes("holdfast_client_requests_per_connection_count", &web, 1.0);
    proxy.metric_becomes("holdfast_client_requests_per_connection_sum", &web, 5.0);
}

#[test]
fn octets_are_counted_on_both_sides() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    proxy.client().post("/", &[b'a'; 10_000]);
    for (side, direction) in [("client", "rx"), ("upstream", "tx")] {
        let labels = [("side", side), ("direction", direction)];
        crate::support::eventually("ten thousand octets", || {
            proxy.metric("holdfast_bytes_total", &labels) >= 10_000.0
        });
        assert!(proxy.metric("holdfast_bytes_total", &labels) < 11_000.0);
    }
}

#[test]
fn connections_can_be_seen_while_they_work() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = Proxy::to(&origin);
    let mut busy = proxy.client_waiting_for(&origin);
    crate::support::eventually("the client's connection waits", || {
        let all = json(&proxy, "/connections").to_string();
        all.contains("\"wait\"") && all.contains(&busy.wire.local().to_string())
    });
    let all = json(&proxy, "/connections").to_string();
    assert!(
        all.contains("\"client\"") && all.contains("\"upstream\""),
        "{all}"
    );
    assert!(all.contains(&origin.address().to_string()), "{all}");
    gate.open();
    busy.response();
    crate::support::eventually("both are idle", || {
        json(&proxy, "/connections")
            .to_string()
            .matches("\"idle\"")
            .count()
            >= 2
    });
}

#[test]
fn upstreams_are_told_with_their_endpoints() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    proxy.client().get("/");
    let all = json(&proxy, "/upstreams").to_string();
    assert!(
        all.contains("\"app\"") && all.contains(&origin.address().to_string()),
        "{all}"
    );
}

#[test]
fn a_client_on_the_admin_listener_does_not_see_the_origin_nor_the_other_way_round() {
    let origin = Origin::echoing_targets();
    let proxy = Proxy::to(&origin);
    assert_eq!(proxy.client().get("/metrics").text(), "/metrics");
    assert_eq!(origin.request_count(), 1);
    proxy.admin("/metrics");
    assert_eq!(origin.request_count(), 1);
}

#[test]
fn a_slow_admin_client_holds_nobody_up() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    let address = proxy.listener("admin");
    let mut slow: Vec<_> = (0..100)
        .map(|_| crate::support::Client::to(address))
        .collect();
    slow.iter_mut()
        .for_each(|client| drop(client.send_what_it_takes("GET /metr")));
    assert_eq!(proxy.client().get("/").status(), 200);
}

/// Has a connection closed: the status, and what was said.
fn close(proxy: &Proxy, id: &str) -> (u16, String) {
    let mut client = Client::to(proxy.listener("admin"));
    client.send(format!(
        "POST /connections/close?id={id} HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    ));
    let response = client.response();
    (response.status(), response.text())
}

fn with_changes(c: &mut Config) {
    c.set("admin.allow_changes", true);
}

/// The number of the one connection on this side.
fn id_of(proxy: &Proxy, side: &str) -> String {
    let shown = json(proxy, &format!("/connections?side={side}"));
    assert_eq!(shown["matching"], 1, "{shown}");
    shown["connections"][0]["id"].to_string()
}

#[test]
fn an_operator_closes_a_client_whatever_it_is_doing() {
    let origin = Origin::saying_only("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    let proxy = Proxy::with(&origin, with_changes);
    let mut client = proxy.client();
    client.ask("/long");
    client.head();
    assert_eq!(client.wire.take(4).unwrap(), b"half");
    let id = id_of(&proxy, "client");
    assert_eq!(close(&proxy, &id).0, 202);
    assert_eq!(client.wire.until_end().1, End::Reset);
    proxy.client_closed_becomes("admin", 1.0);
    proxy.upstream_closed_becomes("admin", 1.0);
    proxy.errors_becomes("admin", 1.0);
    let line = &proxy.log(1)[0];
    let told = ["end", "client_close", "upstream_close"].map(|key| line[key].clone());
    assert_eq!(told, ["admin"; 3], "{line}");
    assert_eq!(close(&proxy, &id).0, 404, "it is closed already");
}

#[test]
fn an_idle_client_that_an_operator_closes_sees_a_clean_end() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, with_changes);
    let mut client = proxy.client();
    client.is_still_served();
    let client_is_idle = || json(&proxy, "/connections?side=client&phase=idle")["matching"] == 1;
    eventually("the client idles", client_is_idle);
    assert_eq!(close(&proxy, &id_of(&proxy, "client")).0, 202);
    client.sees_a_clean_end();
    proxy.client_closed_becomes("admin", 1.0);
}

#[test]
fn an_origins_connection_that_an_operator_closes_is_closed_between_requests() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = Proxy::with(&origin, with_changes);
    let mut client = proxy.client_waiting_for(&origin);
    assert_eq!(close(&proxy, &id_of(&proxy, "upstream")).0, 202);
    gate.open();
    assert_eq!(client.response().status(), 200);
    proxy.upstream_closed_becomes("admin", 1.0);
    client.is_still_served();
    let parked = || json(&proxy, "/connections?side=upstream&phase=idle")["matching"] == 1;
    eventually("the next one is parked", parked);
    assert_eq!(close(&proxy, &id_of(&proxy, "upstream")).0, 202);
    proxy.upstream_closed_becomes("admin", 2.0);
    origin.waits_for_open(0);
}

#[test]
fn a_connection_is_closed_only_where_changes_are_allowed_and_by_its_id() {
    let origin = Origin::ok();
    let refuses = Proxy::to(&origin);
    assert_eq!(close(&refuses, "1").0, 403);
    let allows = Proxy::with(&origin, with_changes);
    for wrong in ["", "x", "+1", "1&id=2", "99999999999999999999999"] {
        let (status, said) = close(&allows, wrong);
        assert_eq!(status, 400, "{wrong}: {said}");
    }
    assert_eq!(close(&allows, "987654321").0, 404);
    assert_eq!(allows.admin("/connections/close?id=1").0, 405);
}
