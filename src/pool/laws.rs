//! What must be true of the ledger: each rule as a sentence, then the laws after any sequence of
//! operations by several workers, with waiters who leave, connections that die and limits that
//! fall below what is open.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use proptest::prelude::*;

use crate::base::CloseReason;
use crate::base::ConnId;
use crate::base::by_hand::start;
use crate::base::reason::OpenReason;
use crate::pool::lease::ConnectPermit;
use crate::pool::lease::Lease;
use crate::pool::ledger::Ask;
use crate::pool::ledger::Cancelled;
use crate::pool::ledger::Checkout;
use crate::pool::ledger::Collected;
use crate::pool::ledger::Fresh;
use crate::pool::ledger::Ledger;
use crate::pool::ledger::Queueing;
use crate::pool::ledger::RefuseReason;
use crate::pool::ledger::Returned;
use crate::pool::ledger::Was;
use crate::pool::limits::ConnCount;
use crate::pool::limits::Order;
use crate::pool::limits::PoolLimits;
use crate::pool::verdict::Verdict;
use crate::pool::waiters::ClientTurn;
use crate::pool::waiters::Ticket;

const WORKERS: usize = 3;

/// How long a canary is kept, where there is one.
const CANARY: Duration = Duration::from_secs(25);

pub(super) fn limits(max_connections: u32) -> PoolLimits {
    PoolLimits {
        max_connections: ConnCount(max_connections),
        max_idle: 8,
        max_connecting: 8,
        idle_limit: Duration::from_secs(60),
        max_age: None,
        max_requests: None,
        order: Order::Lifo,
        workers: WORKERS,
    }
}

/// A ledger moved by hand, for the sentences.
struct Scene {
    ledger: Ledger<u64>,
    now: Instant,
    retired: Vec<(u64, CloseReason)>,
    next: u64,
}

impl Scene {
    fn of(limits: PoolLimits) -> Self {
        Self {
            ledger: Ledger::new(limits),
            now: start(),
            retired: Vec::new(),
            next: 1,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn ask(&mut self, worker: usize, fresh: Fresh) -> Checkout<u64> {
        let ask = Ask {
            worker,
            fresh,
            queue: Queueing::Allowed { max_pending: 4 },
            client: ClientTurn::default(),
        };
        self.ledger.checkout(&ask, self.now, &mut self.retired)
    }

    fn permit(&mut self, fresh: Fresh) -> ConnectPermit {
        match self.ask(0, fresh) {
            Checkout::Connect(permit) => permit,
            other => panic!("expected a permit, had {other:?}"),
        }
    }

    fn wait(&mut self, fresh: Fresh) -> Ticket {
        match self.ask(0, fresh) {
            Checkout::Wait(ticket) => ticket,
            other => panic!("expected to wait, had {other:?}"),
        }
    }

    fn connect(&mut self) -> (u64, Lease) {
        let permit = self.permit(Fresh::Any);
        self.connected(permit, None)
    }

    fn connected(&mut self, permit: ConnectPermit, age: Option<Duration>) -> (u64, Lease) {
        let conn = self.next;
        self.next += 1;
        let (lease, _) = self.ledger.connected(permit, ConnId(conn), age, self.now);
        (conn, lease)
    }

    fn reuse(&mut self, worker: usize) -> (u64, Lease) {
        match self.ask(worker, Fresh::Any) {
            Checkout::Reuse(conn, lease) => (conn, lease),
            other => panic!("expected an idle connection, had {other:?}"),
        }
    }

    fn give(&mut self, (conn, lease): (u64, Lease), worker: usize) -> Returned<u64> {
        self.ledger
            .give_back(conn, lease, worker, Verdict::Reusable, self.now)
    }

    /// Parks so many connections, the first one a second before the second, and so on.
    fn park(&mut self, worker: usize, count: usize) {
        let held: Vec<_> = (0..count).map(|_| self.connect()).collect();
        for lent in held {
            assert_eq!(self.give(lent, worker), Returned::Parked);
            self.pass(Duration::from_secs(1));
        }
    }
}

#[test]
fn a_client_among_others_has_at_most_half_of_the_line() {
    let mut scene = Scene::of(limits(1));
    let _busy = scene.connect();
    let ask = |client| Ask {
        worker: 0,
        fresh: Fresh::Any,
        queue: Queueing::Allowed { max_pending: 5 },
        client: ClientTurn(client),
    };
    let mut answers = Vec::new();
    for client in [7, 7, 7, 7, 8] {
        let answer = scene
            .ledger
            .checkout(&ask(client), scene.now, &mut scene.retired);
        answers.push(matches!(answer, Checkout::Wait(_)));
    }
    assert_eq!(answers, [true, true, true, false, true]);
}

#[test]
fn what_idles_for_longest_leaves_first_when_descriptors_run_out() {
    let mut scene = Scene::of(limits(4));
    let begun = scene.now;
    scene.park(0, 3);
    for nth in 0..3 {
        let since = begun + Duration::from_secs(nth);
        assert_eq!(scene.ledger.idle_since(), Some(since));
        let retired = &mut scene.retired;
        scene
            .ledger
            .retire_longest_idle(CloseReason::FdPressure, retired);
    }
    assert_eq!((scene.ledger.idle_since(), scene.ledger.open()), (None, 0));
    let reasons = scene.retired.iter().map(|(_, reason)| *reason);
    assert!(reasons.eq([CloseReason::FdPressure; 3]));
}

#[test]
fn every_idle_connection_leaves_an_endpoint_that_is_ejected() {
    let mut scene = Scene::of(limits(4));
    for _ in 0..2 {
        let (_, lease) = scene.connect();
        let (conn, other) = scene.connect();
        let now = scene.now;
        let verdict = Verdict::Reusable;
        let parked = [(conn, other), (conn + 100, lease)];
        for (conn, lease) in parked {
            let returned = scene.ledger.give_back(conn, lease, 0, verdict, now);
            assert_eq!(returned, Returned::Parked);
        }
        let retired = &mut scene.retired;
        scene.ledger.retire_idle(CloseReason::Rebalance, 1, retired);
        assert_eq!((scene.ledger.idle(), scene.retired.len()), (1, 1));
        let retired = &mut scene.retired;
        scene.ledger.retire_all_idle(CloseReason::Ejected, retired);
        assert_eq!((scene.ledger.open(), scene.retired.len()), (0, 2));
        scene.retired.clear();
    }
    let left = scene.ledger.departures();
    assert_eq!(left[CloseReason::Ejected.index()], 2);
}

#[test]
fn the_newest_idle_connection_of_ones_own_worker_is_taken_first() {
    let mut scene = Scene::of(limits(8));
    let held: Vec<_> = (0..4).map(|_| scene.connect()).collect();
    for (lent, worker) in held.into_iter().zip([0, 0, 1, 2]) {
        assert_eq!(scene.give(lent, worker), Returned::Parked);
        scene.pass(Duration::from_secs(1));
    }
    let taken: Vec<u64> = (0..4).map(|_| scene.reuse(0).0).collect();
    assert_eq!(taken, [2, 1, 4, 3]);
}

#[test]
fn with_order_fifo_the_oldest_is_taken_first() {
    let mut scene = Scene::of(PoolLimits {
        order: Order::Fifo,
        ..limits(8)
    });
    scene.park(0, 3);
    assert_eq!(scene.reuse(0).0, 1);
    assert_eq!(scene.reuse(1).0, 2);
}

#[test]
fn another_workers_idle_connection_is_taken_before_a_new_one_is_opened() {
    let mut scene = Scene::of(limits(8));
    scene.park(2, 1);
    assert_eq!(scene.reuse(0).0, 1);
}

#[test]
fn a_connect_is_counted_before_it_is_made() {
    let mut scene = Scene::of(limits(1));
    let permit = scene.permit(Fresh::Any);
    assert_eq!(
        (permit.why(), scene.ledger.open()),
        (OpenReason::EmptyPool, 1)
    );
    scene.wait(Fresh::Any);
}

#[test]
fn with_max_connections_one_requests_take_turns() {
    let mut scene = Scene::of(limits(1));
    let lent = scene.connect();
    let (first, second) = (scene.wait(Fresh::Any), scene.wait(Fresh::Any));
    assert_eq!(scene.give(lent, 0), Returned::Handed(first));
    assert_eq!(scene.ledger.collect(second, scene.now), Collected::Waiting);
    let Collected::Reuse(conn, lease) = scene.ledger.collect(first, scene.now) else {
        panic!("the first waiter was woken for nothing")
    };
    assert_eq!(scene.give((conn, lease), 1), Returned::Handed(second));
    assert_eq!(scene.ledger.collect(first, scene.now), Collected::Gone);
}

#[test]
fn who_asks_for_no_more_than_an_idle_connection_opens_none() {
    let mut scene = Scene::of(limits(2));
    let ask = Ask {
        worker: 0,
        fresh: Fresh::Any,
        queue: Queueing::Refused,
        client: ClientTurn::default(),
    };
    let had = scene.ledger.reuse(&ask, scene.now, &mut scene.retired);
    assert_eq!((had, scene.ledger.open()), (None, 0));
    scene.park(0, 1);
    let had = scene.ledger.reuse(&ask, scene.now, &mut scene.retired);
    assert_eq!(had.map(|(conn, _)| conn), Some(1));
    assert_eq!((scene.ledger.idle(), scene.ledger.leased()), (0, 1));
}

#[test]
fn a_newcomer_does_not_overtake_the_waiting_line() {
    let mut scene = Scene::of(limits(1));
    let (_, lease) = scene.connect();
    let first = scene.wait(Fresh::Any);
    assert_eq!(
        scene.ledger.retire(lease, CloseReason::PeerFin),
        Some(first)
    );
    let second = scene.wait(Fresh::Any);
    assert!(matches!(
        scene.ledger.collect(first, scene.now),
        Collected::Connect(_)
    ));
    assert_eq!(scene.ledger.collect(second, scene.now), Collected::Waiting);
}

#[test]
fn a_request_that_may_not_wait_is_refused_and_so_is_one_too_many() {
    let mut scene = Scene::of(limits(1));
    let _lent = scene.connect();
    let ask = Ask {
        worker: 0,
        fresh: Fresh::Any,
        queue: Queueing::Refused,
        client: ClientTurn::default(),
    };
    let answer = scene.ledger.checkout(&ask, scene.now, &mut scene.retired);
    assert_eq!(answer, Checkout::Refuse(RefuseReason::Full));
    for _ in 0..4 {
        scene.wait(Fresh::Any);
    }
    assert_eq!(
        scene.ask(0, Fresh::Any),
        Checkout::Refuse(RefuseReason::QueueFull)
    );
    assert_eq!(scene.ledger.waiting(), 4);
}

#[test]
fn simultaneous_connects_are_bounded_and_the_next_waiter_follows() {
    let mut scene = Scene::of(PoolLimits {
        max_connecting: 1,
        ..limits(8)
    });
    let permit = scene.permit(Fresh::Any);
    let waiter = scene.wait(Fresh::Any);
    let (_lease, next) = scene.ledger.connected(permit, ConnId(1), None, scene.now);
    assert_eq!(next, Some(waiter));
    assert!(matches!(
        scene.ledger.collect(waiter, scene.now),
        Collected::Connect(_)
    ));
}

#[test]
fn a_failed_connect_leaves_its_place_to_the_next_waiter() {
    let mut scene = Scene::of(limits(1));
    let permit = scene.permit(Fresh::Any);
    let waiter = scene.wait(Fresh::Any);
    assert_eq!(scene.ledger.connect_failed(permit), Some(waiter));
    assert_eq!(scene.ledger.connecting(), 1);
}

#[test]
fn an_overdue_connection_is_never_handed_out() {
    let mut scene = Scene::of(limits(8));
    scene.park(0, 1);
    scene.pass(Duration::from_secs(59));
    assert!(matches!(scene.ask(0, Fresh::Any), Checkout::Connect(_)));
    assert_eq!(scene.retired, [(1, CloseReason::IdleTimeout)]);
}

#[test]
fn a_connection_just_under_its_idle_limit_is_still_good_and_tells_how_long_it_rested() {
    let mut scene = Scene::of(limits(8));
    scene.park(0, 1);
    scene.pass(Duration::from_millis(58_999));
    assert_eq!(scene.reuse(0).1.rested(), Duration::from_millis(59_999));
}

#[test]
fn age_ends_a_connection_on_the_shelf_and_on_return() {
    let mut scene = Scene::of(limits(8));
    let age = Some(Duration::from_secs(5));
    let (one, two) = (scene.permit(Fresh::Any), scene.permit(Fresh::Any));
    let (one, two) = (scene.connected(one, age), scene.connected(two, age));
    assert_eq!(scene.give(one, 0), Returned::Parked);
    scene.pass(Duration::from_secs(5));
    assert_eq!(
        scene.give(two, 0),
        Returned::Retired(2, CloseReason::MaxAge, None)
    );
    assert!(
        scene
            .ledger
            .next_deadline()
            .is_some_and(|at| at <= scene.now)
    );
    scene.ledger.expire(scene.now, &mut scene.retired);
    assert_eq!(scene.retired, [(1, CloseReason::MaxAge)]);
    assert_eq!(scene.ledger.next_deadline(), None);
}

#[test]
fn a_connection_that_carried_max_requests_retires() {
    let mut scene = Scene::of(PoolLimits {
        max_requests: Some(2),
        ..limits(8)
    });
    let (conn, mut lease) = scene.connect();
    lease.on_request();
    assert_eq!(scene.give((conn, lease), 0), Returned::Parked);
    let (conn, mut lease) = scene.reuse(0);
    lease.on_request();
    let returned = scene.give((conn, lease), 0);
    assert_eq!(
        returned,
        Returned::Retired(1, CloseReason::MaxRequests, None)
    );
}

#[test]
fn a_learned_idle_limit_is_told_apart() {
    let mut scene = Scene::of(limits(8));
    scene.park(0, 1);
    scene
        .ledger
        .set_idle_limit(Duration::from_secs(4), CloseReason::LearnedIdle, None);
    scene.pass(Duration::from_secs(3));
    scene.ledger.expire(scene.now, &mut scene.retired);
    assert_eq!(scene.retired, [(1, CloseReason::LearnedIdle)]);
}

/// A pool of two places with a canary, parked as the first connection, and nothing else.
fn with_a_canary() -> Scene {
    let mut scene = Scene::of(limits(2));
    let limit = Duration::from_secs(4);
    scene
        .ledger
        .set_idle_limit(limit, CloseReason::LearnedIdle, Some(CANARY));
    for _ in 0..2 {
        let (conn, mut lease) = scene.connect();
        lease.on_request();
        assert_eq!(scene.give((conn, lease), 0), Returned::Parked);
        scene.pass(limit);
        scene.ledger.expire(scene.now, &mut scene.retired);
    }
    assert_eq!((scene.ledger.canaries(), scene.ledger.open()), (1, 1));
    assert_eq!(scene.retired, [(2, CloseReason::LearnedIdle)]);
    scene.retired.clear();
    scene
}

#[test]
fn one_connection_that_idled_too_long_stays_as_the_canary_and_is_never_handed_out() {
    let mut scene = with_a_canary();
    assert_eq!(scene.ledger.idle(), 0);
    assert_eq!(scene.connect().0, 3);
    assert_eq!(scene.ledger.open(), 2);
    assert!(scene.retired.is_empty());
}

#[test]
fn the_canary_is_the_first_to_give_its_place() {
    let mut scene = with_a_canary();
    let (_first, _second) = (scene.connect(), scene.connect());
    assert_eq!(scene.retired, [(1, CloseReason::PoolFull)]);
    assert_eq!((scene.ledger.canaries(), scene.ledger.open()), (0, 2));
}

#[test]
fn a_canary_that_dies_is_told_apart_and_says_how_long_it_was_idle() {
    let mut scene = with_a_canary();
    let (id, now) = (ConnId(1), scene.now);
    let removed = scene.ledger.remove_idle(id, CloseReason::PeerFin, now);
    let removed = removed.unwrap();
    assert_eq!(
        (removed.was, removed.rested, removed.requests),
        (Was::Canary, Duration::from_secs(8), 1)
    );
}

#[test]
fn a_canary_that_is_kept_for_its_whole_time_has_survived() {
    let mut scene = with_a_canary();
    scene.pass(Duration::from_secs(16));
    assert_eq!(scene.ledger.survived(scene.now), None);
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.ledger.next_deadline(), Some(scene.now));
    assert_eq!(scene.ledger.survived(scene.now), Some((1, CANARY)));
    assert_eq!(scene.ledger.open(), 0);
}

#[test]
fn where_nothing_may_be_idle_a_connection_that_returns_is_the_canary() {
    let mut scene = Scene::of(limits(2));
    let reason = CloseReason::LearnedIdle;
    let none = Duration::ZERO;
    scene.ledger.set_idle_limit(none, reason, Some(CANARY));
    for wanted in [Returned::Parked, Returned::Retired(2, reason, None)] {
        let (conn, mut lease) = scene.connect();
        lease.on_request();
        assert_eq!(scene.give((conn, lease), 0), wanted);
    }
    assert_eq!((scene.ledger.canaries(), scene.ledger.open()), (1, 1));
}

#[test]
fn a_connection_that_carried_no_request_is_no_canary() {
    let mut scene = Scene::of(limits(2));
    let (limit, reason) = (Duration::from_secs(4), CloseReason::LearnedIdle);
    scene.ledger.set_idle_limit(limit, reason, Some(CANARY));
    scene.park(0, 1);
    scene.pass(limit);
    scene.ledger.expire(scene.now, &mut scene.retired);
    assert_eq!(scene.retired, [(1, reason)]);
}

#[test]
fn more_than_max_idle_are_not_kept() {
    let mut scene = Scene::of(PoolLimits {
        max_idle: 1,
        ..limits(8)
    });
    let (one, two) = (scene.connect(), scene.connect());
    assert_eq!(scene.give(one, 0), Returned::Parked);
    assert_eq!(
        scene.give(two, 1),
        Returned::Retired(2, CloseReason::PoolFull, None)
    );
}

#[test]
fn the_guard_leaves_an_older_idle_connection_alone_while_there_is_room() {
    let mut scene = Scene::of(limits(2));
    scene.park(0, 1);
    scene.pass(Duration::from_secs(2));
    let permit = scene.permit(Fresh::IdleLessThan(Duration::from_secs(1)));
    assert_eq!(permit.why(), OpenReason::UnsafeGuard);
    assert!(scene.retired.is_empty());
    assert_eq!(scene.ledger.idle(), 1);
}

#[test]
fn the_guard_retires_the_oldest_idle_connection_when_there_is_no_room() {
    let mut scene = Scene::of(limits(2));
    scene.park(1, 2);
    scene.pass(Duration::from_secs(2));
    let _permit = scene.permit(Fresh::IdleLessThan(Duration::from_secs(1)));
    assert_eq!(scene.retired, [(1, CloseReason::UnsafeGuard)]);
    assert_eq!(scene.ledger.open(), 2);
}

#[test]
fn the_guard_takes_a_young_connection_from_another_worker() {
    let mut scene = Scene::of(limits(8));
    let (old, young) = (scene.connect(), scene.connect());
    assert_eq!(scene.give(old, 0), Returned::Parked);
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.give(young, 1), Returned::Parked);
    let answer = scene.ask(0, Fresh::IdleLessThan(Duration::from_millis(1)));
    assert!(matches!(answer, Checkout::Reuse(2, _)));
}

#[test]
fn a_retry_never_takes_an_idle_connection_and_makes_room_for_a_new_one() {
    let mut scene = Scene::of(limits(1));
    scene.park(0, 1);
    assert_eq!(scene.permit(Fresh::Only).why(), OpenReason::Retry);
    assert_eq!(scene.retired, [(1, CloseReason::RetryReplaced)]);
}

#[test]
fn a_waiting_retry_is_served_in_its_turn_by_a_connection_that_makes_room() {
    let mut scene = Scene::of(limits(1));
    let lent = scene.connect();
    let (retry, other) = (scene.wait(Fresh::Only), scene.wait(Fresh::Any));
    let returned = scene.give(lent, 0);
    assert_eq!(
        returned,
        Returned::Retired(1, CloseReason::RetryReplaced, Some(retry))
    );
    assert_eq!(scene.ledger.collect(other, scene.now), Collected::Waiting);
}

#[test]
fn what_a_leaving_waiter_was_handed_goes_to_the_next() {
    let mut scene = Scene::of(limits(1));
    let lent = scene.connect();
    let (first, second) = (scene.wait(Fresh::Any), scene.wait(Fresh::Any));
    assert_eq!(scene.give(lent, 0), Returned::Handed(first));
    let left = scene.ledger.cancel(first, scene.now);
    assert_eq!(left, Cancelled::Connection(Returned::Handed(second)));
    let left = scene.ledger.cancel(second, scene.now);
    assert_eq!(left, Cancelled::Connection(Returned::Parked));
    assert_eq!((scene.ledger.idle(), scene.ledger.leased()), (1, 0));
}

#[test]
fn a_place_that_a_leaving_waiter_was_given_goes_to_the_next() {
    let mut scene = Scene::of(limits(1));
    let (_, lease) = scene.connect();
    let (first, second) = (scene.wait(Fresh::Any), scene.wait(Fresh::Any));
    assert_eq!(
        scene.ledger.retire(lease, CloseReason::PeerRst),
        Some(first)
    );
    assert_eq!(
        scene.ledger.cancel(first, scene.now),
        Cancelled::Place(Some(second))
    );
    assert_eq!(
        scene.ledger.cancel(second, scene.now),
        Cancelled::Place(None)
    );
    assert_eq!(scene.ledger.open(), 0);
}

#[test]
fn a_waiter_who_left_the_middle_of_the_line_is_passed_over() {
    let mut scene = Scene::of(limits(1));
    let lent = scene.connect();
    let (first, second) = (scene.wait(Fresh::Any), scene.wait(Fresh::Any));
    assert_eq!(scene.ledger.cancel(first, scene.now), Cancelled::Unserved);
    assert_eq!(scene.give(lent, 0), Returned::Handed(second));
}

#[test]
fn a_requester_whose_connect_is_under_way_takes_a_connection_that_returns_earlier() {
    let mut scene = Scene::of(limits(2));
    let busy = scene.connect();
    let permit = scene.permit(Fresh::Any);
    let beside = scene.ledger.enlist(Fresh::Any, ClientTurn::default());
    assert_eq!(scene.ledger.waiting(), 0);
    assert_eq!(scene.give(busy, 0), Returned::Handed(beside));
    let Collected::Reuse(..) = scene.ledger.collect(beside, scene.now) else {
        panic!("nothing lay ready")
    };
    let waiter = scene.wait(Fresh::Any);
    let late = scene.connected(permit, None);
    assert_eq!(scene.give(late, 0), Returned::Handed(waiter));
}

#[test]
fn a_freed_place_goes_past_those_who_already_connect() {
    let mut scene = Scene::of(limits(2));
    let (_, lease) = scene.connect();
    let _permit = scene.permit(Fresh::Any);
    let _beside = scene.ledger.enlist(Fresh::Any, ClientTurn::default());
    let waiter = scene.wait(Fresh::Any);
    assert_eq!(
        scene.ledger.retire(lease, CloseReason::PeerFin),
        Some(waiter)
    );
}

#[test]
fn limits_lowered_below_what_is_open_take_idle_ones_first_and_the_rest_as_they_return() {
    let mut scene = Scene::of(limits(4));
    let (one, two, three) = (scene.connect(), scene.connect(), scene.connect());
    assert_eq!(scene.give(one, 0), Returned::Parked);
    let woken = scene
        .ledger
        .set_limits(limits(1), scene.now, &mut scene.retired);
    assert!(woken.is_empty());
    assert_eq!(scene.retired, [(1, CloseReason::PoolFull)]);
    assert!(matches!(scene.ask(0, Fresh::Any), Checkout::Wait(_)));
    assert_eq!(
        scene.give(two, 0),
        Returned::Retired(2, CloseReason::PoolFull, None)
    );
    assert!(matches!(scene.give(three, 0), Returned::Handed(_)));
    assert_eq!(scene.ledger.open(), 1);
}

#[test]
fn raised_limits_let_the_waiting_connect() {
    let mut scene = Scene::of(limits(1));
    let _lent = scene.connect();
    let tickets = [scene.wait(Fresh::Any), scene.wait(Fresh::Any)];
    assert_eq!(
        scene
            .ledger
            .set_limits(limits(3), scene.now, &mut scene.retired),
        tickets
    );
}

#[test]
fn a_parked_connection_that_dies_is_removed_from_whichever_shelf() {
    let mut scene = Scene::of(limits(4));
    scene.park(1, 3);
    let mut remove = || {
        let (id, now) = (ConnId(2), scene.now);
        scene.ledger.remove_idle(id, CloseReason::PeerFin, now)
    };
    let removed = remove().unwrap();
    assert_eq!(
        (removed.conn, removed.was, removed.wake),
        (2, Was::Parked, None)
    );
    assert_eq!(removed.rested, Duration::from_secs(2));
    assert_eq!(remove(), None);
    assert_eq!((scene.reuse(0).0, scene.reuse(0).0), (3, 1));
    assert_eq!(scene.ledger.departures()[CloseReason::PeerFin.index()], 1);
}

#[test]
fn a_closed_ledger_refuses_sends_waiters_away_and_takes_nothing_back() {
    let mut scene = Scene::of(limits(1));
    let lent = scene.connect();
    let (waiter, beside) = (
        scene.wait(Fresh::Any),
        scene.ledger.enlist(Fresh::Any, ClientTurn::default()),
    );
    let woken = scene
        .ledger
        .close(CloseReason::EndpointRemoved, &mut scene.retired);
    assert_eq!(woken, [waiter, beside]);
    assert_eq!(scene.ledger.collect(waiter, scene.now), Collected::Gone);
    assert_eq!(
        scene.ask(0, Fresh::Any),
        Checkout::Refuse(RefuseReason::Closed)
    );
    let returned = scene.give(lent, 0);
    assert_eq!(
        returned,
        Returned::Retired(1, CloseReason::EndpointRemoved, None)
    );
    assert_eq!(scene.ledger.open(), 0);
}

#[test]
fn a_guard_of_zero_is_never_served_by_a_returning_connection_nor_costs_one_while_there_is_room() {
    let mut scene = Scene::of(limits(2));
    let guard = Fresh::IdleLessThan(Duration::ZERO);
    let lent = scene.connect();
    let _permit = scene.permit(guard);
    let beside = scene.ledger.enlist(guard, ClientTurn::default());
    assert_eq!(scene.give(lent, 0), Returned::Parked);
    assert_eq!(scene.ledger.collect(beside, scene.now), Collected::Gone);
}

#[test]
fn warming_waits_behind_those_who_wait_and_keeps_to_the_cap() {
    let mut scene = Scene::of(limits(1));
    let permit = scene.ledger.warm();
    assert_eq!(
        permit.as_ref().map(ConnectPermit::why),
        Some(OpenReason::Warm)
    );
    assert_eq!(scene.ledger.warm(), None);
}

/// What may be done to a ledger. Numbers pick among what is there.
#[derive(Clone, Debug)]
enum Op {
    Ask {
        worker: usize,
        fresh: u8,
        queue: bool,
    },
    Reuse {
        worker: usize,
        fresh: u8,
    },
    Enlist,
    Warm,
    Connected {
        pick: usize,
        age: Option<u64>,
    },
    ConnectFailed {
        pick: usize,
    },
    GiveBack {
        pick: usize,
        worker: usize,
        sound: bool,
    },
    Retire {
        pick: usize,
    },
    Collect {
        pick: usize,
    },
    Cancel {
        pick: usize,
    },
    RemoveIdle {
        pick: usize,
    },
    Expire,
    RetireLongestIdle,
    Limits {
        max_connections: u32,
        max_idle: u32,
        max_connecting: u32,
        idle_secs: u64,
    },
    Pass {
        millis: u64,
    },
    Close,
}

fn any_op() -> impl Strategy<Value = Op> {
    let pick = any::<usize>;
    prop_oneof![
        12 => (0..WORKERS + 1, 0..4u8, any::<bool>())
            .prop_map(|(worker, fresh, queue)| Op::Ask { worker, fresh, queue }),
        4 => (0..WORKERS + 1, 0..4u8).prop_map(|(worker, fresh)| Op::Reuse { worker, fresh }),
        2 => Just(Op::Enlist),
        1 => Just(Op::Warm),
        8 => (pick(), prop::option::of(1..20u64))
            .prop_map(|(pick, age)| Op::Connected { pick, age }),
        2 => pick().prop_map(|pick| Op::ConnectFailed { pick }),
        10 => (pick(), 0..WORKERS + 1, prop::bool::weighted(0.8))
            .prop_map(|(pick, worker, sound)| Op::GiveBack { pick, worker, sound }),
        2 => pick().prop_map(|pick| Op::Retire { pick }),
        8 => pick().prop_map(|pick| Op::Collect { pick }),
        3 => pick().prop_map(|pick| Op::Cancel { pick }),
        2 => pick().prop_map(|pick| Op::RemoveIdle { pick }),
        2 => Just(Op::Expire),
        1 => Just(Op::RetireLongestIdle),
        1 => (1..8u32, 0..6u32, 1..5u32, 1..20u64).prop_map(
            |(max_connections, max_idle, max_connecting, idle_secs)| Op::Limits {
                max_connections,
                max_idle,
                max_connecting,
                idle_secs,
            }
        ),
        6 => (0..3000u64).prop_map(|millis| Op::Pass { millis }),
        1 => prop::bool::weighted(0.1).prop_map(|close| {
            if close { Op::Close } else { Op::Expire }
        }),
    ]
}

/// What the outside knows of a connection.
#[derive(Clone, Copy, Debug)]
struct Known {
    age_deadline: Option<Instant>,
    parked_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Had {
    Nothing,
    Connection,
    Place,
}

/// The outside of a ledger: holds what was handed out and checks the laws after each step.
struct Outside {
    ledger: Ledger<u64>,
    now: Instant,
    next: u64,
    held: Vec<(u64, Lease)>,
    permits: Vec<ConnectPermit>,
    tickets: BTreeMap<Ticket, (Fresh, bool, Had)>,
    alive: BTreeMap<u64, Known>,
    gone: BTreeSet<u64>,
    lost: u64,
    ceiling: u32,
    closed: bool,
}

impl Outside {
    fn new() -> Self {
        let limits = PoolLimits {
            max_idle: 4,
            max_connecting: 2,
            ..limits(4)
        };
        let mut ledger = Ledger::new(limits);
        let limit = Duration::from_secs(3);
        ledger.set_idle_limit(limit, CloseReason::LearnedIdle, Some(CANARY));
        Self {
            ledger,
            now: start(),
            next: 1,
            held: Vec::new(),
            permits: Vec::new(),
            tickets: BTreeMap::new(),
            alive: BTreeMap::new(),
            gone: BTreeSet::new(),
            lost: 0,
            ceiling: 4,
            closed: false,
        }
    }

    fn left(&mut self, conn: u64) {
        assert!(
            self.alive.remove(&conn).is_some(),
            "{conn} left twice or never was"
        );
        assert!(self.gone.insert(conn), "{conn} left twice");
        self.lost += 1;
    }

    fn all_left(&mut self, retired: Vec<(u64, CloseReason)>) {
        for (conn, _) in retired {
            self.left(conn);
        }
    }

    /// Law 6, at the moment of handing out.
    fn check_sound(&self, conn: u64, fresh: Fresh) {
        let known = self.alive[&conn];
        assert!(
            known.age_deadline.is_none_or(|at| self.now < at),
            "over age"
        );
        let rested = self.now - known.parked_at;
        assert!(rested < self.ledger.limits().idle_limit, "over-idle");
        match fresh {
            Fresh::Any => {}
            Fresh::IdleLessThan(limit) => assert!(rested < limit, "past the guard"),
            Fresh::Only => panic!("a retry was handed an idle connection"),
        }
    }

    /// Law 4: whoever is woken is the oldest whom this could serve.
    fn woken(&mut self, ticket: Ticket, had: Had) {
        let serves = |&(fresh, enlisted, have): &(Fresh, bool, Had)| {
            have == Had::Nothing
                && match had {
                    Had::Place => !enlisted,
                    Had::Connection => fresh != Fresh::Only,
                    Had::Nothing => false,
                }
        };
        let oldest = self
            .tickets
            .iter()
            .find(|(_, state)| serves(state))
            .map(|(t, _)| *t);
        assert_eq!(
            oldest,
            Some(ticket),
            "someone was overtaken, or woken twice"
        );
        if let Some(state) = self.tickets.get_mut(&ticket) {
            state.2 = had;
        }
    }

    fn returned(&mut self, conn: u64, returned: Returned<u64>) {
        match returned {
            Returned::Parked => {}
            Returned::Handed(ticket) => {
                let fresh = self.tickets[&ticket].0;
                self.check_sound(conn, fresh);
                self.woken(ticket, Had::Connection);
            }
            Returned::Retired(which, _, wake) => {
                assert_eq!(which, conn);
                self.left(conn);
                self.wake(wake);
            }
        }
    }

    fn wake(&mut self, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            self.woken(ticket, Had::Place);
        }
    }

    fn step(&mut self, op: Op) {
        let mut retired = Vec::new();
        match op {
            Op::Ask {
                worker,
                fresh,
                queue,
            } => self.ask(worker, fresh, queue, &mut retired),
            Op::Reuse { worker, fresh } => self.reuse(worker, fresh_of(fresh), &mut retired),
            Op::Enlist => {
                let ticket = self.ledger.enlist(Fresh::Any, ClientTurn::default());
                if !self.closed && self.ledger.idle() == 0 {
                    self.tickets
                        .insert(ticket, (Fresh::Any, true, Had::Nothing));
                } else {
                    let left = self.ledger.cancel(ticket, self.now);
                    assert_eq!(left, Cancelled::Unserved);
                }
            }
            Op::Warm => self.permits.extend(self.ledger.warm()),
            Op::Connected { pick, age } => {
                let Some(permit) = choose(&mut self.permits, pick) else {
                    return;
                };
                let (conn, age) = (self.next, age.map(Duration::from_secs));
                self.next += 1;
                let (lease, wake) = self.ledger.connected(permit, ConnId(conn), age, self.now);
                let age_deadline = age.map(|age| self.now + age);
                self.alive.insert(
                    conn,
                    Known {
                        age_deadline,
                        parked_at: self.now,
                    },
                );
                self.held.push((conn, lease));
                self.wake(wake);
            }
            Op::ConnectFailed { pick } => {
                let Some(permit) = choose(&mut self.permits, pick) else {
                    return;
                };
                let wake = self.ledger.connect_failed(permit);
                self.wake(wake);
            }
            Op::GiveBack {
                pick,
                worker,
                sound,
            } => {
                let Some((conn, mut lease)) = choose(&mut self.held, pick) else {
                    return;
                };
                lease.on_request();
                if let Some(known) = self.alive.get_mut(&conn) {
                    known.parked_at = self.now;
                }
                let verdict = match sound {
                    true => Verdict::Reusable,
                    false => Verdict::Retire(CloseReason::UpstreamCloseHeader),
                };
                let returned = self
                    .ledger
                    .give_back(conn, lease, worker, verdict, self.now);
                self.returned(conn, returned);
            }
            Op::Retire { pick } => {
                let Some((conn, lease)) = choose(&mut self.held, pick) else {
                    return;
                };
                let wake = self.ledger.retire(lease, CloseReason::PeerRst);
                self.left(conn);
                self.wake(wake);
            }
            Op::Collect { pick } => self.collect(pick),
            Op::Cancel { pick } => self.cancel(pick),
            Op::RemoveIdle { pick } => {
                let ids: Vec<u64> = self.alive.keys().copied().collect();
                let Some(id) = ids.get(pick % ids.len().max(1)) else {
                    return;
                };
                let removed = self
                    .ledger
                    .remove_idle(ConnId(*id), CloseReason::PeerFin, self.now);
                if let Some(removed) = removed {
                    assert_eq!(removed.wake, None, "law 7");
                    self.left(removed.conn);
                }
            }
            Op::RetireLongestIdle => {
                let (since, reason) = (self.ledger.idle_since(), CloseReason::FdPressure);
                let mut retired = Vec::new();
                self.ledger.retire_longest_idle(reason, &mut retired);
                assert_eq!(retired.len(), usize::from(since.is_some()));
                assert!(self.ledger.idle_since() >= since || self.ledger.idle_since().is_none());
                retired.into_iter().for_each(|(conn, _)| self.left(conn));
            }
            Op::Expire => {
                if let Some((canary, rested)) = self.ledger.survived(self.now) {
                    assert!(rested >= CANARY);
                    self.left(canary);
                }
                self.ledger.expire(self.now, &mut retired);
                assert!(self.ledger.next_deadline().is_none_or(|at| at > self.now));
            }
            Op::Limits {
                max_connections,
                max_idle,
                max_connecting,
                idle_secs,
            } => {
                let idle_limit = Duration::from_secs(idle_secs);
                let new = PoolLimits {
                    max_idle,
                    max_connecting,
                    idle_limit,
                    ..limits(max_connections)
                };
                let woken = self.ledger.set_limits(new, self.now, &mut retired);
                for ticket in woken {
                    self.woken(ticket, Had::Place);
                }
            }
            Op::Pass { millis } => self.now += Duration::from_millis(millis),
            Op::Close => {
                let woken = self.ledger.close(CloseReason::Drain, &mut retired);
                self.closed = true;
                let unserved: Vec<_> = self
                    .tickets
                    .iter()
                    .filter(|(_, s)| s.2 == Had::Nothing)
                    .map(|t| *t.0)
                    .collect();
                assert_eq!(woken, unserved);
                self.tickets.retain(|_, state| state.2 != Had::Nothing);
            }
        }
        self.all_left(retired);
        self.check();
    }

    fn ask(
        &mut self,
        worker: usize,
        fresh: u8,
        queue: bool,
        retired: &mut Vec<(u64, CloseReason)>,
    ) {
        let fresh = fresh_of(fresh);
        let queue = match queue {
            true => Queueing::Allowed { max_pending: 5 },
            false => Queueing::Refused,
        };
        let may_connect = self.ledger.waiting() == 0;
        match self.ledger.checkout(
            &Ask {
                worker,
                fresh,
                queue,
                client: ClientTurn::default(),
            },
            self.now,
            retired,
        ) {
            Checkout::Reuse(conn, lease) => {
                assert_eq!(lease.id(), ConnId(conn));
                self.check_sound(conn, fresh);
                self.held.push((conn, lease));
            }
            Checkout::Connect(permit) => {
                assert!(may_connect, "a newcomer overtook the line");
                self.permits.push(permit);
            }
            Checkout::Wait(ticket) => {
                let before = self.tickets.insert(ticket, (fresh, false, Had::Nothing));
                assert!(before.is_none());
                assert!(self.tickets.keys().next_back() == Some(&ticket));
            }
            Checkout::Refuse(RefuseReason::Closed) => assert!(self.closed),
            Checkout::Refuse(RefuseReason::QueueFull) => assert!(self.ledger.waiting() >= 5),
            Checkout::Refuse(RefuseReason::Full) => assert_eq!(queue, Queueing::Refused),
        }
    }

    fn reuse(&mut self, worker: usize, fresh: Fresh, retired: &mut Vec<(u64, CloseReason)>) {
        let ask = Ask {
            worker,
            fresh,
            queue: Queueing::Refused,
            client: ClientTurn::default(),
        };
        let before = (self.ledger.connecting(), self.ledger.waiting());
        if let Some((conn, lease)) = self.ledger.reuse(&ask, self.now, retired) {
            assert_eq!(lease.id(), ConnId(conn));
            self.check_sound(conn, fresh);
            self.held.push((conn, lease));
        }
        let after = (self.ledger.connecting(), self.ledger.waiting());
        assert_eq!(before, after, "no more than idle connections was asked for");
    }

    fn collect(&mut self, pick: usize) {
        let Some((ticket, had)) = self.pick_ticket(pick) else {
            return;
        };
        match self.ledger.collect(ticket, self.now) {
            Collected::Waiting => {
                assert_eq!(had, Had::Nothing);
                return;
            }
            Collected::Reuse(conn, lease) => {
                assert_eq!((had, lease.id()), (Had::Connection, ConnId(conn)));
                self.held.push((conn, lease));
            }
            Collected::Connect(permit) => {
                assert_eq!(had, Had::Place);
                self.permits.push(permit);
            }
            Collected::Gone => panic!("a good ticket was refused"),
        }
        self.tickets.remove(&ticket);
        assert_eq!(self.ledger.collect(ticket, self.now), Collected::Gone);
    }

    fn cancel(&mut self, pick: usize) {
        let Some((ticket, had)) = self.pick_ticket(pick) else {
            return;
        };
        self.tickets.remove(&ticket);
        let before: BTreeSet<u64> = self.held.iter().map(|(conn, _)| *conn).collect();
        match self.ledger.cancel(ticket, self.now) {
            Cancelled::Unserved => assert_eq!(had, Had::Nothing),
            Cancelled::Place(wake) => {
                assert_eq!(had, Had::Place);
                self.wake(wake);
            }
            Cancelled::Connection(Returned::Parked) => assert_eq!(had, Had::Connection),
            Cancelled::Connection(Returned::Handed(next)) => {
                assert_eq!(had, Had::Connection);
                self.woken(next, Had::Connection);
            }
            Cancelled::Connection(Returned::Retired(conn, _, wake)) => {
                assert!(!before.contains(&conn));
                self.left(conn);
                self.wake(wake);
            }
        }
    }

    fn pick_ticket(&self, pick: usize) -> Option<(Ticket, Had)> {
        let at = pick % self.tickets.len().max(1);
        self.tickets
            .iter()
            .nth(at)
            .map(|(ticket, state)| (*ticket, state.2))
    }

    fn check(&mut self) {
        let (ledger, limits) = (&self.ledger, self.ledger.limits());
        let max = limits.max_connections.0;
        let count = |want: Had| self.tickets.values().filter(|s| s.2 == want).count();

        // Law 1, and law 3: what is counted out is what was handed out.
        assert_eq!(
            ledger.idle() + ledger.canaries() + ledger.leased() + ledger.connecting(),
            ledger.open()
        );
        assert_eq!(
            ledger.leased() as usize,
            self.held.len() + count(Had::Connection)
        );
        assert_eq!(
            ledger.connecting() as usize,
            self.permits.len() + count(Had::Place)
        );
        let alive = ledger.idle() + ledger.canaries() + ledger.leased();
        assert_eq!(alive as usize, self.alive.len());
        self.ceiling = max.max(self.ceiling.min(ledger.open()));
        assert!(ledger.open() <= self.ceiling, "opened beyond the cap");
        assert!(ledger.idle() <= limits.max_idle);

        // Law 2.
        let in_line = |s: &&(Fresh, bool, Had)| s.2 == Had::Nothing && !s.1;
        let waiting: Vec<Fresh> = self.tickets.values().filter(in_line).map(|s| s.0).collect();
        assert_eq!(ledger.waiting() as usize, waiting.len());
        if !waiting.is_empty() {
            let place = ledger.open() < max && ledger.connecting() < limits.max_connecting;
            assert!(!place, "someone waits beside a free place");
        }
        assert!(
            ledger.idle() == 0 || !waiting.contains(&Fresh::Any),
            "waits beside an idle one"
        );

        // Law 5.
        assert_eq!(ledger.departures().iter().sum::<u64>(), self.lost);
        // Law 7.
        assert!(
            ledger.idle() + ledger.canaries() == 0 || ledger.open() + ledger.waiting() <= max,
            "law 7"
        );
    }
}

fn fresh_of(number: u8) -> Fresh {
    match number {
        0 | 1 => Fresh::Any,
        2 => Fresh::IdleLessThan(Duration::from_secs(1)),
        _ => Fresh::Only,
    }
}

fn choose<T>(from: &mut Vec<T>, pick: usize) -> Option<T> {
    let at = pick % from.len().max(1);
    (at < from.len()).then(|| from.swap_remove(at))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_laws_hold_after_any_sequence_of_operations(
        ops in prop::collection::vec(any_op(), 1..120)
    ) {
        let mut outside = Outside::new();
        for op in ops {
            outside.step(op);
        }
    }
}
