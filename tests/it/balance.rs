//! Which endpoint gets the next request.

use crate::support::Client;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::config::Config;
use crate::support::config::Raw;
use crate::support::origin::Nowhere;
use crate::support::origin::answer;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn answers(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| client.get("/").text()).collect()
}

const MOMENT: Duration = Duration::from_millis(30);

/// Answers every request with its name, after so long.
fn taking(time: Duration, name: &'static str) -> Origin {
    Origin::playing(move |peer| {
        while peer.request().is_some() {
            std::thread::sleep(time);
            peer.send(answer(name));
        }
    })
}

fn table(origin: &Origin, rest: &str) -> String {
    format!("{{ address = \"{}\", {rest} }}", origin.address())
}

fn servers(c: &mut Config, tables: &[String]) {
    c.upstream("servers", Raw(format!("[{}]", tables.join(", "))));
}

#[test]
fn round_robin_takes_each_in_turn() {
    let (a, b, c) = (Origin::named("a"), Origin::named("b"), Origin::named("c"));
    let proxy = Proxy::over(&[&a, &b, &c], |config| {
        config.upstream("balance", "round_robin");
    });
    let mut all = answers(&mut proxy.client(), 300);
    for turn in all.chunks_mut(3) {
        turn.sort();
        assert_eq!(turn, ["a", "b", "c"]);
    }
}

#[test]
fn round_robin_is_exact_over_many_clients() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::over(&[&a, &b], |config| {
        config.upstream("balance", "round_robin");
    });
    for _ in 0..50 {
        assert_eq!(proxy.client().get("/").status(), 200);
    }
    assert_eq!((a.request_count(), b.request_count()), (25, 25));
}

#[test]
fn weights_share_the_requests_exactly() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::configured(|c| {
        servers(c, &[table(&a, "weight = 3"), table(&b, "weight = 1")]);
        c.upstream("balance", "round_robin");
    });
    answers(&mut proxy.client(), 400);
    assert_eq!((a.request_count(), b.request_count()), (300, 100));
}

#[test]
fn weights_count_for_the_other_balancers_too() {
    for balance in ["p2c", "least_requests", "ewma"] {
        // `ewma` weighs the time of an answer; a busy machine adds to it, but not a hundredfold.
        let (a, b) = (taking(MOMENT, "a"), taking(MOMENT, "b"));
        let proxy = Proxy::configured(|c| {
            servers(c, &[table(&a, "weight = 99"), table(&b, "weight = 1")]);
            c.upstream("balance", balance);
        });
        answers(&mut proxy.client(), 30);
        assert!(a.request_count() > b.request_count(), "{balance}");
    }
}

const BALANCES: [&str; 5] = ["p2c", "round_robin", "least_requests", "ewma", "hash"];

#[test]
fn a_backup_is_used_only_when_the_primaries_are_down() {
    for balance in BALANCES {
        let (primary, backup) = (Origin::named("primary"), Origin::named("backup"));
        let proxy = Proxy::configured(|c| {
            let primary = table(&primary, "weight = 1");
            servers(c, &[table(&backup, "backup = true"), primary]);
            c.upstream("balance", balance);
        });
        let names = answers(&mut proxy.client(), 20);
        assert!(names.iter().all(|name| name == "primary"), "{balance}");
        assert_eq!(backup.connections(), 0, "{balance}");
    }
}

#[test]
fn a_backup_stands_in_for_primaries_that_refuse() {
    for balance in BALANCES {
        let backup = Origin::named("backup");
        let nowhere = Nowhere::new();
        let proxy = Proxy::configured(|c| {
            let primary = format!("{{ address = \"{}\" }}", nowhere.address);
            servers(c, &[primary, table(&backup, "backup = true")]);
            c.upstream("balance", balance);
        });
        let names = answers(&mut proxy.client(), 10);
        assert!(names.iter().all(|name| name == "backup"), "{balance}");
    }
}

#[test]
fn least_requests_avoids_the_one_that_is_busy() {
    let gate = Gate::new();
    let slow = Origin::gated(&gate, answer("slow"));
    let quick = Origin::named("quick");
    let proxy = Proxy::over(&[&slow, &quick], |c| {
        c.upstream("balance", "least_requests");
    });
    let mut held = Vec::new();
    while slow.request_count() == 0 {
        assert!(held.len() < 10, "the slow one is never asked");
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
        let seen = slow.request_count() + quick.request_count();
        crate::support::eventually("it is asked", || {
            slow.request_count() + quick.request_count() > seen || client.wire.some_is_here()
        });
        held.push(client);
    }
    let mut client = proxy.client();
    assert!(answers(&mut client, 50).iter().all(|name| name == "quick"));
    gate.open();
}

#[test]
fn p2c_uses_all_of_them() {
    let (a, b, c) = (Origin::named("a"), Origin::named("b"), Origin::named("c"));
    let proxy = Proxy::over(&[&a, &b, &c], |_| ());
    answers(&mut proxy.client(), 300);
    for origin in [&a, &b, &c] {
        assert!(origin.request_count() > 30, "{}", origin.request_count());
    }
}

#[test]
fn an_endpoints_own_cap_sends_the_rest_to_the_others() {
    let gate = Gate::new();
    let origins = [(); 2].map(|()| Origin::gated(&gate, answer("x")));
    let proxy = Proxy::configured(|c| {
        let small = table(&origins[0], "max_connections = 1");
        servers(c, &[small, table(&origins[1], "max_connections = 5")]);
        c.upstream("balance", "round_robin");
    });
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: it.test\r\n\r\n");
    }
    crate::support::eventually("all six are at an origin", || {
        origins[0].request_count() + origins[1].request_count() == 6
    });
    assert_eq!((origins[0].open_most(), origins[1].open_most()), (1, 5));
    gate.open();
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.response().status(), 200));
}

/// Who answers each of sixty sessions.
fn sessions(client: &mut Client) -> Vec<String> {
    let ask = |session| {
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: it.test\r\nCookie: a=b; sid={session}\r\n\r\n"
        ));
        client.response().text()
    };
    (0..60).map(ask).collect()
}

#[test]
fn a_session_stays_with_its_endpoint_and_moves_only_while_that_is_gone() {
    let dead = Arc::new(AtomicBool::new(false));
    let is_dead = Arc::clone(&dead);
    let mortal = Origin::playing(move |peer| {
        while peer.request().is_some() && !is_dead.load(Ordering::SeqCst) {
            peer.send(answer("mortal"));
        }
    });
    let (b, c) = (Origin::named("b"), Origin::named("c"));
    let proxy = Proxy::over(&[&mortal, &b, &c], |config| {
        config.upstream("balance", "hash");
        config.upstream("hash_key", "cookie:sid");
        config.upstream("health.failures", 1);
        config.upstream("health.eject", "4s");
    });
    let mut client = proxy.client();
    let at_first = sessions(&mut client);
    assert_eq!(
        sessions(&mut proxy.client()),
        at_first,
        "another client, the same sessions"
    );
    let held = |names: &[String], name: &str| names.iter().filter(|at| *at == name).count();
    assert!(
        ["mortal", "b", "c"]
            .iter()
            .all(|name| held(&at_first, name) > 8)
    );
    dead.store(true, Ordering::SeqCst);
    crate::support::eventually("it is ejected", || {
        // An error may close a client's connection, so each asks on one of its own.
        for session in 0..60 {
            let mut client = proxy.client();
            client.send(format!(
                "GET / HTTP/1.1\r\nHost: it.test\r\nCookie: sid={session}\r\n\r\n"
            ));
            client.response();
        }
        let labels = [("upstream", "app"), ("state", "ejected")];
        proxy.metric("holdfast_upstream_endpoints", &labels) == 1.0
    });
    let mut client = proxy.client();
    let meanwhile = sessions(&mut client);
    let moved = at_first
        .iter()
        .zip(&meanwhile)
        .filter(|(then, now)| then != now);
    assert!(
        moved.clone().all(|(then, _)| then == "mortal"),
        "only its sessions move"
    );
    assert_eq!(moved.count(), held(&at_first, "mortal"));
    dead.store(false, Ordering::SeqCst);
    // A connection carries ten thousand requests at most, so each look has its own.
    crate::support::eventually("all are at home", || {
        sessions(&mut proxy.client()) == at_first
    });
}

#[test]
fn a_client_meets_the_same_endpoint_by_its_address_and_a_path_by_its_own() {
    let origins = [Origin::named("a"), Origin::named("b"), Origin::named("c")];
    let all: Vec<&Origin> = origins.iter().collect();
    let by_client = Proxy::over(&all, |c| {
        c.upstream("balance", "hash");
    });
    let first = by_client.client().get("/").text();
    assert!((0..30).all(|_| by_client.client().get("/").text() == first));
    let by_path = Proxy::over(&all, |c| {
        c.upstream("balance", "hash");
        c.upstream("hash_key", "path");
    });
    let mut client = by_path.client();
    let of = |client: &mut Client, query: &str| -> Vec<String> {
        let get = |n| client.get(&format!("/{n}?{query}")).text();
        (0..30).map(get).collect()
    };
    let names = of(&mut client, "x");
    assert_eq!(of(&mut client, "y"), names);
    assert!(names.iter().any(|name| *name != names[0]));
}

#[test]
fn ewma_sends_few_requests_to_the_one_that_is_slow() {
    let slow = taking(10 * MOMENT, "slow");
    let quick = Origin::named("quick");
    let proxy = Proxy::over(&[&slow, &quick], |c| {
        c.upstream("balance", "ewma");
    });
    answers(&mut proxy.client(), 60);
    // Half of them would be no balance at all.
    assert!(
        (1..15).contains(&slow.request_count()),
        "{}",
        slow.request_count()
    );
}

/// Who answers each of so many keys.
fn by_path(proxy: &Proxy, keys: usize) -> Vec<String> {
    let mut client = proxy.client();
    (0..keys)
        .map(|key| client.get(&format!("/{key}")).text())
        .collect()
}

fn hashed(c: &mut Config) {
    c.upstream("balance", "hash");
    c.upstream("hash_key", "path");
}

#[test]
fn an_endpoint_that_joins_takes_its_share_of_the_keys_at_once_and_gives_it_back_when_it_leaves() {
    let origins = ["a", "b", "c", "d"].map(Origin::named);
    let all: Vec<&Origin> = origins.iter().collect();
    let mut proxy = Proxy::over(&all[..3], |c| {
        hashed(c);
        c.set("dns.removal_grace", "1s");
    });
    let before = by_path(&proxy, 240);
    proxy.reloads(|c| {
        c.upstream("servers", origins.each_ref().map(Origin::address));
    });
    let joined = by_path(&proxy, 240);
    let moved = before.iter().zip(&joined).filter(|(then, now)| then != now);
    assert!(
        moved.clone().all(|(_, now)| now == "d"),
        "to the new one only"
    );
    // A quarter is 60; 240 throws of such dice are outside of this once in a million times.
    let moved = moved.count();
    assert!((28..95).contains(&moved), "{moved}");
    proxy.reloads(|c| {
        c.upstream("servers", [0, 1, 2].map(|at: usize| all[at].address()));
    });
    assert_eq!(by_path(&proxy, 240), before);
    proxy.upstream_closed_becomes("endpoint_removed", 1.0);
}

#[test]
fn a_key_that_everyone_asks_for_is_spread_beyond_a_quarter_above_its_share() {
    let gate = Gate::new();
    let origins = [(); 3].map(|()| Origin::gated(&gate, answer("x")));
    let proxy = Proxy::over(&origins.each_ref(), hashed);
    let mut clients: Vec<Client> = (0..60).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.ask("/same"));
    let counts = || origins.each_ref().map(Origin::request_count);
    crate::support::eventually("all are at an origin", || {
        counts().iter().sum::<usize>() == 60
    });
    let mut counts = counts();
    counts.sort_unstable();
    // The share of 60 is 20, and a quarter above is 25.
    assert!((16..=25).contains(&counts[2]), "{counts:?}");
    assert!(
        counts[1] >= 16,
        "the second in line is as fixed as the first: {counts:?}"
    );
    gate.open();
    let served = |client: &mut Client| assert_eq!(client.response().status(), 200);
    clients.iter_mut().for_each(served);
}

#[test]
fn keys_are_shared_out_by_weight() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::configured(|c| {
        servers(c, &[table(&a, "weight = 9"), table(&b, "weight = 1")]);
        hashed(c);
    });
    by_path(&proxy, 240);
    // A tenth is 24, and a fifth is five deviations off.
    assert!(
        (5..48).contains(&b.request_count()),
        "{}",
        b.request_count()
    );
}

#[test]
fn an_endpoint_that_joins_is_used_at_once_and_the_others_give_up_what_is_beyond_their_share() {
    let gate = Gate::new();
    let old = Origin::gated(&gate, answer("old"));
    let new = Origin::named("new");
    let mut proxy = Proxy::with(&old, |c| {
        c.upstream("balance", "round_robin");
    });
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.ask("/"));
    old.waits_for_requests(6);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().status(), 200);
    }
    old.waits_for_open(6);
    proxy.reloads(|c| {
        c.upstream("servers", [old.address(), new.address()]);
    });
    assert!(answers(&mut clients[0], 2).contains(&"new".to_owned()));
    // Of six connections three are beyond its half, and are let go one after the other.
    proxy.upstream_closed_becomes("rebalance", 3.0);
    old.waits_for_open(3);
}
