//! headrace-server
