//! The steering of a migration: what is counted and compared, what may be changed while the server runs.
//!
//! Workers observe ([`observe`]) and tell the supervisor, which keeps what they tell ([`store`]), judges
//! canaries by it, and changes the policies of rules on all workers together ([`live`]). Everything that
//! people read of a migration, on the command line or in a browser, is one [`status`].

pub mod judge;
pub mod live;
pub mod observe;
pub mod state_dir;
pub mod status;
pub mod steward;
pub mod store;
