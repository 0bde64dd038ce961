//! headrace-models
