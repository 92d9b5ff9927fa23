//! Dialogues with the running binary.
