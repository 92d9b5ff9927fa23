//! Floor 5: text to checked settings.

pub mod settings;
