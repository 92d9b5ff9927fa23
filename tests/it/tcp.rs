//! What TCP itself is told and tells: the options of `[….tcp]` on both sides, and `TCP_INFO`.
//!
//! The kernel is asked, not the program: options are read from a copy of the program's own
//! descriptor (`pidfd_getfd`). Segments are lost by a socket filter that lets none through.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use socket2::SockFilter;
use socket2::Socket;

use crate::support::Client;
use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::origin::LAST;
use crate::support::origin::OK;
use crate::support::origin::Peer;

/// What the kernel says of one of the program's connections.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    nodelay: bool,
    keepalive: Option<(Duration, Duration, u32)>,
    user_timeout: Option<Duration>,
    quickack: bool,
}

impl Options {
    fn of(socket: &Socket) -> Self {
        let kept = (
            socket.tcp_keepalive_time().unwrap(),
            socket.tcp_keepalive_interval().unwrap(),
            socket.tcp_keepalive_retries().unwrap(),
        );
        Self {
            nodelay: socket.tcp_nodelay().unwrap(),
            keepalive: socket.keepalive().unwrap().then_some(kept),
            user_timeout: socket.tcp_user_timeout().unwrap(),
            quickack: socket.tcp_quickack().unwrap(),
        }
    }
}

/// A copy of the program's socket with this address at the other end. `None`, told, where this
/// process may not look into its child.
fn socket_of(proxy: &Proxy, peer: SocketAddr) -> Option<Socket> {
    let id = rustix::process::Pid::from_raw(i32::try_from(proxy.id()).unwrap()).unwrap();
    let flags = rustix::process::PidfdFlags::empty();
    let child = rustix::process::pidfd_open(id, flags).unwrap();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", proxy.id())).unwrap() {
        let number = entry.unwrap().file_name().to_str().unwrap().parse();
        let flags = rustix::process::PidfdGetfdFlags::empty();
        let copy: OwnedFd = match rustix::process::pidfd_getfd(&child, number.unwrap(), flags) {
            Ok(copy) => copy,
            Err(error) => match std::io::Error::from(error).kind() {
                ErrorKind::PermissionDenied | ErrorKind::Unsupported => {
                    println!("skipped: another process's sockets may not be looked at here");
                    return None;
                }
                _ => continue, // closed meanwhile
            },
        };
        let socket = Socket::from(copy);
        let at = socket.peer_addr().ok().and_then(|at| at.as_socket());
        if at == Some(peer) {
            return Some(socket);
        }
    }
    panic!("the program has no connection with {peer}");
}

fn said(config: &mut Config, side: &str) {
    config
        .set(&format!("{side}.tcp.nodelay"), false)
        .set(&format!("{side}.tcp.keepalive_time"), "7s")
        .set(&format!("{side}.tcp.keepalive_interval"), "3s")
        .set(&format!("{side}.tcp.keepalive_retries"), 5)
        .set(&format!("{side}.tcp.user_timeout"), "9s");
}

const SAID: Options = Options {
    nodelay: false,
    keepalive: Some((Duration::from_secs(7), Duration::from_secs(3), 5)),
    user_timeout: Some(Duration::from_secs(9)),
    quickack: true,
};

/// The defaults of the README's table.
const DEFAULT: Options = Options {
    nodelay: true,
    keepalive: Some((Duration::from_secs(60), Duration::from_secs(10), 3)),
    user_timeout: Some(Duration::from_secs(30)),
    quickack: true,
};

/// Options but for one that the kernel changes as octets come and go.
fn but_quickack(options: &Options) -> Options {
    Options {
        quickack: true,
        ..*options
    }
}

#[test]
fn a_clients_connection_has_the_options_of_its_listener_and_an_origins_those_of_its_upstream() {
    let origin = Origin::ok();
    for (client_side, origin_side) in [(&SAID, &DEFAULT), (&DEFAULT, &SAID)] {
        let proxy = Proxy::with(&origin, |c| {
            let side = match client_side == &SAID {
                true => "listeners.web",
                false => "upstreams.app",
            };
            said(c, side);
        });
        let mut client = proxy.client();
        client.get("/");
        for (peer, wanted) in [
            (client.wire.local(), client_side),
            (origin.address(), origin_side),
        ] {
            let Some(socket) = socket_of(&proxy, peer) else {
                return;
            };
            assert_eq!(&but_quickack(&Options::of(&socket)), wanted, "{peer}");
        }
    }
}

#[test]
fn keep_alive_probes_and_the_limit_on_unacknowledged_octets_can_be_off() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        for side in ["listeners.web", "upstreams.app"] {
            c.set(&format!("{side}.tcp.keepalive_time"), "off");
            c.set(&format!("{side}.tcp.user_timeout"), "off");
        }
    });
    let mut client = proxy.client();
    client.get("/");
    for peer in [client.wire.local(), origin.address()] {
        let Some(socket) = socket_of(&proxy, peer) else {
            return;
        };
        let options = Options::of(&socket);
        assert_eq!((options.keepalive, options.user_timeout), (None, None));
    }
}

fn acknowledges_at_once(proxy: &Proxy, peer: SocketAddr) -> Option<bool> {
    Some(socket_of(proxy, peer)?.tcp_quickack().unwrap())
}

/// The times, in order, from a part of a message to the kernel's leave to acknowledge at once, for
/// the client's side and the origin's. Without being asked it gives it when the timer of a delayed
/// acknowledgement has run out: after 40 ms, or sooner if the timer ran already for something else.
fn times_to_leave(word: &str) -> Option<[Vec<Duration>; 2]> {
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let may_go_on = Mutex::new(may_go_on);
    let origin = Origin::playing(move |peer| {
        while let Some(request) = peer.request() {
            if request.head.start.contains("/slow") {
                peer.send("HTTP/1.1 200 OK\r\nContent-Le");
                may_go_on.lock().unwrap().recv().unwrap();
                peer.send("ngth: 2\r\n\r\nok");
            } else {
                peer.send(OK);
            }
        }
    });
    let proxy = Proxy::with(&origin, |c| {
        c.listener("tcp.quickack", word);
        c.upstream("tcp.quickack", word);
    });
    let mut client = proxy.client();
    client.get("/");
    let near = socket_of(&proxy, client.wire.local())?;
    let far = socket_of(&proxy, origin.address())?;
    // To and fro, until the kernel holds acknowledgements back.
    let to_and_fro = |client: &mut Client| {
        eventually("acknowledgements are held back", || {
            client.get("/");
            !near.tcp_quickack().unwrap() && !far.tcp_quickack().unwrap()
        });
    };
    let mut times = [Vec::new(), Vec::new()];
    for nth in 0..TRIES_MOST {
        let is_soon = |times: &Vec<Duration>| times.iter().any(|time| *time < AT_ONCE);
        // One that was soon enough says it; of those that were late, the machine may be the cause.
        let is_said = word != "on" || times.iter().all(is_soon);
        if nth >= TRIES && is_said {
            break;
        }
        to_and_fro(&mut client);
        let since = Instant::now();
        client.send("GET / HTTP/1.1\r\nHost: it");
        times[0].push(asked(&near, since));
        client.send(".test\r\n\r\n");
        assert_eq!(client.response().text(), "ok");
        to_and_fro(&mut client);
        let since = Instant::now();
        client.send("GET /slow HTTP/1.1\r\nHost: it.test\r\n\r\n");
        times[1].push(asked(&far, since));
        go_on.send(()).unwrap();
        assert_eq!(client.response().text(), "ok");
    }
    times.iter_mut().for_each(|times| times.sort());
    Some(times)
}

/// Far below the timer of a delayed acknowledgement, which is 40 ms at the least.
const AT_ONCE: Duration = Duration::from_millis(25);
const TRIES: usize = 8;
const TRIES_MOST: usize = 100;

fn asked(socket: &Socket, since: Instant) -> Duration {
    eventually("leave to acknowledge at once", || {
        socket.tcp_quickack().unwrap()
    });
    since.elapsed()
}

#[test]
fn quickack_on_is_asked_for_again_when_the_rest_of_a_message_is_due_and_auto_is_not() {
    let Some(on) = times_to_leave("on") else {
        return;
    };
    assert!(on.iter().all(|times| times[0] < AT_ONCE), "{on:?}");
    let Some(auto) = times_to_leave("auto") else {
        return;
    };
    let held_back = |times: &Vec<Duration>| times[TRIES / 2] > Duration::from_millis(30);
    assert!(auto.iter().all(held_back), "{auto:?}");
}

#[test]
fn quickack_off_holds_acknowledgements_back_from_the_start() {
    for (word, wanted) in [("off", false), ("auto", true)] {
        let origin = Origin::ok();
        let proxy = Proxy::with(&origin, |c| {
            c.listener("tcp.quickack", word);
            c.upstream("tcp.quickack", word);
            c.upstream("pool.min_idle", 1);
        });
        let client = proxy.client();
        origin.waits_for_open(1);
        let idle = [("upstream", "app"), ("state", "idle")];
        proxy.metric_becomes("holdfast_upstream_connections", &idle, 1.0);
        let held = [("listener", "web")];
        proxy.metric_becomes("holdfast_client_connections", &held, 1.0);
        for peer in [client.wire.local(), origin.address()] {
            let Some(at_once) = acknowledges_at_once(&proxy, peer) else {
                return;
            };
            assert_eq!(at_once, wanted, "{word} {peer}");
        }
    }
}

/// Lets no segment through to this socket, or lets them through again.
fn deaf(peer: &Peer) {
    let nothing = [SockFilter::new(RETURN_NONE, 0, 0, 0)];
    let socket = socket2::SockRef::from(peer.wire.stream());
    socket.attach_filter(&nothing).unwrap();
}

fn hearing(peer: &Peer) {
    let socket = socket2::SockRef::from(peer.wire.stream());
    socket.detach_filter().unwrap();
}

/// `BPF_RET | BPF_K`: as many octets of the segment as said, which is none.
const RETURN_NONE: u16 = 0x06;

/// An origin that hears no segment of its second request until the gate opens.
fn hard_of_hearing(may_hear: &Gate) -> (Origin, Gate) {
    let (is_deaf, may_hear) = (Gate::new(), may_hear.clone());
    let told = is_deaf.clone();
    let origin = Origin::playing(move |peer| {
        peer.request();
        deaf(peer);
        peer.send(OK);
        told.open();
        may_hear.wait();
        hearing(peer);
        while peer.request().is_some() {
            peer.send(LAST);
        }
    });
    (origin, is_deaf)
}

const APP: [(&str, &str); 1] = [("upstream", "app")];
const RETRANSMITS: &str = "holdfast_upstream_tcp_retransmits_total";
const RTT_COUNT: &str = "holdfast_upstream_tcp_rtt_seconds_count";
const WINDOW_SUM: &str = "holdfast_upstream_tcp_congestion_window_segments_sum";

#[test]
fn connections_to_origins_are_sampled_at_the_interval_whether_they_work_or_rest() {
    let may_hear = Gate::new();
    let (origin, is_deaf) = hard_of_hearing(&may_hear);
    let proxy = Proxy::with(&origin, |c| {
        c.set("metrics.tcp_info_interval", "1s");
    });
    let mut client = proxy.client();
    client.get("/");
    // At rest.
    eventually("a sample", || proxy.metric(RTT_COUNT, &APP) >= 1.0);
    assert!(proxy.metric(WINDOW_SUM, &APP) >= 1.0);
    assert!(proxy.metric("holdfast_upstream_tcp_rtt_seconds_sum", &APP) > 0.0);
    // At work: what it sends again is told while it does.
    is_deaf.wait();
    client.send("GET /again HTTP/1.1\r\nHost: it.test\r\n\r\n");
    eventually("a retransmission", || {
        proxy.metric(RETRANSMITS, &APP) >= 1.0
    });
    may_hear.open();
    assert_eq!(client.response().status(), 200);
}

#[test]
fn a_connection_that_ends_between_two_samples_gives_its_last_one() {
    let may_hear = Gate::new();
    let (origin, is_deaf) = hard_of_hearing(&may_hear);
    let proxy = Proxy::with(&origin, |c| {
        c.set("metrics.tcp_info_interval", "1h");
    });
    let mut client = proxy.client();
    client.get("/");
    is_deaf.wait();
    client.send("GET /again HTTP/1.1\r\nHost: it.test\r\n\r\n");
    eventually("a retransmission", || retransmits_to(origin.address()) > 0);
    assert!(proxy.metric(RTT_COUNT, &APP) == 0.0, "the hour is not over");
    may_hear.open();
    assert_eq!(client.response().status(), 200);
    proxy.upstream_closed_becomes("upstream_close_header", 1.0);
    assert!(proxy.metric(RETRANSMITS, &APP) >= 1.0);
    proxy.metric_becomes(RTT_COUNT, &APP, 1.0);
}

#[test]
fn an_origin_that_acknowledges_nothing_is_given_up_after_user_timeout_and_a_deadline_is_told() {
    let origin = Origin::playing(|peer| {
        if peer.number > 0 {
            while peer.request().is_some() {
                peer.send(OK);
            }
            return;
        }
        peer.request();
        deaf(peer);
        peer.send(OK);
        peer.until_closed();
    });
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("tcp.user_timeout", "400ms");
    });
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    // A reused connection that gave no answer: a GET is sent again, on a fresh one.
    assert_eq!(client.get("/").status(), 200);
    proxy.upstream_closed_becomes("timeout", 1.0);
    let told = [
        ("side", "upstream"),
        ("by", "holdfast"),
        ("how", "timeout"),
        ("phase", "wait"),
    ];
    proxy.metric_becomes("holdfast_connections_closed_total", &told, 1.0);
}

#[test]
fn nothing_is_sampled_where_sampling_is_off() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.set("metrics.tcp_info_interval", "off");
    });
    proxy.client().get("/");
    let (_, text) = proxy.admin("/metrics");
    assert!(!text.contains("_tcp_"), "{text}");
}

/// How often the segment now under way to this address was sent again, by `/proc/net/tcp`. Others
/// may have been connected with whoever had its port before.
fn retransmits_to(address: SocketAddr) -> u32 {
    let wanted = format!("0100007F:{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let lines = table.lines().map(str::split_whitespace);
    let found = lines.filter_map(|mut fields| {
        let is_wanted = fields.nth(2) == Some(&*wanted);
        // After the remote address: the state, two queues, the timer, and retransmits, in hex.
        is_wanted
            .then(|| fields.nth(3).map(str::to_owned))
            .flatten()
    });
    let counts = found.map(|hex| u32::from_str_radix(&hex, 16).unwrap());
    counts.max().unwrap_or(0)
}
