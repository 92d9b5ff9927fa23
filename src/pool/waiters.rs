//! The waiting line: who waits for what, clients in turn, with leaving from the middle at no cost.
//!
//! Waiters differ in what can serve them: a connection that returns, a free place to connect in,
//! or either. Each kind stands in a line of its own, linked through one slab, and the numbers on
//! the tickets order them across lines; so the oldest who can be served is always at one of two
//! fronts.
//!
//! Clients take turns: a waiter's turn is the one after its client's last, and never one that has
//! been served already ("Start-time Fair Queueing", Goyal, Vin and Cheng, 1996, each request of one
//! cost). So whoever has fifty in line waits for itself, and who comes with one stands behind one of
//! the fifty. Where all are one client's, as with `queue = "fifo"`, turns are the order of arrival.
//!
//! Turns are a pool's own and order nobody outside of it. Numbers are common to all pools under a
//! total: they order who has the same turn in one pool, and the firsts of several pools (`house`).
//! Absent on purpose: wakers. The caller keeps those beside the tickets.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use crate::pool::idle::Idle;
use crate::pool::ports::Seat;
use crate::pool::total::Total;

/// Whose turn it is; what a client is, is for the caller to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientTurn(pub u64);

/// A place in the waiting line. Tickets of one pool sort by turn, then by age; between pools only
/// their numbers mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    turn: u64,
    number: u64,
    slot: usize,
}

impl Ticket {
    /// Its number; never used twice by the ledgers of one upstream, and the lower came first.
    #[must_use]
    pub fn number(self) -> u64 {
        self.number
    }

    /// A small index that no other open ticket of this ledger has, for tables kept beside it.
    #[must_use]
    pub fn slot(self) -> usize {
        self.slot
    }
}

/// What can serve a waiter. The number is the line's place in `Waiters::lines`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// A connection or a place, whichever comes first.
    Either = 0,
    /// A place only: it must have a new connection.
    Place = 1,
    /// A connection only: its own connect is under way.
    Idle = 2,
}

/// Where a ticket's holder stands.
#[derive(Debug)]
pub(super) enum Stand<C> {
    /// In line.
    Waiting,
    /// A connection lies ready; it came from that worker.
    Served(Idle<C>, usize),
    /// A place is counted for it, and a port.
    Admitted(Seat),
}

#[derive(Debug)]
struct Slot<C, F> {
    turn: u64,
    number: u64,
    client: ClientTurn,
    want: Want,
    fresh: F,
    before: Option<usize>,
    behind: Option<usize>,
    stand: Stand<C>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    first: Option<usize>,
    last: Option<usize>,
    length: u32,
}

/// All waiters of a pool. `F` is what each demands of a connection's freshness.
#[derive(Debug)]
pub(super) struct Waiters<C, F> {
    slots: Slab<Slot<C, F>>,
    lines: [Line; 3],
    /// The turn served last.
    served: u64,
    /// Only clients who wait, so it is never longer than the line.
    clients: HashMap<ClientTurn, Turns>,
    total: Arc<Total>,
}

/// A client in line.
#[derive(Clone, Copy, Debug)]
struct Turns {
    last: u64,
    waiting: u32,
}

impl<C, F: Copy> Waiters<C, F> {
    pub(super) fn new(total: Arc<Total>) -> Self {
        Self {
            slots: Slab::new(),
            lines: [Line::default(); 3],
            served: 0,
            clients: HashMap::new(),
            total,
        }
    }

    /// How many of them are a client's, those whose own connect is under way included.
    pub(super) fn waiting_of(&self, client: ClientTurn) -> u32 {
        self.clients.get(&client).map_or(0, |turns| turns.waiting)
    }

    /// How many wait and have no connect of their own under way.
    pub(super) fn waiting(&self) -> u32 {
        self.lines[Want::Either as usize].length + self.lines[Want::Place as usize].length
    }

    /// Joins behind everyone whose turn is no later.
    pub(super) fn join(&mut self, want: Want, fresh: F, client: ClientTurn) -> Ticket {
        let number = self.total.next_ticket();
        if want != Want::Idle {
            self.total.on_waiting();
        }
        let turn = self.take_turn(client);
        let before = self.last_no_later(want, turn);
        let behind = match before {
            Some(before) => self.slots.get(before).and_then(|entry| entry.behind),
            None => self.lines[want as usize].first,
        };
        let entry = Slot {
            turn,
            number,
            client,
            want,
            fresh,
            before,
            behind,
            stand: Stand::Waiting,
        };
        let slot = self.slots.insert(entry);
        let line = &mut self.lines[want as usize];
        line.length += 1;
        match before.and_then(|at| self.slots.get_mut(at)) {
            Some(entry) => entry.behind = Some(slot),
            None => line.first = Some(slot),
        }
        match behind.and_then(|at| self.slots.get_mut(at)) {
            Some(entry) => entry.before = Some(slot),
            None => line.last = Some(slot),
        }
        Ticket { turn, number, slot }
    }

    fn take_turn(&mut self, client: ClientTurn) -> u64 {
        let turns = self.clients.entry(client).or_insert(Turns {
            last: 0,
            waiting: 0,
        });
        turns.last = turns.last.max(self.served) + 1;
        turns.waiting += 1;
        turns.last
    }

    /// Looks from the end: where all are one client's the last one is it, and at worst it looks at
    /// the whole line, which `max_pending` bounds.
    fn last_no_later(&self, want: Want, turn: u64) -> Option<usize> {
        let mut at = self.lines[want as usize].last;
        while let Some(entry) = at.and_then(|slot| self.slots.get(slot)) {
            if entry.turn <= turn {
                return at;
            }
            at = entry.before;
        }
        None
    }

    /// A ticket that stands in no line, for whoever comes when there is nothing to wait for.
    pub(super) fn void(&mut self) -> Ticket {
        let number = self.total.next_ticket();
        Ticket {
            turn: u64::MAX,
            number,
            slot: usize::MAX,
        }
    }

    /// The next of two lines.
    pub(super) fn oldest(&self, one: Want, other: Want) -> Option<Ticket> {
        match (self.front(one), self.front(other)) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// The first of one line.
    pub(super) fn front(&self, want: Want) -> Option<Ticket> {
        let slot = self.lines[want as usize].first?;
        let entry = self.slots.get(slot)?;
        Some(Ticket {
            turn: entry.turn,
            number: entry.number,
            slot,
        })
    }

    /// What a waiter demands of a connection.
    pub(super) fn fresh(&self, ticket: Ticket) -> Option<F> {
        let entry = self.slots.get(ticket.slot)?;
        (entry.number == ticket.number).then_some(entry.fresh)
    }

    /// Takes a waiter out of line and lays something ready for it.
    pub(super) fn serve(&mut self, ticket: Ticket, stand: Stand<C>) {
        self.unlink(ticket.slot);
        if let Some(entry) = self.slots.get_mut(ticket.slot) {
            entry.stand = stand;
            self.served = self.served.max(entry.turn);
        }
    }

    /// Whether the ticket's holder is still in line.
    pub(super) fn is_waiting(&self, ticket: Ticket) -> bool {
        self.slots.get(ticket.slot).is_some_and(|entry| {
            entry.number == ticket.number && matches!(entry.stand, Stand::Waiting)
        })
    }

    /// Ends a ticket, and returns what its holder had.
    pub(super) fn leave(&mut self, ticket: Ticket) -> Option<Stand<C>> {
        if self.slots.get(ticket.slot)?.number != ticket.number {
            return None;
        }
        if self.is_waiting(ticket) {
            self.unlink(ticket.slot);
        }
        self.slots.try_remove(ticket.slot).map(|entry| entry.stand)
    }

    /// Sends away everyone in line, oldest first.
    pub(super) fn dismiss(&mut self) -> Vec<Ticket> {
        let mut dismissed = Vec::new();
        for want in [Want::Either, Want::Place, Want::Idle] {
            while let Some(ticket) = self.front(want) {
                dismissed.push(ticket);
                if self.leave(ticket).is_none() {
                    break;
                }
            }
        }
        dismissed.sort_unstable();
        dismissed
    }

    fn unlink(&mut self, slot: usize) {
        let Some(entry) = self.slots.get(slot) else {
            return;
        };
        let client = entry.client;
        if entry.want != Want::Idle {
            self.total.on_waited();
        }
        let (want, before, behind) = (entry.want as usize, entry.before, entry.behind);
        match before.and_then(|at| self.slots.get_mut(at)) {
            Some(entry) => entry.behind = behind,
            None => self.lines[want].first = behind,
        }
        match behind.and_then(|at| self.slots.get_mut(at)) {
            Some(entry) => entry.before = before,
            None => self.lines[want].last = before,
        }
        self.lines[want].length = self.lines[want].length.saturating_sub(1);
        if let Some(turns) = self.clients.get_mut(&client) {
            turns.waiting = turns.waiting.saturating_sub(1);
            if turns.waiting == 0 {
                self.clients.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::ports::PortBook;
    use crate::pool::ports::PortShape;
    use proptest::prelude::*;

    const ONE: ClientTurn = ClientTurn(1);

    fn seat() -> Seat {
        PortBook::new(PortShape::unlimited()).take().unwrap()
    }

    #[test]
    fn leaving_from_the_middle_keeps_the_order_of_the_rest() {
        let mut waiters: Waiters<u8, ()> = Waiters::new(Arc::default());
        let tickets: Vec<_> = (0..5)
            .map(|_| waiters.join(Want::Either, (), ONE))
            .collect();
        for gone in [tickets[2], tickets[0], tickets[4]] {
            assert!(matches!(waiters.leave(gone), Some(Stand::Waiting)));
        }
        assert_eq!(waiters.waiting(), 2);
        assert_eq!(waiters.dismiss(), vec![tickets[1], tickets[3]]);
        assert_eq!(waiters.front(Want::Either), None);
    }

    #[test]
    fn an_ended_ticket_is_not_mistaken_for_the_next_one_in_its_slot() {
        let mut waiters: Waiters<u8, ()> = Waiters::new(Arc::default());
        let first = waiters.join(Want::Place, (), ONE);
        assert!(waiters.leave(first).is_some());
        let second = waiters.join(Want::Place, (), ONE);
        assert_eq!(first.slot(), second.slot());
        assert!(waiters.leave(first).is_none());
        assert!(waiters.is_waiting(second));
    }

    #[test]
    fn the_oldest_of_two_lines_goes_first() {
        let mut waiters: Waiters<u8, ()> = Waiters::new(Arc::default());
        let idle = waiters.join(Want::Idle, (), ONE);
        let either = waiters.join(Want::Either, (), ONE);
        assert_eq!(waiters.oldest(Want::Either, Want::Idle), Some(idle));
        waiters.serve(idle, Stand::Waiting);
        assert_eq!(waiters.oldest(Want::Either, Want::Idle), Some(either));
    }

    /// Serves everyone, and says whose they were.
    fn served(waiters: &mut Waiters<u8, ()>) -> Vec<u64> {
        let mut served = Vec::new();
        while let Some(ticket) = waiters.oldest(Want::Either, Want::Place) {
            served.push(waiters.slots[ticket.slot].client.0);
            waiters.serve(ticket, Stand::Admitted(seat()));
            waiters.leave(ticket);
        }
        served
    }

    #[test]
    fn one_client_with_fifty_in_line_does_not_keep_another_waiting() {
        let mut waiters: Waiters<u8, ()> = Waiters::new(Arc::default());
        for _ in 0..50 {
            waiters.join(Want::Either, (), ClientTurn(1));
        }
        for _ in 0..3 {
            waiters.join(Want::Either, (), ClientTurn(2));
        }
        assert_eq!(waiters.waiting_of(ClientTurn(1)), 50);
        let served = served(&mut waiters);
        assert_eq!(served[..7], [1, 2, 1, 2, 1, 2, 1]);
        assert!(waiters.clients.is_empty());
    }

    #[test]
    fn a_client_that_comes_later_has_no_turns_saved_up() {
        let mut waiters: Waiters<u8, ()> = Waiters::new(Arc::default());
        for _ in 0..20 {
            waiters.join(Want::Either, (), ClientTurn(1));
        }
        for _ in 0..10 {
            let ticket = waiters.front(Want::Either).unwrap();
            waiters.serve(ticket, Stand::Admitted(seat()));
            waiters.leave(ticket);
        }
        for _ in 0..5 {
            waiters.join(Want::Either, (), ClientTurn(2));
        }
        assert_eq!(served(&mut waiters)[..6], [1, 2, 1, 2, 1, 2]);
    }

    proptest! {
        /// Whoever waits is served at least once in as many turns as there are clients, whatever the
        /// order in which they came; and one client's own are served in the order of their arrival.
        #[test]
        fn each_client_in_line_is_served_once_a_round(joins in prop::collection::vec((0u64..5, 0u8..2), 1..80)) {
            let mut waiters: Waiters<u8, ()> = Waiters::new(Arc::default());
            for (client, want) in &joins {
                let want = if *want == 0 { Want::Either } else { Want::Place };
                waiters.join(want, (), ClientTurn(*client));
            }
            let mut numbers: HashMap<u64, u64> = HashMap::new();
            while let Some(ticket) = waiters.oldest(Want::Either, Want::Place) {
                let round = ticket.turn;
                let mut seen = Vec::new();
                let waiting: std::collections::BTreeSet<_> =
                    waiters.clients.keys().map(|client| client.0).collect();
                while let Some(ticket) = waiters.oldest(Want::Either, Want::Place)
                    && ticket.turn == round
                {
                    let client = waiters.slots[ticket.slot].client.0;
                    prop_assert!(numbers.insert(client, ticket.number).is_none_or(|n| n < ticket.number));
                    seen.push(client);
                    waiters.serve(ticket, Stand::Admitted(seat()));
                    waiters.leave(ticket);
                }
                seen.sort_unstable();
                prop_assert_eq!(seen, waiting.into_iter().collect::<Vec<_>>());
            }
            prop_assert_eq!(waiters.waiting(), 0);
            prop_assert!(waiters.clients.is_empty());
        }

        /// One client's waiters are served as they came.
        #[test]
        fn turns_of_one_client_are_the_order_of_arrival(gone in prop::collection::vec(any::<bool>(), 1..60)) {
            let mut waiters: Waiters<u8, ()> = Waiters::new(Arc::default());
            let tickets: Vec<_> =
                gone.iter().map(|_| waiters.join(Want::Either, (), ONE)).collect();
            let mut left = Vec::new();
            for (ticket, gone) in tickets.iter().zip(&gone) {
                match gone {
                    true => drop(waiters.leave(*ticket)),
                    false => left.push(*ticket),
                }
            }
            prop_assert_eq!(waiters.dismiss(), left);
        }
    }
}
