//! Holdfast, an HTTP/1.1 reverse proxy and load balancer that is exact about connections.

pub mod base;
pub mod config;
pub mod app;
