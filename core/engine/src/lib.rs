//! headrace-engine
