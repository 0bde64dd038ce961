//! headrace-protocol
