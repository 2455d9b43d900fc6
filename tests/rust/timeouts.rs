//! (draft)
