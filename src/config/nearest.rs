//! The known key that an unknown one was probably meant to be.

/// The candidate with the smallest edit distance, or one that begins alike; none when every one is
/// a different word.
#[must_use]
pub fn nearest<'c>(text: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let candidates: Vec<_> = candidates.into_iter().collect();
    let measured = candidates
        .iter()
        .map(|candidate| (distance(text, candidate), *candidate));
    let (distance, candidate) = measured.min_by_key(|(distance, _)| *distance)?;
    // A third of its letters may be wrong, and two always: a transposition counts as two.
    if distance <= (candidate.len() / 3).max(2) {
        return Some(candidate);
    }
    let alike = |candidate: &&str| candidate.starts_with(text) || text.starts_with(*candidate);
    candidates
        .into_iter()
        .find(|candidate| text.len() > 2 && alike(candidate))
}

/// Insertions, removals and replacements that make one text of the other (Levenshtein, 1965).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (done, char) in from.chars().enumerate() {
        let mut diagonal = done;
        let mut left = done + 1;
        for (cell, wanted) in row.iter_mut().skip(1).zip(&to) {
            let replaced = diagonal + usize::from(char != *wanted);
            diagonal = *cell;
            left = replaced.min(*cell + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = done + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_suggested() {
        let keys = ["idle_timeout", "header_timeout", "max_age", "max_idle"];
        assert_eq!(nearest("idle_timeot", keys), Some("idle_timeout"));
        assert_eq!(nearest("idletimeout", keys), Some("idle_timeout"));
        assert_eq!(nearest("max_ideL", keys), Some("max_idle"));
        assert_eq!(nearest("header", keys), Some("header_timeout"));
    }

    #[test]
    fn a_word_of_its_own_gets_no_suggestion() {
        assert_eq!(nearest("certificate", ["idle_timeout", "max_age"]), None);
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn the_distance_counts_single_changes() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
