//! The local ports of one endpoint: how many its connections use, how many TIME_WAIT still holds,
//! and whether another connect may take one.
//!
//! A TCP connection is told apart by its two addresses and two ports, so each source address has
//! the whole ephemeral range towards each endpoint; connect() looks for a port that is free in that
//! sense, bound source or not. Whoever sends the first FIN keeps the port for a while after the end
//! (RFC 9293 §3.6.1). Those are counted by the tick in which they come free, in a wheel of fixed
//! size, so that memory does not grow with connections. Absent on purpose: the ports of other
//! programs, which nobody tells us of; the reserve is for them, and what the system says at a
//! connect is believed. So too the ports of another upstream that has the same endpoint: each counts
//! its own, as each has its own limit, and where that was too few requests wait on the system's word.
//!
//! 1. A seat is taken only where more ports are available than the reserve.
//! 2. Each seat taken is answered once; what TIME_WAIT holds comes free after `hold`, never before,
//!    and at most two ticks after.
//! 3. Of several source addresses the one with the most available is next.
//! 4. An address on which the system found no port is asked again after a pause, by one connect
//!    alone, until one succeeds.

use std::net::IpAddr;
use std::time::Duration;
use std::time::Instant;

/// The ports of one endpoint, from every source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortShape {
    /// Source addresses to choose from; where the system chooses, that counts as one.
    pub sources: u16,
    /// Ports of one source address towards one endpoint.
    pub range: u32,
    /// Of these, left to others.
    pub reserve: u32,
    /// How long TIME_WAIT keeps a port from being used again.
    pub hold: Duration,
}

impl PortShape {
    /// A shape with a reserve that leaves the range usable: at most a quarter of it is kept, so
    /// that the default of 1024 does not take away the whole of a narrow range.
    #[must_use]
    pub fn new(sources: u16, range: u32, reserve: u32, hold: Duration) -> Self {
        Self {
            sources: sources.max(1),
            range,
            reserve: reserve.min(range / RESERVE_SHARE),
            hold,
        }
    }

    /// As many ports as anybody wants.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(1, u32::MAX, 0, Duration::ZERO)
    }
}

/// A port in use, by the place of its source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat(u16);

impl Seat {
    /// The place of its source address among the endpoint's.
    #[must_use]
    pub fn source(self) -> usize {
        usize::from(self.0)
    }
}

/// How a connection ends, as far as its port is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// Our FIN is the first: TIME_WAIT is ours.
    OursFirst,
    /// The peer's FIN was, or there is a reset, or there was no connection: the port is free.
    Free,
}

/// How many ports there are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounts {
    /// Of connections, those under way included.
    pub in_use: u32,
    /// Held by TIME_WAIT at our end.
    pub time_wait: u32,
    /// Neither, the reserve included.
    pub available: u32,
    /// Of the available ones, those that connects leave alone.
    pub reserve: u32,
}

/// The book of one endpoint's ports.
#[derive(Debug)]
pub struct PortBook {
    shape: PortShape,
    sources: Vec<Source>,
    begun: Option<Instant>,
    tick: u64,
    /// How the ports held changed in each of the last ticks.
    trend: Box<[i64; TREND_TICKS]>,
}

#[derive(Debug)]
struct Source {
    /// None: the system chooses.
    address: Option<IpAddr>,
    standing: Standing,
    in_use: u32,
    time_wait: u32,
    /// How many come free in each tick to come. Empty until TIME_WAIT first holds one.
    wheel: Vec<u32>,
    tide: Tide,
}

/// Whether connects are made from an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Chosen,
    /// Not any more: its ports come free as their connections end.
    Leaving,
}

/// What the system said at the last connects from an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tide {
    /// There are ports.
    Clear,
    /// There were none.
    Out { until: Instant },
    /// There were none a while ago: one connect may look.
    Turning,
    /// One connect is looking.
    Sounding,
}

impl PortBook {
    /// A book in which nothing is written yet.
    #[must_use]
    pub fn new(shape: PortShape) -> Self {
        let sources = 0..shape.sources.max(1);
        Self {
            sources: sources.map(|_| Source::new(None)).collect(),
            shape,
            begun: None,
            tick: 0,
            trend: Box::new([0; TREND_TICKS]),
        }
    }

    /// Counts by other terms from now on, over these source addresses; none: the system chooses.
    /// Those that are known already keep what they hold, and so do those that are not wanted any
    /// more until it comes free. How long TIME_WAIT lasts stays as it was.
    pub fn revise(&mut self, shape: PortShape, addresses: &[IpAddr]) {
        let hold = self.shape.hold;
        self.shape = PortShape { hold, ..shape };
        let wanted: Vec<_> = match addresses {
            [] => vec![None],
            [..] => addresses.iter().copied().map(Some).collect(),
        };
        for source in &mut self.sources {
            source.standing = match wanted.contains(&source.address) {
                true => Standing::Chosen,
                false => Standing::Leaving,
            };
        }
        for address in wanted {
            if self.sources.iter().any(|source| source.is(address)) {
                continue;
            }
            let mut places = self.sources.iter_mut();
            let empty =
                |source: &&mut Source| source.standing == Standing::Leaving && source.held() == 0;
            match places.find(empty) {
                Some(place) => *place = Source::new(address),
                None => self.sources.push(Source::new(address)),
            }
        }
    }

    /// The address that a seat is at; `None`: the system chooses.
    #[must_use]
    pub fn address(&self, seat: Seat) -> Option<IpAddr> {
        self.sources.get(seat.source())?.address
    }

    /// Time has passed: what TIME_WAIT held long enough comes free.
    pub fn advance(&mut self, now: Instant) {
        let begun = *self.begun.get_or_insert(now);
        let passed = now.saturating_duration_since(begun);
        let tick = u64::try_from(passed.as_nanos() / TICK.as_nanos()).unwrap_or(u64::MAX);
        for source in &mut self.sources {
            source.tide = match source.tide {
                Tide::Out { until } if until <= now => Tide::Turning,
                tide => tide,
            };
        }
        if tick <= self.tick {
            return;
        }
        let slots = wheel_slots(self.shape.hold);
        let steps = (tick - self.tick).min(slots.max(TREND_TICKS as u64));
        // Beyond a whole turn every slot has been passed already.
        for at in tick - steps + 1..=tick {
            let mut freed = 0_i64;
            for source in &mut self.sources {
                if let Some(due) = slot(&mut source.wheel, at, slots) {
                    let due = std::mem::take(due);
                    source.time_wait = source.time_wait.saturating_sub(due);
                    freed += i64::from(due);
                }
            }
            self.trend[place_of(at)] = -freed;
        }
        self.tick = tick;
    }

    /// Whether a connect may take a port.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.sources.iter().any(|source| self.admits(source))
    }

    /// Takes a port at the source address with the most of them. `None`: at the reserve.
    pub fn take(&mut self) -> Option<Seat> {
        let admitting = self.sources.iter().enumerate();
        let admitting = admitting.filter(|(_, source)| self.admits(source));
        let (at, _) = admitting.min_by_key(|(_, source)| source.held())?;
        let source = self.sources.get_mut(at)?;
        source.in_use += 1;
        if source.tide == Tide::Turning {
            source.tide = Tide::Sounding;
        }
        self.trend[place_of(self.tick)] += 1;
        u16::try_from(at).ok().map(Seat)
    }

    /// A connect got its port, whatever else became of it.
    pub fn on_found(&mut self, seat: Seat) {
        if let Some(source) = self.sources.get_mut(seat.source()) {
            source.tide = Tide::Clear;
        }
    }

    /// The system found no port for a connect. Its seat is answered herewith.
    pub fn on_none(&mut self, seat: Seat, now: Instant) {
        if let Some(source) = self.sources.get_mut(seat.source()) {
            let until = now.checked_add(PAUSE).unwrap_or(now);
            source.tide = Tide::Out { until };
        }
        self.leave(seat, Parting::Free);
    }

    /// A connection is over, or a connect that did not come to one.
    pub fn leave(&mut self, seat: Seat, parting: Parting) {
        let Some(source) = self.sources.get_mut(seat.source()) else {
            return;
        };
        source.in_use = source.in_use.saturating_sub(1);
        if source.tide == Tide::Sounding {
            source.tide = Tide::Turning;
        }
        let slots = wheel_slots(self.shape.hold);
        match parting {
            Parting::OursFirst if !self.shape.hold.is_zero() => {
                if source.wheel.is_empty() {
                    source.wheel = vec![0; usize::try_from(slots).unwrap_or(0)];
                }
                // The last slot of the turn: this tick has begun, so one more is waited for.
                if let Some(due) = slot(&mut source.wheel, self.tick + slots - 1, slots) {
                    *due += 1;
                    source.time_wait += 1;
                }
            }
            Parting::OursFirst | Parting::Free => self.trend[place_of(self.tick)] -= 1,
        }
    }

    /// When to look again, if there is no room now; there may be some then.
    #[must_use]
    pub fn look_again(&self, now: Instant) -> Option<Instant> {
        if self.has_room() {
            return None;
        }
        now.checked_add(TICK)
    }

    /// How many ports there are in each state, of all source addresses.
    #[must_use]
    pub fn counts(&self) -> PortCounts {
        let mut counts = PortCounts::default();
        for source in &self.sources {
            counts.in_use += source.in_use;
            counts.time_wait += source.time_wait;
            if source.standing == Standing::Leaving {
                continue;
            }
            let free = self.shape.range.saturating_sub(source.held());
            counts.available = counts.available.saturating_add(free);
            counts.reserve = counts.reserve.saturating_add(self.shape.reserve);
        }
        counts
    }

    /// Whether half of what connects may take is taken: time to leave TIME_WAIT to others.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        let counts = self.counts();
        let taken = counts.in_use.saturating_add(counts.time_wait);
        taken > counts.available.saturating_sub(counts.reserve)
    }

    /// How long until the reserve is reached, if the ports held go on changing as in the last
    /// seconds. `None`: they do not grow.
    #[must_use]
    pub fn exhaustion(&self) -> Option<Duration> {
        let counts = self.counts();
        let left = counts.available.saturating_sub(counts.reserve);
        if left == 0 {
            return Some(Duration::ZERO);
        }
        let grown: i64 = self.trend.iter().sum();
        let grown = u32::try_from(grown).ok().filter(|grown| *grown > 0)?;
        let ticks = (self.tick + 1).clamp(TREND_LEAST, TREND_TICKS as u64);
        let over = TICK.as_secs_f64() * f64::from(u32::try_from(ticks).unwrap_or(u32::MAX));
        Duration::try_from_secs_f64(f64::from(left) * over / f64::from(grown)).ok()
    }

    fn admits(&self, source: &Source) -> bool {
        let free = self.shape.range.saturating_sub(source.held());
        free > self.shape.reserve
            && source.standing == Standing::Chosen
            && matches!(source.tide, Tide::Clear | Tide::Turning)
    }
}

impl Source {
    fn new(address: Option<IpAddr>) -> Self {
        Self {
            address,
            standing: Standing::Chosen,
            in_use: 0,
            time_wait: 0,
            wheel: Vec::new(),
            tide: Tide::Clear,
        }
    }

    fn is(&self, address: Option<IpAddr>) -> bool {
        self.standing == Standing::Chosen && self.address == address
    }

    fn held(&self) -> u32 {
        self.in_use.saturating_add(self.time_wait)
    }
}

fn slot(wheel: &mut [u32], tick: u64, slots: u64) -> Option<&mut u32> {
    wheel.get_mut(usize::try_from(tick % slots.max(1)).ok()?)
}

/// The ticks that TIME_WAIT lasts, begun ones counted whole, and the present one.
fn wheel_slots(hold: Duration) -> u64 {
    let ticks = hold.as_nanos().div_ceil(TICK.as_nanos());
    u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(2)
}

fn place_of(tick: u64) -> usize {
    usize::try_from(tick % TREND_TICKS as u64).unwrap_or(0)
}

/// The share of a range that the reserve may take at most: one in so many.
const RESERVE_SHARE: u32 = 4;

/// How exact the book is in time. Full service is to be back within a second after ports come free;
/// 60 s of TIME_WAIT are 242 slots of four octets then, a kilobyte for each source address.
const TICK: Duration = Duration::from_millis(250);

/// How long nobody asks an address again on which the system had no port. Short enough to be back
/// within a second, long enough that a hundred waiters make four system calls a second.
const PAUSE: Duration = Duration::from_millis(250);

/// How far back the forecast looks: ten seconds, so that one burst is no trend.
const TREND_TICKS: usize = 40;

/// What it takes for the least, just after start: one second.
const TREND_LEAST: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::by_hand::start;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn other_source_addresses_leave_the_count_of_those_that_stay() {
        let [a, b, c] = [1, 2, 3].map(|last| IpAddr::from([127, 0, 0, last]));
        let shape = PortShape::new(2, 10, 0, MINUTE);
        let mut book = PortBook::new(shape);
        book.revise(shape, &[a, b]);
        book.advance(start());
        let seats = [book.take().unwrap(), book.take().unwrap()];
        assert_eq!(seats.map(|seat| book.address(seat)), [Some(a), Some(b)]);
        book.leave(seats[1], Parting::OursFirst);

        book.revise(shape, &[c, a]);
        let counts = book.counts();
        let known = (counts.in_use, counts.time_wait, counts.available);
        assert_eq!(known, (1, 1, 10 + 9), "of b nothing is available any more");
        let next = [book.take().unwrap(), book.take().unwrap()];
        assert!(next.iter().all(|seat| book.address(*seat) != Some(b)));
        book.advance(start() + 2 * MINUTE);
        assert_eq!(book.counts().time_wait, 0);
        book.revise(shape, &[]);
        assert_eq!(book.sources.len(), 3, "an empty place is taken again");
    }

    fn book(sources: u16, range: u32, reserve: u32) -> PortBook {
        let mut book = PortBook::new(PortShape::new(sources, range, reserve, MINUTE));
        book.advance(start());
        book
    }

    #[test]
    fn a_close_by_our_fin_holds_its_port_for_the_whole_of_time_wait() {
        let (mut book, begin) = (book(1, 100, 0), start());
        let seat = book.take().unwrap();
        book.advance(begin + Duration::from_millis(240));
        book.leave(seat, Parting::OursFirst);
        assert_eq!((book.counts().in_use, book.counts().time_wait), (0, 1));
        book.advance(begin + Duration::from_millis(240) + MINUTE - Duration::from_millis(1));
        assert_eq!(book.counts().time_wait, 1);
        book.advance(begin + Duration::from_millis(740) + MINUTE);
        assert_eq!((book.counts().time_wait, book.counts().available), (0, 100));
    }

    #[test]
    fn a_close_that_the_peer_began_frees_its_port_at_once() {
        let mut book = book(1, 100, 0);
        let seat = book.take().unwrap();
        book.leave(seat, Parting::Free);
        assert_eq!(book.counts().available, 100);
    }

    #[test]
    fn the_reserve_is_left_alone_and_never_more_than_a_quarter() {
        let mut book = book(1, 200, 1024);
        assert_eq!(std::iter::from_fn(|| book.take()).count(), 150);
        let counts = book.counts();
        assert_eq!((counts.available, counts.reserve), (50, 50));
        assert!(!book.has_room());
    }

    #[test]
    fn ports_are_used_evenly_over_the_source_addresses() {
        let mut book = book(2, 10, 0);
        let seats: Vec<_> = std::iter::from_fn(|| book.take()).collect();
        assert_eq!(seats.len(), 20);
        let first = seats[..10].iter().filter(|seat| seat.source() == 0).count();
        assert_eq!(first, 5);
        // What TIME_WAIT holds counts as used.
        for seat in seats.iter().filter(|seat| seat.source() == 1) {
            book.leave(*seat, Parting::Free);
        }
        for seat in seats.iter().filter(|seat| seat.source() == 0) {
            book.leave(*seat, Parting::OursFirst);
        }
        assert_eq!(book.take().unwrap().source(), 1);
    }

    #[test]
    fn after_a_connect_without_a_port_one_alone_looks_again() {
        let (mut book, begin) = (book(1, 100, 0), start());
        let seat = book.take().unwrap();
        book.on_none(seat, begin);
        assert_eq!(book.take(), None);
        assert!(book.look_again(begin).is_some());
        book.advance(begin + Duration::from_secs(1));
        let sounding = book.take().unwrap();
        assert_eq!(book.take(), None);
        book.on_found(sounding);
        assert!(book.take().is_some());
    }

    #[test]
    fn a_source_address_without_ports_leaves_the_others_in_service() {
        let (mut book, begin) = (book(2, 100, 0), start());
        let seat = book.take().unwrap();
        book.on_none(seat, begin);
        assert_ne!(book.take().unwrap().source(), seat.source());
    }

    #[test]
    fn the_forecast_is_the_room_left_at_the_present_rate() {
        let (mut book, begin) = (book(1, 1000, 0), start());
        assert_eq!(book.exhaustion(), None);
        // Ten a second, for twenty seconds.
        for second in 0..20 {
            book.advance(begin + Duration::from_secs(second));
            for _ in 0..10 {
                let seat = book.take().unwrap();
                book.leave(seat, Parting::OursFirst);
            }
        }
        let told = book.exhaustion().unwrap().as_secs_f64();
        assert!((78.0..=82.0).contains(&told), "{told}");
        // Nothing more opens: nothing is in sight.
        book.advance(begin + Duration::from_secs(40));
        assert_eq!(book.exhaustion(), None);
    }

    #[test]
    fn at_the_reserve_nothing_is_left_to_forecast() {
        let mut book = book(1, 4, 1);
        while book.take().is_some() {}
        assert_eq!(book.exhaustion(), Some(Duration::ZERO));
    }

    #[test]
    fn ports_are_scarce_from_half_of_what_may_be_taken() {
        let mut book = book(1, 8, 2);
        for _ in 0..3 {
            assert!(book.take().is_some() && !book.is_scarce());
        }
        assert!(book.take().is_some() && book.is_scarce());
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Take,
        Leave(usize, Parting),
        None(usize),
        Found(usize),
        Pass(u64),
    }

    fn any_op() -> impl Strategy<Value = Op> {
        let pick = any::<usize>;
        prop_oneof![
            10 => Just(Op::Take),
            5 => pick().prop_map(|at| Op::Leave(at, Parting::OursFirst)),
            3 => pick().prop_map(|at| Op::Leave(at, Parting::Free)),
            1 => pick().prop_map(Op::None),
            2 => pick().prop_map(Op::Found),
            4 => (0..3000_u64).prop_map(Op::Pass),
            1 => (0..200_000_u64).prop_map(Op::Pass),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

        #[test]
        fn every_port_is_counted_once_and_held_as_long_as_the_system_holds_it(
            ops in prop::collection::vec(any_op(), 1..200),
            sources in 1..4_u16, range in 4..20_u32, reserve in 0..8_u32,
        ) {
            let hold = Duration::from_secs(5);
            let shape = PortShape::new(sources, range, reserve, hold);
            let mut book = PortBook::new(shape);
            let mut now = start();
            book.advance(now);
            let (mut held, mut left): (Vec<Seat>, Vec<(Seat, Instant)>) = (Vec::new(), Vec::new());
            for op in ops {
                match op {
                    Op::Take => {
                        let free = |source: u16| {
                            let used = held.iter().filter(|seat| seat.0 == source).count()
                                + left.iter().filter(|(seat, at)| {
                                    seat.0 == source && *at + hold > now
                                }).count();
                            shape.range.saturating_sub(u32::try_from(used).unwrap())
                        };
                        if let Some(seat) = book.take() {
                            prop_assert!(free(seat.0) > shape.reserve);
                            held.push(seat);
                        }
                    }
                    Op::Leave(at, parting) if !held.is_empty() => {
                        let seat = held.swap_remove(at % held.len());
                        book.leave(seat, parting);
                        if parting == Parting::OursFirst {
                            left.push((seat, now));
                        }
                    }
                    Op::None(at) if !held.is_empty() => {
                        let seat = held.swap_remove(at % held.len());
                        book.on_none(seat, now);
                    }
                    Op::Found(at) if !held.is_empty() => book.on_found(held[at % held.len()]),
                    Op::Pass(millis) => now += Duration::from_millis(millis),
                    Op::Leave(..) | Op::None(_) | Op::Found(_) => {}
                }
                book.advance(now);
                let counts = book.counts();
                prop_assert_eq!(counts.in_use as usize, held.len());
                let surely = left.iter().filter(|(_, at)| *at + hold > now).count();
                let perhaps = left.iter().filter(|(_, at)| *at + hold + 2 * TICK > now).count();
                prop_assert!((surely..=perhaps).contains(&(counts.time_wait as usize)));
                let all = counts.in_use + counts.time_wait + counts.available;
                prop_assert_eq!(all, shape.range * u32::from(sources));
                prop_assert!(book.has_room() || book.look_again(now).is_some());
            }
        }
    }
}
