//! headrace-features
