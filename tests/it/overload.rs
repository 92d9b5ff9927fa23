//! Descriptors run out: what is given up, in which order, for which reason, and what goes on.

use std::process::Command;
use std::time::Duration;

use crate::support::Client;
use crate::support::End;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::origin::OK;
use crate::support::proxy::fresh_folder;
use crate::support::proxy::run;

/// With so many descriptors and 16 of them in reserve, 96 are to be had, six a sixteenth: idle
/// connections to origins close from 72 on, clients from 78, and from 84 on new ones are refused.
const LIMIT: u32 = 112;

/// A proxy of one worker that may have so few descriptors.
#[track_caller]
fn short_of_descriptors(origin: &Origin, change: impl FnOnce(&mut Config)) -> Proxy {
    let configure = |c: &mut Config| {
        c.upstream("servers", [origin.address()]);
        c.set("server.workers", 1);
        c.set("server.fd_reserve", 16);
        change(c);
    };
    Proxy::starting(configure, |command| {
        let mut limited = Command::new("sh");
        let script = format!("ulimit -n {LIMIT} && exec \"$0\" \"$@\"");
        limited.args(["-c", &script]).arg(command.get_program());
        limited.args(command.get_args());
        limited.env_remove("HOLDFAST_CONFIG");
        *command = limited;
    })
}

fn closed(proxy: &Proxy, side: &str) -> f64 {
    let name = format!("holdfast_{side}_connections_closed_total");
    proxy.metric(&name, &[("reason", "fd_pressure")])
}

fn step(proxy: &Proxy) -> f64 {
    proxy.metric("holdfast_fd_pressure", &[])
}

fn refused(proxy: &Proxy) -> f64 {
    let name = "holdfast_client_connections_rejected_total";
    proxy.metric(name, &[("reason", "fd_pressure")])
}

/// Clients that come one after the other until `enough`; each has been taken, or turned away,
/// before the next one comes.
#[track_caller]
fn come_until(
    enough: impl Fn(&Proxy) -> bool,
    proxy: &Proxy,
    clients: &mut Vec<Client>,
    first: &str,
) {
    while !enough(proxy) {
        assert!(clients.len() < 2 * LIMIT as usize, "it never is");
        let accepted = "holdfast_client_connections_accepted_total";
        let before = proxy.metric(accepted, &[]);
        let mut client = proxy.client();
        // One that is refused may be gone by now.
        drop(client.send_what_it_takes(first));
        clients.push(client);
        proxy.metric_becomes(accepted, &[], before + 1.0);
    }
}

/// So many clients with a request on its way. Each was let in before the first one asked: a
/// connection to the origin takes a descriptor, and may leave none for a client still to come.
fn asking_at_once(proxy: &Proxy, count: u32) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| proxy.client()).collect();
    let web = [("listener", "web")];
    proxy.metric_becomes("holdfast_client_connections", &web, f64::from(count));
    clients.iter_mut().for_each(|client| client.ask("/"));
    clients
}

/// So many clients whose requests are answered together, over as many connections to the origin.
fn served_at_once(proxy: &Proxy, origin: &Origin, gate: &Gate, count: u32) -> Vec<Client> {
    let mut clients = asking_at_once(proxy, count);
    origin.waits_for_requests(count as usize);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().status(), 200);
    }
    clients
}

#[test]
fn idle_origins_go_first_then_clients_that_rest_longest_and_then_new_ones_are_refused() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = short_of_descriptors(&origin, |c| {
        c.listener("header_timeout", "60s");
    });
    let mut clients = served_at_once(&proxy, &origin, &gate, 15);
    assert_eq!((origin.open(), step(&proxy)), (15, 0.0));

    come_until(|at| closed(at, "upstream") > 0.0, &proxy, &mut clients, "");
    assert_eq!((closed(&proxy, "client"), refused(&proxy)), (0.0, 0.0));

    come_until(|at| step(at) >= 2.0, &proxy, &mut clients, "");
    // Who has only just come is spared; the first have rested for longer by then.
    eventually("a client is closed", || closed(&proxy, "client") > 0.0);
    eventually("those that were served first are the ones", || {
        let first = clients[..15].iter_mut().map(|client| {
            client.wire.patience(Duration::from_millis(1));
            client.wire.some().err()
        });
        let gone = first.filter(|end| *end == Some(End::Closed)).count();
        closed(&proxy, "client") == f64::from(u32::try_from(gone).unwrap())
    });
    assert_eq!((refused(&proxy), origin.open()), (0.0, 0));

    // A head that has begun does not rest.
    let begun = "GET / HTTP/1.1\r\n";
    come_until(|at| refused(at) > 0.0, &proxy, &mut clients, begun);
    let answer = clients.last_mut().unwrap().response();
    answer.is_ours(503, "fd_pressure");
    assert!(answer.head.lists("connection", "close"));
    proxy.errors_becomes("fd_pressure", refused(&proxy));

    drop(clients);
    eventually("new clients are served", || {
        proxy.client().get("/").status() == 200
    });
    proxy.metric_becomes("holdfast_fd_pressure", &[], 0.0);
    eventually("the log says that it is over", || {
        proxy.stderr().contains("there are descriptors again")
    });
    // Each step once, and the end: not a line a connection.
    let told = proxy.stderr().matches("\"fd_pressure\"").count();
    assert_eq!(told, 4, "{}", proxy.stderr());
}

/// 62 clients, 10 connections to origins and 24 descriptors of the process are the 96 to be had.
#[test]
fn where_all_that_the_limits_allow_fits_no_client_goes_for_it_until_they_allow_more() {
    let origin = Origin::ok();
    let mut proxy = short_of_descriptors(&origin, |c| {
        c.set("server.max_connections", 62);
        c.upstream("pool.max_connections", 10);
    });
    let mut clients: Vec<Client> = (0..62).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status(), 200);
    }
    // 78 is where clients would close.
    assert!(proxy.metric("holdfast_open_fds", &[]) >= 78.0);
    // None that has rested for less than a second would close.
    std::thread::sleep(Duration::from_millis(1500));
    for client in &mut clients {
        assert_eq!(client.get("/").status(), 200, "after a rest of a second");
    }
    assert_eq!((step(&proxy), closed(&proxy, "client")), (0.0, 0.0));

    proxy.reloads(|c| {
        c.upstream("pool.max_connections", 11);
    });
    eventually("a client is closed", || closed(&proxy, "client") > 0.0);
}

#[test]
fn connections_to_origins_leave_the_reserve_to_the_admin_listener() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = short_of_descriptors(&origin, |c| {
        c.upstream("pool.queue_timeout", "300ms");
    });
    let mut clients = asking_at_once(&proxy, 45);
    // Those for whom there is no connection are told in time, the others when the origin answers.
    eventually("some are refused a connection", || {
        proxy.metric("holdfast_proxy_errors_total", &[("reason", "fd_pressure")]) > 0.0
    });
    let open = proxy.metric("holdfast_open_fds", &[]);
    assert!(open < f64::from(LIMIT), "{open}");
    gate.open();
    let statuses: Vec<u16> = clients
        .iter_mut()
        .map(|at| at.response().status())
        .collect();
    let (served, refused): (Vec<u16>, Vec<u16>) = statuses.iter().partition(|&&of| of == 200);
    assert!(served.len() > 20 && !refused.is_empty(), "{statuses:?}");
    assert!(refused.iter().all(|&status| status == 503), "{statuses:?}");
    let labels = [("listener", "web"), ("error", "emfile")];
    proxy.metric_becomes("holdfast_client_accept_errors_total", &labels, 0.0);
}

#[test]
fn a_request_for_which_there_is_no_descriptor_waits_for_one_as_for_a_connection() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = short_of_descriptors(&origin, |c| {
        c.upstream("pool.queue_timeout", "8s");
    });
    let mut clients = asking_at_once(&proxy, 45);
    // With 45 clients there is room for some 30 connections to the origin.
    origin.waits_for_requests(20);
    let active = [("listener", "web"), ("state", "active")];
    proxy.metric_becomes("holdfast_client_connections", &active, 45.0);
    assert!(origin.open_most() < 45, "{}", origin.open_most());
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().status(), 200);
    }
    assert_eq!(refused(&proxy), 0.0);
}

#[test]
fn when_the_system_refuses_a_descriptor_idle_origins_close_and_accepting_does_not_spin() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.set("server.workers", 1);
    });
    proxy.client().is_still_served();
    let Some(before) = limit_of(&proxy, Some(0)) else {
        println!("skipped: a hard limit may not be raised here");
        return;
    };
    // It stays in the kernel's queue: nobody can accept it.
    let mut client = proxy.client();
    client.ask("/");
    origin.waits_for_open(0);
    limit_of(&proxy, before).unwrap();
    assert_eq!(client.response().status(), 200);
    proxy.upstream_closed_becomes("fd_pressure", 1.0);
    let labels = [("listener", "web"), ("error", "emfile")];
    let failed = proxy.metric("holdfast_client_accept_errors_total", &labels);
    assert!((1.0..100.0).contains(&failed), "{failed}");
}

/// Limits what a process may open; answers the limit before. `None`: that is not allowed here.
fn limit_of(proxy: &Proxy, most: Option<u64>) -> Option<Option<u64>> {
    let id = rustix::process::Pid::from_raw(i32::try_from(proxy.id()).unwrap());
    let limit = rustix::process::Rlimit {
        current: most,
        maximum: None,
    };
    let before = rustix::process::prlimit(id, rustix::process::Resource::Nofile, limit);
    before.ok().map(|before| before.current)
}

#[test]
fn limits_that_do_not_fit_are_warned_of_at_start_with_what_happens_then() {
    let origin = Origin::ok();
    let proxy = short_of_descriptors(&origin, |_| ());
    let said = proxy.stderr();
    for part in [
        "\"descriptors\"",
        "may have 112",
        "with 84 new clients are refused",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn check_says_how_many_descriptors_and_how_much_memory_are_needed() {
    let folder = fresh_folder();
    let file = folder.join("holdfast.toml");
    let text = "server.max_connections = 100\nserver.workers = 1\n\
                listeners.web.bind = \"127.0.0.1:0\"\n\
                upstreams.app.servers = [\"127.0.0.1:1\"]\n";
    std::fs::write(&file, text).unwrap();
    let said = run(&["check", "--config", file.to_str().unwrap()]);
    std::fs::remove_dir_all(folder).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let needed = "descriptors: 380 at most (100 clients, 128 to origins, 24 of the process, \
                  128 in reserve)";
    assert!(said.stdout.contains(needed), "{}", said.stdout);
    assert!(said.stdout.contains("\nmemory: "), "{}", said.stdout);
}
