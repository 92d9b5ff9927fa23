//! The storage under every counter, gauge and histogram: per worker a lane of its own.
//!
//! A block holds `Block::CELLS` numbers once per worker, and once for all other threads. The numbers
//! of one worker lie together on cache lines that no other thread writes, so counting is a load and
//! a store without a lock, and reading, which is rare, sums over the lanes.
//!
//! Blocks are never freed: a handle is then a plain copy with no reference count that all workers
//! would contend for. What is leaked is bounded, since the registry gives out the same cell for the
//! same series; it grows with distinct names ever configured, not with traffic or reloads.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::observe::shard;

/// A run of cells, once for the threads that share and once per worker.
#[derive(Debug)]
struct Block {
    lanes: Box<[Lane]>,
}

/// One worker's cells. Aligned to two cache lines, since processors fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Lane([AtomicU64; Block::CELLS]);

impl Block {
    /// 4 KiB a worker: a page, and more than one upstream's closed label sets need at once.
    const CELLS: usize = 512;

    fn new(workers: usize) -> &'static Self {
        let lane = || Lane([const { AtomicU64::new(0) }; Self::CELLS]);
        let lanes = std::iter::repeat_with(lane).take(workers + 1).collect();
        Box::leak(Box::new(Self { lanes }))
    }
}

/// A number that every worker adds to on its own lane. A plain copy.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    block: &'static Block,
    at: usize,
}

impl Slot {
    /// Adds, wrapping: a gauge adds the two's complement of what leaves.
    #[inline]
    pub fn add(self, n: u64) {
        self.add_at(0, n);
    }

    /// Adds to the cell `offset` places further, within one [`Cells::run`].
    #[inline]
    pub fn add_at(self, offset: usize, n: u64) {
        let (lanes, at) = (&self.block.lanes, (self.at + offset) % Block::CELLS);
        match (shard::lane(), lanes.get(shard::lane())) {
            (own, Some(lane)) if own != shard::SHARED => {
                let cell = &lane.0[at];
                cell.store(
                    cell.load(Ordering::Relaxed).wrapping_add(n),
                    Ordering::Relaxed,
                );
            }
            // Also a thread whose lane does not exist: slower, never lost.
            _ => {
                if let Some(shared) = lanes.first() {
                    shared.0[at].fetch_add(n, Ordering::Relaxed);
                }
            }
        }
    }

    /// The sum over the workers.
    #[must_use]
    pub fn sum(self) -> u64 {
        self.sum_at(0)
    }

    /// The sum over the workers of the cell `offset` places further.
    #[must_use]
    pub fn sum_at(self, offset: usize) -> u64 {
        let at = (self.at + offset) % Block::CELLS;
        let read = |lane: &Lane| lane.0[at].load(Ordering::Relaxed);
        self.block.lanes.iter().map(read).fold(0, u64::wrapping_add)
    }

    /// Replaces the number. Only for cells that nobody adds to.
    pub fn put(self, n: u64) {
        if let Some(lane) = self.block.lanes.first() {
            lane.0[self.at % Block::CELLS].store(n, Ordering::Relaxed);
        }
    }

    /// Reads a number that is only ever [`Slot::put`].
    #[must_use]
    pub fn read(self) -> u64 {
        self.block.lanes.first().map_or(0, |lane| {
            lane.0[self.at % Block::CELLS].load(Ordering::Relaxed)
        })
    }
}

/// Hands out cells.
#[derive(Debug)]
pub struct Cells {
    workers: usize,
    block: &'static Block,
    used: usize,
}

impl Cells {
    /// Storage for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            block: Block::new(workers),
            used: 0,
        }
    }

    /// `length` cells side by side, all 0. No metric needs more than a block; a longer run is cut.
    pub fn run(&mut self, length: usize) -> Slot {
        let length = length.min(Block::CELLS);
        if self.used + length > Block::CELLS {
            self.block = Block::new(self.workers);
            self.used = 0;
        }
        let slot = Slot {
            block: self.block,
            at: self.used,
        };
        self.used += length;
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_different_workers_add_up() {
        let slot = Cells::new(3).run(1);
        let count = |worker| {
            move || {
                shard::set(worker);
                (0..1000).for_each(|_| slot.add(1));
            }
        };
        let threads: Vec<_> = (0..3)
            .map(|worker| std::thread::spawn(count(worker)))
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(slot.sum(), 3000);
    }

    #[test]
    fn a_thread_without_a_lane_counts_on_the_shared_one() {
        let slot = Cells::new(1).run(1);
        shard::set(17);
        slot.add(2);
        assert_eq!(slot.read(), 2);
    }

    #[test]
    fn a_run_never_straddles_two_blocks() {
        let mut cells = Cells::new(1);
        let first = cells.run(Block::CELLS - 1);
        let second = cells.run(2);
        second.add_at(1, 5);
        assert_eq!(first.sum(), 0);
        assert_eq!((second.sum(), second.sum_at(1)), (0, 5));
    }

    #[test]
    fn the_lanes_of_two_workers_share_no_cache_line() {
        assert_eq!(align_of::<Lane>(), 128);
        assert_eq!(size_of::<Lane>() % 128, 0);
    }
}
