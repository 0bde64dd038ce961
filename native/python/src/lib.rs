//! headrace-python
