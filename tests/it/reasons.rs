//! Every reason there is, and the dialogue in which it is seen to be given.
//!
//! The tables of `base/reason` are walked whole: a new word does not compile here until it says how
//! it is reached. A dialogue counts only if its own text asserts the word where the reason is
//! counted; to mention it is not enough. What only a pure decision can reach says why, and what no
//! feature gives yet stands here by name, and nowhere else.

use std::fmt::Write as _;

use holdfast::base::CloseReason;
use holdfast::base::ProxyError;
use holdfast::base::reason::OpenReason;
use holdfast::base::reason::Outcome;

use crate::support::Gate;
use crate::support::Origin;
use crate::support::Proxy;
use crate::support::eventually;
use crate::support::origin::OK;

/// Where a reason is seen.
enum Seen {
    /// In a dialogue, `file::test` below `tests/it`.
    In(&'static str),
    /// In a unit test, `floor::file::test` below `src`, and why sockets cannot show it.
    Decided(&'static str, &'static str),
    /// Nowhere yet, and why.
    NotYet(&'static str),
}

use Seen::Decided;
use Seen::In;
use Seen::NotYet;

fn close(reason: CloseReason) -> Seen {
    match reason {
        CloseReason::UpstreamCloseHeader => {
            In("persistence::an_origin_that_asks_to_close_is_not_used_again")
        }
        CloseReason::ClientCloseHeader => {
            In("persistence::a_client_that_asks_to_close_is_told_so_and_closed")
        }
        CloseReason::ClientUnfinished => In("persistence::a_body_that_stalls_is_answered_with_408"),
        CloseReason::ClientGone => {
            In("reasons::a_client_that_leaves_retires_what_was_asked_for_it")
        }
        CloseReason::Http10 => In("persistence::an_old_client_gets_one_answer_and_the_end"),
        CloseReason::CloseDelimited => {
            In("persistence::a_body_that_ends_with_the_connection_does_not_end_the_clients")
        }
        CloseReason::UnreadBody => {
            In("review::the_rest_of_an_answered_request_is_read_for_so_long_in_all")
        }
        CloseReason::ExtraBytes => {
            In("truncation::octets_that_come_on_an_idle_connection_retire_it")
        }
        CloseReason::FramingError => In("framing::each_refusal_is_counted_by_its_reason"),
        CloseReason::HeadTooLarge => In("closing::a_431_reaches_a_client_that_is_still_sending"),
        CloseReason::BodyTooLarge => In("closing::a_413_reaches_a_client_that_is_still_uploading"),
        CloseReason::Truncated => {
            In("truncation::a_body_shorter_than_its_length_is_passed_on_and_broken_off")
        }
        CloseReason::Upgraded => In("tunnels::after_the_origins_101_octets_flow_both_ways"),
        CloseReason::MaxRequests => {
            In("persistence::the_last_request_a_connection_may_carry_is_announced_as_such")
        }
        CloseReason::MaxAge => In("reuse::a_connection_past_its_age_is_not_used_again"),
        CloseReason::IdleTimeout => {
            In("persistence::a_client_without_a_request_is_closed_by_fin_after_the_idle_timeout")
        }
        CloseReason::LearnedIdle => In(
            "idle_learning::an_origins_hint_is_honoured_less_the_margin_and_the_canary_carries_no_request",
        ),
        CloseReason::PoolFull => In("reuse::more_idle_connections_than_the_pool_keeps_are_closed"),
        CloseReason::ReuseOff => {
            In("reuse::a_pool_told_never_to_reuse_opens_one_for_every_request")
        }
        CloseReason::EndpointRemoved => {
            In("reload::an_endpoint_that_is_taken_away_finishes_what_it_has")
        }
        CloseReason::CheckDone => {
            In("health::an_endpoint_that_fails_checks_is_out_until_it_passes_them")
        }
        CloseReason::Ejected => In("health::an_ejected_endpoint_loses_its_idle_connections"),
        CloseReason::Drain => {
            In("reasons::a_drain_closes_who_rests_and_lingers_no_longer_than_it_lasts")
        }
        CloseReason::Rebalance => In(
            "balance::an_endpoint_that_joins_is_used_at_once_and_the_others_give_up_what_is_beyond_their_share",
        ),
        CloseReason::FdPressure => In(
            "overload::when_the_system_refuses_a_descriptor_idle_origins_close_and_accepting_does_not_spin",
        ),
        CloseReason::Admin => In("admin::an_operator_closes_a_client_whatever_it_is_doing"),
        CloseReason::GlobalLimit => In("limits::the_process_takes_as_many_connections_as_it_may"),
        CloseReason::ListenerLimit => In("limits::a_listener_takes_as_many_connections_as_it_may"),
        CloseReason::ClientLimit => In("limits::a_client_with_too_many_connections_can_be_closed"),
        CloseReason::PipeliningOff => In("pipelining::pipelining_can_be_answered_with_the_end"),
        CloseReason::BlindRelay => {
            In("persistence::an_old_relay_that_forwards_connection_blindly_is_not_left_hanging")
        }
        CloseReason::ErrorAnswer => In("framing::each_refusal_is_counted_by_its_reason"),
        CloseReason::UnsafeGuard => Decided(
            "pool::laws::the_guard_retires_the_oldest_idle_connection_when_there_is_no_room",
            "the pool must be full of connections idle too long at one moment",
        ),
        CloseReason::RetryReplaced => Decided(
            "pool::laws::a_retry_never_takes_an_idle_connection_and_makes_room_for_a_new_one",
            "the place of the connection that failed must be taken before the retry asks",
        ),
        CloseReason::BadResponse => {
            In("errors::an_answer_that_breaks_the_rules_is_a_502_and_its_connection_is_dropped")
        }
        CloseReason::PeerFin => In("closing::a_client_that_leaves_while_idle_is_counted_as_such"),
        CloseReason::PeerRst => In("closing::a_client_that_resets_is_counted_as_such"),
        CloseReason::Timeout => {
            In("reasons::a_deadline_of_ours_is_not_told_as_the_clients_leaving")
        }
        CloseReason::HeaderTimeout => {
            In("persistence::a_head_that_does_not_end_in_time_is_answered_with_408")
        }
        CloseReason::BodyTimeout => In("persistence::a_body_that_stalls_is_answered_with_408"),
        CloseReason::WriteTimeout => In("persistence::a_client_that_does_not_read_is_given_up"),
        CloseReason::IoError => Decided(
            "pool::verdict::what_the_wire_said_retires_the_connection",
            "the kernel gives errors other than a reset and a time-out on real networks only",
        ),
        CloseReason::ProxyProtocol => In("reasons::a_header_that_is_none_is_counted_as_such"),
        CloseReason::Ours => Decided(
            "observe::live::a_fault_of_ours_is_told_as_an_error_and_a_close_as_a_detail",
            "a fault of our own cannot be had on demand",
        ),
    }
}

fn open(reason: OpenReason) -> Seen {
    match reason {
        OpenReason::EmptyPool | OpenReason::AllBusy => {
            In("reasons::a_connection_is_opened_because_there_is_none_or_because_all_are_busy")
        }
        OpenReason::UnsafeGuard => {
            In("reuse::an_unsafe_request_does_not_take_a_connection_idle_for_too_long")
        }
        OpenReason::Retry => {
            In("retries::an_idempotent_request_on_a_stale_connection_is_sent_again_on_a_fresh_one")
        }
        OpenReason::Warm => In(
            "reuse::a_floor_of_idle_connections_is_kept_ready_before_anyone_asks_and_as_they_end",
        ),
        OpenReason::Canary => NotYet("a canary is a parked connection; none is opened for it"),
        OpenReason::Health => {
            In("health::an_endpoint_that_fails_checks_is_out_until_it_passes_them")
        }
        OpenReason::NeverMode => {
            In("reuse::a_pool_told_never_to_reuse_opens_one_for_every_request")
        }
    }
}

fn outcome(outcome: Outcome) -> Seen {
    match outcome {
        Outcome::New | Outcome::Reused => {
            In("reasons::a_connection_is_opened_because_there_is_none_or_because_all_are_busy")
        }
        Outcome::ReusedAfterWait => In(
            "reuse::under_a_thousand_concurrent_requests_the_origin_never_sees_an_eleventh_connection",
        ),
        Outcome::NewAfterWait => {
            In("reasons::who_waits_gets_a_new_connection_when_the_one_before_ends_or_none")
        }
        Outcome::Rejected => {
            In("reasons::who_waits_gets_a_new_connection_when_the_one_before_ends_or_none")
        }
    }
}

fn error(error: ProxyError) -> Seen {
    match error {
        ProxyError::BadRequest
        | ProxyError::VersionUnsupported
        | ProxyError::NotImplemented
        | ProxyError::MethodRefused
        | ProxyError::ExpectationFailed => In("framing::each_refusal_is_counted_by_its_reason"),
        ProxyError::UriTooLong => {
            In("limits::a_target_too_long_is_told_apart_from_fields_too_long")
        }
        ProxyError::HeadTooLarge => {
            In("limits::a_head_of_exactly_the_limit_passes_and_one_octet_more_does_not")
        }
        ProxyError::BodyTooLarge => In("closing::a_413_reaches_a_client_that_is_still_uploading"),
        ProxyError::RequestTimeout => {
            In("persistence::a_head_that_does_not_end_in_time_is_answered_with_408")
        }
        ProxyError::NoRoute => In("routes::what_no_route_matches_is_a_404"),
        ProxyError::ClientLimit | ProxyError::GlobalLimit => {
            In("reasons::who_is_turned_away_by_a_limit_is_counted_under_it")
        }
        ProxyError::ListenerLimit => {
            In("outside::a_listeners_limit_is_told_to_its_client_by_its_own_name")
        }
        ProxyError::ClientGone => {
            In("truncation::a_client_that_leaves_while_waiting_frees_the_origin")
        }
        ProxyError::NoEndpoint => Decided(
            "app::refresh::a_name_that_does_not_resolve_at_start_serves_as_soon_as_it_does",
            "every address of a name would have to be removed under a request",
        ),
        ProxyError::QueueFull => In("reuse::who_finds_the_queue_full_gets_503_at_once"),
        ProxyError::QueueTimeout => In("reuse::who_waits_too_long_gets_503_and_the_reason"),
        ProxyError::LocalPorts => {
            In("ports::a_source_address_that_is_not_ours_is_no_fault_of_the_endpoint")
        }
        ProxyError::Descriptors => In("reasons::descriptors_that_ran_out_are_told_as_such"),
        ProxyError::ConnectRefused => In("errors::a_refused_connection_is_a_502"),
        ProxyError::ConnectTimeout => {
            In("errors::an_origin_that_does_not_take_the_connection_is_a_504")
        }
        // Which of the two it is depends on the machine; the test asks it.
        ProxyError::ConnectUnreachable => {
            In("errors::an_address_that_no_route_leads_to_is_told_as_such")
        }
        ProxyError::ConnectFailed => In("errors::a_connect_that_fails_otherwise_is_told_as_such"),
        ProxyError::Dns => In("errors::a_name_that_does_not_resolve_is_a_502"),
        ProxyError::StaleConnection => {
            In("retries::an_unsafe_request_on_a_stale_connection_is_never_sent_twice")
        }
        ProxyError::EmptyResponse | ProxyError::UpstreamReset => In(
            "retries::a_fresh_connection_that_ends_without_an_answer_is_a_502_and_not_tried_again",
        ),
        ProxyError::ResponseTimeout => In("errors::an_answer_that_does_not_begin_in_time_is_a_504"),
        ProxyError::BadResponse => {
            In("errors::an_answer_that_breaks_the_rules_is_a_502_and_its_connection_is_dropped")
        }
        ProxyError::ResponseHeadTooLarge => In("errors::a_head_larger_than_we_hold_is_a_502"),
        ProxyError::Truncated => {
            In("truncation::a_body_shorter_than_its_length_is_passed_on_and_broken_off")
        }
        ProxyError::BodyIdle => In("errors::a_body_that_stalls_is_broken_off"),
        ProxyError::RequestDeadline => In("errors::a_whole_exchange_can_be_bounded"),
        ProxyError::Draining => Decided(
            "proxy::unfinished::what_a_connections_end_kept_from_its_answer_is_told_by_the_reason",
            "it is counted as the process ends, when nobody can ask; cut_short has it in the log",
        ),
        ProxyError::Dismissed => In("admin::an_operator_closes_a_client_whatever_it_is_doing"),
        ProxyError::Internal => NotYet("a fault of our own cannot be had on demand"),
    }
}

/// How a dialogue asserts that a word of each table was counted: the word comes in quotation marks,
/// itself or by way of a table of the test's own, to one of these.
const CLOSES: &[&str] = &[
    "client_closed_becomes(",
    "upstream_closed_becomes(",
    "connections_closed_total",
    "rejected(",
];
const OPENS: &[&str] = &["upstream_connections_opened_total", "opened_for("];
const OUTCOMES: &[&str] = &["upstream_requests_total", "outcomes("];
const ERRORS: &[&str] = &["errors_becomes("];

#[test]
fn every_reason_is_reached_by_a_test_that_sees_it_counted() {
    let mut faults = String::new();
    let mut look = |name: String, label: &str, seen: Seen, counted: &[&str]| {
        if let Err(what) = is_shown(&name, label, &seen, counted) {
            writeln!(faults, "{name}: {what}").unwrap();
        }
    };
    for &word in CloseReason::ALL {
        look(
            format!("CloseReason::{word:?}"),
            word.label(),
            close(word),
            CLOSES,
        );
    }
    for &word in OpenReason::ALL {
        look(
            format!("OpenReason::{word:?}"),
            word.label(),
            open(word),
            OPENS,
        );
    }
    for &word in Outcome::ALL {
        look(
            format!("Outcome::{word:?}"),
            word.label(),
            outcome(word),
            OUTCOMES,
        );
    }
    for &word in ProxyError::ALL {
        look(
            format!("ProxyError::{word:?}"),
            word.label(),
            error(word),
            ERRORS,
        );
    }
    assert!(faults.is_empty(), "\n{faults}");
}

/// Whether the test is there and its text says what the table claims.
fn is_shown(name: &str, label: &str, seen: &Seen, counted: &[&str]) -> Result<(), String> {
    match seen {
        In(test) => {
            let body = body_of("tests/it", test).ok_or(format!("there is no test {test}"))?;
            if !body.contains(&format!("\"{label}\"")) {
                return Err(format!("{test} does not say \"{label}\""));
            }
            match counted.iter().any(|way| body.contains(way)) {
                true => Ok(()),
                false => Err(format!("{test} does not look where \"{label}\" is counted")),
            }
        }
        Decided(test, why) => {
            assert!(!why.is_empty());
            let body = body_of("src", test).ok_or(format!("there is no test {test}"))?;
            match body.contains(name) {
                true => Ok(()),
                false => Err(format!("{test} does not say {name}")),
            }
        }
        NotYet(why) => {
            assert!(!why.is_empty());
            Ok(())
        }
    }
}

/// The text of the test `file::test`, which must be marked as one.
fn body_of(folder: &str, test: &str) -> Option<String> {
    let (file, name) = test.rsplit_once("::")?;
    let path = format!(
        "{}/{folder}/{}.rs",
        env!("CARGO_MANIFEST_DIR"),
        file.replace("::", "/")
    );
    let text = std::fs::read_to_string(path).ok()?;
    let (before, rest) = text.split_once(&format!("fn {name}() {{\n"))?;
    let indent = before.rsplit('\n').next()?;
    let is_test = before.trim_end().ends_with("#[test]");
    let body = rest.split(&format!("\n{indent}}}\n")).next()?;
    is_test.then(|| body.to_owned())
}

/// Connections to `app` that were opened for this reason.
#[track_caller]
fn opened_for(proxy: &Proxy, reason: &str, count: f64) {
    let labels = [("upstream", "app"), ("reason", reason)];
    proxy.metric_becomes("holdfast_upstream_connections_opened_total", &labels, count);
}

/// Requests to `app` that came by their connection so.
#[track_caller]
fn outcomes(proxy: &Proxy, outcome: &str, count: f64) {
    let labels = [("upstream", "app"), ("outcome", outcome)];
    proxy.metric_becomes("holdfast_upstream_requests_total", &labels, count);
}

const GET: &str = "GET / HTTP/1.1\r\nHost: it.test\r\n\r\n";

#[test]
fn a_connection_is_opened_because_there_is_none_or_because_all_are_busy() {
    let gate = Gate::new();
    let origin = Origin::gated(&gate, OK);
    let proxy = Proxy::to(&origin);
    let mut first = proxy.client_waiting_for(&origin);
    let mut second = proxy.client();
    second.send(GET);
    origin.waits_for_requests(2);
    gate.open();
    assert_eq!(first.response().status(), 200);
    assert_eq!(second.response().status(), 200);
    assert_eq!(first.get("/").status(), 200);
    opened_for(&proxy, "empty_pool", 1.0);
    opened_for(&proxy, "all_busy", 1.0);
    outcomes(&proxy, "new", 2.0);
    outcomes(&proxy, "reused", 1.0);
}

#[test]
fn who_waits_gets_a_new_connection_when_the_one_before_ends_or_none() {
    let gate = Gate::new();
    let origin = Origin::gated_once(&gate);
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.max_connections", 1);
        c.upstream("pool.max_pending", 1);
    });
    let mut first = proxy.client_waiting_for(&origin);
    let mut waits = proxy.client();
    waits.send(GET);
    proxy.queue_becomes(1.0);
    assert_eq!(proxy.client().get("/").status(), 503);
    outcomes(&proxy, "rejected", 1.0);
    gate.open();
    assert_eq!(first.response().status(), 200);
    assert_eq!(waits.response().status(), 200);
    outcomes(&proxy, "new_after_wait", 1.0);
}

#[test]
fn a_client_that_leaves_retires_what_was_asked_for_it() {
    let origin = Origin::silent();
    let proxy = Proxy::to(&origin);
    let client = proxy.client_waiting_for(&origin);
    client.wire.reset();
    proxy.upstream_closed_becomes("client_gone", 1.0);
    proxy.client_closed_becomes("peer_rst", 1.0);
    let reset = [("side", "client"), ("origin", "peer"), ("phase", "wait")];
    proxy.metric_becomes("holdfast_connection_resets_total", &reset, 1.0);
}

#[test]
fn a_deadline_of_ours_is_not_told_as_the_clients_leaving() {
    let origin = Origin::silent();
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("timeouts.request", "300ms");
    });
    assert_eq!(proxy.client().get("/").status(), 504);
    proxy.upstream_closed_becomes("timeout", 1.0);
    proxy.upstream_closed_becomes("client_gone", 0.0);
}

#[test]
fn a_header_that_is_none_is_counted_as_such() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("proxy_protocol", "required");
    });
    let mut client = proxy.client();
    client.send("PROXY nonsense\r\n");
    client.sees_a_clean_end();
    proxy.client_closed_becomes("proxy_protocol_error", 1.0);
}

#[test]
fn who_is_turned_away_by_a_limit_is_counted_under_it() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.listener("max_connections_per_client", 1);
        c.set("server.max_connections", 2);
    });
    let mut first = proxy.client();
    first.is_still_served();
    let mut second = proxy.client();
    assert_eq!(second.get("/").status(), 429);
    proxy.errors_becomes("client_limit", 1.0);
    // The second is closing in stages and holds its place until it closes as well.
    let mut third = proxy.client();
    assert_eq!(third.response().status(), 503);
    proxy.errors_becomes("global_limit", 1.0);
}

#[cfg(target_os = "linux")] // elsewhere no process sets another's limits
#[test]
fn descriptors_that_ran_out_are_told_as_such() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.set("server.workers", 1);
    });
    let mut client = proxy.client();
    let one = [("listener", "web")];
    proxy.metric_becomes("holdfast_client_connections", &one, 1.0);
    let none_left = |most: Option<u64>| {
        let id = rustix::process::Pid::from_raw(i32::try_from(proxy.id()).unwrap());
        let limit = |current| rustix::process::Rlimit {
            current,
            maximum: None,
        };
        let before = rustix::process::prlimit(id, rustix::process::Resource::Nofile, limit(most));
        before.map(|before| before.current)
    };
    // A limit of 0 lets nobody open anything; what is open stays.
    let Ok(before) = none_left(Some(0)) else {
        println!("skipped: a hard limit may not be raised here");
        return;
    };
    let answer = client.get("/");
    none_left(before).unwrap();
    assert_eq!(answer.status(), 503);
    proxy.errors_becomes("fd_pressure", 1.0);
    // The limit is asked for again a few times a second.
    eventually("it is served again", || client.get("/").status() == 200);
}

#[test]
fn a_drain_closes_who_rests_and_lingers_no_longer_than_it_lasts() {
    let origin = Origin::ok();
    let mut proxy = Proxy::with(&origin, |c| {
        c.listener("linger_timeout", "60s");
        c.set("drain.delay", "0s");
        c.set("drain.idle_grace", "0s");
        c.set("drain.spread", "0s");
        c.set("drain.timeout", "4s");
    });
    let mut client = proxy.client();
    client.get("/");
    proxy.terminate();
    client.sees_a_clean_end();
    // It keeps its side open: nobody knows whether it is sending.
    proxy.client_closed_becomes("drain", 1.0);
    assert!(proxy.exit().code().is_some(), "not before drain.timeout");
}

#[test]
fn a_close_is_told_in_the_same_words_by_metrics_the_log_and_the_admin_plane() {
    let origin = Origin::playing(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        peer.reset();
    });
    let proxy = Proxy::with(&origin, |c| {
        c.set("log.level", "debug");
    });
    let mut client = proxy.client();
    client.send(GET);
    assert!(client.partial_response_to("GET").cut.is_some());
    let line = &proxy.log(1)[0];
    let mut closed = serde_json::Value::Null;
    eventually("both connections among the closed", || {
        let (_, text) = proxy.admin("/connections?closed");
        closed = serde_json::from_str(&text).unwrap();
        closed["closed"] == 2
    });
    for (side, key, told) in [
        (
            "upstream",
            "upstream_close",
            ["peer", "rst", "truncated", "response_body"],
        ),
        (
            "client",
            "client_close",
            ["holdfast", "rst", "truncated", "response_body"],
        ),
    ] {
        let [by, how, reason, phase] = told;
        assert_eq!(line[key], reason);
        assert_eq!(line[format!("{key}_by")], by);
        assert_eq!(line[format!("{key}_how")], how);
        assert_eq!(line[format!("{key}_phase")], phase);
        let all = closed["connections"].as_array().unwrap();
        let conn = all.iter().find(|conn| conn["side"] == side).unwrap();
        for (key, word) in [
            ("by", by),
            ("how", how),
            ("reason", reason),
            ("phase", phase),
        ] {
            assert_eq!(conn[key], word, "{conn}");
        }
        assert_eq!(
            (&conn["requests"], &conn["id"]),
            (&1.into(), &line[conn_key(side)])
        );
        let labels = [("side", side), ("by", by), ("how", how), ("phase", phase)];
        proxy.metric_becomes("holdfast_connections_closed_total", &labels, 1.0);
        let reset = [("side", side), ("origin", by), ("phase", phase)];
        proxy.metric_becomes("holdfast_connection_resets_total", &reset, 1.0);
        let says = format!("\"side\":\"{side}\"");
        eventually("a line in the log of the process", || {
            let said = proxy.stderr();
            said.lines()
                .any(|line| line.contains(&says) && line.contains("\"reason\":\"truncated\""))
        });
    }
}

fn conn_key(side: &str) -> &'static str {
    match side {
        "client" => "client_conn",
        _ => "upstream_conn",
    }
}

#[test]
fn a_connection_that_is_not_open_long_enough_to_be_seen_is_seen_when_it_closed() {
    let origin = Origin::ok();
    let proxy = Proxy::with(&origin, |c| {
        c.upstream("pool.reuse", "never");
        c.listener("idle_timeout", "60s");
    });
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").status(), 200);
    }
    proxy.upstream_closed_becomes("reuse_off", 3.0);
    let (_, text) = proxy.admin("/connections?closed&side=upstream&limit=2");
    let closed: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&closed["matching"], &closed["closed"]),
        (&3.into(), &3.into())
    );
    let shown = closed["connections"].as_array().unwrap();
    assert_eq!(shown.len(), 2);
    assert_eq!(
        (&shown[0]["reason"], &shown[0]["by"]),
        (&"reuse_off".into(), &"holdfast".into())
    );
    assert!(shown[0]["rx"].as_u64() > Some(0) && shown[0]["tx"].as_u64() > Some(0));
    assert!(
        shown[0]["id"].as_u64() > shown[1]["id"].as_u64(),
        "the last one first"
    );
}
