//! Metrics indexed by members of closed sets, so that counting by a label is an index, not a search.

use std::marker::PhantomData;

use crate::observe::words::Word;

/// One metric for each member of a set.
#[derive(Debug)]
pub struct Table<W, M> {
    cells: Box<[M]>,
    set: PhantomData<W>,
}

impl<W: Word, M> Table<W, M> {
    /// Makes the metric of each member.
    pub fn new(make: impl FnMut(W) -> M) -> Self {
        Self {
            cells: W::ALL.iter().copied().map(make).collect(),
            set: PhantomData,
        }
    }

    /// The metric of a member. A member's index is below the set's length, by the table of words.
    #[inline]
    #[must_use]
    pub fn of(&self, word: W) -> &M {
        &self.cells[word.index()]
    }
}

/// One metric for each pair.
#[derive(Debug)]
pub struct Table2<A, B, M>(Table<A, Table<B, M>>);

impl<A: Word, B: Word, M> Table2<A, B, M> {
    /// Makes the metric of each pair.
    pub fn new(mut make: impl FnMut(A, B) -> M) -> Self {
        Self(Table::new(|a| Table::new(|b| make(a, b))))
    }

    /// The metric of a pair.
    #[inline]
    #[must_use]
    pub fn of(&self, a: A, b: B) -> &M {
        self.0.of(a).of(b)
    }
}

/// One metric for each triple.
#[derive(Debug)]
pub struct Table3<A, B, C, M>(Table<A, Table2<B, C, M>>);

impl<A: Word, B: Word, C: Word, M> Table3<A, B, C, M> {
    /// Makes the metric of each triple.
    pub fn new(mut make: impl FnMut(A, B, C) -> M) -> Self {
        Self(Table::new(|a| Table2::new(|b, c| make(a, b, c))))
    }

    /// The metric of a triple.
    #[inline]
    #[must_use]
    pub fn of(&self, a: A, b: B, c: C) -> &M {
        self.0.of(a).of(b, c)
    }
}
