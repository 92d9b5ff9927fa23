//! Nonce echo: does ever an answer reach the wrong request, or an origin the wrong content, while origins
//! misbehave and clients leave in every phase? And is every connection accounted for afterwards?
//!
//! A short run is part of every `cargo test`; `tests/torture/nonce_echo` makes it two million requests.
//! Absent on purpose: octets behind an answer that look like an answer and come later than it does, since
//! no recipient can tell them from the next one (RFC 9112 §9.2); they come with it, or are no answer.

mod ledger;
mod origin;
mod client;

use std::fs;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use self::client::Clients;
use self::ledger::Ledger;
use crate::support::Proxy;
use crate::support::eventually;
use crate::support::metrics;

/// A number from the environment, for the long run.
fn number(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(otherwise, |text| text.parse().expect("a number"))
}

fn between(origins: &[std::net::SocketAddr]) -> Proxy {
    Proxy::configured(|c| {
        c.set("server.workers", 3).set("log.access", "off");
        c.set("listeners.line.bind", "127.0.0.1:0")
            .set("listeners.line.pipelining", "concurrent");
        c.upstream("servers", origins.to_vec())
            .upstream("pool.max_connections", 20)
            // What is idle goes by itself, so that at the end nothing is left to account for.
            .upstream("pool.idle_timeout", "1s")
            .upstream("timeouts.response_header", "1s");
    })
}

#[test]
fn no_answer_meets_another_request_and_every_connection_is_accounted_for() {
    let requests = number("NONCE_ECHO_REQUESTS", 12_000);
    let seed = number("NONCE_ECHO_SEED", 1);
    let ledger = Arc::new(Ledger::default());
    let origins = [0, 1, 2].map(|nth| origin::misbehaving(seed + nth, &ledger));
    let proxy = between(&origins);
    let since = Instant::now();
    let clients = Clients {
        listeners: [proxy.address(), proxy.listener("line")],
        count: number("NONCE_ECHO_CLIENTS", 48),
        requests,
        seed,
        until: since + Duration::from_secs(number("NONCE_ECHO_SECONDS", 120)),
    };
    let tally = clients.run();
    println!(
        "{tally} in {:.0} s; {ledger}",
        since.elapsed().as_secs_f64()
    );
    assert!(tally.sent() >= requests, "out of time");
    assert_eq!(tally.mixed(), 0, "an answer reached another request");
    ledger.is_clean();
    nothing_is_left(&proxy);
    every_connection_has_its_reason(&proxy, &ledger);
}

/// The process's sockets, by number, but for those that listen and those of the machine's own: what is
/// left is connections, or was.
fn connections_of(proxy: &Proxy) -> Vec<String> {
    let of = |what: &str| format!("/proc/{}/{what}", proxy.id());
    let mut at_home = Vec::new();
    for (table, column) in [("tcp", 9), ("tcp6", 9), ("unix", 6), ("netlink", 9)] {
        let table = fs::read_to_string(of(&format!("net/{table}"))).unwrap_or_default();
        for line in table.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // The state of a TCP socket comes third; `0A` listens.
            if column != 9 || fields.len() < 12 || fields[3] == "0A" {
                at_home.extend(fields.get(column).map(|number| (*number).to_owned()));
            }
        }
    }
    let links = fs::read_dir(of("fd")).unwrap().flatten();
    let targets = links.filter_map(|link| fs::read_link(link.path()).ok());
    let numbers = targets.filter_map(|target| {
        let target = target.to_string_lossy().into_owned();
        let number = target.strip_prefix("socket:[")?.strip_suffix(']')?;
        (!at_home.iter().any(|home| home == number)).then(|| number.to_owned())
    });
    numbers.collect()
}

/// Every gauge of something that lives goes back to where it was.
fn nothing_is_left(proxy: &Proxy) {
    let gauges = [
        "holdfast_client_connections",
        "holdfast_requests_in_flight",
        "holdfast_upstream_connections",
        "holdfast_upstream_endpoint_connections",
        "holdfast_upstream_queue_length",
        "holdfast_tunnels",
    ];
    for gauge in gauges {
        proxy.metric_becomes(gauge, &[], 0.0);
    }
    eventually("no connection is left open", || {
        connections_of(proxy).is_empty()
    });
    assert_eq!(proxy.metric("holdfast_panics_total", &[]), 0.0);
}

/// What was opened or accepted was closed, each once, for a reason that has a name.
fn every_connection_has_its_reason(proxy: &Proxy, ledger: &Ledger) {
    let samples = proxy.samples();
    let of = |name: &str| metrics::sum(&samples, name, &[]).expect("the series is there");
    for (side, opened) in [("client", "accepted_total"), ("upstream", "opened_total")] {
        let closed = format!("holdfast_{side}_connections_closed_total");
        let opened = of(&format!("holdfast_{side}_connections_{opened}"));
        println!(
            "{side} connections: {opened} opened, {} closed:",
            of(&closed)
        );
        for sample in samples.iter().filter(|s| s.name == closed && s.value > 0.0) {
            println!("{:>10} {:?}", sample.value, sample.labels);
            let reason = &sample.labels["reason"];
            assert!(
                !reason.is_empty() && reason != "ours",
                "{:?}",
                sample.labels
            );
        }
        assert_eq!(opened, of(&closed), "of the {side} side");
        assert!(opened > 0.0);
    }
    let asked = of("holdfast_upstream_requests_total");
    let begun = ledger.begun();
    assert!(begun <= asked, "{begun} at the origins, {asked} asked");
    let reused = |outcome| {
        let labels = [("outcome", outcome)];
        metrics::sum(&samples, "holdfast_upstream_requests_total", &labels).unwrap()
    };
    let share = (reused("reused") + reused("reused_after_wait")) / asked;
    println!(
        "{:.1} % of {asked} requests reused a connection",
        share * 100.0
    );
    // The origins end about one connection in ten exchanges; what is reused must not suffer more.
    assert!(share > 0.85, "only {share} of the requests reused one");
}
