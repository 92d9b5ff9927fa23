//! How many connections of each endpoint are more than its share.
//!
//! Requests go to an endpoint that joins at once, whatever connections the others have. But those
//! keep connections that they no longer need: idle at the origin, and counted where the whole
//! upstream is limited. Absent on purpose: closing them, and when.

use super::Rank;

/// An endpoint's part of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its connections.
    pub open: u32,
    /// Its weight.
    pub weight: u32,
    /// Backups share with backups.
    pub rank: Rank,
}

/// How many connections each has beyond its share, in their order. A share is rounded up.
pub fn surpluses(shares: &[Share]) -> impl Iterator<Item = u32> {
    shares.iter().map(|own| {
        let same = || shares.iter().filter(|share| share.rank == own.rank);
        let open: u64 = same().map(|share| u64::from(share.open)).sum();
        let weights: u64 = same().map(|share| u64::from(share.weight)).sum();
        let part = (open * u64::from(own.weight)).div_ceil(weights.max(1));
        own.open
            .saturating_sub(u32::try_from(part).unwrap_or(u32::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(all: &[(u32, u32, Rank)]) -> Vec<u32> {
        let shares: Vec<_> = all
            .iter()
            .map(|(open, weight, rank)| Share {
                open: *open,
                weight: *weight,
                rank: *rank,
            })
            .collect();
        surpluses(&shares).collect()
    }

    #[test]
    fn what_the_others_have_beyond_their_share_is_surplus_when_one_joins() {
        let primary = |open, weight| (open, weight, Rank::Primary);
        assert_eq!(
            of(&[primary(30, 1), primary(30, 1), primary(0, 1)]),
            [10, 10, 0]
        );
        assert_eq!(of(&[primary(30, 3), primary(0, 1)]), [7, 0]);
        assert_eq!(of(&[primary(1, 1), primary(0, 1)]), [0, 0]);
        assert_eq!(of(&[]), [0; 0]);
    }

    #[test]
    fn backups_take_no_part_of_the_primaries() {
        let shares = [(30, 1, Rank::Primary), (0, 1, Rank::Backup)];
        assert_eq!(of(&shares), [0, 0]);
    }
}
