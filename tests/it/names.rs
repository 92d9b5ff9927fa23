//! Servers that are names: resolved in the background, shown, and counted.

use crate::support::Origin;
use crate::support::Proxy;
use crate::support::eventually;

/// The origin by a name that every machine knows, beside one that none does.
fn by_name(origin: &Origin) -> Proxy {
    let named = format!("localhost:{}", origin.address().port());
    Proxy::configured(|config| {
        config
            .upstream("servers", [named.as_str(), "no-such-host.invalid:80"])
            .set("dns.family", "ipv4")
            .set("dns.refresh_interval", "1s");
    })
}

#[test]
fn a_name_that_does_not_resolve_keeps_no_other_from_serving() {
    let origin = Origin::ok();
    let proxy = by_name(&origin);
    assert_eq!(proxy.client().get("/").status(), 200);
    eventually("a warning with the name", || {
        let said = proxy.stderr();
        said.contains("no-such-host.invalid") && said.contains("dns") && said.contains("warn")
    });
}

#[test]
fn names_are_shown_with_when_they_were_last_resolved() {
    let origin = Origin::ok();
    let proxy = by_name(&origin);
    let (_, text) = proxy.admin("/upstreams");
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    let app = &shown["upstreams"][0];
    let (good, bad) = (&app["names"][0], &app["names"][1]);
    assert_eq!(good["addresses"][0], origin.address().to_string());
    assert!(good["last_resolved"].is_string() && good["last_failure"].is_null());
    assert!(bad["last_resolved"].is_null() && bad["last_failure"].is_string());
    assert_eq!(
        app["endpoints"][0]["server"],
        good["name"]
            .as_str()
            .map_or_else(String::new, |host| format!("{host}:{}", good["port"]))
    );
    assert_eq!(app["endpoints"][0]["standing"], "serving");
}

#[test]
fn names_are_looked_up_again_and_keep_their_connections() {
    let origin = Origin::ok();
    let proxy = by_name(&origin);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    let refreshed = [("upstream", "app"), ("result", "success")];
    eventually("two more refreshes", || {
        proxy.metric("holdfast_dns_refresh_total", &refreshed) >= 3.0
    });
    assert_eq!(client.get("/").status(), 200);
    assert_eq!(origin.connections(), 1);
    assert!((proxy.metric("holdfast_dns_addresses", &[("upstream", "app")]) - 1.0).abs() < 1e-9);
}
