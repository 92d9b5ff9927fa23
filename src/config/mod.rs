//! Floor 5: text to checked settings.

pub mod settings;
pub mod complaint;
pub mod raw;
pub mod text;
pub mod source;
pub mod nearest;
pub mod leaf;
pub mod reader;
