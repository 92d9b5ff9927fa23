//! What is wrong with a configuration: the key, the value, what is allowed, and where it was said.
//!
//! Complaints are collected, never thrown: whoever mends one mistake should not have to start the
//! proxy again to learn of the next.

use std::fmt;
use std::path::PathBuf;

/// Where a value was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere; it is what holds otherwise.
    Default,
    /// In a file, on a line that counts from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// In an environment variable.
    Variable(String),
    /// On the command line, after this flag.
    Flag(String),
    /// In no one place: something is missing from all of them.
    Whole,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
            Self::Whole => f.write_str("anywhere"),
        }
    }
}

/// One mistake; shown on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The key, with dots; or the file, when it cannot be read.
    pub key: String,
    /// What is wrong with its value, and what is allowed.
    pub says: String,
    /// Where the value was said.
    pub place: Place,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.says)?;
        match &self.place {
            Place::Default => f.write_str("; by default"),
            Place::File { .. } => write!(f, "; at {}", self.place),
            Place::Variable(_) | Place::Flag(_) => write!(f, "; from {}", self.place),
            Place::Whole => Ok(()),
        }
    }
}

/// All mistakes found, in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complaints(Vec<Complaint>);

impl Complaints {
    /// Adds one, unless it was made already: what stands in `[defaults.listener]` is read once for
    /// each listener.
    pub fn add(&mut self, complaint: Complaint) {
        if !self.0.contains(&complaint) {
            self.0.push(complaint);
        }
    }

    /// Whether there is nothing to complain about.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Complaint> {
        self.0.iter()
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|complaint| writeln!(f, "{complaint}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_one_line_and_ends_with_its_place() {
        let complaint = Complaint {
            key: "server.workers".to_owned(),
            says: "`0` is out of range (1 to 1024)".to_owned(),
            place: Place::File {
                path: PathBuf::from("a.toml"),
                line: 3,
            },
        };
        assert_eq!(
            complaint.to_string(),
            "server.workers: `0` is out of range (1 to 1024); at a.toml, line 3"
        );
    }

    #[test]
    fn the_same_complaint_is_made_once() {
        let complaint = Complaint {
            key: String::new(),
            says: String::new(),
            place: Place::Default,
        };
        let mut complaints = Complaints::default();
        complaints.add(complaint.clone());
        complaints.add(complaint);
        assert_eq!(complaints.iter().count(), 1);
    }
}
