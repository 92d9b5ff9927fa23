//! Which endpoint takes the next request.
//!
//! Picking allocates nothing and takes no lock: what never changes (weights, ranks) is laid out
//! when configuration is read, what changes (fitness, load) is asked for through a function and
//! not collected, and the only state is one counter. Backups are picked only when no primary is
//! fit. Absent on purpose: health; it answers through the same function.

pub mod hash;
pub mod hash_key;
pub mod ewma;
pub mod share;

use std::num::NonZeroU32;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::policy::balance::hash::draw;
use crate::policy::balance::hash::has_room;
use crate::policy::balance::hash::score;

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
    /// The same over loads that are told by [`ewma::Ewma`]: how long answers take, for each request
    /// under way.
    Ewma,
    /// By the request's key, each time the same one; by [`Method::P2c`] if it has none.
    Hash,
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
    /// What it draws keys by: the same for the same endpoint, in every process ([`hash::hash`]).
    pub seed: u64,
}

/// How busy an endpoint is, in any unit that is the same for all: requests, or a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load(pub u64);

/// Why an endpoint is not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It was ejected as unhealthy.
    Ejected,
    /// A connect to it has just failed.
    Held,
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
    /// It can, but is to have only such a share (of [`WHOLE_SHARE`]) of what it would get: it joined
    /// or returned a moment ago.
    Warming(Load, u32),
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

    /// Picks an endpoint that is fit and not tried. None: there is none. One that is warming up is
    /// passed over as often as its share says, unless there is no other.
    pub fn pick(
        &self,
        look: impl Fn(usize) -> Usable,
        dice: &mut impl Dice,
        tried: &Tried,
        key: Option<u64>,
    ) -> Option<usize> {
        let key = key.filter(|_| self.method == Method::Hash);
        let drawn = dice.below(WHOLE_SHARE);
        let load = |member: &Member, most: u32| match look(member.index) {
            _ if !tried.is_empty() && tried.contains(member.index) => None,
            Usable::Fit(load) => Some(load),
            Usable::Warming(load, share) => {
                // A key goes to a warming endpoint once and for all.
                let drawn = key.map_or(drawn, |key| draw(key, member.seed, WHOLE_SHARE));
                (drawn.min(most) < share).then_some(load)
            }
            Usable::Unfit(_) => None,
        };
        [&self.primaries, &self.backups]
            .into_iter()
            .find_map(|circle| {
                self.pick_among(circle, &|member| load(member, u32::MAX), (dice, key))
                    .or_else(|| self.pick_among(circle, &|member| load(member, 0), (dice, key)))
            })
    }

    fn pick_among(
        &self,
        circle: &Circle,
        load: &impl Fn(&Member) -> Option<Load>,
        (dice, key): (&mut impl Dice, Option<u64>),
    ) -> Option<usize> {
        match (self.method, circle.members.as_slice()) {
            (_, []) => None,
            (_, [only]) => load(only).map(|_| only.index),
            (Method::RoundRobin, _) => circle.next(load),
            (Method::LeastRequests, _) => circle.least(load),
            (Method::P2c | Method::Ewma | Method::Hash, members) => match key {
                Some(key) => circle.of_key(key, load),
                None => two_choices(members, load, dice).or_else(|| circle.least(load)),
            },
        }
    }
}

/// An endpoint as it stands in a circle.
#[derive(Clone, Copy, Debug)]
struct Member {
    index: usize,
    weight: u64,
    seed: u64,
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
                seed: candidate.seed,
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
    fn next(&self, load: &impl Fn(&Member) -> Option<Load>) -> Option<usize> {
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
            .find(|member| load(member).is_some())
            .map(|member| member.index)
    }

    /// The least loaded; among equals the next in turn, so that an idle pool is not one endpoint.
    fn least(&self, load: &impl Fn(&Member) -> Option<Load>) -> Option<usize> {
        let start = self.advance();
        let count = self.members.len();
        let mut best: Option<(&Member, Load)> = None;
        for step in 0..count {
            let Some(member) = self.members.get(start.wrapping_add(step) % count) else {
                continue;
            };
            let Some(its_load) = load(member) else {
                continue;
            };
            if best.is_none_or(|(other, load)| member.is_lighter(its_load, other, load)) {
                best = Some((member, its_load));
            }
        }
        best.map(|(member, _)| member.index)
    }

    /// The one that draws highest from the key, of those that are not above their share.
    fn of_key(&self, key: u64, load: &impl Fn(&Member) -> Option<Load>) -> Option<usize> {
        let fit = || {
            let members = self.members.iter();
            members.filter_map(|member| Some((member, load(member)?)))
        };
        let all = fit().fold((0u64, 0u64), |(loads, weights), (member, load)| {
            (loads.saturating_add(load.0), weights + member.weight)
        });
        let mut best: Option<(bool, f64, usize)> = None;
        for (member, load) in fit() {
            let room = has_room(load, member.weight, all);
            let drawn = (room, score(key, member.seed, member.weight), member.index);
            // Loads move meanwhile: should all seem full, the highest of all it is.
            if best.is_none_or(|best| (drawn.0, drawn.1) > (best.0, best.1)) {
                best = Some(drawn);
            }
        }
        best.map(|(.., index)| index)
    }
}

/// The lighter of two different ones. When a draw meets one that is not fit, both are drawn again:
/// taking its partner unseen would send that partner more than its share.
fn two_choices(
    members: &[Member],
    load: &impl Fn(&Member) -> Option<Load>,
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
        if let (Some(one), Some(other)) = (load(first), load(second)) {
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

/// What the share of a warming endpoint is a part of.
pub const WHOLE_SHARE: u32 = 1024;

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
            seed: 0,
        };
        let mut candidates: Vec<_> = weights.iter().map(candidate).collect();
        for (at, candidate) in candidates.iter_mut().enumerate() {
            candidate.seed = hash::hash(format!("10.0.0.{at}:80").as_bytes());
        }
        candidates
    }

    const METHODS: [Method; 5] = [
        Method::RoundRobin,
        Method::LeastRequests,
        Method::P2c,
        Method::Ewma,
        Method::Hash,
    ];

    fn fit(load: u64) -> Usable {
        Usable::Fit(Load(load))
    }

    fn picks(balance: &Balance, count: usize, look: impl Fn(usize) -> Usable) -> Vec<usize> {
        let mut dice = Loaded(vec![0, 1, 2, 3, 1], 0);
        let pick = |_| {
            balance
                .pick(&look, &mut dice, &Tried::default(), None)
                .unwrap()
        };
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
        let picked = balance.pick(
            |index| fit(loads[index]),
            &mut dice,
            &Tried::default(),
            None,
        );
        assert_eq!(picked, Some(1));
    }

    #[test]
    fn p2c_draws_every_pair_as_often() {
        let members: Vec<Member> = (0..3)
            .map(|index| Member {
                index,
                weight: 1,
                seed: 0,
            })
            .collect();
        let mut seen = [0; 3];
        for first in 0..3 {
            for second in 0..2 {
                let mut dice = Loaded(vec![first, second], 0);
                let load = |member: &Member| Some(Load(member.index as u64));
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
        for method in METHODS {
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
        for method in METHODS {
            let balance = Balance::new(method, &endpoints(&[1, 1]));
            let mut tried = Tried::default();
            tried.note(0);
            let mut dice = Loaded(vec![0], 0);
            assert_eq!(balance.pick(|_| fit(0), &mut dice, &tried, None), Some(1));
            tried.note(1);
            assert_eq!(balance.pick(|_| fit(0), &mut dice, &tried, None), None);
        }
    }

    #[test]
    fn with_no_endpoint_at_all_nothing_is_picked() {
        let balance = Balance::new(Method::P2c, &[]);
        let mut dice = Loaded(vec![0], 0);
        assert_eq!(
            balance.pick(|_| fit(0), &mut dice, &Tried::default(), None),
            None
        );
    }

    #[test]
    fn every_endpoint_that_was_tried_is_remembered() {
        let mut tried = Tried::default();
        assert!(tried.is_empty());
        (0..TRIED_WORDS * 64).for_each(|index| tried.note(index));
        assert!((0..TRIED_WORDS * 64 + 9).all(|index| tried.contains(index)));
    }

    /// Whose each of ten thousand keys is.
    fn owners(candidates: &[Candidate], look: impl Fn(usize) -> Usable) -> Vec<usize> {
        let balance = Balance::new(Method::Hash, candidates);
        let mut dice = Loaded(vec![0], 0);
        let tried = Tried::default();
        let mut owner = |key: u64| {
            let key = Some(hash::hash(&key.to_le_bytes()));
            balance.pick(&look, &mut dice, &tried, key).unwrap()
        };
        (0..10_000).map(&mut owner).collect()
    }

    fn held_by(owners: &[usize], index: usize) -> usize {
        owners.iter().filter(|owner| **owner == index).count()
    }

    #[test]
    fn an_endpoint_that_joins_or_leaves_moves_only_its_share_of_the_keys() {
        for count in [2, 3, 8] {
            let mut weights = vec![1; count];
            weights[0] = 3;
            let all = endpoints(&weights);
            let (with, without) = (
                owners(&all, |_| fit(0)),
                owners(&all[..count - 1], |_| fit(0)),
            );
            let moved = with.iter().zip(&without).filter(|(now, then)| now != then);
            assert!(moved.clone().all(|(now, _)| *now == count - 1));
            let share = 10_000 / (count + 2);
            let moved = moved.count();
            assert!(
                (share * 9 / 10..share * 11 / 10).contains(&moved),
                "{moved} of {share}"
            );
        }
    }

    #[test]
    fn each_endpoint_has_as_many_keys_as_its_weight_says() {
        let owners = owners(&endpoints(&[1, 2, 5]), |_| fit(0));
        for (index, share) in [(0, 1_250), (1, 2_500), (2, 6_250)] {
            let held = held_by(&owners, index);
            assert!(
                (share * 9 / 10..share * 11 / 10).contains(&held),
                "{held} of {share}"
            );
        }
    }

    #[test]
    fn the_keys_of_an_ejected_endpoint_go_to_all_others_and_come_back() {
        let candidates = endpoints(&[1; 5]);
        let well = owners(&candidates, |_| fit(0));
        let without = |index| match index {
            2 => Usable::Unfit(Unfit::Ejected),
            _ => fit(0),
        };
        let meanwhile = owners(&candidates, without);
        let stayed = well.iter().zip(&meanwhile).filter(|(then, _)| **then != 2);
        assert!(stayed.clone().all(|(then, now)| then == now));
        assert!((0..5).all(|index| index == 2 || held_by(&meanwhile, index) > 2_200));
        assert_eq!(owners(&candidates, |_| fit(0)), well);
    }

    #[test]
    fn a_key_that_everyone_asks_for_overruns_no_endpoint() {
        let balance = Balance::new(Method::Hash, &endpoints(&[1, 1, 2]));
        let mut dice = Loaded(vec![0], 0);
        let mut loads = [0u64; 3];
        for _ in 0..400 {
            let look = |index: usize| fit(loads[index]);
            let picked = balance.pick(look, &mut dice, &Tried::default(), Some(7));
            loads[picked.unwrap()] += 1;
        }
        for (load, weight) in loads.iter().zip([1, 1, 2]) {
            assert!(*load <= 125 * weight, "{loads:?}");
        }
    }

    #[test]
    fn a_key_stays_where_it_is_while_little_is_under_way() {
        let balance = Balance::new(Method::Hash, &endpoints(&[1, 1, 1]));
        let mut dice = Loaded(vec![0], 0);
        let mut loads = [0u64; 3];
        for _ in 0..16 {
            let look = |index: usize| fit(loads[index]);
            let picked = balance.pick(look, &mut dice, &Tried::default(), Some(7));
            loads[picked.unwrap()] += 1;
        }
        assert!(loads.contains(&16), "{loads:?}");
    }

    #[test]
    fn a_request_without_a_key_is_balanced_by_load() {
        let balance = Balance::new(Method::Hash, &endpoints(&[1, 1, 1, 1]));
        let loads = [9, 4, 0, 7];
        let mut dice = Loaded(vec![0, 0], 0);
        let tried = Tried::default();
        let picked = balance.pick(|index| fit(loads[index]), &mut dice, &tried, None);
        assert_eq!(picked, Some(1));
    }

    #[test]
    fn a_warming_endpoint_gets_its_share_of_its_turns() {
        let balance = Balance::new(Method::RoundRobin, &endpoints(&[1, 1]));
        let look = |index| match index {
            0 => Usable::Warming(Load(0), WHOLE_SHARE / 4),
            _ => fit(0),
        };
        let mut dice = Loaded((0..WHOLE_SHARE).collect(), 0);
        let pick = |_| {
            balance
                .pick(look, &mut dice, &Tried::default(), None)
                .unwrap()
        };
        let picked: Vec<usize> = (0..1024).map(pick).collect();
        let warm = held_by(&picked, 0);
        assert!((120..=136).contains(&warm), "{warm} of 512");
    }

    #[test]
    fn a_warming_endpoint_has_its_share_of_its_keys_and_the_same_each_time() {
        let candidates = endpoints(&[1, 1]);
        let warming = |share| {
            owners(&candidates, move |index| match index {
                0 => Usable::Warming(Load(0), share),
                _ => fit(0),
            })
        };
        let (little, more, all) = (warming(256), warming(512), warming(1024));
        assert_eq!(warming(256), little);
        let held = [&little, &more, &all].map(|owners| held_by(owners, 0));
        assert!(
            held[0] * 39 / 20 < held[1] && held[1] * 39 / 20 < held[2],
            "{held:?}"
        );
        let kept = little
            .iter()
            .zip(&more)
            .all(|(then, now)| *then == 1 || *now == 0);
        assert!(kept, "a key that it has it keeps");
    }

    #[test]
    fn warming_endpoints_serve_when_there_is_no_other() {
        for method in METHODS {
            let balance = Balance::new(method, &endpoints(&[1, 1]));
            let look = |_| Usable::Warming(Load(0), 1);
            let mut dice = Loaded(vec![1000, 1, 0], 0);
            let picked = balance.pick(look, &mut dice, &Tried::default(), Some(3));
            assert!(picked.is_some(), "{method:?}");
        }
    }
}
