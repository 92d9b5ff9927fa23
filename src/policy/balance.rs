//! Which endpoint takes the next request.
//!
//! Picking allocates nothing and takes no lock: what never changes (weights, ranks) is laid out
//! when configuration is read, what changes (fitness, load) is asked for through a function and
//! not collected, and the only state is one counter. Backups are picked only when no primary is
//! fit. Absent on purpose: health and slow start; they answer through the same function.

use std::num::NonZeroU32;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// How endpoints are picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// In turn, each as often as its weight says, evenly mixed.
    RoundRobin,
    /// The one with the least load for its weight.
    LeastRequests,
    /// The less loaded of two drawn at random, which needs no look at the others and does not
    /// herd (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).
    P2c,
}

/// When an endpoint is used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Always.
    Primary,
    /// When no primary is fit.
    Backup,
}

/// What configuration says of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its share relative to the others.
    pub weight: NonZeroU32,
    /// When it is used.
    pub rank: Rank,
}

/// How busy an endpoint is, in any unit that is the same for all: requests, or a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load(pub u64);

/// Why an endpoint is not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It was ejected as unhealthy.
    Ejected,
    /// It is being removed.
    Draining,
    /// It has no place left and may not make a request wait.
    Full,
}

/// Whether an endpoint can take a request now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usable {
    /// It can, and this is its load.
    Fit(Load),
    /// It cannot.
    Unfit(Unfit),
}

/// A source of random numbers.
pub trait Dice {
    /// A number from 0 to `bound` - 1, each as likely; 0 if `bound` is 0.
    fn below(&mut self, bound: u32) -> u32;
}

/// The endpoints an exchange has tried: a bit each. An index beyond the last bit shares the last
/// one, so that a picker never runs round an upstream for ever, however large.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    words: [u64; TRIED_WORDS],
}

impl Tried {
    /// Notes one.
    pub fn note(&mut self, index: usize) {
        let (word, bit) = place(index);
        if let Some(word) = self.words.get_mut(word) {
            *word |= bit;
        }
    }

    /// Whether it was tried.
    #[must_use]
    pub fn contains(&self, index: usize) -> bool {
        let (word, bit) = place(index);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Whether none was tried yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }
}

fn place(index: usize) -> (usize, u64) {
    let index = index.min(TRIED_WORDS * 64 - 1);
    (index / 64, 1 << (index % 64))
}

/// The picker of one upstream. Shared by all workers as it is.
#[derive(Debug)]
pub struct Balance {
    method: Method,
    primaries: Circle,
    backups: Circle,
}

impl Balance {
    /// Lays out the endpoints; their index in `candidates` is what `pick` answers with.
    #[must_use]
    pub fn new(method: Method, candidates: &[Candidate]) -> Self {
        Self {
            method,
            primaries: Circle::new(candidates, Rank::Primary),
            backups: Circle::new(candidates, Rank::Backup),
        }
    }

    /// Picks an endpoint that is fit and not tried. None: there is none.
    pub fn pick(
        &self,
        look: impl Fn(usize) -> Usable,
        dice: &mut impl Dice,
        tried: &Tried,
    ) -> Option<usize> {
        let load = |index: usize| match look(index) {
            Usable::Fit(load) if tried.is_empty() || !tried.contains(index) => Some(load),
            Usable::Fit(_) | Usable::Unfit(_) => None,
        };
        self.pick_among(&self.primaries, &load, dice)
            .or_else(|| self.pick_among(&self.backups, &load, dice))
    }

    fn pick_among(
        &self,
        circle: &Circle,
        load: &impl Fn(usize) -> Option<Load>,
        dice: &mut impl Dice,
    ) -> Option<usize> {
        match (self.method, circle.members.as_slice()) {
            (_, []) => None,
            (_, [only]) => load(only.index).map(|_| only.index),
            (Method::RoundRobin, _) => circle.next(load),
            (Method::LeastRequests, _) => circle.least(load),
            (Method::P2c, members) => {
                two_choices(members, load, dice).or_else(|| circle.least(load))
            }
        }
    }
}

/// An endpoint as it stands in a circle.
#[derive(Clone, Copy, Debug)]
struct Member {
    index: usize,
    weight: u64,
}

impl Member {
    /// Whether it would be less loaded than another with one request more, for its weight. With
    /// the request itself counted, an idle endpoint of weight 2 goes before one of weight 1.
    fn is_lighter(&self, load: Load, other: &Self, other_load: Load) -> bool {
        let scaled = |load: Load, by: u64| u128::from(load.0.saturating_add(1)) * u128::from(by);
        scaled(load, other.weight) < scaled(other_load, self.weight)
    }
}

/// Endpoints of one rank, and the order in which turns are taken.
#[derive(Debug)]
struct Circle {
    members: Vec<Member>,
    /// Places in `members`, each as often as its weight says, spread evenly.
    turns: Vec<u32>,
    cursor: Cursor,
}

/// Whose turn it is. All workers write it with every request, so it has cache lines of its own: what
/// lies beside it is only read.
#[derive(Debug)]
#[repr(align(128))]
struct Cursor(AtomicUsize);

impl Circle {
    fn new(candidates: &[Candidate], rank: Rank) -> Self {
        let members: Vec<Member> = candidates
            .iter()
            .enumerate()
            .filter(|(_, candidate)| candidate.rank == rank)
            .map(|(index, candidate)| Member {
                index,
                weight: u64::from(candidate.weight.get()),
            })
            .collect();
        let turns = smooth_turns(&members);
        Self {
            members,
            turns,
            cursor: Cursor(AtomicUsize::new(0)),
        }
    }

    fn advance(&self) -> usize {
        self.cursor.0.fetch_add(1, Ordering::Relaxed)
    }

    /// The next fit one in turn; after as many turns as there are members, the next fit one at
    /// all, so that the look is bounded by the number of endpoints and not by their weights.
    fn next(&self, load: &impl Fn(usize) -> Option<Load>) -> Option<usize> {
        let start = self.advance();
        let count = self.members.len();
        let in_turn = (0..count).filter_map(|step| {
            let turn = self
                .turns
                .get(start.wrapping_add(step) % self.turns.len().max(1))?;
            self.members.get(*turn as usize)
        });
        let at_all =
            (0..count).filter_map(|step| self.members.get(start.wrapping_add(step) % count));
        in_turn
            .chain(at_all)
            .map(|member| member.index)
            .find(|index| load(*index).is_some())
    }

    /// The least loaded; among equals the next in turn, so that an idle pool is not one endpoint.
    fn least(&self, load: &impl Fn(usize) -> Option<Load>) -> Option<usize> {
        let start = self.advance();
        let count = self.members.len();
        let mut best: Option<(&Member, Load)> = None;
        for step in 0..count {
            let Some(member) = self.members.get(start.wrapping_add(step) % count) else {
                continue;
            };
            let Some(its_load) = load(member.index) else {
                continue;
            };
            if best.is_none_or(|(other, load)| member.is_lighter(its_load, other, load)) {
                best = Some((member, its_load));
            }
        }
        best.map(|(member, _)| member.index)
    }
}

/// The lighter of two different ones. When a draw meets one that is not fit, both are drawn again:
/// taking its partner unseen would send that partner more than its share.
fn two_choices(
    members: &[Member],
    load: &impl Fn(usize) -> Option<Load>,
    dice: &mut impl Dice,
) -> Option<usize> {
    let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
    for _ in 0..DRAWS_MAX {
        let first = dice.below(count);
        // The second draw is from the others: those from `first` on are moved up by one, which
        // keeps every pair as likely.
        let second = dice.below(count - 1);
        let second = if second >= first { second + 1 } else { second };
        let (first, second) = (members.get(first as usize)?, members.get(second as usize)?);
        if let (Some(one), Some(other)) = (load(first.index), load(second.index)) {
            let lighter = if second.is_lighter(other, first, one) {
                second
            } else {
                first
            };
            return Some(lighter.index);
        }
    }
    None
}

/// The smooth weighted order: at each turn everyone gains its weight, the richest goes, and pays
/// the sum of all weights. 5, 1, 1 gives a a b a c a a, not five of a in a row.
fn smooth_turns(members: &[Member]) -> Vec<u32> {
    let divisor = members
        .iter()
        .fold(0, |all, member| gcd(all, member.weight))
        .max(1);
    let mut weights: Vec<u64> = members
        .iter()
        .map(|member| member.weight / divisor)
        .collect();
    let sum: u64 = weights.iter().sum();
    if sum > TURNS_MAX {
        for weight in &mut weights {
            *weight = (*weight * TURNS_MAX / sum).max(1);
        }
    }
    let total: u64 = weights.iter().sum();
    let mut wealth: Vec<i64> = vec![0; weights.len()];
    let mut turns = Vec::new();
    for _ in 0..total {
        for (wealth, weight) in wealth.iter_mut().zip(&weights) {
            *wealth = wealth.saturating_add_unsigned(*weight);
        }
        // Among equals the first goes.
        let richest = (0..wealth.len())
            .rev()
            .max_by_key(|at| wealth.get(*at).copied());
        if let Some(at) = richest
            && let Some(wealth) = wealth.get_mut(at)
            && let Ok(turn) = u32::try_from(at)
        {
            *wealth = wealth.saturating_sub_unsigned(total);
            turns.push(turn);
        }
    }
    turns
}

fn gcd(one: u64, other: u64) -> u64 {
    if other == 0 {
        one
    } else {
        gcd(other, one % other)
    }
}

/// Words of the bit set: 512 endpoints, eight names of the most addresses each.
const TRIED_WORDS: usize = 8;

/// Pairs drawn before looking at all endpoints. Five, as Finagle's P2C has it: with half of the
/// endpoints unfit, one pick in four then looks at all.
const DRAWS_MAX: usize = 5;

/// Longest order of turns. Weights whose sum (after division by what they share) is larger are
/// rounded; at this length a share is exact to a thousandth for a few dozen endpoints.
const TURNS_MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the numbers it was told, over and over.
    struct Loaded(Vec<u32>, usize);

    impl Dice for Loaded {
        fn below(&mut self, bound: u32) -> u32 {
            let number = self.0[self.1 % self.0.len()];
            self.1 += 1;
            number % bound.max(1)
        }
    }

    fn endpoints(weights: &[u32]) -> Vec<Candidate> {
        let candidate = |weight: &u32| Candidate {
            weight: NonZeroU32::new(*weight).unwrap(),
            rank: Rank::Primary,
        };
        weights.iter().map(candidate).collect()
    }

    fn fit(load: u64) -> Usable {
        Usable::Fit(Load(load))
    }

    fn picks(balance: &Balance, count: usize, look: impl Fn(usize) -> Usable) -> Vec<usize> {
        let mut dice = Loaded(vec![0, 1, 2, 3, 1], 0);
        let pick = |_| balance.pick(&look, &mut dice, &Tried::default()).unwrap();
        (0..count).map(pick).collect()
    }

    #[test]
    fn round_robin_spreads_the_heavy_ones_turns() {
        let balance = Balance::new(Method::RoundRobin, &endpoints(&[5, 1, 1]));
        assert_eq!(picks(&balance, 7, |_| fit(0)), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn weights_with_a_common_divisor_give_the_same_turns() {
        let balance = Balance::new(Method::RoundRobin, &endpoints(&[200, 100]));
        assert_eq!(balance.primaries.turns.len(), 3);
    }

    #[test]
    fn huge_weights_are_rounded_to_a_bounded_order_in_which_nobody_is_forgotten() {
        let balance = Balance::new(Method::RoundRobin, &endpoints(&[u32::MAX, 1, 7]));
        assert!(balance.primaries.turns.len() <= TURNS_MAX as usize + 3);
        assert!(
            [0, 1, 2]
                .iter()
                .all(|place| balance.primaries.turns.contains(place))
        );
    }

    #[test]
    fn round_robin_passes_over_the_unfit() {
        let balance = Balance::new(Method::RoundRobin, &endpoints(&[100, 1, 1]));
        let look = |index| {
            if index == 0 {
                Usable::Unfit(Unfit::Ejected)
            } else {
                fit(0)
            }
        };
        let picked = picks(&balance, 10, look);
        assert!(picked.contains(&1) && picked.contains(&2) && !picked.contains(&0));
    }

    #[test]
    fn the_least_loaded_for_its_weight_is_picked() {
        let balance = Balance::new(Method::LeastRequests, &endpoints(&[1, 2, 1]));
        let loads = [3, 5, 3];
        assert_eq!(picks(&balance, 3, |index| fit(loads[index])), [1, 1, 1]);
        assert_eq!(picks(&balance, 3, |_| fit(0)), [1, 1, 1]);
    }

    #[test]
    fn equally_loaded_endpoints_take_turns() {
        let balance = Balance::new(Method::LeastRequests, &endpoints(&[1, 1, 1]));
        assert_eq!(picks(&balance, 4, |_| fit(2)), [0, 1, 2, 0]);
    }

    #[test]
    fn p2c_takes_the_lighter_of_the_two_drawn() {
        let balance = Balance::new(Method::P2c, &endpoints(&[1, 1, 1, 1]));
        let loads = [9, 4, 0, 7];
        let mut dice = Loaded(vec![0, 0], 0);
        let picked = balance.pick(|index| fit(loads[index]), &mut dice, &Tried::default());
        assert_eq!(picked, Some(1));
    }

    #[test]
    fn p2c_draws_every_pair_as_often() {
        let members: Vec<Member> = (0..3).map(|index| Member { index, weight: 1 }).collect();
        let mut seen = [0; 3];
        for first in 0..3 {
            for second in 0..2 {
                let mut dice = Loaded(vec![first, second], 0);
                let load = |index: usize| Some(Load(index as u64));
                seen[two_choices(&members, &load, &mut dice).unwrap()] += 1;
            }
        }
        assert_eq!(seen, [4, 2, 0]);
    }

    #[test]
    fn p2c_finds_the_only_fit_endpoint_whatever_the_dice_say() {
        let balance = Balance::new(Method::P2c, &endpoints(&[1; 9]));
        let look = |index| {
            if index == 8 {
                fit(50)
            } else {
                Usable::Unfit(Unfit::Full)
            }
        };
        assert_eq!(picks(&balance, 3, look), [8, 8, 8]);
    }

    #[test]
    fn backups_serve_only_when_no_primary_is_fit() {
        let mut candidates = endpoints(&[1, 1]);
        candidates[1].rank = Rank::Backup;
        for method in [Method::RoundRobin, Method::LeastRequests, Method::P2c] {
            let balance = Balance::new(method, &candidates);
            assert_eq!(picks(&balance, 2, |_| fit(0)), [0, 0]);
            let look = |index| {
                if index == 0 {
                    Usable::Unfit(Unfit::Draining)
                } else {
                    fit(0)
                }
            };
            assert_eq!(picks(&balance, 2, look), [1, 1]);
        }
    }

    #[test]
    fn a_tried_endpoint_is_not_picked_again() {
        for method in [Method::RoundRobin, Method::LeastRequests, Method::P2c] {
            let balance = Balance::new(method, &endpoints(&[1, 1]));
            let mut tried = Tried::default();
            tried.note(0);
            let mut dice = Loaded(vec![0], 0);
            assert_eq!(balance.pick(|_| fit(0), &mut dice, &tried), Some(1));
            tried.note(1);
            assert_eq!(balance.pick(|_| fit(0), &mut dice, &tried), None);
        }
    }

    #[test]
    fn with_no_endpoint_at_all_nothing_is_picked() {
        let balance = Balance::new(Method::P2c, &[]);
        let mut dice = Loaded(vec![0], 0);
        assert_eq!(balance.pick(|_| fit(0), &mut dice, &Tried::default()), None);
    }

    #[test]
    fn every_endpoint_that_was_tried_is_remembered() {
        let mut tried = Tried::default();
        assert!(tried.is_empty());
        (0..TRIED_WORDS * 64).for_each(|index| tried.note(index));
        assert!((0..TRIED_WORDS * 64 + 9).all(|index| tried.contains(index)));
    }
}
