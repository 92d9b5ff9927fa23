//! The whole way from the sources to settings, or to every complaint.

use std::path::PathBuf;

use super::availability;
use super::check;
use super::complaint::Complaints;
use super::effective;
use super::raw::Table;
use super::settings::Settings;
use super::source;
use super::source::Sources;

/// A configuration that is in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Every value in effect with its origin, for `check --explain`.
    pub tree: Table,
    /// The files that were read, in their order.
    pub files: Vec<PathBuf>,
}

/// Reads and checks everything that may say a setting. To reload is to call this again.
///
/// # Errors
/// Every mistake that was found.
pub fn load(sources: &Sources) -> Result<Loaded, Complaints> {
    let layered = source::read(sources)?;
    let mut complaints = Complaints::default();
    let tree = effective::tree(&layered, &mut complaints);
    let settings = check::settings(&tree, &mut complaints);
    availability::check(&tree, &mut complaints);
    if complaints.is_empty() {
        Ok(Loaded {
            settings,
            tree,
            files: layered.files,
        })
    } else {
        Err(complaints)
    }
}
