//! The parent process.

pub mod channel;
