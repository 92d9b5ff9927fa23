//! What a configuration may say and what it may not, end to end.
