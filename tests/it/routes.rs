//! Which upstream a request goes to: exact host, then longest path prefix, then priority.

use crate::support::Origin;
use crate::support::Proxy;
use crate::support::config::Config;

fn route(c: &mut Config, name: &str, hosts: &str, prefix: &str, upstream: &str) {
    c.set(&format!("routes.{name}.hosts"), [hosts]);
    c.set(&format!("routes.{name}.path_prefix"), prefix);
    c.set(&format!("routes.{name}.upstream"), upstream);
}

fn ask(proxy: &Proxy, host: &str, target: &str) -> (u16, String) {
    let mut client = proxy.client();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    let answer = client.response();
    (answer.status(), answer.text())
}

#[test]
fn the_most_specific_route_wins() {
    let names = ["any", "shop", "api", "deep"];
    let origins = names.map(Origin::named);
    let proxy = Proxy::configured(|c| {
        for (name, origin) in names.iter().zip(&origins) {
            c.set(&format!("upstreams.{name}.servers"), [origin.address()]);
        }
        route(c, "any", "*", "/", "any");
        route(c, "shop", "shop.test", "/", "shop");
        route(c, "api", "shop.test", "/api", "api");
        route(c, "deep", "*", "/api/v2/deep", "deep");
    });
    let cases = [
        ("other.test", "/", "any"),
        ("shop.test", "/", "shop"),
        ("SHOP.test", "/a", "shop"),
        ("shop.test:8080", "/a", "shop"),
        ("shop.test", "/api", "api"),
        ("shop.test", "/api/v2/deep", "api"),
        ("shop.test", "/api?x=/", "api"),
        ("other.test", "/api/v2/deep/x", "deep"),
        ("other.test", "/api/v2", "any"),
        ("sub.shop.test", "/api", "any"),
    ];
    for (host, target, expected) in cases {
        assert_eq!(
            ask(&proxy, host, target),
            (200, expected.to_owned()),
            "{host}{target}"
        );
    }
}

#[test]
fn what_no_route_matches_is_a_404() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| route(c, "main", "shop.test", "/api", "app"));
    assert_eq!(ask(&proxy, "shop.test", "/api").0, 200);
    assert_eq!(ask(&proxy, "shop.test", "/other").0, 404);
    assert_eq!(ask(&proxy, "other.test", "/api").0, 404);
    assert_eq!(origin.request_count(), 1);
    proxy.errors_becomes("no_route", 2.0);
}

#[test]
fn a_404_of_ours_leaves_the_connection_open() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| route(c, "main", "*", "/api", "app"));
    let mut client = proxy.client();
    let answer = client.get("/other");
    assert_eq!(answer.status(), 404);
    assert!(
        answer
            .head
            .field("proxy-status")
            .unwrap()
            .starts_with("holdfast; error=")
    );
    assert_eq!(client.get("/api").status(), 200);
}

#[test]
fn with_one_upstream_and_no_route_everything_goes_to_it() {
    let origin = Origin::ok();
    let proxy = Proxy::to(&origin);
    assert_eq!(ask(&proxy, "any.test", "/any").0, 200);
}

#[test]
fn the_higher_priority_wins_between_equals() {
    let (low, high) = (Origin::named("low"), Origin::named("high"));
    let proxy = Proxy::configured(|c| {
        c.set("upstreams.low.servers", [low.address()]);
        c.set("upstreams.high.servers", [high.address()]);
        route(c, "a", "*", "/", "low");
        route(c, "b", "*", "/", "high");
        c.set("routes.b.priority", 10);
    });
    assert_eq!(ask(&proxy, "a.test", "/").1, "high");
}

#[test]
fn requests_are_counted_by_their_route() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        route(c, "one", "*", "/one", "app");
        route(c, "two", "*", "/two", "app");
    });
    let mut client = proxy.client();
    for target in ["/one", "/one", "/two"] {
        assert_eq!(client.get(target).status(), 200);
    }
    let of = |route| [("route", route), ("code", "2xx")];
    proxy.metric_becomes("holdfast_requests_total", &of("one"), 2.0);
    proxy.metric_becomes("holdfast_requests_total", &of("two"), 1.0);
}

#[test]
fn several_listeners_serve_at_once() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.set("listeners.other.bind", "127.0.0.1:0");
    });
    for listener in ["web", "other"] {
        let mut client = crate::support::Client::to(proxy.listener(listener));
        assert_eq!(client.get("/").status(), 200);
        let labels = [("listener", listener)];
        assert_eq!(
            proxy.metric("holdfast_client_connections_accepted_total", &labels),
            1.0
        );
    }
}
