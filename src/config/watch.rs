//! Whether the files of a configuration have changed: a look that costs little and can be repeated.
//!
//! A look asks for time and length first, and reads only what differs in them, since a tool may
//! write the same again. `conf.d` counts by the names in it too. Absent on purpose: when to look.

use std::collections::BTreeMap;
use std::fs;
use std::hash::DefaultHasher;
use std::hash::Hash as _;
use std::hash::Hasher as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

use super::complaint::Complaints;
use super::source;

/// The files at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<PathBuf, Found>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    /// `None`: it is not there, or cannot be read.
    stat: Option<(SystemTime, u64)>,
    content: u64,
}

impl Seen {
    /// Looks. What differs in neither time nor length from `before` is not read again.
    #[must_use]
    pub fn look(file: Option<&Path>, before: &Self) -> Self {
        let files = source::files(file, &mut Complaints::default());
        let found = files.into_iter().map(|path| {
            let stat = fs::metadata(&path).ok();
            let stat = stat.and_then(|stat| Some((stat.modified().ok()?, stat.len())));
            let known = before.0.get(&path).filter(|known| known.stat == stat);
            let content = known.map_or_else(|| content(&path), |known| known.content);
            (path, Found { stat, content })
        });
        Self(found.collect())
    }

    /// Whether the same would be read.
    #[must_use]
    pub fn reads_like(&self, other: &Self) -> Alike {
        let content = |seen: &Self| -> Vec<(PathBuf, u64)> {
            let each = seen.0.iter();
            each.map(|(path, found)| (path.clone(), found.content))
                .collect()
        };
        match content(self) == content(other) {
            true => Alike::Same,
            false => Alike::Different,
        }
    }
}

/// Whether two looks saw the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alike {
    /// They did.
    Same,
    /// Something was written, came or went.
    Different,
}

fn content(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    fs::read(path).ok().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_or_goes_is_seen_and_the_same_again_is_not() {
        let folder = std::env::temp_dir().join(format!("holdfast-watch-{}", std::process::id()));
        fs::create_dir_all(folder.join("conf.d")).unwrap();
        let file = folder.join("a.toml");
        let look = |before: &Seen| Seen::look(Some(&file), before);
        fs::write(&file, "a = 1").unwrap();
        let first = look(&Seen::default());
        let mut last = first.clone();
        let mut step = |expected: Alike| {
            let now = look(&last);
            assert_eq!(now.reads_like(&last), expected);
            last = now;
        };
        step(Alike::Same);
        fs::write(&file, "a = 12").unwrap();
        step(Alike::Different);
        let later = fs::metadata(&file).unwrap().modified().unwrap();
        let later = later + std::time::Duration::from_secs(5);
        fs::File::options()
            .append(true)
            .open(&file)
            .unwrap()
            .set_modified(later)
            .unwrap();
        step(Alike::Same);
        let beside = folder.join("conf.d").join("b.toml");
        fs::write(&beside, "").unwrap();
        step(Alike::Different);
        fs::remove_file(&beside).unwrap();
        step(Alike::Different);
        fs::remove_file(&file).unwrap();
        step(Alike::Different);
        fs::remove_dir_all(folder).unwrap();
    }
}
