//! Sharing out what `max_connections_total` leaves, over all ledgers of an upstream.
//!
//! A ledger under a total does not serve its own line: somebody elsewhere may have come earlier.
//! Whoever has changed a ledger calls [`share_out`] while anybody waits. Absent on purpose: locks;
//! the caller holds them all, which is what makes the order exact.
//!
//! 1. The open connections of all ledgers together are at most the total. A lowered one takes away
//!    idle connections at once and the others as they return; until then nothing new is opened.
//! 2. After sharing out, nobody waits who has a place and a port at their own endpoint while the
//!    total has room, or anything idle could make some.
//! 3. Among those, the oldest is first, where a ledger offers the first of its own line. With clients
//!    in turn (`queue = "fair"`) turns order each ledger's line alone, since they say nothing of
//!    another's; who waits at another ledger stands behind those only who came earlier.

use std::time::Instant;

use crate::base::CloseReason;
use crate::pool::ledger::Ledger;
use crate::pool::waiters::Ticket;

/// Admits everyone who can be, in the order of law 3, and closes idle connections to make room for them,
/// the longest idle first. Returns whom to wake, each with the place of their ledger; what has to
/// leave goes to `retired`, likewise.
#[must_use = "these waiters must be woken"]
pub fn share_out<C>(
    ledgers: &mut [&mut Ledger<C>],
    now: Instant,
    retired: &mut Vec<(usize, C, CloseReason)>,
) -> Vec<(usize, Ticket)> {
    let mut admitted = Vec::new();
    loop {
        let fronts = ledgers.iter().enumerate();
        let oldest = fronts
            .filter_map(|(at, ledger)| Some((ledger.next_for_total()?.number(), at)))
            .min();
        let Some((_, at)) = oldest else { break };
        let Some(ledger) = ledgers.get_mut(at) else {
            break;
        };
        if let Some(ticket) = ledger.admit_under_total() {
            admitted.push((at, ticket));
            continue;
        }
        let Some(evicted) = evict_longest(ledgers, now) else {
            break;
        };
        retired.push(evicted);
    }
    admitted
}

/// Takes away the connection that has been idle longest in any ledger; canaries first, since they
/// carry nothing.
fn evict_longest<C>(
    ledgers: &mut [&mut Ledger<C>],
    now: Instant,
) -> Option<(usize, C, CloseReason)> {
    let idle = ledgers.iter().enumerate();
    let longest = idle
        .filter_map(|(at, ledger)| Some((ledger.idle_longest()?, at)))
        .min();
    let (_, at) = longest?;
    let (conn, reason) = ledgers.get_mut(at)?.evict(now)?;
    Some((at, conn, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ConnId;
    use crate::base::by_hand::start;
    use crate::pool::laws::limits;
    use crate::pool::lease::ConnectPermit;
    use crate::pool::lease::Lease;
    use crate::pool::ledger::Ask;
    use crate::pool::ledger::Checkout;
    use crate::pool::ledger::Collected;
    use crate::pool::ledger::Fresh;
    use crate::pool::ledger::Queueing;
    use crate::pool::ledger::RefuseReason;
    use crate::pool::ledger::Returned;
    use crate::pool::ports::PortShape;
    use crate::pool::total::Total;
    use crate::pool::verdict::Verdict;
    use crate::pool::waiters::ClientTurn;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    const LEDGERS: usize = 3;

    /// Three ledgers under one total, and all that was handed out.
    struct House {
        total: Arc<Total>,
        ledgers: Vec<Ledger<u64>>,
        now: Instant,
        next: u64,
        permits: Vec<(usize, ConnectPermit)>,
        held: Vec<(usize, u64, Lease)>,
        waiting: BTreeMap<Ticket, usize>,
        served: Vec<(usize, Ticket)>,
    }

    impl House {
        fn new(total: u32, each: u32) -> Self {
            let total = Arc::new(Total::new(Some(total)));
            let ledger = || {
                let total = Arc::clone(&total);
                Ledger::under(total, limits(each), PortShape::unlimited())
            };
            Self {
                ledgers: (0..LEDGERS).map(|_| ledger()).collect(),
                total,
                now: start(),
                next: 1,
                permits: Vec::new(),
                held: Vec::new(),
                waiting: BTreeMap::new(),
                served: Vec::new(),
            }
        }

        /// Shares out, as whoever changed a ledger does, and checks the order.
        fn share(&mut self) {
            let mut retired = Vec::new();
            let mut all: Vec<_> = self.ledgers.iter_mut().collect();
            let woken = share_out(&mut all, self.now, &mut retired);
            assert!(in_order(&woken), "law 3: {woken:?}");
            for (at, ticket) in woken {
                assert_eq!(self.waiting.remove(&ticket), Some(at));
                self.served.push((at, ticket));
            }
            let overdue = self.now > start() + Duration::from_secs(59);
            let full = |(.., why): &(usize, u64, CloseReason)| *why == CloseReason::PoolFull;
            assert!(overdue || retired.iter().all(full));
        }

        fn ask(&mut self, at: usize, fresh: Fresh) {
            self.ask_for(ClientTurn::default(), at, fresh);
        }

        fn ask_for(&mut self, client: ClientTurn, at: usize, fresh: Fresh) {
            let queue = Queueing::Allowed { max_pending: 9 };
            self.ask_queueing(client, (at, fresh), queue);
        }

        fn ask_queueing(
            &mut self,
            client: ClientTurn,
            (at, fresh): (usize, Fresh),
            queue: Queueing,
        ) {
            let worker = 0;
            let ask = Ask {
                worker,
                fresh,
                queue,
                client,
            };
            match self.ledgers[at].checkout(&ask, self.now, &mut Vec::new()) {
                Checkout::Reuse(conn, lease) => self.held.push((at, conn, lease)),
                Checkout::Connect(permit) => self.permits.push((at, permit)),
                Checkout::Wait(ticket) => {
                    self.waiting.insert(ticket, at);
                }
                Checkout::Refuse(RefuseReason::QueueFull | RefuseReason::Full) => {}
                Checkout::Refuse(other) => panic!("{other:?}"),
            }
            self.share();
        }

        fn connect(&mut self, pick: usize) {
            if self.permits.is_empty() {
                return;
            }
            let (at, permit) = self.permits.swap_remove(pick % self.permits.len());
            let conn = self.next;
            self.next += 1;
            let (lease, wake) = self.ledgers[at].connected(permit, ConnId(conn), None, self.now);
            assert_eq!(wake, None);
            self.held.push((at, conn, lease));
            self.share();
        }

        fn give_back(&mut self, pick: usize, verdict: Verdict) {
            if self.held.is_empty() {
                return;
            }
            let (at, conn, mut lease) = self.held.swap_remove(pick % self.held.len());
            lease.on_request();
            match self.ledgers[at].give_back(conn, lease, 0, verdict, self.now) {
                Returned::Parked | Returned::Retired(_, _, None) => {}
                Returned::Handed(ticket) => {
                    assert_eq!(self.waiting.remove(&ticket), Some(at));
                    self.served.push((at, ticket));
                }
                Returned::Retired(_, _, Some(_)) => panic!("served outside of the house"),
            }
            self.share();
        }

        fn collect(&mut self, pick: usize) {
            if self.served.is_empty() {
                return;
            }
            let (at, ticket) = self.served.swap_remove(pick % self.served.len());
            match self.ledgers[at].collect(ticket, self.now) {
                Collected::Reuse(conn, lease) => self.held.push((at, conn, lease)),
                Collected::Connect(permit) => self.permits.push((at, permit)),
                other => panic!("{other:?}"),
            }
        }

        fn leave(&mut self, pick: usize) {
            let nth = pick % self.waiting.len().max(1);
            let gone = self.waiting.iter().nth(nth).map(|(t, at)| (*t, *at));
            if let Some((ticket, at)) = gone {
                self.waiting.remove(&ticket);
                let left = self.ledgers[at].cancel(ticket, self.now);
                assert_eq!(left, crate::pool::ledger::Cancelled::Unserved);
                self.share();
            }
        }

        fn check(&self) {
            let open: u32 = self.ledgers.iter().map(Ledger::open).sum();
            assert_eq!(open, self.total.open());
            assert!(open <= self.total.limit().unwrap(), "law 1");
            let waiting: u32 = self.ledgers.iter().map(Ledger::waiting).sum();
            assert_eq!(waiting as usize, self.waiting.len());
            assert_eq!(self.total.is_waited_for(), waiting > 0);
            let idle = self.ledgers.iter().any(|ledger| ledger.idle() > 0);
            for ledger in &self.ledgers {
                let eligible = ledger.next_for_total().is_some();
                assert!(!eligible || (!self.total.has_room() && !idle), "law 2");
            }
        }
    }

    /// Law 3: each ledger's are in the order of its line, and everyone comes before whom another
    /// ledger offered at that moment and who came later.
    fn in_order(woken: &[(usize, Ticket)]) -> bool {
        woken.iter().enumerate().all(|(nth, (at, ticket))| {
            let later = woken.get(nth + 1..).unwrap_or_default();
            (0..LEDGERS).all(|other| {
                let next = later.iter().find(|(of, _)| *of == other);
                next.is_none_or(|(_, next)| match other == *at {
                    true => ticket < next,
                    false => ticket.number() < next.number(),
                })
            })
        })
    }

    #[test]
    fn an_idle_connection_elsewhere_makes_room() {
        let mut house = House::new(1, 4);
        house.ask(0, Fresh::Any);
        house.connect(0);
        house.give_back(0, Verdict::Reusable);
        assert_eq!(house.ledgers[0].idle(), 1);
        house.ask(1, Fresh::Any);
        assert_eq!((house.ledgers[0].open(), house.served.len()), (0, 1));
        house.check();
    }

    #[test]
    fn whoever_came_first_is_served_first_at_whichever_endpoint() {
        let mut house = House::new(1, 4);
        house.ask(0, Fresh::Any);
        house.connect(0);
        for at in [2, 1, 0] {
            house.ask(at, Fresh::Only);
        }
        house.give_back(0, Verdict::Retire(CloseReason::PeerFin));
        let [(at, _)] = house.served[..] else {
            panic!()
        };
        assert_eq!(at, 2);
    }

    #[test]
    fn turns_order_each_line_and_who_came_first_the_firsts_of_all_lines() {
        let mut house = House::new(1, 4);
        house.ask(0, Fresh::Any);
        house.connect(0);
        for (client, at) in [(1, 0), (1, 0), (2, 0), (3, 1)] {
            house.ask_for(ClientTurn(client), at, Fresh::Only);
        }
        let mut served = Vec::new();
        while !house.held.is_empty() {
            house.give_back(0, Verdict::Retire(CloseReason::PeerFin));
            served.extend(house.served.iter().map(|(_, ticket)| ticket.number()));
            house.collect(0);
            house.connect(0);
        }
        let first = served.first().copied().unwrap();
        let order: Vec<_> = served.iter().map(|number| number - first).collect();
        assert_eq!(order, [0, 2, 1, 3], "the third overtakes its own line only");
    }

    #[test]
    fn one_who_waits_for_its_own_endpoint_holds_up_nobody_elsewhere() {
        let mut house = House::new(2, 1);
        house.ask(0, Fresh::Any);
        house.ask(0, Fresh::Any);
        house.ask(1, Fresh::Any);
        let connecting = house.ledgers[1].connecting();
        assert_eq!((connecting, house.waiting.len()), (1, 1));
    }

    #[test]
    fn one_who_may_not_wait_is_served_beside_those_who_wait_for_another_endpoint() {
        for queue in [Queueing::Refused, Queueing::Allowed { max_pending: 0 }] {
            let mut house = House::new(4, 1);
            house.ask(0, Fresh::Any);
            house.ask(0, Fresh::Any); // waits for its own endpoint, of which one is all there is
            assert_eq!(house.waiting.len(), 1);
            house.ask_queueing(ClientTurn::default(), (1, Fresh::Any), queue);
            assert_eq!(house.ledgers[1].connecting(), 1, "{queue:?}");
            // Where its endpoint has no place it is refused like anybody.
            house.ask_queueing(ClientTurn::default(), (1, Fresh::Any), queue);
            assert_eq!((house.ledgers[1].open(), house.waiting.len()), (1, 1));
            house.check();
        }
    }

    #[test]
    fn one_who_may_not_wait_is_refused_where_the_total_is_reached() {
        let mut house = House::new(1, 4);
        house.ask(0, Fresh::Any);
        house.ask(0, Fresh::Any);
        house.ask_queueing(ClientTurn::default(), (1, Fresh::Any), Queueing::Refused);
        assert_eq!((house.ledgers[1].open(), house.waiting.len()), (0, 1));
    }

    #[test]
    fn a_raised_total_serves_who_waited_under_the_lower_one() {
        for raised in [Some(2), None] {
            let mut house = House::new(1, 4);
            house.ask(0, Fresh::Any);
            house.ask(1, Fresh::Any);
            house.total.set_limit(raised);
            house.share();
            assert_eq!((house.served.len(), house.total.open()), (1, 2));
        }
    }

    #[test]
    fn what_is_open_without_a_total_counts_once_there_is_one() {
        let mut house = House::new(1, 4);
        house.total.set_limit(None);
        for at in 0..3 {
            house.ask(at, Fresh::Only);
            house.connect(0);
        }
        house.total.set_limit(Some(2));
        assert!(house.total.is_exceeded());
        house.ask(0, Fresh::Only);
        house.give_back(0, Verdict::Reusable);
        assert_eq!((house.total.open(), house.served.len()), (2, 0));
        house.give_back(0, Verdict::Reusable);
        assert_eq!((house.total.open(), house.served.len()), (2, 1));
    }

    #[test]
    fn a_lowered_total_takes_idle_connections_away_at_once() {
        let mut house = House::new(3, 4);
        for _ in 0..3 {
            house.ask(0, Fresh::Only);
            house.connect(0);
        }
        for _ in 0..2 {
            house.give_back(0, Verdict::Reusable);
        }
        house.total.set_limit(Some(2));
        let (mut retired, now) = (Vec::new(), house.now);
        let woken = house.ledgers[0].set_limits(limits(4), now, &mut retired);
        assert!(woken.is_empty());
        assert_eq!((retired.len(), house.ledgers[0].idle()), (1, 1));
        house.check();
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Ask(ClientTurn, usize, Fresh),
        Try(usize),
        Connect(usize),
        GiveBack(usize, Verdict),
        Collect(usize),
        Leave(usize),
        Pass(u64),
    }

    fn any_op() -> impl Strategy<Value = Op> {
        let pick = any::<usize>;
        let asker = || ((0..4_u64).prop_map(ClientTurn), 0..LEDGERS);
        let guard = Fresh::IdleLessThan(Duration::from_secs(1));
        let gone = Verdict::Retire(CloseReason::PeerFin);
        prop_oneof![
            6 => asker().prop_map(|(client, at)| Op::Ask(client, at, Fresh::Any)),
            2 => asker().prop_map(move |(client, at)| Op::Ask(client, at, guard)),
            2 => asker().prop_map(|(client, at)| Op::Ask(client, at, Fresh::Only)),
            2 => (0..LEDGERS).prop_map(Op::Try),
            6 => pick().prop_map(Op::Connect),
            6 => pick().prop_map(|at| Op::GiveBack(at, Verdict::Reusable)),
            3 => pick().prop_map(move |at| Op::GiveBack(at, gone)),
            6 => pick().prop_map(Op::Collect),
            2 => pick().prop_map(Op::Leave),
            2 => (0..3000_u64).prop_map(Op::Pass),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 800, failure_persistence: None, ..Default::default() })]

        #[test]
        fn the_laws_of_the_house_hold_after_any_sequence_of_operations(
            ops in prop::collection::vec(any_op(), 1..120), total in 1..7_u32, each in 1..4_u32,
        ) {
            let mut house = House::new(total, each);
            for op in ops {
                match op {
                    Op::Ask(client, at, fresh) => house.ask_for(client, at, fresh),
                    Op::Try(at) => house.ask_queueing(
                        ClientTurn::default(),
                        (at, Fresh::Any),
                        Queueing::Refused,
                    ),
                    Op::Connect(pick) => house.connect(pick),
                    Op::GiveBack(pick, verdict) => house.give_back(pick, verdict),
                    Op::Collect(pick) => house.collect(pick),
                    Op::Leave(pick) => house.leave(pick),
                    Op::Pass(millis) => house.now += Duration::from_millis(millis),
                }
                house.check();
            }
        }
    }
}
