//! headrace-expr
