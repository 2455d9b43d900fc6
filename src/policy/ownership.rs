//! Ownership: an application gets exactly the routes that its own router defines.
