//! What both adapters need of Python: importing applications, telling their interface, text, bytes and
//! headers without needless copies, errors for logs. The only crate that may hold `unsafe`.

pub mod addresses;
pub mod bridges;
pub mod bytes;
pub mod context;
pub mod doorbell;
pub mod errors;
pub mod files;
pub mod head;
pub mod import;
pub mod interface;
pub mod outbox;
pub mod routes;
pub mod text;
