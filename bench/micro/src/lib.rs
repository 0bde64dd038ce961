//! headrace-micro
