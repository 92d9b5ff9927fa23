//! Floors 0 and 1 of the house, as the fuzz targets name them.

#[path = "../../../src/base/mod.rs"]
pub mod base;
#[path = "../../../src/h1/mod.rs"]
pub mod h1;
