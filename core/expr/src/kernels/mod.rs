//! The functions of the language over plain slices and values, each written once.

pub(crate) mod calendar;
pub(crate) mod hash;
pub(crate) mod numbers;
pub(crate) mod text;
pub(crate) mod time;
