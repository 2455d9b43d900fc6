//! Applications over applications: who owns a route, and later who answers it.

pub mod ownership;
