//! HTTP connections: sniffing, strictness, limits, and hyper between a stream and [`crate::app`].

pub mod forwarded;
pub mod strict;
