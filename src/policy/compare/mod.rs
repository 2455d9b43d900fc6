//! The difference of two answers to one request.

use serde::{Deserialize, Serialize};

/// One thing in which two answers differ; values are redacted and short.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Difference {
    pub category: Category,
    /// Where: the name of a header field or cookie, a place in JSON (`$.items[3].price`), an offset in bytes or a line.
    pub place: String,
    pub old: String,
    pub new: String,
}

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    Status,
    Header,
    Cookie,
    Json,
    Text,
    Bytes,
}
