//! Another configuration in a running process: whole or not at all, and what is the same stays.

use std::fs;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use crate::support::Client;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::eventually;
use crate::support::origin::OK;
use crate::support::program::Port;
use crate::support::proxy;

#[test]
fn idle_connections_of_unchanged_endpoints_survive_a_reload() {
    let origins = [Origin::ok(), Origin::ok()];
    let servers = |of: &[&Origin]| of.iter().map(|at| at.address()).collect::<Vec<_>>();
    let mut proxy = Proxy::with(&origins[0], |_| ());
    let mut client = proxy.client();
    client.is_still_served();
    proxy.reloads(|c| {
        c.upstream("pool.max_connections", 3);
        c.upstream("servers", servers(&[&origins[0], &origins[1]]));
        c.upstream("balance", "round_robin");
    });
    for _ in 0..8 {
        client.is_still_served();
    }
    assert_eq!(origins[0].connections(), 1, "the same connection as before");
    assert_eq!(
        origins[1].connections(),
        1,
        "an endpoint that joins is used"
    );
    let shown = proxy.admin("/upstreams").1;
    assert!(shown.contains("\"max_connections\":3"), "{shown}");
}

#[test]
fn settings_of_a_listener_hold_for_the_next_exchange_of_an_open_connection() {
    let origin = Origin::ok();
    let mut proxy = Proxy::to(&origin);
    let mut client = proxy.client();
    assert!(client.get("/").head.has("keep-alive"));
    proxy.reloads(|c| {
        c.listener("keep_alive_header", false);
        c.listener("max_requests", 2);
    });
    let answer = client.get("/");
    assert!(!answer.head.has("keep-alive"));
    assert!(
        answer.head.lists("connection", "close"),
        "its second is its last"
    );
    assert_eq!(origin.connections(), 1);
}

#[test]
fn limits_on_connections_count_those_from_before() {
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, |c| {
        c.listener("max_connections_per_client", 5);
    });
    let mut first = proxy.client();
    first.is_still_served();
    proxy.reloads(|c| {
        c.listener("max_connections_per_client", 1);
    });
    assert_eq!(proxy.client().get("/").status(), 429);
    first.is_still_served();
    drop(first);
    proxy.client_closed_becomes("peer_fin", 1.0);
    proxy.client().is_still_served();
}

#[test]
fn a_route_leads_elsewhere_from_the_next_request_on() {
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let mut proxy = Proxy::with(&old, |c| {
        c.route("path_prefix", "/");
    });
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "old");
    proxy.reloads(|c| {
        c.set("upstreams.other.servers", [new.address()]);
        c.set("routes.main.upstream", "other");
    });
    assert_eq!(client.get("/").text(), "new");
    proxy.reloads(|c| {
        c.set("dns.removal_grace", "0s");
        c.forget("upstreams.app.servers");
    });
    old.waits_for_open(0);
    assert_eq!(client.get("/").text(), "new");
}

#[test]
fn an_endpoint_that_is_taken_away_finishes_what_it_has() {
    let (gate, stays) = (Gate::new(), Origin::named("stays"));
    let leaves = Origin::gated(&gate, OK);
    let mut proxy = Proxy::with(&leaves, |c| {
        c.set("dns.removal_grace", "0s");
    });
    let mut client = proxy.client_waiting_for(&leaves);
    proxy.reloads(|c| {
        c.upstream("servers", [stays.address()]);
    });
    assert_eq!(proxy.client().get("/").text(), "stays");
    gate.open();
    assert_eq!(client.response().text(), "ok");
    leaves.waits_for_open(0);
    proxy.upstream_closed_becomes("endpoint_removed", 1.0);
}

#[test]
fn a_tunnel_does_not_notice_a_reload() {
    let origin = Origin::echoing("websocket");
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("dns.removal_grace", "0s");
    });
    let mut client = proxy.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: it.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!(client.head().status(), 101);
    let other = Origin::ok();
    proxy.reloads(|c| {
        c.upstream("servers", [other.address()]);
        c.upstream("timeouts.tunnel_idle", "30s");
        c.listener("idle_timeout", "1s");
    });
    client.send("hello");
    assert_eq!(client.wire.take(5).unwrap(), b"hello");
}

#[test]
fn listeners_come_and_go_and_an_unchanged_one_is_not_touched() {
    let origin = Origin::ok();
    let ports = [Port::held(), Port::held()];
    let [first, second] = ports.each_ref().map(|port| port.address().to_string());
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("listeners.extra.bind", first.as_str());
    });
    let mut old = Client::to(first.parse().unwrap());
    old.is_still_served();
    let mut web = proxy.client();
    web.is_still_served();
    proxy.reloads(|c| {
        c.set("listeners.extra.bind", second.as_str());
        c.listener("backlog", 64);
    });
    Client::to(second.parse().unwrap()).is_still_served();
    eventually("the old address is given up", || {
        TcpStream::connect_timeout(&first.parse().unwrap(), Duration::from_secs(1)).is_err()
    });
    old.is_still_served();
    web.is_still_served();
    proxy.client().is_still_served();
    proxy.reloads(|c| {
        c.forget("listeners.extra.bind");
        c.set("listeners.renamed.bind", second.as_str());
    });
    Client::to(second.parse().unwrap()).is_still_served();
    proxy.metric_becomes(
        "holdfast_client_connections_accepted_total",
        &[("listener", "renamed")],
        1.0,
    );
}

#[test]
fn an_address_gives_way_to_one_that_covers_it() {
    let origin = Origin::ok();
    let held = Port::held();
    let port = held.number;
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("listeners.extra.bind", format!("127.0.0.1:{port}"));
    });
    proxy.reloads(|c| {
        c.set("listeners.extra.bind", format!("0.0.0.0:{port}"));
    });
    eventually("the wide address serves", || {
        let client = TcpStream::connect(format!("127.0.0.2:{port}"));
        client.is_ok()
    });
}

#[test]
fn a_configuration_with_a_mistake_changes_nothing_and_every_mistake_is_told() {
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("admin.allow_changes", true);
    });
    let mut client = proxy.client();
    client.is_still_served();
    proxy.refuses_to_reload(|c| {
        c.listener("max_requests", 1);
        c.upstream("blance", "p2c");
        c.upstream("timeouts.body_idle", 5);
    });
    assert!(!client.get("/").head.lists("connection", "close"));
    let line = proxy.tells("reload_refused");
    assert!(
        line.contains("blance") && line.contains("body_idle"),
        "{line}"
    );
    let admin = proxy.listener("admin").to_string();
    let told = proxy::run(&["reload", "--admin", &admin]);
    assert_eq!(told.code, Some(1));
    assert_eq!(told.stderr.lines().count(), 2, "{}", told.stderr);
    assert_eq!(proxy.reloads_so_far("refused"), 2.0);
}

#[test]
fn an_address_that_cannot_be_had_changes_nothing_at_all() {
    let origin = Origin::ok();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let held = Port::held();
    let (taken, free) = (other.local_addr().unwrap(), held.address().to_string());
    let mut proxy = Proxy::to(&origin);
    proxy.refuses_to_reload(|c| {
        c.set("listeners.a.bind", free.as_str());
        c.set("listeners.b.bind", taken);
        c.listener("max_requests", 1);
    });
    assert!(
        TcpStream::connect(&free).is_err(),
        "what was bound is closed again"
    );
    assert!(!proxy.client().get("/").head.lists("connection", "close"));
}

#[test]
fn an_order_over_http_reloads_and_says_what_needs_a_restart() {
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("admin.allow_changes", true);
    });
    let began = proxy.metric("holdfast_config_last_reload_timestamp_seconds", &[]);
    assert!(began > 0.0);
    proxy.rewrite(|c| {
        c.set("server.workers", 1);
        c.listener("max_requests", 1);
    });
    let admin = proxy.listener("admin").to_string();
    let told = proxy::run(&["reload", "--admin", &admin]);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert_eq!(
        told.stderr,
        "server.workers: changed, and acts after a restart\n"
    );
    assert!(proxy.client().get("/").head.lists("connection", "close"));
    let now = proxy.metric("holdfast_config_last_reload_timestamp_seconds", &[]);
    assert!(now > began);
    assert!(proxy.admin("/config").1.contains("\"max_requests\":1"));
}

#[test]
fn a_file_that_changes_is_read_again_by_itself_and_a_bad_one_once() {
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("server.watch_config", true);
    });
    proxy.rewrite(|c| {
        c.listener("max_requests", 1);
    });
    proxy.reloaded("applied", 1.0);
    assert!(proxy.client().get("/").head.lists("connection", "close"));
    let added = proxy.file().with_file_name("conf.d");
    fs::create_dir(&added).unwrap();
    // Whoever reads it meanwhile reads all of it.
    let place = |text: &str| {
        fs::write(added.join("beside"), text).unwrap();
        fs::rename(added.join("beside"), added.join("bad.toml")).unwrap();
    };
    place("nonsense");
    proxy.reloaded("refused", 1.0);
    place("listeners.web.max_requests = 2");
    proxy.reloaded("applied", 2.0);
    assert_eq!(proxy.reloads_so_far("refused"), 1.0);
    assert!(!proxy.client().get("/").head.lists("connection", "close"));
}

#[test]
fn a_drain_goes_by_the_settings_of_the_last_reload() {
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("drain.delay", "1h");
    });
    proxy.reloads(|c| {
        c.set("drain.delay", "0s");
    });
    proxy.terminate();
    assert_eq!(proxy.exit().code(), Some(0));
}

#[test]
fn connections_from_before_count_under_a_total_that_a_reload_sets() {
    let gate = Gate::new();
    let slow = Origin::gated(&gate, OK);
    let mut proxy = Proxy::with(&slow, |c| {
        c.upstream("pool.queue_timeout", "50s");
    });
    let ask = |proxy: &Proxy| {
        let mut client = proxy.client();
        std::thread::spawn(move || client.get("/").status())
    };
    let mut asked = vec![ask(&proxy), ask(&proxy)];
    slow.waits_for_requests(2);
    proxy.reloads(|c| {
        c.upstream("pool.max_connections_total", 2);
    });
    asked.push(ask(&proxy));
    proxy.queue_becomes(1.0);
    // Raised, it serves who waited under the lower one; lifted, it holds nobody.
    proxy.reloads(|c| {
        c.upstream("pool.max_connections_total", 3);
    });
    slow.waits_for_requests(3);
    asked.push(ask(&proxy));
    proxy.queue_becomes(1.0);
    proxy.reloads(|c| {
        c.forget("upstreams.app.pool.max_connections_total");
    });
    slow.waits_for_requests(4);
    gate.open();
    for asked in asked {
        assert_eq!(asked.join().unwrap(), 200);
    }
    slow.waits_for_open(4);
    proxy.reloads(|c| {
        c.upstream("pool.max_connections_total", 1);
    });
    slow.waits_for_open(1);
    proxy.upstream_closed_becomes("pool_full", 3.0);
}

#[test]
fn other_source_addresses_hold_for_the_next_connects_and_ports_stay_counted() {
    let from: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&from);
    let origin = Origin::playing(move |peer| {
        let address = peer.wire.stream().peer_addr().unwrap().ip();
        seen.lock().unwrap().push(address.to_string());
        while peer.request().is_some() {
            peer.send(OK);
        }
    });
    let mut proxy = Proxy::with(&origin, |c| {
        c.upstream("connect.source_addresses", ["127.0.0.2"]);
        c.upstream("pool.unsafe_max_idle", "0s");
    });
    proxy.client().is_still_served();
    proxy.reloads(|c| {
        c.upstream("connect.source_addresses", ["127.0.0.3", "127.0.0.2"]);
    });
    let ports = [("upstream", "app"), ("state", "in_use")];
    proxy.metric_becomes("holdfast_local_ports", &ports, 1.0);
    // A POST takes none that has idled; the new address has the most ports.
    assert_eq!(proxy.client().post("/", b"x").status(), 200);
    assert_eq!(*from.lock().unwrap(), ["127.0.0.2", "127.0.0.3"]);
    proxy.reloads(|c| {
        c.forget("upstreams.app.connect.source_addresses");
    });
    assert_eq!(proxy.client().post("/", b"x").status(), 200);
    assert_eq!(from.lock().unwrap().last().unwrap(), "127.0.0.1");
    proxy.metric_becomes("holdfast_local_ports", &ports, 3.0);
    proxy.reloads(|c| {
        c.upstream("connect.source_addresses", ["192.0.2.7"]);
    });
    proxy.tells("192.0.2.7 cannot be connected from");
}

#[test]
fn the_interval_of_tcp_samples_is_named_as_needing_a_restart_and_new_upstreams_are_sampled() {
    let (origin, other) = (Origin::ok(), Origin::ok());
    let mut proxy = Proxy::with(&origin, |c| {
        c.set("metrics.tcp_info_interval", "1s");
    });
    proxy.reloads(|c| {
        c.set("metrics.tcp_info_interval", "2s");
        c.set("upstreams.other.servers", [other.address()]);
        c.set("routes.main.upstream", "other");
    });
    proxy.tells("metrics.tcp_info_interval");
    proxy.client().is_still_served();
    let shown = proxy.admin("/metrics").1;
    assert!(
        shown.contains("tcp_rtt_seconds_count{upstream=\"other\"}"),
        "{shown}"
    );
}

#[test]
fn who_is_ejected_stays_so_and_a_reload_brings_checks() {
    let (good, bad) = (
        Origin::ok(),
        Origin::playing(|peer| {
            while peer.request().is_some() {
                peer.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
            }
        }),
    );
    let mut proxy = Proxy::over(&[&good, &bad], |c| {
        c.upstream("balance", "round_robin");
        c.upstream("health.failures", 2);
        c.upstream("health.eject", "1h");
    });
    let ejected = |proxy: &Proxy| proxy.admin("/upstreams").1.matches("ejected since").count();
    let mut client = proxy.client();
    for _ in 0..4 {
        client.get("/");
    }
    assert_eq!(ejected(&proxy), 1);
    let asked = bad.request_count();
    proxy.reloads(|c| {
        c.upstream("pool.max_connections", 7);
    });
    for _ in 0..4 {
        client.is_still_served();
    }
    assert_eq!((ejected(&proxy), bad.request_count()), (1, asked));
    let asked = good.request_count();
    proxy.reloads(|c| {
        c.upstream("health.active_path", "/alive");
        c.upstream("health.interval", "50ms");
    });
    good.waits_for_requests(asked + 2);
}
