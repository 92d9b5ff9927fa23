//! How long an endpoint takes to answer, as a moving average that jumps up and comes down slowly.
//!
//! A slower answer than the average is believed at once, since the next request would wait as long;
//! a quicker one only bit by bit. Time alone brings it down as well: an endpoint that was slow while
//! it started is asked again before long, and its answers then say what it is like now. (Peak EWMA,
//! as Finagle's `loadbalancer.peakewma` has it.) Absent on purpose: the clock and what is in flight.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use super::Load;

/// The average of one endpoint, shared by all workers: microseconds in the upper half and the
/// millisecond of the last change in the lower, so that the two are never of different moments.
#[derive(Debug, Default)]
pub struct Ewma(AtomicU64);

impl Ewma {
    /// An answer took so long, until its first octet. Of two at the same moment one may be lost.
    pub fn observe(&self, micros: u64, now_millis: u64) {
        let kept = self.0.load(Ordering::Relaxed);
        let (cost, weight) = decayed(kept, now_millis);
        let took = float(micros.max(1));
        let cost = match took > cost {
            true => took,
            // What time took from the average, the new answer gives.
            false => cost + took * (1.0 - weight),
        };
        let cost = cost.max(took.min(1.0));
        self.0.store(pack(cost, now_millis), Ordering::Relaxed);
    }

    /// What another request would cost: the average for each request under way, and its own. One of
    /// which nothing is known is asked first, and then left alone until it has answered.
    #[must_use]
    pub fn load(&self, in_flight: u64, now_millis: u64) -> Load {
        let (cost, _) = decayed(self.0.load(Ordering::Relaxed), now_millis);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is no less than 0 and no more than fits 32 bits"
        )]
        let cost = match cost as u64 {
            0 if in_flight > 0 => UNKNOWN_MICROS,
            cost => cost,
        };
        Load(cost.saturating_mul(in_flight.saturating_add(1)))
    }
}

/// The average as time has left it, and the share that time has left.
fn decayed(kept: u64, now_millis: u64) -> (f64, f64) {
    let (cost, at) = (kept >> 32, low_half(kept));
    // Modulo 2^32 ms, 49 days: an endpoint unused for so long may be thought of too well.
    let passed = low_half(now_millis).wrapping_sub(at);
    // A worker's clock may lag behind another's by a turn.
    let passed = if passed > u32::MAX / 2 { 0 } else { passed };
    let weight = (-f64::from(passed) / DECAY_MILLIS).exp();
    (float(cost) * weight, weight)
}

fn pack(cost: f64, now_millis: u64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 32 bits"
    )]
    let cost = cost.clamp(0.0, f64::from(u32::MAX)) as u64;
    (cost << 32) | u64::from(low_half(now_millis))
}

fn low_half(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn float(micros: u64) -> f64 {
    micros as f64
}

/// After so long a third of what was known is left. Finagle's default.
const DECAY_MILLIS: f64 = 10_000.0;

/// What a request that failed is taken to have cost: to fail quickly is not to be quick.
pub const FAILED_MICROS: u64 = 1_000_000;

/// What is assumed of an endpoint that has not answered yet.
const UNKNOWN_MICROS: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(ewma: &Ewma, now: u64) -> u64 {
        ewma.load(0, now).0
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_a_quick_one_bit_by_bit() {
        let ewma = Ewma::default();
        ewma.observe(1_000, 100);
        ewma.observe(900_000, 200);
        assert_eq!(cost(&ewma, 200), 900_000);
        ewma.observe(1_000, 210);
        let after_one = cost(&ewma, 210);
        assert!((890_000..900_000).contains(&after_one), "{after_one}");
    }

    #[test]
    fn answers_of_one_kind_bring_the_average_to_theirs() {
        let ewma = Ewma::default();
        ewma.observe(900_000, 0);
        for now in (10..60_000).step_by(10) {
            ewma.observe(2_000, now);
        }
        let settled = cost(&ewma, 60_000);
        assert!((1_500..6_000).contains(&settled), "{settled}");
    }

    #[test]
    fn time_alone_forgives_an_endpoint_that_is_not_asked() {
        let ewma = Ewma::default();
        ewma.observe(5_000_000, 0);
        let costs = [0, 10_000, 60_000, 200_000].map(|now| cost(&ewma, now));
        assert!(costs.is_sorted_by(|one, other| one > other), "{costs:?}");
        assert_eq!(costs[3], 0);
    }

    #[test]
    fn the_load_grows_with_what_is_in_flight() {
        let ewma = Ewma::default();
        ewma.observe(2_000, 0);
        assert_eq!(
            (ewma.load(0, 0), ewma.load(3, 0)),
            (Load(2_000), Load(8_000))
        );
    }

    #[test]
    fn an_unknown_endpoint_is_asked_first_and_then_left_alone_until_it_has_answered() {
        let (known, unknown) = (Ewma::default(), Ewma::default());
        known.observe(2_000, 0);
        assert!(unknown.load(0, 0) < known.load(0, 0));
        assert!(unknown.load(1, 0) > known.load(1, 0));
    }

    #[test]
    fn a_clock_that_lags_behind_anothers_forgets_nothing() {
        let ewma = Ewma::default();
        ewma.observe(2_000, 1_000);
        assert_eq!(cost(&ewma, 995), 2_000);
        let late = u64::from(u32::MAX) + 5;
        ewma.observe(7_000, late);
        assert_eq!(cost(&ewma, late), 7_000);
    }
}
