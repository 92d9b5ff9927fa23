//! The waiting line: who waits for what, in order, with leaving from the middle at no cost.
//!
//! Waiters differ in what can serve them: a connection that returns, a free place to connect in,
//! or either. Each kind stands in a line of its own, linked through one slab, and the numbers on
//! the tickets order them across lines; so the oldest who can be served is always at one of two
//! fronts. Absent on purpose: wakers. The caller keeps those beside the tickets.

use std::sync::Arc;

use slab::Slab;

use crate::pool::idle::Idle;
use crate::pool::ports::Seat;
use crate::pool::total::Total;

/// A place in the waiting line. Tickets sort by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    number: u64,
    slot: usize,
}

impl Ticket {
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
    number: u64,
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
    total: Arc<Total>,
}

impl<C, F: Copy> Waiters<C, F> {
    pub(super) fn new(total: Arc<Total>) -> Self {
        Self {
            slots: Slab::new(),
            lines: [Line::default(); 3],
            total,
        }
    }

    /// How many wait and have no connect of their own under way.
    pub(super) fn waiting(&self) -> u32 {
        self.lines[Want::Either as usize].length + self.lines[Want::Place as usize].length
    }

    /// Joins at the end.
    pub(super) fn join(&mut self, want: Want, fresh: F) -> Ticket {
        let number = self.total.next_ticket();
        if want != Want::Idle {
            self.total.on_waiting();
        }
        let before = self.lines[want as usize].last;
        let entry = Slot {
            number,
            want,
            fresh,
            before,
            behind: None,
            stand: Stand::Waiting,
        };
        let slot = self.slots.insert(entry);
        if let Some(last) = before.and_then(|last| self.slots.get_mut(last)) {
            last.behind = Some(slot);
        }
        let line = &mut self.lines[want as usize];
        line.first = line.first.or(Some(slot));
        line.last = Some(slot);
        line.length += 1;
        Ticket { number, slot }
    }

    /// A ticket that stands in no line, for whoever comes when there is nothing to wait for.
    pub(super) fn void(&mut self) -> Ticket {
        let number = self.total.next_ticket();
        Ticket {
            number,
            slot: usize::MAX,
        }
    }

    /// The oldest of two lines.
    pub(super) fn oldest(&self, one: Want, other: Want) -> Option<Ticket> {
        match (self.front(one), self.front(other)) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// The first of one line.
    pub(super) fn front(&self, want: Want) -> Option<Ticket> {
        let slot = self.lines[want as usize].first?;
        Some(Ticket {
            number: self.slots.get(slot)?.number,
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_from_the_middle_keeps_the_order_of_the_rest() {
        let mut waiters: Waiters<u8, ()> = Waiters::new(Arc::default());
        let tickets: Vec<_> = (0..5).map(|_| waiters.join(Want::Either, ())).collect();
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
        let first = waiters.join(Want::Place, ());
        assert!(waiters.leave(first).is_some());
        let second = waiters.join(Want::Place, ());
        assert_eq!(first.slot(), second.slot());
        assert!(waiters.leave(first).is_none());
        assert!(waiters.is_waiting(second));
    }

    #[test]
    fn the_oldest_of_two_lines_goes_first() {
        let mut waiters: Waiters<u8, ()> = Waiters::new(Arc::default());
        let idle = waiters.join(Want::Idle, ());
        let either = waiters.join(Want::Either, ());
        assert_eq!(waiters.oldest(Want::Either, Want::Idle), Some(idle));
        waiters.serve(idle, Stand::Waiting);
        assert_eq!(waiters.oldest(Want::Either, Want::Idle), Some(either));
    }
}
