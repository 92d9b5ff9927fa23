//! The endpoint of a key: the same one each time, for every Holdfast that has the same endpoints.
//!
//! Rendezvous hashing: each endpoint draws a number from the key and itself, and the highest one by
//! its weight has the key (Thaler and Ravishankar, 1998; with weights: Schindelhauer and Schomaker,
//! 2005). So an endpoint that joins takes only its share, and what one leaves behind goes to all
//! others in their shares; nothing else moves. No ring and no table: endpoints are few. Whoever has
//! more than a quarter above its share under way is passed over for the next highest ("Consistent
//! Hashing with Bounded Loads", Mirrokni, Thorup and Zadimoghaddam, 2017), so that neither a key
//! that everyone asks for nor a client that chooses its key overruns an endpoint.
//! Absent on purpose: where the key comes from (`hash_key`).

use super::Load;

/// A hash that is the same on every machine and in every version: FNV-1a, well stirred.
#[must_use]
pub fn hash(octets: &[u8]) -> u64 {
    let step = |hash: u64, octet: &u8| (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
    stir(octets.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Spreads the bits of a number over all of it (the finish of MurmurHash3).
fn stir(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}

/// What an endpoint draws from a key; the highest has it.
#[must_use]
pub(super) fn score(key: u64, seed: u64, weight: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "the 53 bits that count are kept"
    )]
    let (drawn, weight) = ((stir(key ^ seed) >> 11) as f64, weight as f64);
    // Above 0 and below 1.
    let part = (drawn + 0.5) / (1u64 << 53) as f64;
    -weight / part.ln()
}

/// Another draw, for which share of an endpoint's keys it may have already: from 0 to `bound` - 1.
#[must_use]
pub(super) fn draw(key: u64, seed: u64, bound: u32) -> u32 {
    let bits = stir(key ^ seed.rotate_left(32)) >> 32;
    u32::try_from((bits * u64::from(bound)) >> 32).unwrap_or(0)
}

/// Whether an endpoint with this load may take one more, of so much on all with so much weight.
#[must_use]
pub(super) fn has_room(load: Load, weight: u64, (all, weights): (u64, u64)) -> bool {
    let share = u128::from(all.saturating_add(1)) * u128::from(weight) * 5;
    let most = share.div_ceil(u128::from(weights.max(1)) * 4);
    u128::from(load.0) < most.max(LOAD_FREE)
}

/// So much under way is no load: a client that asks for a page and what is on it keeps its endpoint.
const LOAD_FREE: u128 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_same_in_every_version() {
        assert_eq!(hash(b""), 0xefd0_1f60_ba99_2926);
        assert_ne!(hash(b"10.0.0.1:80"), hash(b"10.0.0.1:81"));
    }

    #[test]
    fn an_endpoint_is_full_a_quarter_above_its_share_and_not_below_sixteen() {
        let most = |weight, all| {
            (0..1000)
                .take_while(|l| has_room(Load(*l), weight, all))
                .count()
        };
        assert_eq!(most(1, (399, 4)), 125);
        assert_eq!(most(2, (399, 4)), 250);
        assert_eq!(most(1, (10, 4)), 16);
    }
}
