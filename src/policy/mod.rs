//! Floor 2: decisions. Pure functions and small structs; time and dice are arguments.
