//! What is known of one server's name, and what changes when the resolver is heard again.
//!
//! A resolver gives the same addresses in another order each time, gives a part of many, and
//! fails. None of that may disturb an origin's connections: what is in service stays in its order,
//! what is new comes after it, and a failure changes nothing until the last good answer has grown
//! too old. Absent on purpose: asking (`app`), the clock, and what becomes of removed addresses.

use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

/// Most addresses of one name that are used: about twice what a plain answer over UDP holds (512
/// octets, RFC 1035 §2.3.4; 16 an A record). Each is an endpoint with a pool of its own, and whoever
/// answers a resolver must not decide how large we grow. Beyond it, those in service stay, then the
/// first ones answered come.
pub const ADDRESSES_MAX: usize = 64;

/// What is known of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    addresses: Vec<SocketAddr>,
    last_good: Option<Instant>,
    health: Health,
}

/// How the last look-up went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Health {
    /// There was none.
    #[default]
    Unasked,
    /// It was answered.
    Answered,
    /// It failed.
    Failing,
}

/// What an answer changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Addresses that were not in service.
    pub added: Vec<SocketAddr>,
    /// Addresses that no longer are.
    pub removed: Vec<SocketAddr>,
    /// Addresses answered that are one too many ([`ADDRESSES_MAX`]).
    pub left_out: usize,
}

/// Whether an operator should hear of it: once when it turns, not at every look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is as it was.
    Same,
    /// Look-ups fail from now on; the last good answer, if any, serves.
    Fails,
    /// Look-ups are answered again.
    Recovers,
    /// The last good answer has grown too old and serves no longer.
    Expires,
}

impl Known {
    /// The addresses in service.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// When the resolver last gave an address.
    #[must_use]
    pub fn last_good(&self) -> Option<Instant> {
        self.last_good
    }

    /// The resolver gave these, of which there is at least one; an empty answer is a failure, since
    /// a zone that is being rewritten looks just so.
    pub fn on_answer(&mut self, answer: &[SocketAddr], now: Instant) -> (Change, News) {
        if answer.is_empty() {
            return (Change::default(), News::Same);
        }
        let change = change(&self.addresses, answer);
        self.addresses.retain(|old| !change.removed.contains(old));
        self.addresses.extend(&change.added);
        self.last_good = Some(now);
        let news = match std::mem::replace(&mut self.health, Health::Answered) {
            Health::Failing => News::Recovers,
            Health::Unasked | Health::Answered => News::Same,
        };
        (change, news)
    }

    /// The resolver failed. The addresses stay until the last good answer is `keep` old.
    pub fn on_failure(&mut self, now: Instant, keep: Duration) -> (Change, News) {
        let before = std::mem::replace(&mut self.health, Health::Failing);
        let old = |good| now.saturating_duration_since(good) >= keep;
        if !self.addresses.is_empty() && self.last_good.is_none_or(old) {
            let removed = std::mem::take(&mut self.addresses);
            let change = Change {
                removed,
                ..Change::default()
            };
            return (change, News::Expires);
        }
        let news = match before {
            Health::Failing => News::Same,
            Health::Unasked | Health::Answered => News::Fails,
        };
        (Change::default(), news)
    }
}

impl Change {
    /// Whether the addresses in service are others than before.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// What `answer` changes for a name with `serving`. An address given twice is one.
#[must_use]
pub fn change(serving: &[SocketAddr], answer: &[SocketAddr]) -> Change {
    let gone = |old: &&SocketAddr| !answer.contains(old);
    let removed: Vec<_> = serving.iter().filter(gone).copied().collect();
    let room = ADDRESSES_MAX.saturating_sub(serving.len() - removed.len());
    let mut added: Vec<SocketAddr> = Vec::new();
    let mut left_out = 0;
    for address in answer {
        if serving.contains(address) || added.contains(address) {
            continue;
        }
        if added.len() < room {
            added.push(*address);
        } else {
            left_out += 1;
        }
    }
    Change {
        added,
        removed,
        left_out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::by_hand::start;

    fn at(last: std::ops::Range<u16>) -> Vec<SocketAddr> {
        last.map(|port| SocketAddr::from(([10, 0, 0, 1], port)))
            .collect()
    }

    fn known(answer: &[SocketAddr], now: Instant) -> Known {
        let mut known = Known::default();
        known.on_answer(answer, now);
        known
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn an_answer_in_another_order_changes_nothing() {
        let mut answer = at(1..4);
        let now = start();
        let mut known = known(&answer, now);
        answer.reverse();
        assert!(known.on_answer(&answer, now).0.is_none());
        assert_eq!(known.addresses(), at(1..4));
    }

    #[test]
    fn what_stays_keeps_its_order_and_what_is_new_comes_after_it() {
        let now = start();
        let mut known = known(&at(1..4), now);
        let answer = [at(7..8), at(2..4)].concat();
        let (change, _) = known.on_answer(&answer, now);
        assert_eq!((change.added, change.removed), (at(7..8), at(1..2)));
        assert_eq!(known.addresses(), [at(2..4), at(7..8)].concat());
    }

    #[test]
    fn an_address_that_the_resolver_gives_twice_is_one() {
        let change = change(&[], &[at(1..2), at(1..2)].concat());
        assert_eq!(change.added, at(1..2));
    }

    #[test]
    fn of_too_many_addresses_those_in_service_stay() {
        let most = u16::try_from(ADDRESSES_MAX).unwrap();
        let now = start();
        let mut known = known(&at(1000..1000 + most), now);
        let (change, _) = known.on_answer(&at(900..1400), now);
        assert!(change.is_none());
        assert_eq!(change.left_out, 500 - ADDRESSES_MAX);
        assert_eq!(known.addresses().len(), ADDRESSES_MAX);
    }

    #[test]
    fn as_many_addresses_as_are_allowed_are_all_used_and_one_more_is_left_out() {
        let most = u16::try_from(ADDRESSES_MAX).unwrap();
        assert_eq!(change(&[], &at(0..most)).left_out, 0);
        assert_eq!(change(&[], &at(0..most + 1)).left_out, 1);
    }

    #[test]
    fn a_failure_keeps_the_last_good_answer_until_it_is_too_old() {
        let began = start();
        let mut known = known(&at(1..3), began);
        let soon = began + HOUR - Duration::from_secs(1);
        assert_eq!(
            known.on_failure(soon, HOUR),
            (Change::default(), News::Fails)
        );
        let (change, news) = known.on_failure(began + HOUR, HOUR);
        assert_eq!((change.removed, news), (at(1..3), News::Expires));
        assert!(known.addresses().is_empty());
    }

    #[test]
    fn an_answer_without_addresses_removes_none() {
        let now = start();
        let mut known = known(&at(1..3), now);
        assert!(known.on_answer(&[], now).0.is_none());
        assert_eq!(known.addresses(), at(1..3));
    }

    #[test]
    fn an_operator_hears_of_a_failure_once_and_of_its_end_once() {
        let now = start();
        let mut known = Known::default();
        let heard = [
            known.on_failure(now, HOUR).1,
            known.on_failure(now, HOUR).1,
            known.on_answer(&at(1..2), now).1,
            known.on_answer(&at(1..2), now).1,
        ];
        assert_eq!(heard, [News::Fails, News::Same, News::Recovers, News::Same]);
    }
}
