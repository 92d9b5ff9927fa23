//! Holdfast, an HTTP/1.1 reverse proxy and load balancer that is exact about connections.

pub mod base;
pub mod h1;
pub mod policy;
pub mod pool;
pub mod net;
pub mod observe;
pub mod proxy;
pub mod config;
pub mod app;
