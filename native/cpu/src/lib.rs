//! headrace-cpu
