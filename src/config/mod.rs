//! Floor 5: text to checked settings.
//!
//! One way: the sources are read and joined into a tree that knows where every value was said
//! (`source`), defaults are laid beneath (`effective`), and the whole is checked (`check`,
//! `availability`); `load` does all of it. Out come settings that cannot be wrong, or every complaint at once.

pub mod settings;
pub mod complaint;
pub mod raw;
pub mod text;
pub mod layer;
pub mod source;
pub mod nearest;
pub mod leaf;
pub mod reader;
pub mod effective;
pub mod check;
pub mod availability;
pub mod load;
pub mod watch;
pub mod explain;

pub use complaint::Complaints;
pub use load::Loaded;
pub use load::load;
pub use settings::Settings;
pub use source::Sources;

#[cfg(test)]
mod tests;
