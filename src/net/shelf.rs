//! A shelf: where a worker keeps what it will need again, so that the steady state allocates
//! nothing.
//!
//! It keeps what the last burst needed and lets go of what lay unused: each [`Shelf::thin`] drops
//! half of what nobody took since the one before. So a burst costs its memory for seconds, and a
//! steady load never pays the allocator. Absent on purpose: knowing what is kept, and locks; a
//! shelf is its worker's own.

/// What lies ready to be taken again, the last one put there first: it is the likeliest to be in
/// the processor's cache.
pub struct Shelf<T> {
    items: Vec<T>,
    /// How few lay there at the least since it was last thinned: so many were not needed.
    least: usize,
}

impl<T> Shelf<T> {
    /// An empty shelf.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            items: Vec::new(),
            least: 0,
        }
    }

    /// Takes the one that was put there last.
    #[inline]
    pub fn take(&mut self) -> Option<T> {
        let item = self.items.pop();
        self.least = self.least.min(self.items.len());
        item
    }

    /// Puts one there, unless `most` are there already.
    #[inline]
    pub fn put(&mut self, item: T, most: usize) {
        if self.items.len() < most {
            self.items.push(item);
        }
    }

    /// Drops half of what nobody needed since the last time.
    pub fn thin(&mut self) -> Thinned {
        self.items.drain(..self.least.div_ceil(2));
        self.least = self.items.len();
        match self.items.is_empty() {
            true => Thinned::Bare,
            false => Thinned::Stocked,
        }
    }
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a shelf is like after it was thinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thinned {
    /// Something lies there still.
    Stocked,
    /// Nothing does: there is no need to come again.
    Bare,
}

impl Thinned {
    /// What two shelves are like together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Bare, Self::Bare) => Self::Bare,
            _ => Self::Stocked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_last_is_taken_first() {
        let mut shelf = Shelf::new();
        shelf.put(1, 2);
        shelf.put(2, 2);
        shelf.put(3, 2); // beyond the most: dropped
        assert_eq!(
            (shelf.take(), shelf.take(), shelf.take()),
            (Some(2), Some(1), None)
        );
    }

    #[test]
    fn what_nobody_needed_goes_by_halves_and_what_was_needed_stays() {
        let mut shelf = Shelf::new();
        (0..8).for_each(|item| shelf.put(item, 8));
        assert_eq!(shelf.thin(), Thinned::Stocked); // none had lain there all the time
        assert_eq!(shelf.items.len(), 8);
        let needed: Vec<_> = (0..6).filter_map(|_| shelf.take()).collect();
        needed.into_iter().for_each(|item| shelf.put(item, 8));
        shelf.thin(); // two were not needed
        assert_eq!(shelf.items.len(), 7);
    }

    #[test]
    fn a_shelf_that_nobody_uses_is_bare_in_the_end() {
        let mut shelf = Shelf::new();
        (0..1000).for_each(|item| shelf.put(item, 1000));
        let rounds = (0..20).position(|_| shelf.thin() == Thinned::Bare);
        assert!(rounds.is_some_and(|rounds| rounds <= 12), "{rounds:?}");
    }
}
